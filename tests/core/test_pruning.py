"""Stored data without what a request forgets: what a computation from the remaining rows gives, and no trace. Ids are canaries."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canaries import FIRST_S, HISTORY, ITEMS, USERS, WHOLE_STORY, made, small_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_contracts.examples import EXAMPLES as EXAMPLES_TABLE
from e2urec_core import stages
from e2urec_core.artifacts import Artifact, Examples, Interactions, Tokens
from e2urec_core.data.examples import example_tables, order_by_user, read_events
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.named import read_named
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.pruning import prune_examples, prune_interactions, prune_tokens
from e2urec_core.data.split import SPLITS
from e2urec_core.data.tokens import user_numbers, write_tokens
from e2urec_core.datasets.interactions import Interactions as Table
from e2urec_core.errors import BadInput, BadRequest
from tasks import _gate

ANN, BOB, CID = USERS
Kinds = Mapping[type[Artifact], Path]
BOTH_KINDS = [(BOB, ""), (ANN, ITEMS[3]), (CID, ITEMS[0])]


@dataclass(frozen=True)
class Night:
    """Folders of what was there, of the request, of what it tells anew, and of what is left."""

    old: Kinds
    request: Path
    retold: Path | None
    new: Kinds


def stored(folders: tuple[Path, Path, Path]) -> Kinds:
    return dict(zip((Interactions, Examples, Tokens), folders, strict=True))


def night(place: Path, old: Kinds, named: list[tuple[str, str]]) -> Night:
    """Carry out a request for what is named."""
    new = {kind: place / kind.kind for kind in old}
    request, retold = place / "request", place / "retold"
    for folder in (*new.values(), request, retold):
        folder.mkdir(parents=True)
    (place / "named.csv").write_text("\n".join(["user_id,item_id", *(",".join(pair) for pair in named)]))
    stages.forget(old[Interactions], old[Examples], ForgetRule(deletions_file=place / "named.csv"), 0, request)
    changed = stages.facts(request)["counts"].get("changed")
    if changed:
        stages.retell(request, old[Interactions], old[Tokens], PromptRule(), retold)
    told = retold if changed else None
    prune_interactions(old[Interactions], *read_named(request), new[Interactions])
    prune_examples(old[Examples], request, new[Examples])
    prune_tokens(old[Tokens], request, told, new[Tokens])
    return Night(old, request, told, new)


def keep_their_contracts(folders: Kinds) -> None:
    for kind, place in folders.items():
        _gate.check(kind, place, folders)


def computed_anew(night: Night, tokenizer: Tokenizer, place: Path) -> tuple[pa.Table, pa.Table]:
    """The examples and tokens of the interactions that are left, each row in the part of the split that it had."""
    events = read_events(night.new[Interactions])
    histories = order_by_user(events)
    split = dict(pl.read_parquet(night.old[Examples] / "examples.parquet").select("example_id", "split").rows())
    rows = numpy.flatnonzero(histories.num_earlier >= HISTORY.at_least)
    parts = numpy.array([SPLITS.index(split[int(number)]) for number in events.ids[rows]], dtype=numpy.int8)
    examples = pa.concat_tables([EXAMPLES_TABLE.schema().empty_table(), *example_tables(events, histories, rows, parts, HISTORY.length)])
    place.mkdir()
    pq.write_table(examples, place / "examples.parquet")
    write_tokens(place, night.new[Interactions], PromptRule(), tokenizer, place)
    return examples, pq.read_table(place / "tokens.parquet")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def before(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    return stored(made(tmp_path_factory.mktemp("before"), WHOLE_STORY, tokenizer))


@pytest.fixture(scope="module")
def carried_out(before: Kinds, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A user goes whole, an item of later histories goes, and with it what has too little history left."""
    return night(tmp_path_factory.mktemp("night"), before, BOTH_KINDS)


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(1, 5), st.integers(FIRST_S, FIRST_S + 30)),
        min_size=24,
        max_size=40,
        unique_by=lambda row: (row[0], row[1], row[3]),
    ),
    users=st.lists(st.sampled_from(USERS), max_size=1),
    wanted=st.lists(st.integers(0, 39), max_size=4),
)
def test_what_is_left_is_what_the_interactions_that_are_left_give(
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, int, int]],
    users: list[str],
    wanted: list[int],
) -> None:
    place = tmp_path_factory.mktemp("story")
    named = [*((user, "") for user in users), *(rows[number % len(rows)][:2] for number in wanted)]
    assume(named)
    try:
        old = stored(made(place / "old", rows, tokenizer))
        done = night(place / "night", old, named)
    except (BadInput, BadRequest):
        assume(False)
    examples, tokens = computed_anew(done, tokenizer, place / "anew")
    assert pq.read_table(done.new[Examples] / "examples.parquet").equals(examples)
    assert pq.read_table(done.new[Tokens] / "tokens.parquet").equals(tokens)
    without = [row for row in rows if row[0] not in users and row[:2] not in named]
    left = pl.concat([pl.read_parquet(part) for part in sorted((done.new[Interactions] / "interactions").iterdir())])
    assert left.select("user_id", "item_id", "timestamp_s").rows() == sorted(
        ((user, item, moment) for user, item, _, moment in without), key=lambda row: (row[2], row[0], row[1])
    )
    keep_their_contracts(done.new)


