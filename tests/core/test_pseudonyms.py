"""Pseudonyms: one for each person under one key, and a key that is drawn once and kept."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import stat
from pathlib import Path

import pytest
from ledgers import child, ended

from e2urec_core.errors import BadKey, StorageFailed
from e2urec_core.failpoints import VARIABLE as FAILPOINT
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.pseudonyms import VARIABLE, Pseudonyms, open_pseudonyms

KEY = Path("keys", "pseudonyms.key")


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "requests.db")


def test_a_pseudonym_is_the_first_twenty_digits_of_an_hmac() -> None:
    key = bytes(range(32))
    assert Pseudonyms(key).of_user("90417") == hmac.new(key, b"user:90417", hashlib.sha256).hexdigest()[:20]


def test_everybody_and_everything_has_a_pseudonym_of_its_own() -> None:
    names = Pseudonyms(bytes(32))
    pairs = [("1", "2"), ("12", ""), ("", "12"), ("1,2", "3"), ("1", "2,3"), ('1","2', "3"), ("2", "1")]
    told = [names.of_user(user) for user in ("1", "12", "1,2", 'é"', "")] + [names.of_interaction(*pair) for pair in pairs]
    assert len(set(told)) == len(told)
    assert Pseudonyms(bytes(31) + b"\1").of_user("1") != names.of_user("1")


def test_the_key_is_drawn_once_for_its_owner_alone(tmp_path: Path, ledger: Ledger) -> None:
    before = os.umask(0)
    try:
        first = open_pseudonyms(tmp_path, ledger)
    finally:
        os.umask(before)
    assert len((tmp_path / KEY).read_bytes()) == 32
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys", *(tmp_path / "keys").iterdir())} == {
        "keys": 0o700,
        "pseudonyms.key": 0o600,
        "pseudonyms.key.lock": 0o600,
    }
    assert open_pseudonyms(tmp_path, open_ledger(tmp_path / "requests.db")).of_user("7") == first.of_user("7")


def test_the_ledger_keeps_the_keys_fingerprint_and_neither_key_nor_identifier(tmp_path: Path, ledger: Ledger) -> None:
    names = open_pseudonyms(tmp_path, ledger)
    names.of_user("identifier-90417")
    key = (tmp_path / KEY).read_bytes()
    assert ledger.fingerprint("pseudonyms") == hashlib.sha256(b"check" + key).hexdigest() == names.fingerprint
    for secret in (key, key.hex().encode(), b"identifier-90417"):
        assert secret not in (tmp_path / "requests.db").read_bytes()


def test_a_key_in_the_variable_takes_the_files_place(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ab" * 32)
    assert open_pseudonyms(tmp_path, ledger).of_user("7") == Pseudonyms(bytes([0xAB] * 32)).of_user("7")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("given", ["", "ab" * 31, "ab" * 33, "zz" * 32, " ".join(["ab"] * 32)])
def test_a_malformed_key_in_the_variable_is_refused_without_being_told(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(BadKey, match="is not one of 64 hex digits") as refused:
        open_pseudonyms(tmp_path, ledger)
    assert not given or given not in str(refused.value)
    assert ledger.fingerprint("pseudonyms") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, ledger: Ledger, mode: int) -> None:
    open_pseudonyms(tmp_path, ledger)
    (tmp_path / KEY).chmod(mode)
    with pytest.raises(BadKey, match=f"others may read or change the key of the pseudonyms: its mode is {mode:o}, not 600"):
        open_pseudonyms(tmp_path, ledger)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, ledger: Ledger, size: int) -> None:
    open_pseudonyms(tmp_path, ledger)
    (tmp_path / KEY).write_bytes(bytes(size))
    with pytest.raises(BadKey, match=f"has {size} bytes, not 32"):
        open_pseudonyms(tmp_path, ledger)


def test_a_missing_key_is_not_drawn_anew_where_the_ledger_knows_the_first(tmp_path: Path, ledger: Ledger) -> None:
    open_pseudonyms(tmp_path, ledger)
    (tmp_path / KEY).unlink()
    with pytest.raises(BadKey, match="is missing, and the ledger holds pseudonyms that were made with it"):
        open_pseudonyms(tmp_path, ledger)
    assert not (tmp_path / KEY).exists()


def test_another_key_is_refused(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    open_pseudonyms(tmp_path, ledger)
    first = (tmp_path / KEY).read_bytes()
    (tmp_path / KEY).write_bytes(bytes(32))
    with pytest.raises(BadKey, match="is not the one that the ledger's pseudonyms were made with"):
        open_pseudonyms(tmp_path, ledger)
    monkeypatch.setenv(VARIABLE, first.hex())
    assert open_pseudonyms(tmp_path, ledger).fingerprint == ledger.fingerprint("pseudonyms")


def test_a_workspace_in_which_no_key_can_be_written_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "keys").touch()
    with pytest.raises(StorageFailed):
        open_pseudonyms(tmp_path, ledger)


def test_several_processes_at_once_draw_one_key(tmp_path: Path, ledger: Ledger) -> None:
    gate, opened = os.pipe()
    files = [tmp_path / f"told-{number}" for number in range(4)]

    def name(file: Path) -> None:
        os.read(gate, 1)
        file.write_text(open_pseudonyms(tmp_path, open_ledger(tmp_path / "requests.db")).of_user("7"))

    processes = [child(lambda file=file: name(file)) for file in files]
    os.write(opened, b"....")
    assert [ended(process) for process in processes] == [0] * 4
    os.close(gate)
    os.close(opened)
    assert len({file.read_text() for file in files}) == 1


@pytest.mark.parametrize("name", ["key.rename", "key.renamed", "ledger.begin", "ledger.commit", "ledger.committed"])
def test_a_process_killed_while_it_draws_the_key_leaves_a_whole_one_or_none(tmp_path: Path, ledger: Ledger, name: str) -> None:
    def draw() -> None:
        open_pseudonyms(tmp_path, open_ledger(tmp_path / "requests.db"))

    assert ended(child(draw, **{FAILPOINT: f"{name}:1:kill"})) == -signal.SIGKILL
    assert not (tmp_path / KEY).exists() or len((tmp_path / KEY).read_bytes()) == 32
    names = open_pseudonyms(tmp_path, ledger)
    assert names.fingerprint == ledger.fingerprint("pseudonyms") == open_pseudonyms(tmp_path, ledger).fingerprint
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["pseudonyms.key", "pseudonyms.key.lock"]
