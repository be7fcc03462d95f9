"""A request for users and single interactions together. User and item ids are canaries: no message may sing of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from canaries import ITEMS, USERS, WHOLE_STORY, made, small_tokenizer

from e2urec_core import stages
from e2urec_core.artifacts import Examples, ForgetRequest, Interactions
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.named import read_named
from e2urec_core.errors import BadRequest, BadSetting
from e2urec_core.methods.do_nothing import DoNothing
from flows.runs import build_run
from tasks import _gate

ANN, BOB, CID, LATE = *USERS, "canary-late"
# Somebody who came when training was over: rows of theirs validate and test.
STORY = [*WHOLE_STORY, *((LATE, item, 4, 978_300_062 + place) for place, item in enumerate(ITEMS[:5]))]
Folders = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return made(tmp_path_factory.mktemp("story"), STORY, small_tokenizer())


def requested(place: Path, folders: Folders, named: Sequence[tuple[str, str]] | str, setting: str = "deletions_file") -> Path:
    """Folder of the request for what is named."""
    place.mkdir(exist_ok=True)
    file, request = place / "named.csv", place / "request"
    request.mkdir()
    file.write_text(named if isinstance(named, str) else "\n".join(["user_id,item_id", *(",".join(pair) for pair in named)]))
    stages.forget(folders[0], folders[1], ForgetRule.model_validate({setting: file}), 0, request)
    _gate.check(ForgetRequest, request, {Interactions: folders[0], Examples: folders[1]})
    return request


def bytes_of(request: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(request.iterdir())}


def rows_of(folders: Folders, request: Path) -> pl.DataFrame:
    """The examples with their parts, and whether they go."""
    gone = pl.read_parquet(request / "gone.parquet")["example_id"]
    marks = pl.read_parquet(request / "parts.parquet")
    rows = pl.read_parquet(folders[1] / "examples.parquet").join(marks, on="example_id", maintain_order="left")
    return rows.with_columns(gone=pl.col("example_id").is_in(gone.implode()))


def test_users_alone_are_asked_for_as_a_file_of_users_asks_for_them(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text(f"{BOB}\n")
    (tmp_path / "request").mkdir()
    stages.forget(folders[0], folders[1], ForgetRule(users_file=tmp_path / "users.txt"), 0, tmp_path / "request")
    assert bytes_of(requested(tmp_path / "both", folders, [(BOB, "")])) == bytes_of(tmp_path / "request")
    assert set(bytes_of(tmp_path / "request")) == {"facts.json", "gone.parquet", "parts.parquet", "users.parquet"}


def test_interactions_alone_are_asked_for_as_a_file_of_interactions_asks_for_them(folders: Folders, tmp_path: Path) -> None:
    named = [(ANN, ITEMS[3]), (CID, ITEMS[2])]
    both, alone = (requested(tmp_path / name, folders, named, name) for name in ("deletions_file", "interactions_file"))
    assert bytes_of(both) == bytes_of(alone)
    assert set(bytes_of(both)) == {"examples.parquet", "facts.json", "gone.parquet", "interactions.parquet", "parts.parquet"}


def test_both_kinds_together_come_to_what_each_comes_to_alone(folders: Folders, tmp_path: Path) -> None:
    users, pairs = [(BOB, "")], [(ANN, ITEMS[3]), (CID, ITEMS[1])]
    told = [requested(tmp_path / str(number), folders, named) for number, named in enumerate((users, pairs, [*pairs, *users]))]
    one, other, both = (rows_of(folders, request) for request in told)
    assert both["gone"].to_list() == (one["gone"] | other["gone"]).to_list()
    assert 0 < one["gone"].sum() < both["gone"].sum()
    assert (told[2] / "users.parquet").read_bytes() == (told[0] / "users.parquet").read_bytes()
    for name in ("interactions.parquet", "examples.parquet"):
        assert (told[2] / name).read_bytes() == (told[1] / name).read_bytes()
    counts, alone = ([stages.facts(request)["counts"] for request in told][place] for place in (2, 1))
    assert counts["forgotten"] == both.filter(gone=True, split="train").height
    assert {name: counts[name] for name in ("forgotten_users", "forgotten_interactions")} == {
        "forgotten_users": 1,
        "forgotten_interactions": 2,
    }
    assert all(counts[name] == alone[name] > 0 for name in ("changed", "changed_training"))
    assert set(both.filter(user_id=BOB)["part"]) == {"forgotten", "forgotten_validation", "forgotten_test"}
    assert read_named(told[2]) == ([BOB], pairs)


def test_an_item_of_later_histories_is_told_anew_and_not_for_whoever_goes_whole(folders: Folders, tmp_path: Path) -> None:
    request = requested(tmp_path, folders, [(ANN, ITEMS[3]), (BOB, ITEMS[3]), (BOB, "")])
    anew = pl.read_parquet(request / "examples.parquet")
    # Three rows of Ann's showed the fourth item; Bob's rows all go.
    assert anew.select("user_id", "item_id").rows() == [(ANN, ITEMS[place]) for place in (4, 5, 6)]
    assert not [history for history in anew["history"].to_list() if 3 in history]
    assert stages.facts(request)["counts"]["forgotten_interactions"] == 1
    assert read_named(request) == ([BOB], [(ANN, ITEMS[3]), (BOB, ITEMS[3])])


def test_interactions_of_users_who_go_whole_change_no_history(folders: Folders, tmp_path: Path) -> None:
    request = requested(tmp_path, folders, [(BOB, ITEMS[3]), (BOB, "")])
    counts = stages.facts(request)["counts"]
    assert (counts["forgotten_interactions"], counts["changed"]) == (0, 0)
    assert pl.read_parquet(request / "examples.parquet").is_empty()
    assert set(rows_of(folders, request).filter(gone=True)["user_id"]) == {BOB}


def test_users_and_interactions_without_a_training_row_may_go(folders: Folders, tmp_path: Path) -> None:
    # The last item of all is that of a test row, and in nobody's history.
    request = requested(tmp_path, folders, [(LATE, ""), (ANN, ITEMS[8])])
    counts, rows = stages.facts(request)["counts"], rows_of(folders, request).filter(gone=True)
    assert (counts["forgotten"], counts["forgotten_users"], counts["changed"]) == (0, 1, 0)
    assert set(rows["part"]) <= {"forgotten_validation", "forgotten_test"}
    assert set(rows.select("user_id", "item_id").rows()) == {(ANN, ITEMS[8]), *((LATE, item) for item in ITEMS[2:5])}
    assert rows["example_id"].to_list() == pl.read_parquet(request / "gone.parquet")["example_id"].to_list()


def test_rows_that_are_held_out_go_as_well(tiny_interactions: Path, tiny_folders: tuple[Path, Path], tmp_path: Path) -> None:
    rows = pl.read_parquet(tiny_folders[0] / "examples.parquet")
    held = str(rows.filter(split="holdout")["user_id"][0])
    request = requested(tmp_path, (tiny_interactions, tiny_folders[0], tmp_path), [(held, "")])
    gone = pl.read_parquet(request / "gone.parquet")["example_id"].to_list()
    assert gone == rows.filter(user_id=held)["example_id"].to_list()
    parts = pl.read_parquet(request / "parts.parquet").filter(pl.col("example_id").is_in(gone))["part"]
    assert "holdout" not in set(parts)


def test_a_drawn_request_says_which_examples_go_too(tiny_folders: tuple[Path, Path]) -> None:
    users = pl.read_parquet(tiny_folders[1] / "users.parquet")
    rows = pl.read_parquet(tiny_folders[0] / "examples.parquet").join(users, on="user_id", how="semi", maintain_order="left")
    assert rows["example_id"].to_list() == pl.read_parquet(tiny_folders[1] / "gone.parquet")["example_id"].to_list()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,thing\ncanary-ann,\n", "lacks 1 of 2 columns: item_id"),
        ("user_id,item_id\n", "names 0 of them"),
        ("user_id,item_id\n,canary-thing-1\ncanary-bob,\n", "1 of 2 rows have no user or end before the item"),
        ("user_id,item_id\ncanary-ann,canary-thing-1\ncanary-bob\n", "1 of 2 rows have no user or end before the item"),
        ("user_id,item_id\ncanary-zoe,\ncanary-bob,\n", "1 of 2 named users were never stored"),
        (
            "user_id,item_id\ncanary-ann,canary-else\ncanary-bob,\ncanary-ann,canary-thing-1\n",
            "1 of 2 named interactions were never stored",
        ),
        ("user_id,item_id\n" + "".join(f"{user},\n" for user in USERS), "all 12 training rows would be forgotten"),
    ],
    ids=["column", "nothing", "nameless", "cut off", "unknown user", "unknown interaction", "everything"],
)
def test_a_file_that_cannot_be_carried_out_is_refused_with_counts_and_without_names(
    folders: Folders, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        requested(tmp_path, folders, text)
    assert "canary" not in str(refused.value)
    assert refused.value.hint
    assert not list((tmp_path / "request").iterdir())


@pytest.mark.parametrize("other", [{"users_file": "users.txt"}, {"interactions_file": "named.csv"}, {"nobody": True}], ids=str)
def test_a_file_of_deletions_stands_alone(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"two requests|leave one of the two out"):
        ForgetRule.model_validate({"deletions_file": "both.csv", **other})


def test_the_fingerprint_follows_the_bytes_of_the_file(tmp_path: Path) -> None:
    file, prints = tmp_path / "both.csv", []
    for text in ("user_id,item_id\na,\n", "user_id,item_id\na,c\n"):
        file.write_text(text)
        prints.append(ForgetRule(deletions_file=file).fingerprint())
    assert len({*prints, ""}) == 3


def test_a_method_that_knows_users_alone_takes_a_file_that_names_no_interaction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(DoNothing, "knows_interactions", False)
    words = {"dataset": "sample", "backbone": "tiny-t5", "method": "do-nothing"}
    file = tmp_path / "both.csv"
    flags = {"forget.deletions-file": str(file)}
    # A file that is not there is refused where it is read.
    for text in (None, "user_id,item_id\na,\nb,\n"):
        if text:
            file.write_text(text)
        assert build_run(words, None, flags).forget.deletions_file == file
    file.write_text("user_id,item_id\na,\nb,c\n")
    with pytest.raises(BadSetting, match=r"`--forget\.deletions-file` is refused: `do-nothing` forgets whole users alone"):
        build_run(words, None, flags)
