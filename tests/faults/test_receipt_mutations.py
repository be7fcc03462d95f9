"""Receipts that somebody has altered, cut, moved or signed anew: all are refused, by ours and by the verifier for third parties; row 42.

Together more than 30,000 mutations; each must be refused with a sentence, never with another error.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from receipted import Memory, chain, facts, standalone

from e2urec_core.errors import BadReceipt
from e2urec_core.receipts.chain import write_receipt
from e2urec_core.receipts.envelope import Envelope, Signer
from e2urec_core.receipts.folder import links_of
from e2urec_core.receipts.keys import NEXT_VARIABLE, VARIABLE, rotate_key
from e2urec_core.receipts.trust import Keys, chain_keys
from e2urec_core.receipts.verify import verified_link, verify

OLD, NEW = Signer(bytes(32)), Signer(bytes([1] * 32))


@pytest.fixture
def folder(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two receipts, a rotation, two receipts by the new key."""
    monkeypatch.setenv(VARIABLE, "00" * 32)
    monkeypatch.setenv(NEXT_VARIABLE, "01" * 32)
    witness = Memory()
    chain(quick_path, OLD, 2, witness)
    rotate_key(quick_path, OLD, witness)
    for number in (3, 4):
        write_receipt(quick_path, facts(number), NEW, witness)
    return quick_path / "receipts"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def refused(data: bytes, keys: Keys) -> bool:
    try:
        verified_link(data, keys)
    except BadReceipt:
        return True
    return False


def refused_by(verifier: ModuleType, data: list[bytes]) -> bool:
    """Whatever it raises is a refusal."""
    try:
        verifier.verify(OLD.public.raw, data)
    except Exception:
        return True
    return False


def flipped(data: bytes, bits: range) -> Iterator[bytes]:
    for place, bit in itertools.product(range(len(data)), bits):
        yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_every_bit_of_a_receipt_and_of_a_rotation_counts(folder: Path) -> None:
    keys, tried = chain_keys(links_of(folder), [OLD.public]), 0
    for path in (files(folder)[0], files(folder)[2]):
        data = path.read_bytes()
        assert not refused(data, keys)
        for mutant in flipped(data, range(8)):
            tried += 1
            assert refused(mutant, keys), mutant
    assert tried > 25_000


def test_two_bits_of_every_byte_count_for_the_verifier_of_third_parties_too(folder: Path) -> None:
    verifier, data = standalone(), files(folder)[0].read_bytes()
    assert verifier.verify(OLD.public.raw, [data])
    tried = 0
    # The bit that turns a digit of base64 into its neighbour, and the one that turns small letters into capitals.
    for mutant in itertools.chain(flipped(data, range(1)), flipped(data, range(5, 6))):
        tried += 1
        assert refused_by(verifier, [mutant]), mutant
    assert tried > 4_000


def test_every_beginning_and_every_longer_file_is_refused(folder: Path) -> None:
    keys, data = chain_keys(links_of(folder), [OLD.public]), files(folder)[0].read_bytes()
    assert all(refused(data[:size], keys) for size in range(len(data)))
    assert all(refused(data[size:], keys) for size in range(1, len(data)))
    assert all(refused(mutant, keys) for mutant in (data + b"\n", b"\n" + data, data + data, data[:-1] + b" \n", data[:-1] + b"\r\n"))


def changed_values(value: Any) -> list[Any]:
    """Other values that the field might take."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, -value - 1]
    if isinstance(value, str):
        return [value[1:] + value[:1] + "x", value[:-1], ""]
    return [0]


def mutants(value: Any) -> Iterator[Any]:
    """The document with one field removed, renamed, given a further one, or changed, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            rest = {key: other for key, other in value.items() if key != name}
            yield rest
            yield {**rest, f"{name}_": inner}
            yield {**value, "more": inner}
            yield from ({**value, name: mutant} for mutant in mutants(inner))
    elif isinstance(value, list):
        yield [*value, *value] or [0]
        for place, inner in enumerate(value):
            yield [*value[:place], *value[place + 1 :]]
            yield from ([*value[:place], mutant, *value[place + 1 :]] for mutant in mutants(inner))
    else:
        yield from changed_values(value)


def test_every_field_that_is_removed_changed_or_given_twice_is_refused_under_the_old_signature_and_under_a_foreign_one(
    folder: Path,
) -> None:
    keys, foreign = chain_keys(links_of(folder), [OLD.public]), Signer(bytes([2] * 32))
    envelope = Envelope.from_bytes(files(folder)[0].read_bytes())
    plain = json.loads(envelope.payload)
    texts = [json.dumps(mutant, sort_keys=True, separators=(",", ":")) for mutant in mutants(plain)]
    twice = [envelope.payload.decode()[:-1] + f',"{name}":{json.dumps(value)}}}' for name, value in plain.items()]
    assert len(texts) > 150
    for payload in (text.encode() for text in [*texts, *twice]):
        assert payload != envelope.payload
        assert refused(Envelope(envelope.kind, payload, envelope.signatures).to_bytes(), keys)
        theirs = Envelope.sealed(envelope.kind, payload, foreign)
        assert refused(theirs.to_bytes(), keys)
        # Under the trusted key's name.
        assert refused(Envelope(envelope.kind, payload, ((OLD.public.id, theirs.signatures[0][1]),)).to_bytes(), keys)


