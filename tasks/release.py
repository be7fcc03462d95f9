"""Makes a release of a recommender that was judged: a version in the registry, with the gates' verdict, whatever it says."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from e2urec_core.artifacts import Bundle, ForgetRequest, Interactions, Model, Scores, Verdict
from e2urec_core.data import places
from e2urec_core.data.named import read_named
from e2urec_core.failpoints import failpoint
from tasks._desk import Desk
from tasks._notices import gates_refused
from tasks._progress import say
from tasks._room import Room
from tasks._shown import show_table

if TYPE_CHECKING:
    from e2urec_core.ledger.records import ReleaseRecord
    from e2urec_core.ledger.request_records import Identity
    from e2urec_core.release.card import GateRow
    from e2urec_core.release.verdict import VerdictDocument


def read_verdict(room: Room, verdict: Verdict) -> VerdictDocument:
    """What the gates said."""
    from tasks import verdict as verdicts

    return verdicts.read_verdict(room.store.open(verdict))


def for_card(room: Room, verdict: Verdict, scores: Scores, name: str) -> tuple[list[GateRow], dict[str, float]]:
    """What a card says of the gates and of the measures of the recommender that the scores call `name`."""
    from e2urec_core.release.card import GateRow

    gates = [
        GateRow(name=gate.name, value=gate.value, bound=gate.bounds, margin=gate.margin, passed=gate.passed)
        for gate in read_verdict(room, verdict).gates
    ]
    return gates, measures_of(room, scores, name)


def measures_of(room: Room, scores: Scores, name: str) -> dict[str, float]:
    """Measures on test rows of the recommender that the scores call `name`."""
    from e2urec_core.metrics.utility import auc, log_loss
    from e2urec_core.scoring import read_scores

    rows = read_scores(room.store.open(scores), [name], ("test",))["test"]
    measured = {"auc": auc(rows.labels, rows.yes[name]), "log_loss": log_loss(rows.labels, rows.yes[name])}
    return {f"test_{measure}": value for measure, value in measured.items() if value is not None}


def show_verdict(room: Room, verdict: VerdictDocument) -> None:
    """Put the verdict beside the run's report, into MLflow, and into Prefect, where a refusal is an event, too."""
    room.reports.mkdir(parents=True, exist_ok=True)
    (room.reports / places.VERDICT).write_text(verdict.to_json())
    room.tracker.files(room.reports / places.VERDICT, "verdict")
    room.tracker.tags({"e2urec.passed": str(verdict.passed).lower()})
    show_table("verdict", room, verdict.table(), verdict.text.splitlines()[0])
    if not verdict.passed:
        gates_refused(room.journal.record.run, verdict)


def register(
    desk: Desk,
    bundle: Bundle,
    model: Model,
    verdict: VerdictDocument,
    *,
    method: str,
    base: str | None,
    judged_against: str,
    forgotten: Mapping[str, str],
) -> ReleaseRecord:
    """Note the release in the ledger, register its bundle, and let the alias `challenger` name it; the same again changes nothing.

    Args:
        desk: Where releases are made.
        bundle: What is registered.
        model: The recommender in it.
        verdict: What the gates said.
        method: Method that made it; empty for an original.
        base: Bundle of the release that it was made from, if it was made from one.
        judged_against: Bundle of the champion that it was judged against; empty where there was none.
        forgotten: Whom it has forgotten: pseudonym to the digest of the request.

    Raises:
        TrackingFailed: The registry does not answer; the release stays in the ledger, and the same call goes on from there.
    """
    from e2urec_core.ledger.records import Release
    from e2urec_core.release.bundle import CARD

    folder = desk.store.open(bundle)
    release = Release(
        bundle=bundle.digest,
        model=model.digest,
        kind=model.kind,
        method=method,
        run=desk.run,
        base=base,
        verdict=verdict.canonical(),
        passed=verdict.passed,
        judged_against=judged_against,
    )
    known = desk.releases.find(bundle.digest)
    if known is None:
        known = desk.releases.add(release, forgotten)
    failpoint("release.added")
    if known.registry_version is None:
        passed = sum(gate.passed for gate in verdict.gates)
        facts = {"passed": str(verdict.passed).lower(), "gates": f"{passed}/{len(verdict.gates)}", "run": desk.run, "method": method}
        facts |= {"forgotten": str(len(forgotten)), "model": model.digest}
        version = desk.registry.register(
            bundle, folder, (folder / CARD).read_text(), {f"e2urec.{name}": value for name, value in facts.items()}
        )
        failpoint("release.uploaded")
        known = desk.releases.registered(bundle.digest, version)
    desk.mirror()
    said = "passed every gate" if verdict.passed else f"refused by {len(verdict.reasons())} of {len(verdict.gates)} gates"
    say(f"version {known.registry_version} of {desk.registry.name}: {said}")
    return known