def test_both_kinds_of_request_leave_no_trace(carried_out: Night) -> None:
    gone = set(pl.read_parquet(carried_out.request / "gone.parquet")["example_id"])
    assert len(gone) > 8
    number = user_numbers(pa.array([BOB])).to_pylist()[0]
    stored_ids = pl.read_parquet(carried_out.old[Interactions] / "interactions" / "part-00000.parquet")
    named = (pl.col("user_id") == BOB) | pl.struct("user_id", "item_id").is_in([{"user_id": u, "item_id": i} for u, i in BOTH_KINDS if i])
    forgotten = {number, *stored_ids.filter(named)["interaction_id"]}
    # Where too little history is left, the interaction stays, but no example asks about it.
    assert gone - forgotten
    for kind, folder in carried_out.new.items():
        numbers = forgotten if kind is Interactions else forgotten | gone
        for path in (path for path in folder.rglob("*") if path.is_file()):
            raw = path.read_bytes()
            assert BOB.encode() not in raw
            assert not [each for each in numbers if int(each).to_bytes(8, "little") in raw]
            if path.suffix == ".parquet":
                file = pq.ParquetFile(path)
                groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
                assert not any(group.column(at).is_stats_set for group in groups for at in range(group.num_columns))
                told = [value for column in file.read().columns for value in column.to_pylist()]
                assert BOB not in str(told)
                assert not numbers.intersection(value for value in told if isinstance(value, int))


def test_the_item_that_was_taken_back_is_in_no_later_history(carried_out: Night) -> None:
    def shown(folders: Kinds) -> set[int]:
        rows = pl.read_parquet(folders[Examples] / "examples.parquet").filter(user_id=ANN)
        return {item for history in rows["history"].to_list() for item in history}

    assert shown(carried_out.old) - shown(carried_out.new) == {3}


def test_rows_of_others_keep_their_bytes_and_the_split_stays(carried_out: Night) -> None:
    old, new = (pl.read_parquet(folders[Examples] / "examples.parquet") for folders in (carried_out.old, carried_out.new))
    gone = pl.read_parquet(carried_out.request / "gone.parquet")
    changed = pl.read_parquet(carried_out.request / "examples.parquet")
    assert changed.height > 0
    stays = old.join(gone, on="example_id", how="anti", maintain_order="left")
    assert new.select("example_id", "split").rows() == stays.select("example_id", "split").rows()
    same = [rows.join(changed, on="example_id", how="anti", maintain_order="left") for rows in (stays, new)]
    assert same[0].equals(same[1])
    before, after = (stages.facts(folders[Examples]) for folders in (carried_out.old, carried_out.new))
    assert {name for name in after if after[name] != before.get(name)} == {"rows", "parts", "pruned"}
    assert (after["rows"], sum(after["parts"].values())) == (new.height, new.height)
    assert after["parts"]["train"] == new.filter(split="train").height < before["parts"]["train"]
    tokens = pl.read_parquet(carried_out.new[Tokens] / "tokens.parquet")
    told = stages.facts(carried_out.new[Tokens])
    assert told == {"rows": new.height, "tokens": tokens["token_ids"].list.len().sum(), "pruned": True}
    names = ("tokenizer.json",)
    assert all((carried_out.new[Tokens] / name).read_bytes() == (carried_out.old[Tokens] / name).read_bytes() for name in names)


