"""The stage that judges a candidate: puts all gates together and writes down what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.data.places import VERDICT

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.release.gates import Gates, Handed
    from e2urec_core.release.verdict import Gate, Power


def judge(
    scored: Sequence[tuple[str, Path, str]],
    tokens: Path,
    request: Path,
    candidate: Path | None,
    gates: Gates,
    handed: Handed,
    bench: Bench,
    place: Path,
    *,
    retold: Path | None = None,
) -> int:
    """Ask a candidate every gate and write `verdict.json`; returns the number of gates.

    Args:
        scored: Role (`candidate`, `champion`, `retrain`, and `further` for each further Retrain), folder of the scores, and the name
            that the model has in them. Without a champion nothing can be compared with it, and the candidate does not pass.
        tokens: Folder of the tokens.
        request: Folder of the forget request.
        candidate: Folder of the candidate; None where it is damaged.
        gates: The bounds.
        handed: Digests, and what was found out about the artifacts.
        bench: Seed and device.
        place: Where `verdict.json` goes.
        retold: Folder of the rows that the request tells anew, if any.

    Raises:
        BadInput: A role is unknown or taken twice, or a table of scores holds other rows.
    """
    from e2urec_core.notes import facts
    from e2urec_core.release.completeness import completeness_gates, contract_gates
    from e2urec_core.release.evidence import gather, rows_of
    from e2urec_core.release.forgetting import retrain_gates, stranger_gates
    from e2urec_core.release.utility import utility_gates
    from e2urec_core.release.verdict import VerdictDocument
    from e2urec_core.seeding import numpy_generator

    rows = rows_of(tokens, request, retold)
    evidence = gather(scored, rows, tokens)
    useful = utility_gates(evidence, gates.utility, numpy_generator(bench.seed, "gates-utility"))
    near: list[Gate] = []
    strange: list[Gate] = []
    near_power: list[Power] = []
    power: list[Power] = []
    # Asked of the request and not of its rows: one that names somebody of whom no row is found passes nothing.
    if facts(request)["counts"].get("forgotten_users") != 0:
        near, near_power = retrain_gates(evidence, gates.forgetting)
        strange, power = stranger_gates(evidence, gates.forgetting, numpy_generator(bench.seed, "gates-strangers"))
    whole = completeness_gates(candidate, evidence, rows, gates.completeness, handed, bench)
    digests = {name: getattr(handed, name) for name in ("candidate", "champion", "retrain")}
    document = VerdictDocument.of(
        [*useful, *near, *strange, *whole, *contract_gates(gates.contracts, handed)],
        [*near_power, *power],
        **digests,
        seed=bench.seed,
        counts=evidence.counts(),
    )
    if bench.workers.is_main:
        (place / VERDICT).write_text(document.to_json())
    return len(document.gates)
