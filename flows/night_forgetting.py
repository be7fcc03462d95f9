"""The first half of a night: from claimed requests to a champion that has forgotten them.

Methods are tried in the order of the ladder until one passes every gate; for polluted data alone, all methods of another ladder are made
before, and the best is taken. Where the drift budget is used up, or a method cannot help because the rows have gone already, the
recommender is trained anew on what stays, with a tokenizer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from e2urec_core.artifacts import Bundle, Interactions
from e2urec_core.data.forget import ForgetRule
from e2urec_core.deletion.drift import Drift
from e2urec_core.errors import BadRequest, Diverged, NightFailed, NotSolved
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.records import ReleaseRecord
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.ledger.requests import Requests
from e2urec_core.methods.base import Method
from e2urec_core.plugins import word
from e2urec_core.settings import ScoreRule
from e2urec_core.stages import facts
from flows.night_choosing import best, validation_auc
from flows.night_training import judge_trained_anew
from flows.nights import ANEW, Nightly, load_method
from flows.releasing import Candidate, Judged, chapter, judge
from flows.story import Prepared, forget
from tasks import release as releases
from tasks._desk import Desk
from tasks._notices import PROMOTED, emit
from tasks._progress import say
from tasks._room import Room
from tasks._snapshot import Snapshot, snapshot_of
from tasks.claims import Asked, asked_by, batch_name, find, write_deletions
from tasks.drift import drift
from tasks.forget import choose_forgotten
from tasks.promote import promote
from tasks.prune import prune_rows, prune_tokens
from tasks.retell import retell_changed
from tasks.score import score

FORGOTTEN = "request promoted"


@dataclass(frozen=True)
class Tried:
    """One attempt of a night.

    Args:
        method: What was tried.
        passed: Whether every gate passed it.
        said: Why not; empty where it passed.
        validation_auc: See `night_choosing.py`; None where candidates are not compared, or it did not pass.
    """

    method: str
    passed: bool
    said: str = ""
    validation_auc: float | None = None


@dataclass
class Night:
    """What a night works with.

    Args:
        run: Its settings.
        room: Its workspace.
        desk: Where it makes releases.
        requests: What it was asked for.
        epoch: Of its claim.
        before: Bundle of the champion when it began.
        tried: What it has tried so far.
        erased: What it has erased, by kind of place.
        validation_auc: Of the champion when it began, where candidates are compared.
    """

    run: Nightly
    room: Room
    desk: Desk
    requests: Requests
    epoch: int
    before: str = ""
    tried: list[Tried] = field(default_factory=list)
    erased: dict[str, int] = field(default_factory=dict)
    validation_auc: float | None = None

    def champion(self) -> ReleaseRecord:
        """The release in production."""
        champion = self.desk.champion()
        assert champion is not None, "the command has looked for one"
        return champion

    def snapshot(self) -> Snapshot:
        """The data that the champion stands on, whose rows are all of people it may know."""
        champion = self.champion()
        there = snapshot_of(self.room.workspace, self.room.store, self.desk.ledger, champion.bundle, champion.run)
        if there.request is not None:
            rows, examples = prune_rows(there.rows, there.examples, there.request)
            retold = retell_changed(there.rows, there.request, there.tokens, self.run.prompt)
            tokens = prune_tokens(there.tokens, there.request, retold, examples)
            there = there.model_copy(update={"rows": rows, "examples": examples, "tokens": tokens, "request": None})
        there.write(self.desk.ledger, self.epoch)
        return there

    def drift(self, snapshot: Snapshot) -> Drift:
        """How far the champion has drifted since it was trained."""
        return drift(self.desk, self.champion(), snapshot)


def forget_them(night: Night, records: Sequence[RequestRecord]) -> list[Asked]:
    """Make a champion that has forgotten what claimed requests ask for; gives back those that no stored row is about, untouched.

    Raises:
        NightFailed: No method passed the gates; the requests are queued again.
    """
    snapshot, asked = night.snapshot(), asked_by(night.requests, records)
    store, name = night.room.store, batch_name(records)
    stored = {rows.digest: find(store, rows, asked) for rows in store.all(Interactions)}
    remembered = [each for each in asked if any(event.event == FORGOTTEN for event in night.requests.history(each.record.id))]
    unknown = [each for each in asked if each not in remembered and not any(found.counts[each.record.id] for found in stored.values())]
    known = [each for each in asked if each not in unknown]
    if known:
        _carry(night, snapshot, known, remembered, name)
    return unknown


def train_anew(night: Night) -> None:
    """Make a champion that is trained on what is stored, though nobody asks for anything: the drift budget is used up.

    Raises:
        NightFailed: It did not pass the gates.
    """
    _carry(night, night.snapshot(), [], [], batch_name([]))


def _carry(night: Night, snapshot: Snapshot, known: Sequence[Asked], remembered: Sequence[Asked], name: str) -> None:
    store, champion, ids = night.room.store, night.champion(), [each.record.id for each in known]
    found = find(store, snapshot.rows, known)
    rule = ForgetRule(deletions_file=write_deletions(night.room.workspace, name, found)) if found else ForgetRule(nobody=True)
    run = night.run.model_copy(update={"forget": rule})
    request = choose_forgotten(snapshot.rows, snapshot.examples, rule, run.seed)
    retold = retell_changed(snapshot.rows, request, snapshot.tokens, run.prompt)
    bundle = night.desk.bundle_of(champion)
    prepared = Prepared(snapshot.rows, snapshot.examples, request, snapshot.tokens, bundle, retold)
    counts = facts(store.open(request))["counts"]
    missing = any(not found.counts[each.record.id] for each in remembered)
    trained, changed = bool(counts.get("forgotten")), bool(counts.get("changed_training"))
    # Methods need forgotten rows to work on; where these have gone, or only histories change, training anew is what is left.
    anew = missing or (changed and not trained) or _is_due(night, snapshot)
    if not (anew or trained):
        say("none of the rows was trained on: the champion stays")
        _advance(night, ids, champion.model, champion.bundle)
        return
    polluted = bool(known) and all(each.record.reason == "pollution" for each in known)
    judged = _best(night, run, prepared, bundle, name) if polluted and not anew else None
    if judged is None:
        rungs = [method for method in run.ladder if method.kind == ANEW] or [load_method(ANEW)] if anew else run.ladder
        judged = next((passed for passed, _ in _passing(night, run, prepared, rungs, name)), None)
    if judged is None:
        night.requests.fail_back(ids, epoch=night.epoch)
        raise NightFailed(
            f"none of {len(night.tried)} attempts passed the gates, so {len(ids):,} requests wait for the next night",
            facts={tried.method: tried.said for tried in night.tried},
            hint="read the verdicts in the report; `--ladder` names other methods, `--gates...` other bounds",
        )
    _release(night, snapshot, judged, known, name)


def _is_due(night: Night, snapshot: Snapshot) -> bool:
    spent = night.drift(snapshot).spent(night.run.night.drift)
    if spent:
        say(f"the drift budget is used up ({', '.join(spent)}): the recommender is trained anew")
    return bool(spent) or night.run.night.always_train


def _best(night: Night, run: Nightly, prepared: Prepared, champion: Bundle, name: str) -> Judged | None:
    """The best of the ladder for polluted data, on validation rows; None where none passes the gates."""
    night.validation_auc = validation_auc(run, prepared, champion, "champion")
    return best(night.validation_auc, list(_passing(night, run, prepared, run.pollution_ladder, name, compared=True)))


def _passing(
    night: Night, run: Nightly, prepared: Prepared, rungs: Sequence[Method], name: str, *, compared: bool = False
) -> Iterator[tuple[Judged, float | None]]:
    """Those that pass the gates, in the order of the ladder, with their validation AUC where they are compared."""
    for method in rungs:
        number = len(night.tried) + 1
        with chapter(f"try {number}" if number > 1 else ""):
            try:
                judged = _tried(night, run, prepared, method, name)
            except (BadRequest, Diverged, NotSolved) as error:
                night.tried.append(Tried(word(method.kind), passed=False, said=error.fact))
                say(f"{word(method.kind)} did not get through: {error.fact}")
                continue
        verdict = releases.read_verdict(night.room, judged.verdict)
        releases.show_verdict(night.room, verdict)
        value = validation_auc(run, prepared, judged.bundle, f"try {number}") if compared and verdict.passed else None
        night.tried.append(Tried(word(method.kind), verdict.passed, "; ".join(verdict.reasons()), value))
        if verdict.passed:
            yield judged, value
        else:
            say(f"{word(method.kind)} was refused: {'; '.join(verdict.reasons())}")


def _tried(night: Night, run: Nightly, prepared: Prepared, method: Method, name: str) -> Judged:
    run = run.model_copy(update={"method": method})
    champion = night.champion()
    if method.kind == ANEW:
        return judge_trained_anew(run, prepared, name)
    model, _ = forget(run, prepared)
    scores = score(model, prepared.tokens, prepared.request, ScoreRule(), run.seat(), prepared.retold)
    candidate = Candidate(model, "model", "model", method.kind, scores, base=champion.bundle, asked=name)
    return judge(run, prepared, candidate)


def _release(night: Night, snapshot: Snapshot, judged: Judged, known: Sequence[Asked], name: str) -> None:
    """Register, promote and note what has passed; each step is found again after a kill."""
    ids, candidate, desk = [each.record.id for each in known], judged.candidate, night.desk
    night.room.guard()
    # Everybody whose rows are no longer among the data is unknown to whoever was trained on them, and to whoever comes from a
    # champion that had forgotten them.
    forgotten = dict.fromkeys((each.record.subject for each in known), name) | releases.whom_it_forgot(
        desk, None, night.champion().bundle, snapshot.rows
    )
    released = releases.register(
        desk,
        judged.bundle,
        candidate.model,
        releases.read_verdict(night.room, judged.verdict),
        method=candidate.method,
        base=judged.base,
        judged_against=judged.against,
        forgotten=forgotten,
    )
    failpoint("night.registered")
    here = {*snapshot.releases, judged.bundle.digest}
    snapshot.model_copy(update={"releases": tuple(sorted(here))}).write(night.desk.ledger, night.epoch)
    assert released.registry_version is not None, "it was registered"
    night.room.guard()
    promote(desk, released.registry_version)
    emit(PROMOTED, desk.run, {"version": released.registry_version})
    failpoint("night.promoted")
    _advance(night, ids, candidate.model.digest, judged.bundle.digest)


def _advance(night: Night, ids: Sequence[str], model: str, release: str) -> None:
    """Move requests on to `promoted`, from wherever a killed night has left them."""
    left = [night.requests.request(each) for each in ids]
    strange = [each.id for each in left if each.state in ("built", "gated") and (each.model, each.release or release) != (model, release)]
    if strange:
        # They were built by other code or against another champion; the requests begin again.
        night.requests.fail_back(strange, epoch=night.epoch)
    for at, to in (("claimed", "built"), ("built", "gated"), ("gated", "promoted")):
        there = [each for each in ids if each not in strange and night.requests.request(each).state == at]
        night.requests.advance(there, to, epoch=night.epoch, model=model, release=release if to != "built" else None)  # type: ignore[arg-type]
        failpoint(f"night.noted-{to}")
