"""The key of a stage: everything that decides what it gives, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2urec_core.artifacts import Examples, Original, Retrained, Tokens, digest_of
from e2urec_core.backbones.causal_lm import CausalLm
from e2urec_core.data.forget import ForgetRule
from e2urec_core.datasets.ml_1m import Ml1m
from e2urec_core.datasets.sample import Sample
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.settings import EngineRule, Lora, Seat, Training
from flows.runs import build_run
from tasks._keys import key_parts

EXAMPLES = Examples(digest="1" * 64)


def stage_key(name: str, writes: Any, given: dict[str, Any]) -> str:
    return digest_of(key_parts(name, writes, given))


def key(name: str = "train-original", writes: Any = Original, **given: Any) -> str:
    return stage_key(name, writes, {"examples": EXAMPLES, "training": Training(), "seat": Seat(seed=0), **given})


def test_equal_arguments_give_the_same_key() -> None:
    assert key() == key(training=Training(), seat=Seat(seed=0))


@pytest.mark.parametrize(
    "change",
    [
        {"examples": Examples(digest="2" * 64)},
        {"training": Training(num_epochs=3)},
        {"training": Training(schedule="constant")},
        {"seat": Seat(seed=1)},
        {"seat": Seat(seed=0, threads=3)},
        {"seat": Seat(seed=0, device="cuda")},
        {"seat": Seat(seed=0, processes=2)},
        {"seat": Seat(seed=0, precision="bf16")},
        {"seat": Seat(seed=0, engine=EngineRule(token_budget=4096))},
        {"seat": Seat(seed=0, engine=EngineRule(compiled="on"))},
        {"further": []},
        {"name": "train-augmented"},
        {"writes": Retrained},
    ],
    ids=str,
)
def test_each_change_of_an_input_rule_or_seat_gives_another_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_every_field_of_the_seat_but_the_intervals_of_checkpoints_counts() -> None:
    # A new field of either class is looked at here before it can make two different results one.
    assert set(Seat.model_fields) == {"seed", "device", "threads", "processes", "precision", "engine"}
    assert set(EngineRule.model_fields) == {"token_budget", "compiled", "checkpoint_every_s", "checkpoint_every_steps"}


@pytest.mark.parametrize("rule", [EngineRule(checkpoint_every_s=1.0), EngineRule(checkpoint_every_steps=7)], ids=["seconds", "steps"])
def test_how_often_checkpoints_are_kept_does_not_count(rule: EngineRule) -> None:
    assert key(seat=Seat(seed=0, engine=rule)) == key()


def keys_of_run(flags: dict[str, str]) -> dict[str, str]:
    """Keys of stages under a run's settings: one that trains, one that only reads tables, and one that takes the seed alone."""
    run = build_run({"dataset": "sample", "backbone": "tiny-t5", "method": "e2urec"}, "demo", flags)
    return {
        "train": stage_key("train-original", Original, {"backbone": run.backbone, "training": run.training, "seat": run.seat()}),
        "split": stage_key("split", Examples, {"rule": run.split, "seed": run.seed}),
        "tokenise": stage_key("tokenise", Tokens, {"examples": EXAMPLES, "backbone": run.backbone}),
    }


@pytest.mark.parametrize(
    "flags",
    [{"execution": "process"}, {"engine.checkpoint-every-s": "1"}, {"engine.checkpoint-every-steps": "7"}],
    ids=lambda flags: next(iter(flags)),
)
def test_execution_and_checkpoints_change_no_key_of_a_run(flags: dict[str, str]) -> None:
    assert keys_of_run(flags) == keys_of_run({})


@pytest.mark.parametrize(
    "flags",
    [{"device": "cuda"}, {"threads": "2"}, {"processes": "2"}, {"precision": "bf16"}, {"engine.token-budget": "512"}],
    ids=lambda flags: next(iter(flags)),
)
def test_where_and_how_networks_run_changes_the_keys_of_stages_with_networks_alone(flags: dict[str, str]) -> None:
    changed, plain = keys_of_run(flags), keys_of_run({})
    assert {name for name in plain if changed[name] != plain[name]} == {"train"}


