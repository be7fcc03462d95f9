"""A search finds a user wherever one is put, and finds nobody who is nowhere."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import string
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2urec_core.data.tokens import user_numbers
from e2urec_core.errors import BadInput
from e2urec_core.pseudonyms import Pseudonyms
from e2urec_core.scanning.matching import Matcher
from e2urec_core.scanning.scan import Scan, example_ids
from e2urec_core.scanning.targets import Targets, read_example_ids

CANARY, EXAMPLE = "canary-4711x", 7_435_842_424_407_639_803
Sink = Callable[[Path, str], None]
SINKS: dict[str, Sink] = {}
# Places that are searched for what nothing else is spelled like, and not for identifiers such as `17` or `anna`.
DISTINCTIVE = set[str]()


def sink(*, distinctive: bool = False) -> Callable[[Sink], Sink]:
    def add(put: Sink) -> Sink:
        SINKS[put.__name__] = put
        if distinctive:
            DISTINCTIVE.add(put.__name__)
        return put

    return add


def number_of(user: str) -> int:
    return int(user_numbers(pa.array([user]))[0].as_py())


def table(path: Path, columns: dict[str, object], **how: object) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd", **how)


def rows(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()


@sink()
def parquet_text_column(at: Path, user: str) -> None:
    table(at / "a.parquet", {"user_id": ["other", user]}, write_statistics=False)


@sink()
def parquet_text_without_dictionary(at: Path, user: str) -> None:
    table(at / "a.parquet", {"user_id": ["other", user]}, use_dictionary=False, write_statistics=False)


@sink()
def parquet_under_a_wrong_name(at: Path, user: str) -> None:
    table(at / "weights.safetensors", {"user_id": [user]})


@sink()
def parquet_dictionary_that_no_row_names(at: Path, user: str) -> None:
    held = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["other", user]))
    table(at / "a.parquet", {"user_id": held}, write_statistics=False)


@sink()
def parquet_statistics(at: Path, user: str) -> None:
    table(at / "a.parquet", {"user_id": [user]}, write_statistics=True)


@sink()
def parquet_metadata(at: Path, user: str) -> None:
    held = pa.table({"x": [1.0]}).replace_schema_metadata({"e2urec": json.dumps({"user": user})})
    pq.write_table(held, at / "a.parquet")


@sink()
def parquet_user_number(at: Path, user: str) -> None:
    table(at / "a.parquet", {"anything": pa.array([1, number_of(user)], pa.int64())}, write_statistics=False)


@sink()
def parquet_list_of_numbers(at: Path, user: str) -> None:
    table(at / "a.parquet", {"anything": pa.array([[1], [2, number_of(user)]], pa.list_(pa.int64()))}, write_statistics=False)


@sink()
def parquet_list_of_users(at: Path, user: str) -> None:
    table(at / "a.parquet", {"users": pa.array([["a"], [user]])}, write_statistics=False)


@sink()
def parquet_structure(at: Path, user: str) -> None:
    table(at / "a.parquet", {"request": pa.array([{"user_id": user, "n": 1}])}, write_statistics=False)


@sink()
def parquet_cell_with_json(at: Path, user: str) -> None:
    table(at / "a.parquet", {"facts": [json.dumps({"users": [user]})]}, write_statistics=False)


@sink()
def json_value(at: Path, user: str) -> None:
    (at / "a.json").write_text(json.dumps({"deep": [{"user": user}]}))


@sink()
def json_list(at: Path, user: str) -> None:
    (at / "a.json").write_text(json.dumps({"users": ["a", user]}))


@sink()
def json_key(at: Path, user: str) -> None:
    (at / "a.json").write_text(json.dumps({"users": {user: 1}}))


@sink()
def json_with_escapes(at: Path, user: str) -> None:
    (at / "a.json").write_text('{"user": "' + "".join(f"\\u{ord(letter):04x}" for letter in user) + '"}')


@sink()
def json_lines(at: Path, user: str) -> None:
    (at / "a.jsonl").write_text(f'{{"user": "a"}}\n{json.dumps({"user": user})}\n')


@sink()
def csv_cell(at: Path, user: str) -> None:
    (at / "a.csv").write_text(f'request_id,user_id\n1,a\n2,"{user}"\n')


@sink()
def quarantined_line(at: Path, user: str) -> None:
    (at / "bad.dat").write_text(f"a::1::5::1\n{user}::1193::5::978300760\n")


@sink()
def quarantined_cell(at: Path, user: str) -> None:
    table(at / "quarantine.parquet", {"rule": ["bad"], "user_id": [f" {user} "]}, write_statistics=False)


@sink()
def log_line(at: Path, user: str) -> None:
    (at / "run.log").write_text(f"2026-01-01 forgot user {user}, 3 rows\n")


@sink()
def page(at: Path, user: str) -> None:
    (at / "report.html").write_text(f"<html><p>user <b>x</b></p><p>user={user}</p>\n</html>")


@sink()
def markdown_card(at: Path, user: str) -> None:
    (at / "README.md").write_text(f"# Bundle\n\nForgets the user `{user}`.\n")


@sink()
def safetensors_head(at: Path, user: str) -> None:
    head = json.dumps({"__metadata__": {"user": user}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (at / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"\xff\xfe\x00\x01")


@sink()
def sqlite_cell(at: Path, user: str) -> None:
    rows(at / "a.db", ("CREATE TABLE t (user_id TEXT)", ()), ("INSERT INTO t VALUES (?)", (user,)))


@sink()
def sqlite_cell_with_json(at: Path, user: str) -> None:
    rows(
        at / "prefect.db", ("CREATE TABLE flow_run (parameters JSON)", ()), ("INSERT INTO flow_run VALUES (?)", (f'{{"user": "{user}"}}',))
    )


@sink()
def mlflow_parameter(at: Path, user: str) -> None:
    rows(at / "m.db", ("CREATE TABLE params (key TEXT, value TEXT)", ()), ("INSERT INTO params VALUES ('forget.user', ?)", (user,)))


@sink()
def version_tag(at: Path, user: str) -> None:
    created = ("CREATE TABLE model_version_tags (key TEXT, value TEXT, name TEXT)", ())
    rows(at / "m.db", created, ("INSERT INTO model_version_tags VALUES ('user', ?, 'e2urec')", (user,)))


@sink()
def sqlite_number(at: Path, user: str) -> None:
    rows(at / "a.db", ("CREATE TABLE t (x INTEGER)", ()), ("INSERT INTO t VALUES (?)", (number_of(user),)))


@sink(distinctive=True)
def sqlite_deleted_row(at: Path, user: str) -> None:
    made = [("PRAGMA secure_delete=OFF", ()), ("CREATE TABLE t (a TEXT, user_id TEXT, b TEXT)", ())]
    rows(at / "a.db", *made, ("INSERT INTO t VALUES ('left', ?, '2026')", (user,)))
    rows(at / "a.db", ("PRAGMA secure_delete=OFF", ()), ("DELETE FROM t", ()))


@sink()
def sqlite_log_not_written_back(at: Path, user: str) -> None:
    connection = sqlite3.connect(at / "made.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (user_id TEXT)")
    connection.execute("INSERT INTO t VALUES (?)", (user,))
    connection.commit()
    # As a kill leaves them.
    for end in ("", "-wal"):
        (at / f"a.db{end}").write_bytes((at / f"made.db{end}").read_bytes())
    connection.close()
    (at / "made.db").unlink()


@sink(distinctive=True)
def sqlite_journal(at: Path, user: str) -> None:
    (at / "a.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\x00" * 20 + b"left" + user.encode() + b"right\x00")


@sink()
def file_name(at: Path, user: str) -> None:
    (at / f"user={user}.bin").write_bytes(b"\x00")


@sink()
def folder_name(at: Path, user: str) -> None:
    (at / "users" / user).mkdir(parents=True)


@sink()
def link_target(at: Path, user: str) -> None:
    (at / "link").symlink_to(f"/elsewhere/user_{user}")


@sink()
def gz(at: Path, user: str) -> None:
    (at / "a.log.gz").write_bytes(gzip.compress(f"user {user}\n".encode()))


@sink()
def zipped(at: Path, user: str) -> None:
    with zipfile.ZipFile(at / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.json", json.dumps({"user": user}))


@sink()
def zstd(at: Path, user: str) -> None:
    with pa.CompressedOutputStream(pa.OSFile(str(at / "a.zst"), "wb"), "zstd") as stream:
        stream.write(f"user {user}\n".encode())


@sink()
def tar_in_gz(at: Path, user: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry, held = tarfile.TarInfo("inner.csv"), f"user_id,x\n{user},1\n".encode()
        entry.size = len(held)
        archive.addfile(entry, io.BytesIO(held))
    (at / "a.tar.gz").write_bytes(content.getvalue())


@sink()
def checkpoint_number_of_eight_bytes(at: Path, user: str) -> None:
    (at / "checkpoint.bin").write_bytes(b"\x00\x01\x02" + struct.pack("<q", number_of(user)) + b"\x00")


@sink()
def hidden_file(at: Path, user: str) -> None:
    (at / ".left").write_text(f"user: {user}\n")


@sink()
def temporary_folder(at: Path, user: str) -> None:
    (at / "store" / "tmp" / "w1").mkdir(parents=True)
    (at / "store" / "tmp" / "w1" / "half").write_text(f'{{"user": "{user}", "cut o')


@sink()
def run_journal(at: Path, user: str) -> None:
    (at / "r.json").write_text(json.dumps({"run": "r", "settings": {"forget": {"users": [user]}}}, indent=1))


@sink(distinctive=True)
def wide_text(at: Path, user: str) -> None:
    (at / "a.bin").write_bytes(b"\x00\x01" + user.encode("utf-16-le") + b"\x00")


@sink(distinctive=True)
def bytes_of_no_format(at: Path, user: str) -> None:
    (at / "a.bin").write_bytes(b"\x00\xff" + user.encode() + b"\xfe")


def others_around(at: Path) -> None:
    """A workspace of other users, which holds `17` as item, count, time, rating and place."""
    at.mkdir(exist_ok=True)
    table(
        at / "interactions.parquet",
        {
            "interaction_id": pa.array([EXAMPLE + 5, 17], pa.int64()),
            "user_id": ["117", "171"],
            "item_id": ["17", "anna"],
            "rating": pa.array([17.0, 5.0], pa.float32()),
            "timestamp_s": pa.array([17, 978300017], pa.int64()),
            "history": pa.array([[17], [1, 17]], pa.list_(pa.int32())),
        },
    )
    (at / "facts.json").write_text(json.dumps({"users": 17, "num_users": 17, "rows": 17, "items": ["17"], "item": {"17": 1}, "seed": 17}))
    (at / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"17": 17, "anna": 3}, "merges": ["an na"]}}))
    (at / "items.csv").write_text("item_id,title\n17,Seventeen\nanna,anna\n")
    (at / "movies.dat").write_text("17::Sense and Sensibility (1995)::Drama\n")
    (at / "run.log").write_text("step 17  loss 0.17  17 users, users: 17, user 17.5, user 117, user 1.17\n")
    rows(
        at / "a.db",
        ("CREATE TABLE params (key TEXT, value TEXT)", ()),
        ("CREATE TABLE requests (user_id TEXT, item_id TEXT, number INTEGER)", ()),
        ("INSERT INTO params VALUES ('evaluate.num_users', '17')", ()),
        ("INSERT INTO requests VALUES ('117', '17', 17)", ()),
    )
    (at / "17").mkdir()
    (at / "17" / "part-17.bin").write_bytes(b"\x00user\x00 17 \x00")


def found(at: Path, user: str, **more: object) -> tuple[str, ...]:
    search = Scan(at, Targets.of(user, **more))  # type: ignore[arg-type]
    search.run()
    return search.result().places


IN_EVERY_SINK = pytest.mark.parametrize("put", SINKS.values(), ids=list(SINKS))


@IN_EVERY_SINK
def test_a_user_is_found_in_every_sink_and_never_named(put: Sink, tmp_path: Path) -> None:
    others_around(tmp_path / "w")
    put(tmp_path / "w", CANARY)
    places = found(tmp_path / "w", CANARY)
    assert places
    assert not any(CANARY in place or str(number_of(CANARY)) in place for place in places)
    assert not any("not readable" in place for place in places)


@IN_EVERY_SINK
@pytest.mark.parametrize("user", ["17", "anna", "u12"])
def test_a_user_with_an_ordinary_name_is_found_where_something_says_what_it_is(put: Sink, user: str, tmp_path: Path) -> None:
    put(tmp_path, user)
    assert bool(found(tmp_path, user)) or put.__name__ in DISTINCTIVE


@IN_EVERY_SINK
def test_nobody_else_is_found_in_any_sink(put: Sink, tmp_path: Path) -> None:
    others_around(tmp_path / "w")
    put(tmp_path / "w", CANARY)
    for user in ("17", "anna", "4711", "canary", "canary-4711", "canary-4711xy", "anary-4711x", "5"):
        # In bytes that nothing explains, a name and what stands right beside it cannot be told from a longer name.
        part = user in ("canary-4711", "anary-4711x") and put.__name__ in DISTINCTIVE
        assert part or found(tmp_path / "w", user) == (), user


def test_there_are_sinks_enough() -> None:
    assert len(SINKS) >= 30


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=st.text(string.ascii_letters + string.digits + "-_.@", min_size=1, max_size=20), data=st.data())
def test_any_user_is_found_where_put_and_nowhere_else(user: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = data.draw(st.sampled_from(sorted(set(SINKS) - {"folder_name", "link_target"})))
    at = tmp_path_factory.mktemp("sink")
    wanted = Targets.of(f"q{user}9Z")
    assert found(at, wanted.user) == ()
    SINKS[name](at, wanted.user)
    assert found(at, wanted.user) or (name in DISTINCTIVE and not wanted.is_distinctive)
    assert found(at, f"w{user}9Z") == ()


def test_rows_found_once_are_found_by_their_ids_alone(tmp_path: Path) -> None:
    table(tmp_path / "examples.parquet", {"example_id": pa.array([EXAMPLE, 5 + 10**17], pa.int64()), "user_id": [CANARY, "b"]})
    table(tmp_path / "scores.parquet", {"example_id": pa.array([5 + 10**17, EXAMPLE], pa.int64()), "model": ["a", "a"]})
    (tmp_path / "note.txt").write_text(f"worst row {EXAMPLE}\n")
    places = found(tmp_path, CANARY)
    assert "scores.parquet: example id, 1 time" in places
    assert "note.txt: example id, 1 time" in places
    kept = example_ids(tmp_path, CANARY)
    assert kept == [EXAMPLE]
    (tmp_path / "examples.parquet").unlink()
    assert found(tmp_path, CANARY) == ()
    assert len(found(tmp_path, CANARY, examples=read_example_ids(f"{EXAMPLE}\n\n"))) == 2


def test_pseudonyms_are_found_by_a_key_that_is_there_and_none_is_drawn(tmp_path: Path) -> None:
    keyed = Pseudonyms(bytes(range(32)))
    table(tmp_path / "items.parquet", {"item_id": ["i1", "i2"]})
    digest = "ab" * 32
    rows(
        tmp_path / "l.db",
        ("CREATE TABLE f (release TEXT, subject TEXT)", ()),
        ("INSERT INTO f VALUES (?, ?)", (digest, keyed.of_user("17"))),
    )
    (tmp_path / "event.json").write_text(json.dumps({"about": [keyed.of_interaction("17", "i2")]}))
    assert found(tmp_path, "17") == ()
    assert not (tmp_path / "keys").exists()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "pseudonyms.key").write_bytes(bytes(range(32)))
    (tmp_path / "keys" / "pseudonyms.key").chmod(0o600)
    assert found(tmp_path, "17") == ("event.json: pseudonym, 1 time", "l.db table f: pseudonym, 1 time")
    assert found(tmp_path, "17", items=["i2"]) == ("event.json: pseudonym, 1 time",)


def test_a_successor_is_told_apart(tmp_path: Path) -> None:
    table(tmp_path / "users.parquet", {"user_id": ["17#2"]})
    assert found(tmp_path, "17") == ("users.parquet: identifier of a successor, 1 time",)


def test_of_single_interactions_only_rows_with_the_item_are_found(tmp_path: Path) -> None:
    ids = pa.array([EXAMPLE, EXAMPLE - 1], pa.int64())
    table(tmp_path / "i.parquet", {"interaction_id": ids, "user_id": ["17", "17"], "item_id": ["3", "4"]})
    (tmp_path / "n.json").write_text(json.dumps([{"user_id": "17", "item_id": "4"}, {"user_id": "18", "item_id": "3"}]))
    assert found(tmp_path, "17", items=["3"]) == ("i.parquet: example id, 1 time", "i.parquet: row of the interaction, 1 time")
    assert "n.json: row of the interaction, 1 time" in found(tmp_path, "17", items=["4"])
    rows(
        tmp_path / "l.db",
        ("CREATE TABLE requests (id TEXT, user_id TEXT)", ()),
        ("CREATE TABLE request_items (request TEXT, item_id TEXT)", ()),
        ("INSERT INTO requests VALUES ('r-1', '17')", ()),
        ("INSERT INTO request_items VALUES ('r-1', '9')", ()),
    )
    assert found(tmp_path, "17", items=["9"]) == ("l.db table request_items: row of the interaction, 1 time",)


@pytest.mark.parametrize("content", [b"PAR1 and then nothing", b"SQLite format 3\x00 and then nothing", b"\x1f\x8b\x08 cut off"])
def test_what_cannot_be_looked_into_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert found(tmp_path, "17") == ("a: not readable, so it may hold anything, 1 time",)


def test_links_out_of_the_workspace_are_not_followed_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    json_value(tmp_path / "out", CANARY)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "out" / "a.json")
    sqlite_cell(tmp_path / "in", "b")
    before = sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "in").rglob("*"))
    assert found(tmp_path / "in", CANARY) == ()
    assert sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "in").rglob("*")) == before


def test_a_name_inside_of_another_users_name_is_not_found_in_pages(tmp_path: Path) -> None:
    table(tmp_path / "users.parquet", {"user_id": ["maria12"]})
    sqlite_deleted_row(tmp_path, "maria12")
    assert found(tmp_path, "maria1") == ()
    assert found(tmp_path, "maria12")


def test_a_database_on_a_server_is_searched(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    sqlite_cell(tmp_path, CANARY)
    search = Scan(tmp_path / "w", Targets.of(CANARY))
    search.server(f"sqlite:///{tmp_path / 'a.db'}", "ledger")
    (place,) = search.result().places
    assert place.startswith("ledger sqlite:///")
    assert place.endswith("a.db table t: identifier, 1 time")


def test_bad_input_is_refused_without_naming_it(tmp_path: Path) -> None:
    for wrong in ("12", "x" * 12, "1" * 20):
        with pytest.raises(BadInput, match="1 of 1 example ids"):
            read_example_ids(wrong)
    with pytest.raises(BadInput, match="empty name"):
        Targets.of(" ")
    with pytest.raises(BadInput, match="no workspace"):
        Scan(tmp_path / "none", Targets.of("17"))


@given(st.data())
def test_many_users_are_found_together_where_each_is_found_alone(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(["u1", "u12", "u123", "17", "170", "anna", "annab", "c-4711", "c-47110"]), min_size=2))
    told = data.draw(st.lists(st.sampled_from(["user", "note", "item_id", ""]), min_size=1, max_size=4))
    values = data.draw(
        st.lists(st.sampled_from([*sorted(names), "x u12 y", "user 17", "users/anna", "170.0", "u12#2"]), min_size=4, max_size=4)
    )
    record = list(zip(told, values, strict=False))
    alone = sum((Matcher(Targets.of(name)).record(record) for name in names), Counter())
    together = sum((Matcher(targets).record(record) for targets in Targets.of_many(names, most=3)), Counter())
    assert bool(alone) == bool(together)
    assert sum(together.values()) <= sum(alone.values())


def test_a_search_for_many_goes_through_a_workspace_once_for_each_kind_of_name() -> None:
    groups = Targets.of_many([*(f"u{number}" for number in range(10, 30)), "17", "4711", "anna", "customer-0815"], most=8)
    assert sorted(len(targets.users) for targets in groups) == [1, 1, 2, 4, 8, 8]
    assert sorted(user for targets in groups for user in targets.users)[:2] == ["17", "4711"]
    assert all(len(targets.numbers) == len(targets.users) for targets in groups)
