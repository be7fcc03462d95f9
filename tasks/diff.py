"""Compares two released recommenders: what changes, for whom, when one takes the place of the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Examples, ForgetRequest, Interactions, Report, Scores, Tokens
from e2urec_core.report.difference.schema import DifferenceRule, Gate, VersionFacts
from tasks._desk import Desk
from tasks._room import Room
from tasks._stage import Work, stage

if TYPE_CHECKING:
    import numpy

    from e2urec_core.data.batches import Prompts
    from e2urec_core.ledger.records import ReleaseRecord
    from e2urec_core.pseudonyms import Pseudonyms
    from e2urec_core.report.difference import PairedRows

DIFFERENCE_JSON, DIFFERENCE_PAGE = "difference.json", "report.html"
BEFORE, AFTER = "a", "b"


def facts_of(desk: Desk, release: ReleaseRecord) -> VersionFacts:
    """What the head of the page says of a release."""
    from e2urec_core.release.verdict import VerdictDocument

    gates = VerdictDocument.model_validate(release.verdict).gates
    assert release.registry_version is not None, "only registered versions are compared"
    return VersionFacts(
        version=release.registry_version,
        kind=release.kind,
        method=release.method,
        run=release.run,
        made_at=release.made_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        digest=release.bundle,
        gates=[Gate(bound=gate.bounds, **gate.model_dump(include={"name", "value", "margin", "passed", "remark"})) for gate in gates],
        num_forgotten_requests=len(set(desk.releases.forgotten_by(release.bundle).values())),
    )


@stage("diff", writes=Report)
def write_difference(
    work: Work,
    first: VersionFacts,
    second: VersionFacts,
    before: Scores,
    after: Scores,
    rows: Interactions,
    examples: Examples,
    tokens: Tokens,
    request: ForgetRequest,
    rule: DifferenceRule,
    key: str,
) -> int:
    """Write difference.json and report.html; `key` is the fingerprint of the key that names people."""
    from e2urec_core.data.prompts import Catalogue, PromptRule
    from e2urec_core.data.tokens import prompts_of_part, prompts_of_split
    from e2urec_core.judging import SCORED
    from e2urec_core.ledger import ledger_place, open_ledger
    from e2urec_core.pseudonyms import open_pseudonyms
    from e2urec_core.report.difference import assemble, render
    from e2urec_core.scoring import read_scores

    spoken, asked = work.open(tokens), work.open(request)
    scored = [read_scores(work.open(table), [SCORED], ("test", "forgotten")) for table in (before, after)]
    names = open_pseudonyms(work.room.workspace, open_ledger(ledger_place(work.room.workspace)))
    assert names.fingerprint == key, "the key was changed while the page was made"
    known, activity = _Rows(work.open(examples)), _counted(prompts_of_split(spoken, "train"))
    paired = {}
    for group in ("test", "forgotten"):
        prompts = prompts_of_part(spoken, asked, group)
        yes = {BEFORE: scored[0][group].yes[SCORED], AFTER: scored[1][group].yes[SCORED]}
        paired[group] = known.paired(prompts, yes, names, activity)
    titles = Catalogue(work.open(rows), PromptRule()).titles.to_pylist()
    forgotten = paired["forgotten"] if len(paired["forgotten"].users) else None
    document = assemble(first, second, paired["test"], titles, rule, forgotten=forgotten)
    work.opened.clear()
    (work.place / DIFFERENCE_JSON).write_text(document.to_json())
    (work.place / DIFFERENCE_PAGE).write_text(render(document))
    return document.test.num_rows


def hand_out_difference(room: Room, report: Report) -> Path:
    """Put the page where people look for it: the run's folder and MLflow; returns the folder."""
    stored = room.store.open(report)
    room.reports.mkdir(parents=True, exist_ok=True)
    for name in (DIFFERENCE_JSON, DIFFERENCE_PAGE):
        shutil.copyfile(stored / name, room.reports / name)
    room.tracker.files(room.reports, "report")
    return room.reports


class _Rows:
    """Who and what each example is about."""

    def __init__(self, examples: Path) -> None:
        import numpy
        import pyarrow.parquet as pq

        from e2urec_core.data.places import EXAMPLES

        table = pq.read_table(examples / EXAMPLES, columns=["example_id", "user_id", "item"])
        ids = table["example_id"].to_numpy()
        self._order = numpy.argsort(ids)
        self._ids, self._items, self._users = ids, table["item"].to_numpy(), table["user_id"].cast("string").combine_chunks()

    def paired(self, prompts: Prompts, yes: dict[str, numpy.ndarray], names: Pseudonyms, activity: dict[int, int]) -> PairedRows:
        """Rows with the answers of both versions."""
        import numpy
        import pyarrow as pa

        from e2urec_core.evaluation import Scored
        from e2urec_core.report.difference import PairedRows

        assert prompts.users is not None, "tokens know their users"
        at = self._order[numpy.searchsorted(self._ids, prompts.example_ids, sorter=self._order)]
        told = self._users.take(pa.array(at)).dictionary_encode()
        named = [names.of_user(user) for user in told.dictionary.to_pylist()]
        return PairedRows(
            Scored(prompts.example_ids, prompts.labels, yes),
            prompts.users,
            self._items[at],
            [named[place] for place in told.indices.to_pylist()],
            numpy.array([activity.get(user, 0) for user in prompts.users.tolist()], dtype=numpy.int64),
        )


def _counted(training: Prompts) -> dict[int, int]:
    """Training rows of each user, by the user's number."""
    import numpy

    assert training.users is not None, "tokens know their users"
    users, counts = numpy.unique(training.users, return_counts=True)
    return dict(zip(users.tolist(), counts.tolist(), strict=True))
