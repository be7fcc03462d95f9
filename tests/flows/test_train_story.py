"""The first champion through the command: trained on everybody, released by the same gates, and what is unlearned is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2urec_console import TINY, WORDS, Console, Story, copied, digests, prefect_table, states

pytestmark = pytest.mark.slow
NO_METHOD = tuple(flag for pair in zip(TINY[::2], TINY[1::2], strict=True) if not pair[0].startswith("--method.") for flag in pair)
# The tiny network guesses worse than lots.
LENIENT = ("--gates.utility.least-auc", "0", "--gates.forgetting.residual", "100")


@pytest.fixture(scope="module")
def apart(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One of this file's own, as the first champion is the first once."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("trained") / "workspace"))
    yield console
    console.close()


@pytest.mark.long
def test_a_first_model_below_the_least_auc_is_registered_and_not_promoted(apart: Console) -> None:
    answer = apart("train", "sample", "tiny-t5", *NO_METHOD)
    assert answer.code == 0, answer.stderr
    assert "refused by 1 of 11 gates" in answer.stdout
    assert "it must be 0.5000 at least" in answer.stdout
    assert [row["role"] for row in apart("models", "list", "--json").json()] == [""]


@pytest.mark.long
def test_the_first_champion_has_forgotten_nobody_and_takes_the_original_from_the_store(apart: Console, story: Story) -> None:
    """That the stage is found in the store: `test_explain.py`; every night of `test_night_story.py` begins with such a champion."""
    answer = apart("train", "sample", "tiny-t5", *NO_METHOD, *LENIENT)
    assert answer.code == 0, answer.stderr
    assert "it is the champion" in answer.stdout
    (champion,) = [row for row in apart("models", "list", "--json").json() if row["role"] == "champion"]
    assert (champion["method"], champion["forgotten"]) == ("none", 0)
    run = apart.last()
    assert [row["Measure"] for row in prefect_table(apart.workspace, run["run"])] == ["test auc", "test log loss"]
    assert states(run)["train-original"] == "cached"
    assert digests(run)["train-original"] == digests(apart.run(story.run))["train-original"]
    assert apart("models", "show", str(champion["version"]), "--json").json()["kind"] == "Original"


@pytest.mark.long
def test_what_is_unlearned_from_the_champion_is_made_from_it_and_there_is_no_way_back(apart: Console) -> None:
    first = next(row["version"] for row in apart("models", "list", "--json").json() if row["role"] == "champion")
    answer = apart(*WORDS, *TINY, *LENIENT, "--release.then", "promote")
    assert answer.code == 0, answer.stderr
    versions = apart("models", "list", "--json").json()
    assert [row["role"] for row in versions if row["role"]] == ["champion", "previous"]
    shown = apart("models", "show", str(versions[0]["version"]), "--json").json()
    assert shown["base"] == shown["judged_against"] == apart("models", "show", str(first), "--json").json()["bundle"]
    refused = apart("models", "rollback")
    assert refused.code == 2
    assert f"version {first} still knows {versions[0]['forgotten']} of those who were forgotten" in refused.stderr


def test_nobody_and_somebody_at_once_are_refused(console: Console, tmp_path: Path) -> None:
    answer = console("train", "sample", "tiny-t5", *NO_METHOD, "--forget.users-file", tmp_path / "users.txt")
    assert answer.code == 2
    assert "nobody is forgotten, and a file names somebody" in answer.stderr
