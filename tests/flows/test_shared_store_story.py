"""One store for several workspaces, as if on several machines: the second takes every stage from what the first has published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from e2urec_console import STAGES, TINY, WORDS, Console, Story, copied, digests, states
from shared_stores import Shelf, shelf

from e2urec_core.remote import PATIENCE

pytestmark = pytest.mark.long


class Shops(NamedTuple):
    """Two workspaces with one store.

    Args:
        bucket: Where that is.
        console: Runs commands in either.
        near: The workspace in which the story was told first.
        far: The other one.
    """

    bucket: Shelf
    console: Console
    near: Path
    far: Path


@pytest.fixture(scope="module")
def shops(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    place = tmp_path_factory.mktemp("shared")
    for name in ("near", "far"):
        shutil.copytree(story.workspace / "prefect", place / name / "prefect")
    with shelf() as bucket:
        console = Console(place / "near", **bucket.environment, **{PATIENCE: "2"})
        try:
            answer = console(*WORDS, *TINY, "--store", bucket.address("story"))
            assert answer.code == 0, answer.stderr
            yield Shops(bucket, console, place / "near", place / "far")
        finally:
            console.close()


def runs_of(shops: Shops, workspace: Path) -> list[dict[str, object]]:
    return list(shops.console("runs", "--json", "--store", shops.bucket.address("story"), workspace=workspace).json())


def test_nothing_of_the_artifacts_lies_in_the_workspace_but_a_cache(shops: Shops) -> None:
    assert not (shops.near / "store" / "objects").exists()
    (cache,) = (shops.near / "cache").iterdir()
    kinds = {path.parent.name for path in (cache / "objects").glob("*/*")}
    assert {"Interactions", "Unlearned", "Bundle"} <= kinds
    listed = shops.bucket.keys("story")
    assert {key.split("/")[1] for key in listed if key.startswith("objects/")} == kinds
    assert len([key for key in listed if key.startswith("keys/")]) == len(STAGES)
    assert len([key for key in listed if key.startswith("runs/")]) == 1


def test_the_same_command_in_another_workspace_takes_every_stage_from_the_store(story: Story, shops: Shops) -> None:
    address = shops.bucket.address("story")
    foreseen = shops.console(*WORDS, *TINY, "--dry-run", "--json", "--store", address, workspace=shops.far).json()
    assert {each["state"] for each in foreseen["stages"] if each["stage"] not in ("report", "verdict", "bundle")} == {"stored"}
    assert not (shops.far / "cache").exists(), "a dry run writes nothing"
    answer = shops.console(*WORDS, *TINY, "--store", address, workspace=shops.far)
    assert answer.code == 0, answer.stderr
    first, second = runs_of(shops, shops.far)
    told = states(second)
    assert {label for label, state in told.items() if state != "cached"} <= {"report", "verdict", "bundle"}
    assert {label: digests(first)[label] for label in told if told[label] == "cached"} == {
        label: digests(second)[label] for label in told if told[label] == "cached"
    }
    assert first["run"] != second["run"]
    assert [each["run"] for each in runs_of(shops, shops.near)] == [first["run"], second["run"]]


def test_a_stage_of_a_run_of_the_other_machine_is_run_again_here(shops: Shops) -> None:
    address = shops.bucket.address("story")
    first = runs_of(shops, shops.near)[0]
    shutil.rmtree(shops.far / "runs", ignore_errors=True)
    answer = shops.console(
        "stage", "unlearn", "--run", str(first["run"]), "--method.suppression", "3", "--json", "--store", address, workspace=shops.far
    )
    assert answer.code == 0, answer.stderr
    assert answer.json()["stale"] == ["evaluate", "report", "verdict", "bundle"]
    (seen,) = [each for each in runs_of(shops, shops.near) if each["run"] == first["run"]]
    assert seen["state"] == "stale"


def test_a_store_that_does_not_answer_ends_the_command_with_one_sentence_and_it_goes_on_later(shops: Shops) -> None:
    address = shops.bucket.address("story")
    told = [*WORDS, *TINY, "--method.suppression", "1", "--store", address]
    shops.bucket.way.spoil("objects/Unlearned", 1000)
    try:
        answer = shops.console(*told)
    finally:
        shops.bucket.way.mend()
    assert answer.code == 2, answer.stderr
    assert "StorageFailed: the store cannot be used: the store does not answer" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert shops.console(*told).code == 0


def test_scan_and_doctor_look_into_the_object_store(shops: Shops) -> None:
    address = shops.bucket.address("story")
    shops.bucket.put("story/objects/Scores/" + "5" * 64 + "/note.txt", b"left behind: canary-4711\n")
    answer = shops.console("scan", "--user", "canary-4711", "--json", "--store", address, workspace=shops.far)
    assert answer.code == 1
    assert [place for place in answer.json() if "note.txt" in place and place.startswith("store ")]
    checks = shops.console("doctor", "--json", "--store", address).json()["checks"]
    (store,) = [each for each in checks if each["name"] == "store"]
    assert store["state"] == "ok"
    assert address in store["said"]


def test_a_folder_that_workspaces_share_is_a_store_for_all_of_them(story: Story, shops: Shops, tmp_path: Path) -> None:
    shutil.copytree(story.workspace / "store", tmp_path / "shared")
    place = copied(story.workspace, tmp_path / "workspace")
    shutil.rmtree(place / "store")
    answer = shops.console(*WORDS, *TINY, "--store", tmp_path / "shared", workspace=place)
    assert answer.code == 0, answer.stderr
    last = shops.console("runs", "--json", workspace=place).json()[-1]
    assert {label for label, state in states(last).items() if state != "cached"} <= {"report", "verdict", "bundle"}
    assert not (place / "store" / "objects").exists()
