"""The chain of receipts: one file after the other, a key that hands over to the next, and a ledger that knows the end."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
from ledgers import child, ended
from receipted import NOON, Memory, chain, facts, no_data, standalone

from e2urec_core.errors import BadKey, BadReceipt, StorageFailed
from e2urec_core.ledger import open_ledger
from e2urec_core.ledger.history import Ledger
from e2urec_core.receipts.chain import write_receipt
from e2urec_core.receipts.envelope import Envelope, Signer
from e2urec_core.receipts.folder import EMPTY, Head, public_keys_beside
from e2urec_core.receipts.keys import NEXT_VARIABLE, VARIABLE, open_signer, rotate_key
from e2urec_core.receipts.receipt import Rotation
from e2urec_core.receipts.verify import verify
from e2urec_core.receipts.witness import LedgerWitness

KEY = Path("keys", "receipts.key")


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, NEXT_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ledger(quick_path: Path) -> Ledger:
    return open_ledger(quick_path / "requests.db")


def names(workspace: Path) -> list[str]:
    return sorted(path.name for path in (workspace / "receipts").iterdir())


def test_receipts_lie_in_order_and_each_names_the_file_before_it(quick_path: Path) -> None:
    signer = Signer(bytes(32))
    paths = chain(quick_path, signer, 3)
    told = [verify(path, [signer.public]).document for path in paths]
    assert [path.name for path in paths] == [f"{number:06d}-{document.id}.json" for number, document in enumerate(told, 1)]
    assert [document.previous for document in told] == ["0" * 64, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:2])]
    assert names(quick_path) == [".lock", *(path.name for path in paths)]
    assert verify(quick_path / "receipts", [signer.public]).links == 3
    assert [verify(path, [signer.public]).links for path in paths] == [2, 3, 2]


def test_a_request_that_is_certified_twice_keeps_its_first_receipt(quick_path: Path) -> None:
    signer, witness = Signer(bytes(32)), Memory()
    paths = chain(quick_path, signer, 3, witness)
    before = [path.read_bytes() for path in paths]
    assert write_receipt(quick_path, no_data(1), signer, witness, clock=lambda: NOON) == paths[0]
    assert [path.read_bytes() for path in paths] == before
    assert [head.number for head in witness.told] == [1, 2, 3]


def test_the_ledger_is_told_of_every_link_and_keeps_the_last(quick_path: Path, ledger: Ledger) -> None:
    signer, witness = open_signer(quick_path, ledger), LedgerWitness(ledger)
    assert witness.head() == EMPTY
    first = write_receipt(quick_path, facts(1), signer, witness)
    statement = rotate_key(quick_path, signer, witness)
    write_receipt(quick_path, facts(1), open_signer(quick_path, ledger), witness)
    told = [(event.subject, event.facts) for event in ledger.events() if event.event == "receipt written"]
    assert [subject for subject, _ in told] == [path.stem.partition("-")[2] for path in (first, statement)]
    assert witness.head() == Head(number=2, digest=hashlib.sha256(statement.read_bytes()).hexdigest())
    assert verify(quick_path / "receipts", [signer.public], head=witness.head()).links == 2
    ledger.verify()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_chain_that_was_cut_is_found_by_its_head_and_not_written_on(quick_path: Path, cut: int) -> None:
    signer, witness = Signer(bytes(32)), Memory()
    paths = chain(quick_path, signer, 3, witness)
    for path in paths[3 - cut :]:
        path.unlink()
    with pytest.raises(BadReceipt, match=f"link {4 - cut} is missing"):
        verify(quick_path / "receipts", [signer.public], head=witness.head())
    with pytest.raises(BadReceipt, match=f"link {4 - cut} is missing; nothing was added"):
        write_receipt(quick_path, facts(9), signer, witness)
    assert len(list((quick_path / "receipts").glob("*.json"))) == 3 - cut


def test_another_chain_of_the_same_key_is_not_the_one_that_was_seen(quick_path: Path) -> None:
    signer, witness = Signer(bytes(32)), Memory()
    chain(quick_path / "one", signer, 2, witness)
    write_receipt(quick_path / "other", facts(7), signer, Memory())
    write_receipt(quick_path / "other", facts(8), signer, Memory())
    with pytest.raises(BadReceipt, match="link 2 is not the one that was seen before"):
        verify(quick_path / "other" / "receipts", [signer.public], head=witness.head())
    with pytest.raises(BadReceipt, match="link 2 is not the one that was seen before"):
        write_receipt(quick_path / "other", facts(9), signer, witness)


def test_an_altered_end_is_not_written_on_and_an_altered_receipt_is_not_given_out(quick_path: Path) -> None:
    signer, witness = Signer(bytes(32)), Memory()
    first, last = chain(quick_path, signer, 2, witness)
    whole = last.read_bytes()
    last.write_bytes(whole.replace(b"A", b"B", 1))
    with pytest.raises(BadReceipt, match="link 2 is not what was signed"):
        write_receipt(quick_path, facts(9), signer, Memory())
    last.write_bytes(whole)
    first.write_bytes(first.read_bytes().replace(b"A", b"B", 1))
    with pytest.raises(BadReceipt, match="link 1 is not what was signed"):
        write_receipt(quick_path, facts(1), signer, witness)


def test_the_key_is_drawn_once_for_its_owner_alone_and_its_public_half_is_put_beside_the_receipts(quick_path: Path, ledger: Ledger) -> None:
    before = os.umask(0)
    try:
        signer = open_signer(quick_path, ledger)
    finally:
        os.umask(before)
    assert len((quick_path / KEY).read_bytes()) == 32
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (quick_path / "keys", *(quick_path / "keys").iterdir())}
    assert modes == {"keys": 0o700, "receipts.key": 0o600, "receipts.key.lock": 0o600}
    assert open_signer(quick_path, ledger).public == signer.public == Signer((quick_path / KEY).read_bytes()).public
    assert public_keys_beside(quick_path / "receipts") == [signer.public]
    assert (quick_path / "receipts" / "keys" / f"{signer.public.id}.pub").exists()
    assert ledger.fingerprint("receipts") == signer.public.fingerprint
    assert (quick_path / KEY).read_bytes() not in (quick_path / "requests.db").read_bytes()


def test_a_key_in_the_variable_takes_the_files_place(quick_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ab" * 32)
    assert open_signer(quick_path, ledger).public == Signer(bytes([0xAB] * 32)).public
    assert not (quick_path / "keys").exists()


@pytest.mark.parametrize("given", ["", "ab" * 31, "zz" * 32, " ".join(["ab"] * 32)])
def test_a_malformed_key_in_the_variable_is_refused_without_being_told(
    quick_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(BadKey, match=f"the key in `{VARIABLE}` is not one of 64 hex digits") as refused:
        open_signer(quick_path, ledger)
    assert not given or given not in str(refused.value)


def test_a_key_that_others_may_read_is_too_short_missing_or_another_is_refused(quick_path: Path, ledger: Ledger) -> None:
    open_signer(quick_path, ledger)
    path, key = quick_path / KEY, (quick_path / KEY).read_bytes()
    path.chmod(0o640)
    with pytest.raises(BadKey, match="others may read or change the key of the receipts: its mode is 640, not 600"):
        open_signer(quick_path, ledger)
    path.chmod(0o600)
    path.write_bytes(key[:31])
    with pytest.raises(BadKey, match="the key of the receipts has 31 bytes, not 32"):
        open_signer(quick_path, ledger)
    path.write_bytes(bytes(32))
    with pytest.raises(BadKey, match="is not the one that receipts were signed with so far"):
        open_signer(quick_path, ledger)
    path.unlink()
    with pytest.raises(BadKey, match="the key of the receipts is missing, and the ledger knows"):
        open_signer(quick_path, ledger)
    assert not path.exists()


def test_a_workspace_that_cannot_be_written_is_refused(quick_path: Path, ledger: Ledger) -> None:
    (quick_path / "receipts").touch()
    with pytest.raises(StorageFailed):
        open_signer(quick_path, ledger)


def rotated(workspace: Path, ledger: Ledger, times: int) -> list[Signer]:
    """A receipt by each of the keys, each of which has handed over to the next."""
    witness, signers = LedgerWitness(ledger), [open_signer(workspace, ledger)]
    for number in range(1, times + 1):
        write_receipt(workspace, facts(number), signers[-1], witness)
        rotate_key(workspace, signers[-1], witness)
        signers.append(open_signer(workspace, ledger))
    write_receipt(workspace, facts(times + 1), signers[-1], witness)
    return signers


def test_after_rotations_old_and_new_receipts_verify_with_any_one_key_of_the_chain(quick_path: Path, ledger: Ledger) -> None:
    signers, folder = rotated(quick_path, ledger, 2), quick_path / "receipts"
    assert len({signer.public for signer in signers}) == 3
    for signer in signers:
        assert verify(folder, [signer.public], head=LedgerWitness(ledger).head()).links == 5
        assert {verify(path, [signer.public]).document.number for path in folder.glob("*.json")} == {1, 2, 3, 4, 5}
    files = [path.read_bytes() for path in sorted(folder.glob("*.json"))]
    assert [document["number"] for document in standalone().verify(signers[0].public.raw, files)] == [1, 2, 3, 4, 5]
    assert {key.id for key in public_keys_beside(folder)} == {signer.public.id for signer in signers}
    assert sorted(path.name for path in (quick_path / "keys").iterdir()) == ["receipts.key", "receipts.key.lock", "receipts.key.next.lock"]


def test_a_receipt_apart_from_its_chain_verifies_with_its_own_key_alone(quick_path: Path, ledger: Ledger) -> None:
    first, second = rotated(quick_path, ledger, 1)
    apart = quick_path / "my receipt.json"
    shutil.copy(next((quick_path / "receipts").glob("000001-*")), apart)
    assert verify(apart, [first.public]).links == 1
    with pytest.raises(BadReceipt, match=f"the file is signed by the key {first.public.id}, which is not trusted"):
        verify(apart, [second.public])


def test_without_the_statement_of_rotation_the_new_key_is_not_trusted(quick_path: Path, ledger: Ledger) -> None:
    first, second = rotated(quick_path, ledger, 1)
    next((quick_path / "receipts").glob("000002-key-*")).unlink()
    with pytest.raises(BadReceipt, match="link 2 is missing"):
        verify(quick_path / "receipts", [first.public])
    with pytest.raises(BadReceipt, match=f"link 3 is signed by the key {second.public.id}, which is not trusted"):
        verify(next((quick_path / "receipts").glob("000003-*")), [first.public])
    with pytest.raises(BadKey, match="nor led to from there"):
        open_signer(quick_path, ledger)


def test_a_retired_key_signs_nothing_more(quick_path: Path, ledger: Ledger) -> None:
    first, second = rotated(quick_path, ledger, 1)
    with pytest.raises(BadKey, match=f"goes on with the key {second.public.id}, not with {first.public.id}"):
        write_receipt(quick_path, facts(9), first, LedgerWitness(ledger))
    # Whoever has stolen it, and writes the file alone.
    last = verify(quick_path / "receipts", [first.public])
    forged = last.document.model_copy(update={"number": 4, "previous": last.digest, "key": first.public.id, "id": f"receipt-{9:016x}"})
    path = quick_path / "receipts" / forged.file_name
    path.write_bytes(Envelope.sealed(forged.payload_type, forged.to_payload(), first).to_bytes())
    for place in (path, path.parent):
        with pytest.raises(BadReceipt, match=f"link 4 is signed by the key {first.public.id}, which was not in use there"):
            verify(place, [second.public])


def test_a_stolen_retired_key_cannot_name_another_successor(quick_path: Path, ledger: Ledger) -> None:
    (first, second), thief = rotated(quick_path, ledger, 1), Signer(bytes(32))
    last = verify(quick_path / "receipts", [first.public])
    forged = Rotation(
        id=f"key-{thief.public.id}",
        number=4,
        previous=last.digest,
        program="e2urec 0.1.0",
        issued_at=NOON,
        retired=first.public.raw.hex(),
        successor=thief.public.raw.hex(),
    )
    (quick_path / "receipts" / forged.file_name).write_bytes(
        Envelope.sealed(forged.payload_type, forged.to_payload(), first, thief).to_bytes()
    )
    for key in (first, second, thief):
        with pytest.raises(BadReceipt, match="two statements of rotation hand over from or to the same key"):
            verify(quick_path / "receipts", [key.public])


def test_a_key_that_only_one_side_signs_is_not_trusted(quick_path: Path) -> None:
    old, thief = Signer(bytes(32)), Signer(bytes([1] * 32))
    (first,) = chain(quick_path, old, 1)
    genuine = verify(first, [old.public])
    forged = Rotation(
        id=f"key-{thief.public.id}",
        number=2,
        previous=hashlib.sha256(first.read_bytes()).hexdigest(),
        program="e2urec 0.1.0",
        issued_at=NOON,
        retired=old.public.raw.hex(),
        successor=thief.public.raw.hex(),
    )
    path = quick_path / "receipts" / forged.file_name
    for signers in ([thief], [old], [thief, thief], [thief, old]):
        path.write_bytes(Envelope.sealed(forged.payload_type, forged.to_payload(), *signers).to_bytes())
        with pytest.raises(BadReceipt, match="link 2 is signed by "):
            verify(path, [old.public])
        with pytest.raises(BadReceipt):
            verify(path, [old.public, thief.public])
        # Nor is a receipt by that key, looked at by itself.
        place = {"number": 3, "previous": hashlib.sha256(path.read_bytes()).hexdigest(), "key": thief.public.id, "id": f"receipt-{9:016x}"}
        theirs = genuine.document.model_copy(update=place)
        file = quick_path / "receipts" / theirs.file_name
        file.write_bytes(Envelope.sealed(theirs.payload_type, theirs.to_payload(), thief).to_bytes())
        with pytest.raises(BadReceipt, match=f"link 3 is signed by the key {thief.public.id}, which is not trusted"):
            verify(file, [old.public])
        file.unlink()


def test_a_trusted_key_to_which_nobody_handed_over_does_not_sign_in_the_middle_of_a_chain(quick_path: Path) -> None:
    signer, other = Signer(bytes(32)), Signer(bytes([1] * 32))
    chain(quick_path, signer, 1)
    last = verify(quick_path / "receipts", [signer.public])
    forged = last.document.model_copy(update={"number": 2, "previous": last.digest, "key": other.public.id, "id": f"receipt-{9:016x}"})
    (quick_path / "receipts" / forged.file_name).write_bytes(Envelope.sealed(forged.payload_type, forged.to_payload(), other).to_bytes())
    with pytest.raises(BadReceipt, match=f"link 2 is signed by the key {other.public.id}, which was not in use there"):
        verify(quick_path / "receipts", [signer.public, other.public])


def test_keys_from_variables_hand_over_too(quick_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = LedgerWitness(ledger)
    monkeypatch.setenv(VARIABLE, "ab" * 32)
    signer = open_signer(quick_path, ledger)
    with pytest.raises(BadKey, match="the next one is not given"):
        rotate_key(quick_path, signer, witness)
    monkeypatch.setenv(NEXT_VARIABLE, "ab" * 32)
    with pytest.raises(BadKey, match="has signed receipts before"):
        rotate_key(quick_path, signer, witness)
    monkeypatch.setenv(NEXT_VARIABLE, "cd" * 32)
    rotate_key(quick_path, signer, witness)
    with pytest.raises(BadKey, match=f"the key {signer.public.id} of the receipts was retired"):
        open_signer(quick_path, ledger)
    monkeypatch.setenv(VARIABLE, "cd" * 32)
    write_receipt(quick_path, facts(1), open_signer(quick_path, ledger), witness)
    assert verify(quick_path / "receipts", [signer.public], head=witness.head()).links == 2
    assert not (quick_path / "keys").exists()


def test_several_processes_at_once_draw_one_key_and_write_one_chain(quick_path: Path, ledger: Ledger) -> None:
    def write(shift: int) -> None:
        own = open_ledger(quick_path / "requests.db")
        for number in range(6):
            write_receipt(quick_path, facts(1 + (number + shift) % 6), open_signer(quick_path, own), LedgerWitness(own))

    processes = [child(lambda shift=shift: write(shift)) for shift in range(4)]
    assert [ended(process) for process in processes] == [0] * 4
    told = verify(quick_path / "receipts", public_keys_beside(quick_path / "receipts"), head=LedgerWitness(ledger).head())
    assert told.links == LedgerWitness(ledger).head().number == 6
    assert len(public_keys_beside(quick_path / "receipts")) == 1
