"""The story of two released recommenders that are asked the same."""

from __future__ import annotations

from prefect import flow

from e2urec_core.artifacts import Bundle, Examples, ForgetRequest, Interactions, Scores, Tokens
from e2urec_core.errors import UnknownRun
from e2urec_core.ledger.records import ReleaseRecord
from e2urec_core.report.difference.schema import DifferenceRule
from e2urec_core.settings import ScoreRule, Settings
from flows.releasing import chapter, open_desk
from flows.rooms import open_room
from flows.runs import Run
from tasks._desk import Desk
from tasks._notices import run_failed
from tasks._room import ROOM
from tasks._shown import truthful
from tasks._stores import journals_of
from tasks.diff import facts_of, hand_out_difference, write_difference
from tasks.score import score
from tasks.tokenise import read_by


class Difference(Settings):
    """Which two versions are compared, and how."""

    first: int
    """Version before."""
    second: int
    """Version after."""
    rule: DifferenceRule = DifferenceRule()
    """How much is drawn and listed."""


@flow(
    name="diff",
    flow_run_name="diff {first} {second}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def diff(first: int, second: int, workspace: str = "") -> str:
    """Score two versions on the rows of the run that made the newer one, and write the page. Returns the run's name."""
    asked = Difference(first=first, second=second)
    with open_room(asked, ("diff", str(first), str(second)), workspace) as room:
        desk = open_desk(room)
        releases = [desk.releases.release(version) for version in (first, second)]
        run, rows, examples, request, tokens = _made_of(desk, max(releases, key=lambda release: release.made_at))
        scores = [_scored(run, desk, release, rows, examples, request, tokens) for release in releases]
        facts = [facts_of(desk, release) for release in releases]
        key = desk.pseudonyms().fingerprint
        hand_out_difference(room, write_difference(*facts, *scores, rows, examples, tokens, request, asked.rule, key))
        return room.journal.record.run


def _made_of(desk: Desk, release: ReleaseRecord) -> tuple[Run, Interactions, Examples, ForgetRequest, Tokens]:
    """The settings of the run that made a release, and what it was made from."""
    journal = journals_of(desk.workspace).open(release.run)
    kinds = {"ingest": Interactions, "split": Examples, "forget": ForgetRequest, "tokenise": Tokens}
    found = []
    for name, kind in kinds.items():
        entry = journal.entry(name)
        handle = entry.artifact() if entry else None
        if not isinstance(handle, kind):
            raise UnknownRun(
                f"run `{release.run}` has lost what its stage `{name}` gave, on which version {release.registry_version} would be scored",
                hint=f"`e2urec stage {name} --run {release.run}` makes it again",
            )
        found.append(handle)
    return Run.model_validate(journal.record.settings), *found  # type: ignore[return-value]


def _scored(
    run: Run, desk: Desk, release: ReleaseRecord, rows: Interactions, examples: Examples, request: ForgetRequest, tokens: Tokens
) -> Scores:
    bundle: Bundle = desk.bundle_of(release)
    with chapter(f"version {release.registry_version}"):
        own = read_by(ROOM.get(), bundle, rows, examples, tokens, run.prompt)
        return score(bundle, own, request, ScoreRule(), run.seat())