def test_parts_of_one_envelope_in_another_are_refused(folder: Path) -> None:
    keys = chain_keys(links_of(folder), [OLD.public])
    envelopes = [Envelope.from_bytes(path.read_bytes()) for path in files(folder)]
    kinds = {envelope.kind for envelope in envelopes} | {"text/plain"}
    tried = 0
    for one, kind, other in itertools.product(envelopes, sorted(kinds), envelopes):
        signatures = {other.signatures, other.signatures[:1], other.signatures[::-1], other.signatures[:1] * 2}
        for mixed in (Envelope(kind, one.payload, each) for each in signatures):
            if mixed not in envelopes:
                tried += 1
                assert refused(mixed.to_bytes(), keys)
    assert tried > 100


def test_a_signed_document_of_another_type_is_refused(folder: Path) -> None:
    keys, envelope = chain_keys(links_of(folder), [OLD.public]), Envelope.from_bytes(files(folder)[0].read_bytes())
    for kind in ("text/plain", "application/vnd.e2urec.key-rotation+json"):
        assert refused(Envelope.sealed(kind, envelope.payload, OLD).to_bytes(), keys)


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_the_first_link_that_is_missing_is_named(folder: Path, gone: int) -> None:
    files(folder)[gone].unlink()
    with pytest.raises(BadReceipt, match=rf"^BadReceipt: link ({gone + 1} is missing|{gone + 2} is signed by the key)"):
        verify(folder, [OLD.public])


def test_a_chain_whose_end_is_cut_off_verifies_without_its_head_and_not_with_it(folder: Path) -> None:
    witness = Memory()
    whole = verify(folder, [OLD.public])
    witness.written("", witness.head().model_copy(update={"number": 5, "digest": whole.digest}))
    assert verify(folder, [OLD.public], head=witness.head()).links == 5
    files(folder)[4].unlink()
    assert verify(folder, [OLD.public]).links == 4
    with pytest.raises(BadReceipt, match="link 5 is missing: the chain ends at 4, and 5 was seen before"):
        verify(folder, [OLD.public], head=witness.head())


def swap_files(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def swap_numbers(one: Path, other: Path) -> None:
    (beside := one.with_name("beside")).write_bytes(one.read_bytes())
    one.unlink()
    other.rename(other.with_name(one.name[:6] + other.name[6:]))
    beside.rename(one.with_name(other.name[:6] + one.name[6:]))


@pytest.mark.parametrize("swap", [swap_files, swap_numbers])
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(5), 2)))
def test_links_that_changed_places_are_refused(folder: Path, swap: Callable[[Path, Path], None], one: int, other: int) -> None:
    paths = files(folder)
    swap(paths[one], paths[other])
    with pytest.raises(BadReceipt, match=r"link \d "):
        verify(folder, [OLD.public])
    for path in files(folder):
        if int(path.name[:6]) in (one + 1, other + 1):
            with pytest.raises(BadReceipt):
                verify(path, [OLD.public])


def test_links_that_changed_places_are_refused_by_the_verifier_of_third_parties(folder: Path) -> None:
    verifier, data = standalone(), [path.read_bytes() for path in files(folder)]
    assert len(verifier.verify(OLD.public.raw, data)) == 5
    wrong = [list(order) for order in itertools.permutations(data) if list(order) != data]
    wrong += [data[:place] + data[place + 1 :] for place in range(1, 4)]
    for order in wrong:
        assert refused_by(verifier, order)


def test_a_receipt_from_another_chain_of_the_same_key_does_not_fit(folder: Path, quick_path: Path) -> None:
    witness = Memory()
    write_receipt(quick_path / "other", facts(7), OLD, witness)
    theirs = write_receipt(quick_path / "other", facts(2), OLD, witness)
    (folder / theirs.name).write_bytes(theirs.read_bytes())
    with pytest.raises(BadReceipt, match="link 2 does not follow the one before it"):
        verify(folder, [OLD.public])
    with pytest.raises(BadReceipt, match="link 2 does not follow the one before it"):
        verify(folder / theirs.name, [OLD.public])
    with pytest.raises(BadReceipt, match="link 2 does not follow the one before it"):
        verify(files(folder)[0], [OLD.public])


def test_a_second_file_with_the_number_of_another_is_refused(folder: Path) -> None:
    first = files(folder)[0]
    (folder / f"000001-receipt-{0:016x}.json").write_bytes(first.read_bytes())
    with pytest.raises(BadReceipt, match="link 1 is there twice"):
        verify(folder, [OLD.public])


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100, b"[" * 1_000_000, b"{" + b" " * (4 * 2**20)])
def test_a_file_that_is_no_receipt_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadReceipt):
        verify(tmp_path / "file", [OLD.public])


def test_a_file_or_folder_without_receipts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadReceipt, match="there are no receipts"):
        verify(tmp_path, [OLD.public])
    with pytest.raises(BadReceipt, match="the file cannot be read: No such file"):
        verify(tmp_path / "nothing", [OLD.public])
