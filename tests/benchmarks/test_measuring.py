"""Ceilings, counts and peaks against arithmetic, and the one line a benchmark answers with."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from benchmarks import measuring
from benchmarks.measuring import count_flops, emit, machine, matmul_ceiling, median_ratio, peak_memory, progress
from e2urec_core.recommender import Recommender

MIB = 2**20
SHAPE = {"rows": 3, "source": 7, "target": 2}


def t5_forward_flops(config: object, rows: int, source: int, target: int) -> int:
    """Every matrix product of a T5 with plain feed-forward layers, two operations a multiply-add, from its sizes alone."""
    sizes = vars(config)
    width, inner, wide = sizes["d_model"], sizes["num_heads"] * sizes["d_kv"], sizes["d_ff"]

    def projection(tokens: int, outputs: int) -> int:
        return 2 * tokens * width * outputs

    def scores_and_mix(queries: int, keys: int) -> int:
        return 2 * (2 * queries * keys * inner)

    feed_forward_of_one = 2 * projection(1, wide)
    encoder = 4 * projection(source, inner) + scores_and_mix(source, source) + source * feed_forward_of_one
    itself = 4 * projection(target, inner) + scores_and_mix(target, target)
    across = 2 * projection(target, inner) + 2 * projection(source, inner) + scores_and_mix(target, source)
    decoder = itself + across + target * feed_forward_of_one
    head = projection(target, sizes["vocab_size"])
    return rows * (sizes["num_layers"] * encoder + sizes["num_decoder_layers"] * decoder + head)


def asked(recommender: Recommender, *, backward: bool) -> Callable[[], object]:
    source = torch.full((SHAPE["rows"], SHAPE["source"]), 5)
    target = torch.full((SHAPE["rows"], SHAPE["target"]), 6)

    def call() -> None:
        given = recommender.network(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target, use_cache=False)
        if backward:
            given.logits.sum().backward()

    return call


@pytest.mark.parametrize("gradients", [True, False])
def test_the_count_of_a_forward_pass_is_the_formulas(build_tiny: Callable[..., Recommender], gradients: bool) -> None:
    recommender = build_tiny("tiny_t5", num_layers=2)
    with torch.set_grad_enabled(gradients):
        counted = count_flops(asked(recommender, backward=False))
    assert counted == t5_forward_flops(recommender.network.config, **SHAPE)


def test_a_backward_pass_costs_two_forward_passes(build_tiny: Callable[..., Recommender]) -> None:
    recommender = build_tiny("tiny_t5", num_layers=2)
    # Each product has two factors, and each factor a gradient of one product: 1 + 2 = 3.
    assert count_flops(asked(recommender, backward=True)) == 3 * t5_forward_flops(recommender.network.config, **SHAPE)


def test_fused_attention_is_counted_too() -> None:
    query = torch.randn(2, 4, 5, 8)
    # Scores and mixture: 2 products of 2 * (2 * 4) heads of 5 x 5 x 8.
    assert count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query)) == 2 * 2 * 8 * 5 * 5 * 8


def test_the_gradient_of_a_frozen_weight_is_not_counted() -> None:
    weight, given = torch.randn(4, 5), torch.randn(3, 4, requires_grad=True)
    # Forward and the gradient of the input: 2 * (2 * 3 * 4 * 5).
    assert count_flops(lambda: (given @ weight).sum().backward()) == 2 * 120
    assert count_flops(lambda: (given @ weight.requires_grad_()).sum().backward()) == 3 * 120


def test_a_median_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians() -> None:
    # Ratios 4/1, 9/3, 2/4: median 3. Medians 4 and 3 would give 4/3.
    assert median_ratio([(4.0, 1.0), (9.0, 3.0), (2.0, 4.0)]) == 3.0
    # Of an even count the mean of the middle two: (1 + 3) / 2.
    assert median_ratio([(1.0, 1.0), (3.0, 1.0)]) == 2.0


def test_no_pair_has_no_ratio() -> None:
    with pytest.raises(statistics.StatisticsError):
        median_ratio([])


def test_the_ceiling_is_that_of_the_fastest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {256: 0.001, 512: 0.001, 768: 0.05, 1024: 0.1}
    monkeypatch.setattr(measuring, "_median_product_seconds", lambda size, *rest: seconds[size])
    # 512: 2 * 512**3 / 0.001 = 2.7e11; 1024: 2 * 1024**3 / 0.1 = 2.1e10.
    assert matmul_ceiling("cpu", torch.float32, 1) == 2 * 512**3 / 0.001


def test_the_ceiling_leaves_the_number_of_threads_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []

    def fails(*_: object) -> float:
        seen.append(torch.get_num_threads())
        raise RuntimeError("no product")

    monkeypatch.setattr(measuring, "_median_product_seconds", fails)
    with pytest.raises(RuntimeError, match="no product"):
        matmul_ceiling("cpu", torch.float32, before + 1)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_measured_ceiling_is_above_any_laptops_clock() -> None:
    assert matmul_ceiling("cpu", torch.float32, 1, seconds=0.1) > 1e9


def test_a_childs_peak_holds_what_it_allocated() -> None:
    peak = peak_memory([sys.executable, "-S", "-c", f"x = bytearray({200 * MIB})"])
    assert 200 * MIB < peak < 260 * MIB


def test_a_childs_peak_holds_nothing_of_ours() -> None:
    ours = bytearray(b"x") * (300 * MIB)
    assert peak_memory([sys.executable, "-S", "-c", "pass"]) < 60 * MIB
    del ours


def test_a_child_that_fails_is_no_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        peak_memory([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    assert failed.value.returncode == 3


def test_what_a_child_prints_stays_off_our_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    peak_memory([sys.executable, "-S", "-c", "print('talk')"])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "talk\n")


def test_the_last_line_of_stdout_is_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("a line of somebody else\n")
    emit({"per_row_ratio": 0.25, "machine": {"cores": 2}, "text": "two\nlines"})
    progress("after the result, on stderr")
    captured = capsys.readouterr()
    assert captured.out.endswith("\n")
    assert json.loads(captured.out.splitlines()[-1]) == {"per_row_ratio": 0.25, "machine": {"cores": 2}, "text": "two\nlines"}
    assert captured.err == "after the result, on stderr\n"


def test_a_result_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit({"ratio": float("nan")})
    assert capsys.readouterr().out == ""


def test_the_machine_is_told_in_plain_values() -> None:
    told = machine()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {"cpu", "cores", "threads", "torch", "device"}
    assert told["cores"] >= 1
    assert told["threads"] == torch.get_num_threads()
    assert told["torch"] == torch.__version__
    assert told["device"] == "cpu"
    assert told["cpu"]
