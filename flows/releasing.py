"""The last chapter: the recommender is put before the gates, beside the champion, and becomes a version in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from e2urec_core.artifacts import Bundle, Model, Retrained, Scores, Verdict
from e2urec_core.release.card import CardFacts
from e2urec_core.settings import ScoreRule
from flows.runs import Run
from flows.story import Prepared
from tasks import release as releases
from tasks._desk import Desk, model_name
from tasks._notices import PROMOTED, emit, notify
from tasks._room import CHAPTER, ROOM, Room
from tasks._servable import serving
from tasks.bundle import bundle
from tasks.promote import promote
from tasks.retell import retell
from tasks.score import score
from tasks.tokenise import read_by
from tasks.verdict import decide


@dataclass(frozen=True)
class Candidate:
    """What is to be released.

    Args:
        model: The recommender.
        name: What the table of scores calls it.
        beside: What the table of scores calls the original.
        method: Method that made it; empty for an original.
        scores: Of it, of the original and of every Retrain.
        retrained: The Retrain that it is held against, and further ones; none at night.
        base: Bundle of the release that it was made from, where the run's original is one.
        asked: Digest of what it was asked to forget, where that is not the run's own request.
    """

    model: Model
    name: str
    beside: str
    method: str
    scores: Scores
    retrained: tuple[Retrained, ...] = ()
    base: str | None = None
    asked: str = ""


@dataclass(frozen=True)
class Judged:
    """A candidate that was put before the gates.

    Args:
        candidate: What was judged.
        verdict: What the gates said.
        bundle: What is registered.
        base: Bundle of the release that the candidate was made from, if it was made from one.
        against: Bundle of the champion that it was judged against; empty where there was none.
    """

    candidate: Candidate
    verdict: Verdict
    bundle: Bundle
    base: str | None
    against: str


def open_desk(room: Room) -> Desk:
    """The desk at which a run makes releases."""
    return Desk.open(room.workspace, room.store, room.tracker, model_name(), room.journal.record.run)


def judge(run: Run, prepared: Prepared, candidate: Candidate) -> Judged:
    """Put a candidate before the gates, held against the champion, or against the run's original where there is no champion yet."""
    desk, original = open_desk(ROOM.get()), prepared.original
    champion = desk.champion()
    base = candidate.base or next((each.bundle for each in desk.releases.releases() if each.model == original.digest), None)
    if champion is None or champion.model == original.digest:
        held: tuple[Model, Scores, str] = original, candidate.scores, candidate.beside
    else:
        stored = desk.bundle_of(champion)
        with chapter("champion"):
            held = stored, score_released(run, prepared, stored), "model"
    scored = [("candidate", candidate.scores, candidate.name), ("champion", *held[1:])]
    for number in range(len(candidate.retrained)):
        role, name = ("further", f"retrain_{number}") if number else ("retrain", "retrain")
        scored.append((role, candidate.scores, name))
    told = prepared.tokens, prepared.request, prepared.rows, prepared.examples
    retrained = candidate.retrained[0] if candidate.retrained else None
    verdict = decide(scored, candidate.model, held[0], *told, run.gates, run.seat(), prepared.retold, retrained)
    asked = () if run.forget.nobody else (candidate.asked or prepared.request.digest,)
    made = _bundle(run, prepared, candidate, verdict, _requests(desk, base, asked))
    return Judged(candidate, verdict, made, base, champion.bundle if champion else "")


def score_released(run: Run, prepared: Prepared, released: Bundle, rule: ScoreRule | None = None) -> Scores:
    """A release's scores on the run's rows, each written and tokenised as it was trained to read them.

    Args:
        run: Its prompt and its seat.
        prepared: The rows and the request.
        released: Who is scored; calls itself `model` in the scores.
        rule: Which groups of rows; without it, those that gates look at.
    """
    tokens = read_by(ROOM.get(), released, prepared.rows, prepared.examples, prepared.tokens, run.prompt)
    same = tokens is prepared.tokens or prepared.retold is None
    retold = prepared.retold if same else retell(prepared.rows, prepared.request, tokens, run.prompt)
    return score(released, tokens, prepared.request, rule or ScoreRule(), run.seat(), retold)


def release(run: Run, prepared: Prepared, judged: Judged) -> None:
    """Register what was judged, and make it the champion if that is asked for and every gate was passed."""
    room = ROOM.get()
    desk, verdict = open_desk(room), releases.read_verdict(room, judged.verdict)
    releases.show_verdict(room, verdict)
    made = releases.register(
        desk,
        judged.bundle,
        judged.candidate.model,
        verdict,
        method=judged.candidate.method,
        base=judged.base,
        judged_against=judged.against,
        forgotten=releases.whom_it_forgot(desk, prepared.request, judged.base, prepared.rows),
    )
    if not verdict.passed:
        refused = [gate.name for gate in verdict.gates if not gate.passed]
        notify(f"refused by {len(refused)} of {len(verdict.gates)} gates: {', '.join(refused)}")
    if run.release.then == "promote" and verdict.passed and made.registry_version is not None:
        promote(desk, made.registry_version)
        emit(PROMOTED, desk.run, {"version": made.registry_version})


def _bundle(run: Run, prepared: Prepared, candidate: Candidate, verdict: Verdict, requests: tuple[str, ...]) -> Bundle:
    room = ROOM.get()
    gates, measures = releases.for_card(room, verdict, candidate.scores, candidate.name)
    facts = CardFacts(backbone=run.backbone.kind, method=candidate.method or None, requests=requests, measures=measures)
    made_of = prepared.rows, prepared.examples, prepared.tokens
    return bundle(candidate.model, verdict, *made_of, run.prompt, run.history, facts, gates, serving(), run.seat())


def _requests(desk: Desk, base: str | None, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Digests of everything that a recommender has carried out: what its base had, then its own."""
    earlier = dict.fromkeys(desk.releases.forgotten_by(base).values()) if base else {}
    return (*(digest for digest in earlier if digest not in asked), *asked)


@contextmanager
def chapter(name: str) -> Iterator[None]:
    """Within, stages carry `name` in their titles, which tells them from those of the run's own models."""
    token = CHAPTER.set(name)
    try:
        yield
    finally:
        CHAPTER.reset(token)
