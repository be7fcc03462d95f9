"""Closes requests that are carried out, with a signed receipt each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from e2urec_core.deletion.record import ErasureRecord, ErasureRecords
from e2urec_core.deletion.rule import NightRule
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.receipts.receipt import Erased, Facts, Forgetter, Kept, MeasuredGate, Retention
from tasks._desk import Desk

if TYPE_CHECKING:
    from e2urec_core.ledger.records import ReleaseRecord
    from e2urec_core.ledger.requests import Requests


def versions_that_knew(desk: Desk, subjects: Iterable[str]) -> dict[str, int]:
    """How many versions that the registry still holds may know each of some subjects."""
    held = set(desk.registry.versions())
    forgotten = [desk.releases.forgotten_by(each.bundle) for each in desk.releases.releases() if each.registry_version in held]
    return {subject: sum(subject not in gone for gone in forgotten) for subject in subjects}


def certify(
    desk: Desk, requests: Requests, records: Sequence[RequestRecord], erasures: ErasureRecords, rule: NightRule, epoch: int
) -> list[RequestRecord]:
    """Write the receipts of requests, and close these; the same again finds the same receipts.

    Args:
        desk: Where releases are made.
        requests: The ledger's.
        records: Claimed ones of people whom the data does not know, or purged ones.
        erasures: What was found and erased for each.
        rule: How nights go.
        epoch: Of the claim.
    """
    from e2urec_core.receipts.chain import write_receipt
    from e2urec_core.receipts.folder import digest_of_link, read_link
    from e2urec_core.receipts.keys import open_signer
    from e2urec_core.receipts.witness import LedgerWitness

    signer, witness = open_signer(desk.workspace, desk.ledger), LedgerWitness(desk.ledger)
    written = {}
    for each in records:
        requests.refuse_fenced(epoch)
        path = write_receipt(desk.workspace, _facts(desk, each, erasures[each.id], rule), signer, witness)
        written[each.id] = digest_of_link(read_link(path))
        failpoint("certify.written")
    known = {each.id for each in records if each.release is not None}
    for wanted, close in ((known, requests.certify), (written.keys() - known, requests.close_without_data)):
        if receipts := {request: digest for request, digest in written.items() if request in wanted}:
            close(receipts, epoch=epoch)
    return [requests.request(each.id) for each in records]


def _facts(desk: Desk, request: RequestRecord, record: ErasureRecord, rule: NightRule) -> Facts:
    release = desk.releases.find(request.release) if request.release else None
    outcome = "forgotten" if release else "no_data"
    erased = Erased(artifacts=record.erased(), places=dict(record.places)) if release else Erased()
    return Facts.model_validate(
        {
            **{name: getattr(request, name) for name in ("subject", "scope", "reason", "requested_at", "received_at", "commitment")},
            "request": request.id,
            "outcome": outcome,
            "found": record.found,
            "erased": erased,
            "kept": (rule.kept.suppression(), *_left(record)),
            "model": Forgetter(version=release.registry_version, bundle=release.bundle) if release else None,
            "gates": _gates(release) if release else (),
            "retention": Retention(hours=rule.retention_hours, ended_at=request.changed_at) if release and rule.retention_hours else None,
            "data": record.data(),
            "run": request.run or "",
        }
    )


def _gates(release: ReleaseRecord) -> tuple[MeasuredGate, ...]:
    from e2urec_core.release.verdict import VerdictDocument

    return tuple(MeasuredGate.of(gate) for gate in VerdictDocument.model_validate(release.verdict).gates)


def _left(record: ErasureRecord) -> tuple[Kept, ...]:
    """What a tracking server keeps until its own clean-up."""
    why = "The tracking server removes such rows only by its own clean-up, which its operators run."
    return tuple(Kept(what=sentence, why=why, legal_basis="None: it is to be removed.") for sentence in record.left)
