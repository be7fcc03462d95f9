"""Receipts as documents: what they say, what they refuse to say, and the bytes they are written in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from receipted import CANARY_ITEM, CANARY_USER, NONCE, NOON, chain, facts, no_data, standalone

from e2urec_core.errors import BadKey, BadReceipt
from e2urec_core.receipts.envelope import Envelope, PublicKey, Signer
from e2urec_core.receipts.receipt import CLAIMS, KeptRule, MeasuredGate, Receipt, commitment
from e2urec_core.receipts.verify import verify
from e2urec_core.release.verdict import Gate

GOLDEN = Path(__file__).parents[1] / "golden" / "receipt.json"
SIGNER = Signer(bytes(range(32)))


def golden() -> Receipt:
    """A receipt of which every field is fixed."""
    place = {"id": f"receipt-{1:016x}", "number": 1, "previous": "0" * 64, "program": "e2urec 0.1.0", "issued_at": NOON}
    return Receipt.model_validate({**dict(facts(1)), **place, "key": SIGNER.public.id})


def test_the_format_of_a_receipt_has_not_changed() -> None:
    sealed = Envelope.sealed(Receipt.payload_type, golden().to_payload(), SIGNER).to_bytes()
    assert sealed == GOLDEN.read_bytes(), "receipts that were handed out must verify for ever: raise `schema_version` instead"
    assert verify(GOLDEN, [SIGNER.public]).document == golden()
    assert standalone().verify(SIGNER.public.raw, [sealed]) == [golden().canonical()]


def test_the_payload_is_read_as_it_was_written_numbers_included() -> None:
    odd = [0.1 + 0.2, 1e-300, 5e-324, 1e22, 123456789.123456789, -0.0]
    gates = [
        {"name": f"g{number}", "value": value, "low": value, "high": None, "passed": True, "blind": False}
        for number, value in enumerate(odd)
    ]
    document = Receipt.model_validate({**dict(golden()), "gates": gates})
    assert Receipt.from_payload(document.to_payload()) == document
    assert [gate.value for gate in Receipt.from_payload(document.to_payload()).gates] == odd


def test_a_receipt_says_what_it_does_not_claim() -> None:
    assert (
        golden().claims
        == CLAIMS
        == "States the process and the measured gates; it does not claim that forgetting is mathematically certain."
    )
    with pytest.raises(ValidationError):
        Receipt.model_validate({**dict(golden()), "claims": "Everything is forgotten."})


# Worked by hand: the nonce's bytes and then the JSON's.
@pytest.mark.parametrize(("items", "text"), [((), '{"user":"7"}'), (("b", "a", "b"), '{"items":["a","b"],"user":"7"}')])
def test_a_commitment_is_a_hash_of_nonce_and_canonical_json(items: tuple[str, ...], text: str) -> None:
    assert commitment(NONCE, "7", items) == hashlib.sha256(NONCE + text.encode()).hexdigest()


def test_only_the_right_nonce_user_and_items_open_a_receipt() -> None:
    receipt = golden()
    assert receipt.opens(NONCE, CANARY_USER, [CANARY_ITEM])
    assert not receipt.opens(bytes(32), CANARY_USER, [CANARY_ITEM])
    assert not receipt.opens(NONCE, CANARY_USER + "0", [CANARY_ITEM])
    assert not receipt.opens(NONCE, CANARY_USER)
    assert not receipt.opens(NONCE, CANARY_USER, [CANARY_ITEM, "another"])


def test_no_two_subjects_share_a_commitment() -> None:
    named: list[Any] = [
        ("1", ()),
        ("1", ("2",)),
        ("12", ()),
        ('1","items":["2"]', ()),
        ("1", ("2", "3")),
        ("1", ("2,3",)),
        ("1", ('2","3',)),
    ]
    assert len({commitment(NONCE, user, items) for user, items in named}) == len(named)


@pytest.mark.parametrize(
    "wrong",
    [
        {"note": "please hurry"},
        {"user": CANARY_USER},
        {"request": CANARY_USER},
        {"subject": CANARY_USER},
        {"run": "a run of canary user"},
        {"found": {"interactions": -1, "examples": {}, "artifacts": 0, "model_versions": 0}},
        {"data": {"user 7": "0" * 64}},
        {"outcome": "no_data"},
        {"model": None},
        {"model": None, "outcome": "rejected", "gates": []},
        {"requested_at": "2026-11-22T12:00:00"},
        {"requested_at": "2026-11-22T12:00:00+01:00"},
        {"gates": [{"name": "auc", "value": 0.04, "low": None, "high": 0.03, "passed": True, "blind": False}]},
        {"gates": [{"name": "auc", "value": None, "low": None, "high": 0.03, "passed": True, "blind": False}]},
        {"gates": [{"name": "auc", "value": float("nan"), "low": None, "high": 0.03, "passed": False, "blind": False}]},
    ],
    ids=",".join,
)
def test_facts_that_name_somebody_or_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        facts(1, **wrong)


def test_a_gate_of_a_verdict_is_measured_as_it_was() -> None:
    gate = Gate.of("auc", "utility", 0.01, "It fell.", at_most=0.03, blind="pass")
    assert MeasuredGate.of(gate) == MeasuredGate(name="auc", value=0.01, low=None, high=0.03, passed=True, blind=True)


def test_what_is_kept_names_the_legal_basis_of_the_settings() -> None:
    assert KeptRule(suppression_basis="As our lawyers say.").suppression().legal_basis == "As our lawyers say."


def test_nothing_personal_is_in_any_file_beside_a_receipt(tmp_path: Path) -> None:
    chain(tmp_path, SIGNER, 3)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    payloads = [Envelope.from_bytes(data).payload for data in files if data.startswith(b"{")]
    assert len(payloads) == 3
    for secret in (CANARY_USER, CANARY_ITEM, NONCE.hex()):
        assert not [data for data in files + payloads if secret.encode() in data]


def test_a_public_key_is_read_back_from_its_file_and_as_pem() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = SIGNER.public.text
    assert PublicKey.from_text(text) == SIGNER.public
    pem = load_pem_public_key(text.split("\n", 1)[1].encode())
    assert isinstance(pem, Ed25519PublicKey)
    assert pem.public_bytes_raw() == SIGNER.public.raw
    assert SIGNER.public.id == hashlib.sha256(SIGNER.public.raw).hexdigest()[:16]


@pytest.mark.parametrize(
    "change", [lambda text: text[1:], lambda text: text.upper(), lambda text: text + "\n", lambda text: "0" * 64 + text[64:]]
)
def test_a_public_key_that_was_altered_is_refused(change: Any) -> None:
    with pytest.raises(BadKey, match="a public key is not what"):
        PublicKey.from_text(change(SIGNER.public.text))


def resigned(payload: bytes, signer: Signer = SIGNER) -> bytes:
    return Envelope.sealed(Receipt.payload_type, payload, signer).to_bytes()


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"a":NaN}',
        golden().to_payload()[:-1],
        golden().to_payload() + b"{}",
        b"9" * 10_000,
    ],
    ids=str,
)
def test_a_payload_that_is_no_receipt_is_refused_though_it_is_signed(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "file.json").write_bytes(resigned(payload))
    with pytest.raises(BadReceipt, match="the file breaks the schema"):
        verify(tmp_path / "file.json", [SIGNER.public])


def test_every_field_that_is_missing_unknown_or_given_twice_is_refused_though_it_is_signed(tmp_path: Path) -> None:
    plain, file = golden().canonical(), tmp_path / "file.json"
    optional = {name for name, field in Receipt.model_fields.items() if not field.is_required()}
    assert len(plain) - len(optional) >= 15
    text = golden().to_payload().decode()
    wrong = [json.dumps({name: value for name, value in plain.items() if name != gone}) for gone in sorted(plain.keys() - optional)]
    wrong += [f"{text[:-1]},{json.dumps(name)}:{json.dumps(value)}}}" for name, value in plain.items()]
    wrong += [json.dumps({**plain, "more": 1}), json.dumps({**plain, "found": {**plain["found"], "more": 1}})]
    wrong += [json.dumps({**plain, name: {"of another": ["type"]}}) for name in plain]
    for payload in wrong:
        file.write_bytes(resigned(payload.encode()))
        with pytest.raises(BadReceipt, match="the file breaks the schema"):
            verify(file, [SIGNER.public])


def test_a_receipt_of_no_data_names_no_model_and_no_gates() -> None:
    assert (no_data(2).model, no_data(2).gates, no_data(2).retention) == (None, (), None)


def test_only_the_first_link_follows_nothing() -> None:
    for wrong in ({"number": 2}, {"previous": "1" * 64}):
        with pytest.raises(ValidationError, match="cannot follow"):
            Receipt.model_validate({**dict(golden()), **wrong})
