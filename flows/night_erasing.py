"""The second half of a night: from a champion that has forgotten to receipts that say so.

The order is what makes it safe: whom an old export must not bring back is noted first, what was found is written down before it goes,
data are rewritten before the old ones go, and a request is certified only after a search of the whole workspace has found nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Interactions
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.pruning import prune_interactions as rewrite
from e2urec_core.deletion.record import ErasureRecord, ErasureRecords
from e2urec_core.errors import BadInput, NotErased
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.ledger.subjects import Subjects
from e2urec_core.receipts.receipt import Found
from flows.night_forgetting import Night
from tasks._progress import say
from tasks._purging import TrackingPurge
from tasks._snapshot import Snapshot
from tasks.certify import certify, versions_that_knew
from tasks.claims import Asked, asked_by, batch_name, examples_by_part, find, write_deletions
from tasks.erase import Doomed, Eraser
from tasks.forget import choose_forgotten
from tasks.prune import prune_rows, prune_tokens
from tasks.retell import retell_changed
from tasks.search import find_people
from tasks.suppress import suppress
from tasks.tokenise import has_tokenizer_of, tokenise

if TYPE_CHECKING:
    from e2urec_core.artifacts import ForgetRequest, Retold


def close_unknown(night: Night, asked: Sequence[Asked]) -> None:
    """Close requests about people whom no stored data knows, with a receipt each; later imports of old data will not know them either."""
    if not asked:
        return
    suppress(night.desk, asked)
    _certify(night, [each.record for each in asked])
    say(f"{len(asked):,} requests are about nobody whom the data knows: closed with receipts")


def erase(night: Night, records: Sequence[RequestRecord]) -> None:
    """Erase what was made from those whom promoted requests are about, then close the requests.

    While the champion before is retained for a rollback, only its files in the registry stay, and the requests wait.

    Raises:
        WorkspaceBusy: Another run works with the data; nothing was erased.
        NotErased: Something is left that names them.
        StorageFailed: The disk refuses; the next night goes on from there.
    """
    workspace, asked = night.room.workspace, asked_by(night.requests, records)
    champion = night.champion()
    run = night.room.journal.record.run
    eraser = Eraser(workspace, night.room.store, frozenset({champion.bundle}), run, frozenset({run, champion.run}), night.room.guard)
    suppress(night.desk, asked)
    failpoint("erase.suppressed")
    eraser.refuse_company()
    erasures = ErasureRecords(workspace, (each.id for each in records))
    _erase_data(night, eraser, asked, erasures)
    ends = max(each.changed_at for each in records) + timedelta(hours=night.run.night.retention_hours)
    waits = datetime.fromisoformat(night.desk.ledger.now()).astimezone(UTC) < ends
    _erase_tracking(night, erasures, keep_before=waits)
    if waits:
        say(f"earlier versions stay until {ends:%Y-%m-%d %H:%M} UTC; {len(records):,} requests are certified after that")
        return
    found = find_people(night.desk, asked)
    if found:
        raise NotErased(
            f"{len(found):,} places still name somebody who is forgotten",
            facts={str(number): place for number, place in enumerate(found[:10], 1)},
            hint="remove them by hand and run `e2urec erase`; the requests stay open until then",
        )
    failpoint("erase.scanned")
    night.requests.erase_identity([each.id for each in records], epoch=night.epoch)
    failpoint("erase.purged")
    finish(night, records)


def finish(night: Night, records: Sequence[RequestRecord]) -> None:
    """Write the receipts of purged requests and close them."""
    places = _certify(night, records).places
    night.erased = {name: night.erased.get(name, 0) + places.get(name, 0) for name in sorted(night.erased.keys() | places.keys())}


def _certify(night: Night, records: Sequence[RequestRecord]) -> ErasureRecords:
    erasures = ErasureRecords(night.room.workspace, (each.id for each in records))
    certify(night.desk, night.requests, records, erasures, night.run.night, night.epoch)
    erasures.close()
    return erasures


def _erase_data(night: Night, eraser: Eraser, asked: Sequence[Asked], erasures: ErasureRecords) -> None:
    snapshot = night.snapshot()
    doomed = eraser.plan(asked, snapshot)
    request, retold = _asked_of(night, snapshot, asked)
    going = ErasureRecord(
        artifacts=_kinds(doomed), places=eraser.counts(doomed), interactions_before=snapshot.rows.digest if request else None
    )
    erasures.note(going, _found(night, doomed, snapshot, asked, request))
    failpoint("erase.noted")
    # What is needed to rewrite the data goes after they are rewritten; everything else goes first, which makes room for them.
    _forget_subjects(night, asked, doomed)
    needed = {each.digest for each in (snapshot.rows, snapshot.examples, snapshot.tokens, request, retold) if each is not None}
    eraser.remove(each for each in doomed.artifacts if each.digest not in needed)
    if request is not None:
        snapshot = _rewritten(night, snapshot, request, retold)
        erasures.note(ErasureRecord(interactions_after=snapshot.rows.digest))
    for rows, found in doomed.stored:
        if rows.digest not in needed:
            _rewrite_other(night, rows, found.users, found.pairs)
    failpoint("erase.rewritten")
    again = eraser.plan(asked, snapshot)
    erasures.note(ErasureRecord(artifacts=_kinds(again)))
    eraser.remove([*again.everything.values(), *again.strange])
    eraser.tidy(again)


def _forget_subjects(night: Night, asked: Sequence[Asked], doomed: Doomed) -> None:
    """Erase by which names the history of releases knows the asked, and who came back under their names."""
    users = {each.user_id for each in asked if not each.items}.union(*(found.users for _, found in doomed.stored))
    pairs = {(each.user_id, item) for each in asked for item in each.items}.union(*(found.pairs for _, found in doomed.stored))
    night.room.guard()
    Subjects(night.desk.ledger, night.desk.pseudonyms()).erase(users, pairs)
    failpoint("erase.subjects")


def _kinds(doomed: Doomed) -> dict[str, str]:
    return {digest: artifact.kind for digest, artifact in doomed.everything.items()}


def _asked_of(night: Night, snapshot: Snapshot, asked: Sequence[Asked]) -> tuple[ForgetRequest | None, Retold | None]:
    """The request that rewrites the champion's data; nothing where these hold nobody who is asked for."""
    found = find(night.room.store, snapshot.rows, asked)
    if not found:
        return None, None
    rule = ForgetRule(deletions_file=write_deletions(night.room.workspace, batch_name(each.record for each in asked), found))
    request = choose_forgotten(snapshot.rows, snapshot.examples, rule, night.run.seed)
    return request, retell_changed(snapshot.rows, request, snapshot.tokens, night.run.prompt)