def whom_it_forgot(desk: Desk, request: ForgetRequest | None, base: str | None, rows: Interactions) -> dict[str, str]:
    """Everybody whom a recommender does not know, of those who are or were to be forgotten: pseudonym to the digest of what tells so.

    Args:
        desk: Where releases are made.
        request: What it was made to forget, if anything.
        base: Bundle of the release that it was made from, which had forgotten some already.
        rows: The ratings that it was trained on; who is not among them is not known.
    """
    from e2urec_core.ledger.owed import Owed

    gone = desk.releases.forgotten_by(base) if base else {}
    asked = dict.fromkeys(_asked(desk, request), request.digest) if request else {}
    absent = desk.releases.completed().keys() - gone.keys() - asked.keys() - Owed(desk.ledger).subjects()
    return {**asked, **gone, **dict.fromkeys(_not_among(desk, rows, absent), rows.digest)}


def _asked(desk: Desk, request: ForgetRequest) -> list[str]:
    from e2urec_core.ledger.subjects import Subjects

    return Subjects(desk.ledger, desk.pseudonyms()).of(*read_named(desk.store.open(request)))


def _not_among(desk: Desk, rows: Interactions, subjects: Set[str]) -> set[str]:
    """The subjects who are neither a user nor an interaction of stored interactions."""
    import pyarrow.parquet as pq

    from e2urec_core.ledger.subjects import Subjects

    left = set(subjects)
    if left:
        names, folder = desk.pseudonyms(), desk.store.open(rows)
        marked = Subjects(desk.ledger, names).by_mark()
        users = set(_texts(pq.read_table(folder / places.USERS, columns=["user_id"]), "user_id"))
        left -= {marked.get(names.of_user(user)) for user in users}
        asked, untold = _people(desk, left)
        left -= untold | {subject for subject, who in asked.items() if not who.items and who.user_id in users}
        singly = [((who.user_id, item), subject) for subject, who in asked.items() for item in who.items]
        for part in places.part_files(folder):
            for batch in pq.ParquetFile(part).iter_batches(columns=["user_id", "item_id"]):
                pairs = set(zip(_texts(batch, "user_id"), _texts(batch, "item_id"), strict=True))
                left -= {marked.get(names.of_interaction(*pair)) for pair in pairs} if left else set()
                left -= {subject for pair, subject in singly if pair in pairs}
    return left


def _people(desk: Desk, subjects: Set[str]) -> tuple[dict[str, Identity], set[str]]:
    """Whom the ledger's requests among the subjects are about, and the subjects of whom it cannot tell though their data may be there.

    A request's subject is random, so rows tell nothing of it. The data of those who were purged is gone.
    """
    from e2urec_core.ledger.requests import Requests

    requests = Requests(desk.ledger)
    there = {each.subject: each for each in requests.requests() if each.subject in subjects}
    people = {
        subject: requests.identity(each.id) for subject, each in there.items() if each.state not in ("purged", "certified", "no_data")
    }
    untold = {subject for subject, who in people.items() if who.user_id is None}
    return {subject: who for subject, who in people.items() if subject not in untold}, untold


def _texts(table: Any, column: str) -> list[str]:
    return [str(value) for value in table[column].to_pylist()]