def test_the_counts_are_those_of_interactions_that_never_held_the_forgotten(
    carried_out: Night, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [row for row in WHOLE_STORY if row[0] != BOB and row[:2] not in BOTH_KINDS]
    never, told = (stages.facts(folder) for folder in (made(tmp_path, rows, tokenizer)[0], carried_out.new[Interactions]))
    assert told["this_reading"]["read"] == len(WHOLE_STORY)
    assert {name for name in told if told[name] != never[name]} == {"this_reading"}


def test_another_night_begins_with_what_the_first_has_left(carried_out: Night, tokenizer: Tokenizer, tmp_path: Path) -> None:
    again = night(tmp_path / "again", carried_out.new, [(ANN, ITEMS[5]), (CID, ITEMS[4])])
    keep_their_contracts(again.new)
    examples, tokens = computed_anew(again, tokenizer, tmp_path / "anew")
    assert pq.read_table(again.new[Examples] / "examples.parquet").equals(examples)
    assert pq.read_table(again.new[Tokens] / "tokens.parquet").equals(tokens)


def test_shares_that_are_lost_are_noticed_where_nothing_was_pruned(carried_out: Night, tmp_path: Path) -> None:
    import json

    from e2urec_core.errors import ContractBroken

    place = tmp_path / "short"
    shutil.copytree(carried_out.new[Examples], place)
    told = json.loads((place / "facts.json").read_text())
    (place / "facts.json").write_text(json.dumps({**told, "train_share": 0.98, "pruned": False}))
    with pytest.raises(ContractBroken, match="train_share_lost"):
        _gate.check(Examples, place, carried_out.new)
    (place / "facts.json").write_text(json.dumps({**told, "train_share": 0.98}))
    _gate.check(Examples, place, carried_out.new)


def test_a_request_about_other_rows_is_a_fault(carried_out: Night, before: Kinds, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="about other examples"):
        prune_examples(carried_out.new[Examples], carried_out.request, tmp_path)
    with pytest.raises(AssertionError, match="told anew are not those of the request"):
        prune_tokens(before[Tokens], carried_out.request, None, tmp_path)


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interactions in two parts: Ann and Bob in the first, Bob and Cid in the second."""
    place = tmp_path_factory.mktemp("parts")
    for number, users in enumerate(((ANN, BOB), (BOB, CID))):
        rows = [f"{user},{ITEMS[at]},{1 + at},{FIRST_S + 100 * number + at}" for user in users for at in range(4)]
        (place / f"{number}.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))
        (place / str(number)).mkdir()
        earlier = place / "0" if number else None
        ingest(Table(path=str(place / f"{number}.csv"), time_unit="s"), IngestRule(), place / str(number), earlier)
    return place / "1"


def parts(interactions: Path) -> list[Path]:
    return sorted((interactions / "interactions").iterdir())


def test_a_part_in_which_nothing_changes_is_linked_and_the_other_written(two_parts: Path, tmp_path: Path) -> None:
    assert prune_interactions(two_parts, [CID], [(BOB, ITEMS[9 % 4]), ("canary-zoe", ITEMS[0])], tmp_path) == 10
    # Bob met the second item in both parts.
    assert [pq.read_metadata(part).num_rows for part in parts(tmp_path)] == [7, 3]
    (tmp_path / "again").mkdir()
    assert prune_interactions(tmp_path, [CID, "canary-zoe"], [(CID, ITEMS[0]), (ANN, "canary-else")], tmp_path / "again") == 10
    assert [part.stat().st_ino for part in parts(tmp_path / "again")] == [part.stat().st_ino for part in parts(tmp_path)]
    (tmp_path / "one").mkdir()
    prune_interactions(two_parts, [CID], [], tmp_path / "one")
    same = [one.stat().st_ino == other.stat().st_ino for one, other in zip(parts(two_parts), parts(tmp_path / "one"), strict=True)]
    assert same == [True, False]


def test_a_part_of_which_nothing_is_left_is_not_written(two_parts: Path, tmp_path: Path) -> None:
    prune_interactions(two_parts, [ANN, BOB], [], tmp_path)
    assert [part.name for part in parts(tmp_path)] == ["part-00000.parquet"]
    told = stages.facts(tmp_path)
    # The dataset's likes are ratings of four and more of five: Cid's fourth.
    numbers = [told[name] for name in ("parts", "rows", "users", "oldest_timestamp_s", "newest_timestamp_s", "likes", "items")]
    assert numbers == [1, 4, 1, FIRST_S + 100, FIRST_S + 103, 1, 4]
    assert (tmp_path / "items.parquet").read_bytes() == (two_parts / "items.parquet").read_bytes()
    keep_their_contracts({Interactions: tmp_path})


def test_later_rows_are_appended_to_what_is_left(two_parts: Path, tmp_path: Path) -> None:
    left, more = tmp_path / "left", tmp_path / "more"
    for place in (left, more):
        place.mkdir()
    prune_interactions(two_parts, [BOB], [], left)
    (tmp_path / "late.csv").write_text(f"user_id,item_id,rating,timestamp\n{ANN},{ITEMS[0]},3,{FIRST_S + 500}\n")
    assert ingest(Table(path=str(tmp_path / "late.csv"), time_unit="s"), IngestRule(), more, left) == 9
    assert set(pl.read_parquet(more / "users.parquet")["user_id"]) == {ANN, CID}


def test_nothing_is_written_where_nothing_would_be_left(two_parts: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none of 16 stored interactions would be left"):
        prune_interactions(two_parts, USERS, [], tmp_path)
    assert not list(tmp_path.iterdir())


ASIDE: list[tuple[str, dict[str, str | None], Callable[[str], bool]]] = [
    ("ratings.csv", {"user_id": "7"}, lambda what: what == "user"),
    ("ratings.csv", {"user_id": "77", "time": "17:07"}, lambda what: False),
    ("ratings.csv", {"user_id": None, "item_id": "5;7;x"}, lambda what: what == "user"),
    ("user=7/rows.csv", {"item_id": "9"}, lambda what: what == "user"),
    ("ratings.csv", {"user_id": "é7"}, lambda what: False),
    ("ratings.csv", {"user_id": "8", "item_id": "a.b c"}, lambda what: what == "pair"),
    ("ratings.csv", {"user_id": "8", "item_id": "axb c"}, lambda what: False),
    ("ratings.csv", {"user_id": "9", "item_id": "a.b c"}, lambda what: False),
]


@pytest.mark.parametrize("what", ["user", "pair", "nobody"])
def test_quarantined_rows_that_mention_the_forgotten_go_and_no_others(two_parts: Path, tmp_path: Path, what: str) -> None:
    dirty, clean = tmp_path / "dirty", tmp_path / "clean"
    shutil.copytree(two_parts, dirty)
    clean.mkdir()
    schema = pq.read_schema(dirty / "quarantine.parquet")
    rows = [
        dict.fromkeys(schema.names) | {"rule": "7 a.b c 8", "file": file, "line": line} | told
        for line, (file, told, _) in enumerate(ASIDE, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), dirty / "quarantine.parquet")
    prune_interactions(dirty, ["7"] if what == "user" else [], [("8", "a.b c")] if what == "pair" else [], clean)
    left = pl.read_parquet(clean / "quarantine.parquet")["line"].to_list()
    assert left == [line for line, (_, _, goes) in enumerate(ASIDE, 1) if not goes(what)]
    keep_their_contracts({Interactions: clean})


def test_many_users_are_looked_for_in_the_quarantine(two_parts: Path, tmp_path: Path) -> None:
    dirty, clean = tmp_path / "dirty", tmp_path / "clean"
    shutil.copytree(two_parts, dirty)
    clean.mkdir()
    schema = pq.read_schema(dirty / "quarantine.parquet")
    rows = [dict.fromkeys(schema.names) | {"rule": "odd", "file": "f", "line": at, "user_id": f"u-{at}"} for at in range(1, 1001)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), dirty / "quarantine.parquet")
    prune_interactions(dirty, [f"u-{at}" for at in range(1, 1000)], [], clean)
    assert pl.read_parquet(clean / "quarantine.parquet")["user_id"].to_list() == ["u-1000"]