def _found(night: Night, doomed: Doomed, snapshot: Snapshot, asked: Sequence[Asked], request: ForgetRequest | None) -> dict[str, Found]:
    """What is there of each request before anything goes."""
    parts = examples_by_part(night.room.store, snapshot.examples, request, asked) if request else {}
    versions = versions_that_knew(night.desk, [each.record.subject for each in asked])
    return {
        each.record.id: Found(
            interactions=max((rows.counts[each.record.id] for _, rows in doomed.stored), default=0),
            examples=parts.get(each.record.id, {}),
            artifacts=len(doomed.everything),
            model_versions=versions[each.record.subject],
        )
        for each in asked
    }


def _rewritten(night: Night, snapshot: Snapshot, request: ForgetRequest, retold: Retold | None) -> Snapshot:
    champion = night.champion()
    rows, examples = prune_rows(snapshot.rows, snapshot.examples, request)
    if has_tokenizer_of(night.room, night.desk.bundle_of(champion), snapshot.tokens):
        tokens = prune_tokens(snapshot.tokens, request, retold, examples)
    else:
        tokens = tokenise(rows, examples, night.run.prompt, night.run.backbone)
    line = night.desk.releases.line()
    bundles = tuple(bundle for bundle in (line.champion, line.previous) if bundle)
    after = snapshot.model_copy(update={"releases": bundles, "rows": rows, "examples": examples, "tokens": tokens})
    after.write(night.desk.ledger, night.epoch)
    failpoint("erase.snapshot")
    return after


def _rewrite_other(night: Night, rows: Interactions, users: frozenset[str], pairs: frozenset[tuple[str, str]]) -> None:
    """Rewrite stored ratings that the champion does not stand on, such as newer ones."""
    store = night.room.store
    with store.workplace() as place:
        try:
            left = rewrite(store.open(rows), users, pairs, place)
        except BadInput:
            # Nobody else is in them, so they go as they are.
            return
        night.room.publish(Interactions, place, parents=(), rows=left, made_by="prune-interactions")


def _erase_tracking(night: Night, erasures: ErasureRecords, *, keep_before: bool) -> None:
    """Erase runs and versions in MLflow; the champion before stays there while it is retained."""
    night.room.guard()
    desk, line = night.desk, night.desk.releases.line()
    night.room.tracker.settle()
    bundles = {bundle for bundle in (line.champion, line.previous if keep_before else None) if bundle}
    versions = [desk.releases.release(bundle).registry_version for bundle in bundles]
    runs = {night.room.tracker.run_id, *(desk.registry.run_of(version) for version in versions if version is not None)}
    purge = TrackingPurge(desk)
    # Nobody else is at work: a run that has not ended was cut off.
    plan = purge.plan(runs, bundles, doomed=lambda _: True, running_too=True)
    files = sum(folder.num_files for folder in plan.folders) + len(plan.strays)
    erasures.note(ErasureRecord(places={"tracking_runs": len(plan.runs), "model_versions": len(plan.versions), "tracking_files": files}))
    purged = purge.carry_out(plan)
    desk.mirror()
    erasures.note(ErasureRecord(left=purged.left))
    failpoint("erase.tracking")
