"""What the tests of receipts share: facts by number, a witness in memory, a chain in a folder."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from ledgers import digest, subject

from e2urec_core.receipts.chain import write_receipt
from e2urec_core.receipts.envelope import Signer
from e2urec_core.receipts.folder import EMPTY, Head
from e2urec_core.receipts.receipt import Facts, KeptRule, commitment

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CANARY_USER, CANARY_ITEM, NONCE = "canary-user-90417", "canary-item-77123", bytes(range(32))


def facts(number: int, **other: Any) -> Facts:
    """The facts of request `number`."""
    usual: dict[str, Any] = {
        "request": f"r-{number:016x}",
        "subject": subject(number),
        "scope": "user",
        "reason": "privacy",
        "requested_at": NOON - timedelta(days=2),
        "received_at": NOON - timedelta(days=1),
        "outcome": "forgotten",
        "found": {"interactions": 12, "examples": {"train": 9, "test": 1}, "artifacts": 3, "model_versions": 1},
        "erased": {"artifacts": [{"kind": "Examples", "digest": digest(7)}], "places": {"store": 3, "registry": 1}},
        "kept": [KeptRule().suppression()],
        "model": {"version": 2, "bundle": digest(2)},
        "gates": [{"name": "auc", "value": 0.0123456789, "low": None, "high": 0.03, "passed": True, "blind": False}],
        "retention": {"hours": 24.0, "ended_at": NOON},
        "data": {"before": digest(8), "after": digest(9)},
        "run": "20261122-night",
        "commitment": commitment(NONCE, CANARY_USER, [CANARY_ITEM]),
    }
    return Facts.model_validate({**usual, **other})


def no_data(number: int) -> Facts:
    """The facts of a request of somebody who is unknown."""
    nothing = {"interactions": 0, "examples": {}, "artifacts": 0, "model_versions": 0}
    return facts(number, outcome="no_data", found=nothing, erased={}, model=None, gates=[], retention=None)


class Memory:
    """A witness that keeps what it is told, as the ledger does."""

    def __init__(self) -> None:
        self.told: list[Head] = []

    def head(self) -> Head:
        return self.told[-1] if self.told else EMPTY

    def written(self, document_id: str, head: Head) -> None:
        if head.number > self.head().number:
            self.told.append(head)


def chain(workspace: Path, signer: Signer, count: int, witness: Memory | None = None) -> list[Path]:
    """Receipts 1 to `count`, every second one without data."""
    witness = witness or Memory()
    made = (facts(number) if number % 2 else no_data(number) for number in range(1, count + 1))
    return [write_receipt(workspace, each, signer, witness, clock=lambda: NOON) for each in made]


def standalone() -> ModuleType:
    """The verifier for third parties."""
    spec = importlib.util.spec_from_file_location("verify_receipt", Path(__file__).parents[1] / "docs" / "verify_receipt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
