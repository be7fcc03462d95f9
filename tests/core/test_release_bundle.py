"""A bundle holds what answers and its card, and nothing of how the recommender came to be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.places import BUNDLE
from e2urec_core.data.prompts import PromptRule
from e2urec_core.recommender import Recommender, load
from e2urec_core.release.bundle import write_bundle
from e2urec_core.release.card import GateRow
from tests.released import card, own_scores
from tests.small_ensembles import whole

Build = Callable[..., Recommender]
TEXTS = ["Watched so far, oldest first: nothing. Will the user like Golden Vault? Answer Yes or No:"]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def written(recommender: Recommender, tmp_path: Path) -> tuple[Path, Path]:
    """The recommender's folder as unlearning leaves it, and its bundle."""
    model, place = tmp_path / "model", tmp_path / "place"
    (model / "adapter").mkdir(parents=True)
    place.mkdir()
    recommender.save(model)
    for name in ("facts.json", "shards.parquet", "adapter/adapter_model.safetensors"):
        (model / name).write_text("of the past")
    write_bundle(model, PromptRule(), HistoryRule(length=7), card(), place)
    return model, place


def test_a_network_takes_four_files_with_it_and_shares_them_with_the_store(build_tiny: Build, tmp_path: Path) -> None:
    model, place = written(build_tiny("tiny_t5"), tmp_path)
    assert names(place / BUNDLE) == ["answers.json", "config.json", "model.safetensors", "prompt.json", "tokenizer.json"]
    assert os.path.samefile(model / "model.safetensors", place / BUNDLE / "model.safetensors")
    assert own_scores(load(place / BUNDLE), TEXTS) == own_scores(load(model), TEXTS)


def test_an_ensemble_takes_every_members_files_with_it(build_tiny: Build, tmp_path: Path) -> None:
    model, place = written(whole(build_tiny, "gate"), tmp_path)
    network = ["answers.json", "config.json", "model.safetensors", "tokenizer.json"]
    members = [f"member-{number}/{name}" for number in range(3) for name in network]
    assert names(place / BUNDLE) == ["combiner.safetensors", "ensemble.json", *members, "prompt.json"]
    assert own_scores(load(place / BUNDLE), TEXTS) == own_scores(load(model), TEXTS)


def test_where_the_disk_cannot_link_files_are_copied(build_tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    model, place = written(build_tiny("tiny_t5"), tmp_path)
    assert (place / BUNDLE / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not os.path.samefile(model / "model.safetensors", place / BUNDLE / "model.safetensors")


def test_the_wording_is_kept_as_it_is_used(build_tiny: Build, tmp_path: Path) -> None:
    _, place = written(build_tiny("tiny_t5"), tmp_path)
    told = json.loads((place / BUNDLE / "prompt.json").read_text())
    assert told["history_length"] == 7
    assert (told["longest_title"], told["nothing"], told["event"]) == (120, "nothing", "{title} ({rating}*)")
    assert told["parts"][:3] == [["profile", "", ""], ["", "Watched so far, oldest first:", ""], ["history", "", "."]]


def test_the_card_tells_what_it_was_given(build_tiny: Build, tmp_path: Path) -> None:
    _, place = written(build_tiny("tiny_t5"), tmp_path)
    page = (place / "README.md").read_text()
    for said in (
        "# Recommender aaaaaaaaaaaa",
        "| parameters | 12,345 |",
        f"| interactions | `{'b' * 64}` |",
        f"- `{'e' * 64}`",
        "| auc | 0.75 | at least 0.7 | 0.05 | yes |",
        "- auc: 0.75",
        "- torch 2.13.0",
        "the process and the measured gates, not that forgetting is mathematically certain",
    ):
        assert said in page
    assert str(tmp_path) not in page


def test_a_card_without_gates_or_requests_says_so() -> None:
    page = card(gates=(), requests=(), measures={}).markdown()
    assert "None were asked." in page
    assert page.count("None") == 3


def test_a_gate_that_failed_or_could_not_measure_is_not_dressed_up() -> None:
    page = card(
        gates=(GateRow(name="attack", passed=False), GateRow(name="auc", value=0.5, bound="at least 0.7", margin=-0.2, passed=False))
    ).markdown()
    assert "| attack | - | - | - | no |" in page
    assert "| auc | 0.5 | at least 0.7 | -0.2 | no |" in page


@pytest.mark.parametrize(
    "wrong",
    [{"backbone": "/home/x"}, {"method": "a|b"}, {"requests": ("user 7",)}, {"measures": {"a\nb": 1.0}}, {"measures": {"a": float("nan")}}],
)
def test_a_path_a_name_for_a_person_or_no_number_does_not_get_onto_a_card(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        card(**wrong)
