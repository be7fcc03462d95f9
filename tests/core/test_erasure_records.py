"""Records of erasures: what was found first stays, whichever requests a later night has beside it."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.deletion.record import FOLDER, NOTHING, ErasureRecord, ErasureRecords
from e2urec_core.receipts.receipt import Found

MANY, FEW = (Found(interactions=number, examples={}, artifacts=number, model_versions=0) for number in (9, 1))
FIRST, SECOND, THIRD = ("a" * 64, "b" * 64, "c" * 64)


def test_what_was_found_first_stays_and_what_went_adds_up(tmp_path: Path) -> None:
    before = ErasureRecords(tmp_path, ["r-1"])
    before.note(
        ErasureRecord(artifacts={FIRST: "Scores"}, places={"store_files": 7}, interactions_before=FIRST, left=("old",)), {"r-1": MANY}
    )
    # The first night waits out its retention, and the second has another request beside it.
    both = ErasureRecords(tmp_path, ["r-2", "r-1"])
    later = ErasureRecord(artifacts={SECOND: "Tokens"}, places={"store_files": 3, "unfinished": 1}, interactions_before=SECOND)
    both.note(later, {"r-1": FEW, "r-2": FEW})
    both.note(ErasureRecord(interactions_after=THIRD, left=("new",)))

    told = ErasureRecords(tmp_path, ["r-1", "r-2"])
    assert (told["r-1"].found, told["r-2"].found) == (MANY, FEW)
    assert [(each.kind, each.digest) for each in told["r-1"].erased()] == [("Scores", FIRST), ("Tokens", SECOND)]
    assert [(each.kind, each.digest) for each in told["r-2"].erased()] == [("Tokens", SECOND)]
    assert told["r-1"].data() == {"interactions_before": FIRST, "interactions_after": THIRD}
    assert told["r-2"].data() == {"interactions_before": SECOND, "interactions_after": THIRD}
    assert told["r-1"].places == told.places == {"store_files": 7, "unfinished": 1}
    assert told["r-1"].left == ("new",)


def test_half_a_record_is_none_and_a_closed_one_is_gone(tmp_path: Path) -> None:
    records = ErasureRecords(tmp_path, ["r-1", "r-2"])
    records.note(ErasureRecord(), {"r-1": MANY, "r-2": MANY})
    (tmp_path / FOLDER / "r-1.json").write_text('{"found": {')
    again = ErasureRecords(tmp_path, ["r-1", "r-2"])
    assert (again["r-1"], again["r-2"].found) == (ErasureRecord(), MANY)
    assert again["r-1"].found == NOTHING
    again.close()
    assert [*(tmp_path / FOLDER).iterdir()] == []
