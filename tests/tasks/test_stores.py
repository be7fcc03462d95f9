"""Where a workspace's artifacts and the records of its runs are kept, by the flag, the variable and the default."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_stores import Shelf, shelf_of_this_process

from e2urec_core.errors import UnknownRun
from tasks._journal import StageEntry
from tasks._stores import VARIABLE, address_of, journals_of, store_of


@pytest.fixture(scope="module")
def bucket() -> Iterator[Shelf]:
    with shelf_of_this_process() as found:
        yield found


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "/shop/store"),
        ("/mnt/team", "/mnt/team"),
        ("team", str(Path("team").absolute())),
        ("s3://shelf/place", "s3://shelf/place"),
        ("gs://shelf", "gs://shelf"),
    ],
)
def test_the_variable_names_the_store_and_the_workspace_holds_it_by_default(
    given: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    assert address_of(Path("/shop")) == address


def test_the_flag_wins_for_its_own_command_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import cli

    monkeypatch.setenv(VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(
        sys, "argv", ["e2urec", "data", "check", "sample", "--workspace", str(tmp_path / "work"), "--store", str(tmp_path / "flag")]
    )
    cli.main()
    assert capsys.readouterr().out
    assert (tmp_path / "flag" / "objects").is_dir()
    assert not (tmp_path / "variable").exists()
    assert not (tmp_path / "work" / "store").exists()
    assert os.environ[VARIABLE] == str(tmp_path / "variable")


def test_what_lies_in_an_old_local_store_is_no_cache_and_stays(bucket: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (store_of(tmp_path).root / "objects" / "Scores" / ("5" * 64)).mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, bucket.address("fresh"))
    assert store_of(tmp_path).folders() == []
    assert (tmp_path / "store" / "objects" / "Scores" / ("5" * 64)).is_dir()


def test_the_record_of_a_run_is_everybodys_and_written_whole_at_every_change(
    bucket: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, bucket.address("journals"))
    near, far = journals_of(tmp_path / "near"), journals_of(tmp_path / "far")
    begun, other = near.start("unlearn", {"seed": 0}), far.start("unlearn", {"seed": 0})
    assert begun.record.run != other.record.run
    begun.note("ingest", StageEntry(state="completed", key="k" * 64))
    assert {record.run for record in far.all()} == {begun.record.run, other.record.run}
    again = far.open(begun.record.run)
    assert again.record.stages["ingest"].state == "completed"
    again.note("ingest", StageEntry(state="stale", key="k" * 64))
    assert near.open(begun.record.run).record.stages["ingest"].state == "stale"
    with pytest.raises(UnknownRun, match="no run `unknown` among its 2"):
        near.open("unknown")
