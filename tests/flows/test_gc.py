"""`e2urec gc`: what a champion and its nights need stays, the rest goes, and is made again if it is asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import Story, command, digests
from filelock import FileLock
from nightly_shops import NightShop

from e2urec_core.errors import BadSetting
from flows.gc_command import bytes_of

OLD = 1_600_000_000


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightShop]:
    """A shop with a champion, beside the artifacts of the story that was told in it before."""
    shop = NightShop.opened(story.workspace, tmp_path_factory.mktemp("tidied") / "workspace")
    yield shop
    shop.console.close()


def kinds(shop: NightShop) -> set[str]:
    return {path.parent.name for path in (shop.place / "store" / "objects").glob("*/*")}


def plan(shop: NightShop, *flags: str) -> dict[str, Any]:
    answer = shop.console("gc", "--dry-run", "--json", *flags)
    assert answer.code == 0, answer.stderr
    return dict(answer.json())


def going(told: dict[str, Any]) -> set[str]:
    return {row["kind"] for row in told["rows"] if row["goes"]}


@pytest.mark.parametrize("size", ["", "GB", "-1GB", "20 parsecs", "1e9"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(BadSetting, match="is no size"):
        bytes_of(size)


@pytest.mark.slow
def test_young_runs_keep_everything(shop: NightShop) -> None:
    told = plan(shop)
    assert (going(told), told["freed_bytes"]) == (set(), 0)


@pytest.mark.slow
def test_gc_waits_for_no_night(shop: NightShop) -> None:
    with FileLock(shop.place / "nightly.lock"):
        answer = shop.console("gc")
    assert answer.code == 2
    assert "another night is at work" in answer.stderr


@pytest.mark.slow
def test_a_budget_that_cannot_be_reached_says_by_how_much(shop: NightShop) -> None:
    answer = shop.console("gc", "--dry-run", "--budget", "1KB")
    assert answer.code == 0
    assert "bytes above the budget" in answer.stdout
    assert going(plan(shop, "--budget", "1TB", "--keep-days", "0")) == set()


@pytest.mark.long
def test_gc_leaves_what_the_champion_needs_and_a_night_goes_on(shop: NightShop, story: Story) -> None:
    unlearned = digests(shop.console.run(story.run))
    (checkpoint := shop.place / "store" / "checkpoints" / "dead" / "state").parent.mkdir(parents=True)
    checkpoint.touch()
    for path in (checkpoint, checkpoint.parent):
        os.utime(path, (OLD, OLD))
    told = plan(shop, "--keep-days", "0")
    assert going(told) >= {"Augmented", "TeacherLogits", "Unlearned", "Retrained", "states of dead runs"}
    why = {(row["kind"], row["why"]) for row in told["rows"] if not row["goes"]}
    assert {("Bundle", "the champion"), ("Interactions", "the champion"), ("Examples", "the champion")} <= why
    before = size(shop.place / "store")
    for point in ("erase.renamed:2", "gc.tidy:1", "gc.file:1"):
        killed = command("gc", "--keep-days", "0", "--workspace", shop.place, E2UREC_FAILPOINT=f"{point}:kill")
        assert killed.code == -signal.SIGKILL, killed.stderr
    done = shop.console("gc", "--keep-days", "0")
    assert done.code == 0, done.stderr
    assert "Augmented" not in kinds(shop)
    assert not checkpoint.exists()
    assert not list((shop.place / "store" / "tmp").iterdir())
    assert size(shop.place / "store") < before
    assert going(plan(shop, "--keep-days", "0")) == set()
    # What went is made again, to the bit.
    again = shop.console.unlearn()
    assert again.code == 0, again.stderr
    assert digests(shop.console.last())["unlearn"] == unlearned["unlearn"]
    asked = shop.ask(shop.users[0])
    shop.night("--night.keep-days", "14")
    assert shop.states()[asked] == "certified"
    assert shop.scan(shop.users[0]) == []


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
