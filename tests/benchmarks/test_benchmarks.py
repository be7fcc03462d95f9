"""Every benchmark runs in its smallest form and gives the keys that `benchmarks/README.md` promises.

What the numbers are is not asked here: they belong to a quiet machine.
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tuning import TRIED

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
SMALL = ["--quick", "--set", "dataset.num_users=60", "--set", "training.num_epochs=1", "--set", "dataset.ratings_per_user=12"]
PROMISED: dict[str, list[str]] = {
    "unlearning": [
        "per_row_ratio",
        "per_row_ratio_own_batch",
        "same_quality_ratio",
        "same_quality_ratio_prepared",
        "same_quality_ratio_later",
        "same_quality_ratio_method",
        "same_quality_bound",
        "same_quality_bound_method",
        "same_quality_by_seed",
        "reached",
    ],
    "all_in": ["all_in_ratio", "all_in_ratio_variants", "unlearn_alone_ratio", "unlearn_alone_ratio_variants", "equal_quality", "datasets"],
    "utilisation": ["training_utilisation", "unlearning_utilisation", "headline_shape", "ceilings_flops_per_second", "measured"],
    "cache_memory": ["cache_original_ratio", "cache_teachers_ratio", "bytes_per_further_row", "peak_bytes"],
    "kill_loss": ["lost_seconds", "repeated_seconds", "interval_seconds", "start_up_seconds", "within_claim", "same_bits"],
    "prepare": ["ratio", "seconds", "same_output", "prompts", "ratings", "real"],
    "scale": ["seconds", "by_stage", "peak_gib", "gate", "tokenising", "rows", "examples"],
    "forgotten_users": ["ratio_by_users", "seeds"],
    "serving": ["http_ratio", "pyfunc_ratio", "adapter_ratio", "stacked_ratio", "headline_shape", "measured"],
    "polluted": ["precision_at_half", "seeds"],
    "fan_out": ["speed_up", "speed_up_of_all", "one_worker_seconds", "two_workers_seconds", "same_artifacts", "pairs"],
    "orchestration": ["command_overhead_seconds", "deployed_overhead_seconds", "command_ratio", "deployed_ratio", "measured"],
    "gpu": ["measured", "ceilings_flops_per_second", "estimated_for", "rows", "batch_size"],
}


def result_of(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last line of a benchmark's stdout."""
    assert importlib.import_module(f"benchmarks.{name}").main(arguments) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(PROMISED[name]) <= set(told)
    assert told["machine"]["cores"] >= 1
    return told


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The option that lets the benchmarks here train their networks once."""
    return ["--workspace", str(tmp_path_factory.mktemp("inputs"))]


@pytest.mark.long
def test_unlearning_gives_both_ratios(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("unlearning", [*SMALL, *inputs, "--passes", "1", "--pairs", "1", "--level", "1.5"], capsys)
    assert told["per_row_ratio"] > 0
    one = told["per_row"]
    # The ratio is the rival's over ours.
    assert told["per_row_ratio"] == pytest.approx(one["rival_seconds_per_row"][0] / one["our_seconds_per_row"][0], rel=0.01)
    (seed,) = told["same_quality"]
    assert set(seed["ours"]) == {"method", "variants"}
    for form, runs in seed["ours"].items():
        mine = sum(sum(run["by_stage"].values()) for run in runs) / 2
        # One bound was kept on the way, or every pass was run: a ratio is told where one of both sides got there.
        reached = [seed["rival"]["reached"], all(run["reached"] for run in runs)]
        expected = seed["rival"]["seconds"] / mine if any(reached) else None
        assert seed["ratios"][form]["all"]["ratio"] == pytest.approx(expected, rel=1e-3)
        assert [told["reached"][side] for side in ("rival", form)] == [[one] for one in reached]
    # The tiny networks of this test have learned nothing, so the bound on the residual is a wide one.
    assert told["level"] == 1.5
    assert told["same_quality_ratio"] == seed["ratios"]["variants"]["all"]["ratio"]


@pytest.mark.long
def test_tuning_tries_every_setting_of_every_side_and_chooses_one(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, *inputs, "--tune", "--seeds", "10", "--passes", "1", "--level", "1.5"]
    assert importlib.import_module("benchmarks.unlearning").main(arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["tuning"]
    assert told["seeds"] == [10]
    for side, tried in TRIED[64].items():
        assert [one["settings"] for one in told["tried"][side]] == list(tried)
        assert told["chosen"][side] in tried


@pytest.mark.long
def test_all_in_counts_every_stage_and_says_whether_quality_was_equal(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("all_in", [*SMALL, *inputs], capsys)
    (seed,) = told["datasets"]["sample"]["seeds"]
    method = seed["forms"]["method"]
    assert set(method["seconds"]) == {"train_augmented", "cache_original", "cache_teachers", "unlearn"}
    retrain = sum(seed["retrain_seconds"]) / 2
    assert method["ratio"] == pytest.approx(sum(method["seconds"].values()) / retrain, rel=1e-3)
    assert method["unlearn_alone_ratio"] < method["ratio"]
    assert told["equal_quality"] in (True, False)


@pytest.mark.long
def test_utilisation_is_a_share_of_the_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--shape", "tiny", "--precision", "fp32", "--steps", "3", "--batch-size", "8", "--ceiling-seconds", "0.2"]
    told = result_of("utilisation", [*small, "--set", "dataset.num_users=40"], capsys)
    (one,) = told["measured"]
    assert 0 < told["training_utilisation"] == one["training"]["utilisation"]
    assert 0 < one["real_tokens"] <= 1
    # A step's operations do not depend on the clock: frozen encoders are not differentiated, known states not computed.
    assert one["unlearning_variants"]["flops_per_step"] < one["unlearning_method"]["flops_per_step"]


@pytest.mark.long
def test_cache_memory_compares_two_processes(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("cache_memory", ["--rows", "100", "200"], capsys)
    few, many = told["peak_bytes"]["cache_original"]
    assert told["cache_original_ratio"] == pytest.approx(many / few, abs=1e-3)


@pytest.mark.long
def test_a_killed_training_ends_in_the_same_bits(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("kill_loss", [*SMALL, "--set", "training.num_epochs=6", *inputs, "--every", "0.3"], capsys)
    assert told["same_bits"]
    assert math.isfinite(told["lost_seconds"])


@pytest.mark.parametrize("name", PROMISED)
def test_the_readme_names_every_benchmark_and_every_promised_key(name: str) -> None:
    text = README.read_text()
    assert f"`{name}.py`" in text
    assert f"benchmarks.{name}" in text
    missing = [key for key in PROMISED[name] if f"`{key}`" not in text]
    assert not missing


def test_prepare_gives_a_ratio_of_equal_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("prepare", ["--rows", "4000", "--pairs", "1"], capsys)
    assert told["same_output"]
    assert told["ratings"] == 4000
    assert told["prompts"] > 0
    assert told["ratio"] == pytest.approx(told["pairs"][0][0] / told["pairs"][0][1])


def test_prepare_refuses_to_quote_a_ratio_of_unlike_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import prepare

    rival = prepare.rival
    monkeypatch.setattr(prepare, "rival", lambda *told: rival(*told)[1:])
    with pytest.raises(AssertionError, match="other prompts"):
        prepare.main(["--rows", "4000", "--pairs", "1"])


@pytest.mark.long
def test_scale_counts_every_row_and_measures_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("scale", ["--rows", "60000", "--pairs", "1"], capsys)
    # Two rows of one user, item and second are one.
    assert 59_900 < told["rows"] <= told["csv_rows"] == 60_000
    assert 0 < told["examples"] < told["rows"]
    assert told["peak_gib"] > 0.05
    assert told["gate"]["share_of_ingest"] > 0
    assert set(told["tokenising"]["tokens_per_second"]) == {"pieces", "whole_one_thread", "whole_all_threads"}


@pytest.mark.long
def test_the_cost_of_a_request_is_told_by_method_and_number_of_users(inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of(
        "forgotten_users", [*SMALL, "--set", "training.batch_size=8", *inputs, "--methods", "undial", "e2urec", "sisa"], capsys
    )
    assert {kind: set(by_count) for kind, by_count in told["ratio_by_users"].items()} == {
        kind: {"1", "20"} for kind in ("undial", "e2urec", "sisa")
    }
    (seed,) = told["seeds"]
    assert seed["by_count"]["1"]["rows"] < seed["by_count"]["20"]["rows"]
    # Only what is sharded is made before the request; more users touch more shards.
    assert set(seed["before"]) == {"sisa"}
    assert all(ratio > 0 for by_count in told["ratio_by_users"].values() for ratio in by_count.values())


@pytest.mark.long
def test_two_workers_make_what_one_makes(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("fan_out", ["--quick", "--seeds", "1", "--set", "dataset.num-users=150", "training.num-epochs=1"], capsys)
    assert told["same_artifacts"]
    (pair,) = told["pairs"]
    assert told["speed_up"] == pytest.approx(pair["one_worker_seconds"] / pair["two_workers_seconds"], rel=1e-2)


@pytest.mark.long
def test_what_is_no_stage_s_work_is_told_of_commands_and_deployments(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("orchestration", ["--quick"], capsys)
    (run,) = told["measured"]
    for kind in ("command", "deployed"):
        assert told[f"{kind}_overhead_seconds"] == pytest.approx(run[kind] - run[f"{kind}_stages"], abs=0.2)
        assert told[f"{kind}_ratio"] > 1


@pytest.mark.long
def test_polluted_ranks_by_every_rival_and_turns_labels_around(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("polluted", [*SMALL, "--set", "folds.training.num_epochs=1"], capsys)
    (seed,) = told["seeds"]
    assert told["precision_at_half"] == seed["precision_at_half"]
    assert all(0 < precision <= 1 for precision in told["precision_at_half"].values())
    assert {"ours", "mean_held_out_loss", "original_in_sample_loss"} <= set(told["precision_at_half"])
    assert 0 <= seed["proposal"]["precision"] <= 1
    # One in twenty labels of users with a taste was turned around.
    assert seed["interactions"]["share_turned"] == pytest.approx(0.05, abs=0.01)


@pytest.mark.long
def test_serving_gives_the_same_probabilities_every_way_and_a_ratio_by_rows(capsys: pytest.CaptureFixture[str]) -> None:
    told = result_of("serving", ["--quick", "--rounds", "2", "--set", "dataset.num_users=40"], capsys)
    (one,) = told["measured"]
    assert one["largest_difference"] <= 1e-6
    for name in ("http_ratio", "pyfunc_ratio", "adapter_ratio", "stacked_ratio"):
        assert set(told[name]) == {"1", "32", "256"}
        assert min(told[name].values()) > 0
    assert set(one["by_rows"]["32"]) == {"direct", "pyfunc", "http", "merged", "adapter", "stacked"}


def test_ways_take_turns_and_each_round_is_timed() -> None:
    from benchmarks.serving import in_turns

    order: list[tuple[str, int]] = []
    now = iter(range(100))
    ways: dict[str, Any] = {name: lambda texts, name=name: order.append((name, len(texts))) for name in ("one", "two")}
    seconds = in_turns(ways, ["a", "b", "c"], 2, 2, lambda: float(next(now)))
    assert [name for name, _ in order] == ["one", "two", "two", "one", "one", "two"]
    assert {size for _, size in order} == {2}
    assert seconds == {"one": [1.0, 1.0], "two": [1.0, 1.0]}