def test_a_knob_deep_inside_the_method_changes_the_key() -> None:
    keys = [
        key(method=method) for method in (E2URec(), E2URec(suppression=3), E2URec(lora=Lora(rank=8)), E2URec(losses="without_forgetting"))
    ]
    assert len(set(keys)) == 4


def test_handles_in_a_list_count_with_their_order() -> None:
    one, two = Retrained(digest="3" * 64), Retrained(digest="4" * 64)
    assert len({key(further=further) for further in ([], [one], [two], [one, two], [two, one])}) == 5


def test_what_is_told_about_an_artifact_beside_its_bytes_does_not_count() -> None:
    assert key(examples=Examples(digest="1" * 64, rows=5, made_by="split")) == key()


def test_the_bytes_of_source_files_count(tmp_path: Path) -> None:
    for name in ("ratings.dat", "movies.dat", "users.dat"):
        (tmp_path / name).write_bytes(b"1::2::3::4\n")
    before = key(dataset=Ml1m(path=tmp_path))
    assert key(dataset=Ml1m(path=tmp_path)) == before
    (tmp_path / "ratings.dat").write_bytes(b"1::2::4::4\n")
    assert key(dataset=Ml1m(path=tmp_path)) != before


def test_the_bytes_of_the_file_of_users_to_forget_count(tmp_path: Path) -> None:
    users = tmp_path / "leave.txt"
    users.write_text("u1\n")
    before = key(rule=ForgetRule(users_file=users))
    assert key(rule=ForgetRule(users_file=users)) == before
    users.write_text("u2\n")
    assert key(rule=ForgetRule(users_file=users)) != before


def test_the_core_s_code_counts_and_that_of_the_report_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _keys

    digests = {True: "whole", False: "without the report"}
    monkeypatch.setattr(_keys, "_code_digest", digests.__getitem__)
    before = {name: key(name) for name in ("ingest", "unlearn", "evaluate", "report")}
    digests[True] = "another page"
    assert {name for name in before if key(name) != before[name]} == {"evaluate", "report"}
    digests[False] = "another loop"
    assert {name for name in before if key(name) != before[name]} == set(before)


def test_the_code_digest_sees_the_report_only_when_asked() -> None:
    from tasks._keys import _code_digest

    assert len({_code_digest(True), _code_digest(False)}) == 2


def test_the_versions_of_packages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import _keys

    before = key()
    told = _keys.version
    monkeypatch.setattr(_keys, "version", lambda package: "0.0" if package == "torch" else told(package))
    assert key() != before


def test_the_key_is_the_same_in_a_process_with_another_order_of_sets() -> None:
    program = (
        "from e2urec_core.artifacts import Original\nfrom e2urec_core.datasets.sample import Sample\n"
        "from e2urec_core.methods.e2urec import E2URec\nfrom tasks._keys import key_parts\n"
        "from e2urec_core.artifacts import digest_of\n"
        "print(digest_of(key_parts('x', Original, {'dataset': Sample(), 'method': E2URec()})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment).stdout.strip()
    assert there == stage_key("x", Original, {"dataset": Sample(), "method": E2URec()})


def test_a_checkpoint_counts_by_its_bytes_wherever_it_lies(small_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    def of(folder: Path, **more: Any) -> str:
        return key(backbone=CausalLm(checkpoint=str(folder), **more))

    first = small_checkpoint("causal_lm:gpt2")
    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    assert of(moved) == of(first) == of(first, offline="on")
    assert of(first, max_tokens=64) != of(first)
    assert of(first, dropout=0.2) != of(first)
    assert of(small_checkpoint("causal_lm:gpt2", seed=1)) != of(first)
    (moved / "model.safetensors").write_bytes((small_checkpoint("causal_lm:gpt2", seed=1) / "model.safetensors").read_bytes())
    assert of(moved) != of(first)
