"""Places where no ledger can be: files that are none, damaged ones, newer ones, folders, rights, addresses; rows 12, 13, 42, 73 and 82."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import stat
from pathlib import Path

import pytest
from ledgers import champion, child, ended, releases_at
from sqlalchemy import create_engine, text

from e2urec_core.errors import BadSetting, DamagedLedger, NewerLedger, StorageFailed, UserError
from e2urec_core.ledger import ledger_place, open_ledger
from e2urec_core.ledger.schema import VERSION_TABLE

NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "requests.db"
    releases = releases_at(path)
    champion(releases, 1)
    champion(releases, 2, forgotten=[1, 2])
    return path


@pytest.mark.parametrize("content", [b"user,item\n" * 500, b"SQLite format 3\0" + b"x" * 5000, b"\0" * 8192, b"x", b""])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "requests.db"
    place.write_bytes(content)
    with pytest.raises(DamagedLedger, match="the ledger is damaged: ") as refused:
        open_ledger(place)
    assert refused.value.facts == {"ledger": str(place)}
    assert place.read_bytes() == content


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_off_ledger_is_refused(file: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(DamagedLedger):
        open_ledger(file)


def test_a_changed_byte_anywhere_is_refused_or_changes_nothing_that_is_read(quick_path: Path, file: Path) -> None:
    place, draws = quick_path / "requests.db", random.Random(5)
    intact = file.read_bytes()
    whole = releases_at(file)
    told = whole.verify(), whole.line(), whole.releases(), whole.completed()
    refused = []
    for _ in range(400):
        at = draws.randrange(len(intact))
        place.write_bytes(intact[:at] + bytes([intact[at] ^ (1 << draws.randrange(8))]) + intact[at + 1 :])
        try:
            releases = releases_at(place)
            assert (releases.verify(), releases.line(), releases.releases(), releases.completed()) == told
        except UserError as error:
            refused.append(error.fact)
    # Most bytes of so small a ledger are free space.
    assert len(refused) > 20
    assert [fact for fact in refused if "\n" in fact] == []


def test_another_programs_database_is_refused_and_left_as_it_is(place: Path | str, tmp_path: Path) -> None:
    if isinstance(place, Path):
        place.parent.mkdir(parents=True)
        with sqlite3.connect(place) as connection:
            connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.close()
    else:
        with create_engine(place).begin() as server:
            server.execute(text("CREATE TABLE experiments (name TEXT)"))
    for _ in range(2):
        with pytest.raises(DamagedLedger, match="holds another program's tables"):
            open_ledger(place)


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(place: Path | str) -> None:
    ledger = open_ledger(place)
    with ledger.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))
    for _ in range(2):
        with pytest.raises(NewerLedger, match="the ledger's schema is `0099`, which a newer version of this program has written"):
            open_ledger(place)
    assert ledger.events() == []


def test_a_ledger_without_one_of_its_tables_is_damaged(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE line")
    connection.close()
    with pytest.raises(DamagedLedger, match="no such table: line"):
        releases_at(file).line()


def test_the_ledger_and_its_lock_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = tmp_path / "workspace" / "requests.db"
        open_ledger(place)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place.parent, *place.parent.iterdir())}
    assert modes == {"workspace": 0o700, "requests.db": 0o600, "requests.db.lock": 0o600}
    place.chmod(0o666)
    open_ledger(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_transaction_leaves_no_file_behind_and_no_deleted_row_in_the_ledger(file: Path) -> None:
    marker = "f00d" * 5
    ledger = open_ledger(file)
    with ledger.writing() as connection:
        connection.execute(text(f"INSERT INTO fingerprints VALUES ('marker', '{marker}')"))
    assert marker.encode() in file.read_bytes()
    with ledger.writing() as connection:
        connection.execute(text("DELETE FROM fingerprints"))
    assert marker.encode() not in b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert sorted(path.name for path in file.parent.iterdir()) == ["requests.db", "requests.db.lock"]


@pytest.mark.parametrize("name", ["folder", "file/requests.db"])
def test_a_place_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="the ledger cannot be used: "):
        open_ledger(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o500, 0o700])
def test_a_ledger_that_belongs_to_somebody_else_is_refused_in_a_sentence(quick_path: Path, tmp_path: Path, mode: int) -> None:
    place, told = quick_path / "requests.db", tmp_path / "told"
    open_ledger(place)
    os.chmod(quick_path, 0o755)
    out = os.open(told, os.O_WRONLY | os.O_CREAT)

    def without_rights() -> None:
        os.chown(quick_path, NOBODY, NOBODY)
        os.chmod(quick_path, mode)
        os.setuid(NOBODY)
        try:
            open_ledger(place)
        except StorageFailed as error:
            os.write(out, error.fact.encode())

    assert ended(child(without_rights)) == 0
    os.close(out)
    assert told.read_text().startswith("the ledger cannot be used: ")


def test_a_full_disk_is_a_refusal_and_not_half_a_transaction(file: Path) -> None:
    import resource
    import signal

    def cramped() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, file.stat().st_size))
        ledger = open_ledger(file)
        with pytest.raises(StorageFailed), ledger.writing() as connection:
            for number in range(200):
                ledger.append(connection, "told", f"{number}", {"text": "x" * 1000})

    before = open_ledger(file).verify()
    assert ended(child(cramped)) == 0
    assert releases_at(file).verify() == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("requests.db", "is not the URL of a database"),
        ("sqlite:///requests.db", "is PostgreSQL or a file, not sqlite"),
        ("mysql://root@localhost/ledger", "is PostgreSQL or a file, not mysql"),
        ("postgresql+pg8000://root@localhost/ledger", "the driver `pg8000` of the ledger's database is not installed"),
    ],
)
def test_an_address_that_is_not_postgresqls_is_refused(url: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        open_ledger(url)


def test_a_server_that_is_not_there_is_refused_without_its_password(postgres: object, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageFailed) as refused:
        open_ledger("postgresql+psycopg://somebody:secret-word@127.0.0.1:1/ledger")
    assert "secret-word" not in str(refused.value) + caplog.text
    assert "\n" not in refused.value.fact


def test_the_place_of_a_ledger_is_the_workspaces_file_unless_the_variable_names_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2UREC_LEDGER", raising=False)
    assert ledger_place(Path("w")) == Path("w/requests.db")
    monkeypatch.setenv("E2UREC_LEDGER", "postgresql+psycopg://host/ledger")
    assert ledger_place(Path("w")) == "postgresql+psycopg://host/ledger"
