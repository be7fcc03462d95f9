"""Judges a candidate: may it take the champion's place?"""

from __future__ import annotations

from pathlib import Path

from e2urec_core import stages
from e2urec_core.artifacts import Artifact, Examples, ForgetRequest, Interactions, Model, Retold, Scores, Tokens, Verdict
from e2urec_core.data.places import VERDICT
from e2urec_core.release.gates import Gates, Handed
from e2urec_core.release.verdict import VerdictDocument
from e2urec_core.settings import Seat
from tasks import _gate
from tasks._stage import Work, stage


@stage("verdict", writes=Verdict)
def decide(
    work: Work,
    scored: list[tuple[str, Scores, str]],
    candidate: Model,
    champion: Model,
    tokens: Tokens,
    request: ForgetRequest,
    rows: Interactions,
    examples: Examples,
    rule: Gates,
    seat: Seat,
    retold: Retold | None = None,
    retrain: Model | None = None,
) -> int:
    """Ask the candidate every gate: what it lost, what it remembers, whether it is whole, what it was made from."""
    models = {"candidate": candidate, "champion": champion, **({"retrain": retrain} if retrain else {})}
    damaged = [name for name, handle in models.items() if work.room.store.damage(handle) is not None]
    made_from: dict[type[Artifact], Path] = {type(handle): work.open(handle) for handle in (rows, examples, tokens)}
    handed = Handed(
        **{name: handle.digest for name, handle in models.items()},
        damaged=len(damaged),
        broken_rules=_gate.count_broken(made_from),
        quarantined_share=_quarantined(made_from[Interactions]),
    )
    opened = [(role, work.open(handle), name) for role, handle, name in scored]
    # Nothing is read from a damaged candidate; the verdict says so.
    folders = work.folders(candidate=None if "candidate" in damaged else candidate, tokens=tokens, request=request, retold=retold)
    asked = work.perform(seat, "judge", scored=opened, gates=rule, handed=handed, **folders)
    for gate in read_verdict(work.place).gates:
        told = {"value": gate.value, "margin": gate.margin, "passed": float(gate.passed)}
        work.metrics.final({f"gate.{gate.name}.{name}": value for name, value in told.items() if value is not None})
    return asked


def read_verdict(folder: Path) -> VerdictDocument:
    """The document that lies in the folder of a verdict."""
    return VerdictDocument.from_json((folder / VERDICT).read_text())


def _quarantined(rows: Path) -> float:
    """Share of the rows of the newest reading that lie in quarantine; 0 where nothing was read."""
    reading = stages.facts(rows)["this_reading"]
    return sum(reading["quarantined"].values()) / max(1, reading["read"] - sum(reading["left_out"].values()))
