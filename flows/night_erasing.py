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
from e2urec_core.deletion.record import ErasureRecord, record_file
from e2urec_core.errors import BadInput, NotErased
from e2urec_core.failpoints import failpoint
from e2urec_core.ledger.request_records import RequestRecord
from e2urec_core.receipts.receipt import Found
from flows.night_forgetting import Night, same_tokenizer
from tasks._progress import say
from tasks._purging import TrackingPurge
from tasks._snapshot import Snapshot
from tasks.certify import certify, model_versions_of
from tasks.claims import Asked, asked_by, batch_name, examples_by_part, find, write_deletions
from tasks.erase import Doomed, Eraser
from tasks.forget import choose_forgotten
from tasks.prune import prune_examples, prune_interactions, prune_tokens
from tasks.retell import changes_histories, retell
from tasks.search import find_people
from tasks.suppress import suppress
from tasks.tokenise import tokenise

if TYPE_CHECKING:
    from pathlib import Path

    from e2urec_core.artifacts import ForgetRequest, Retold


def close_unknown(night: Night, asked: Sequence[Asked]) -> None:
    """Close requests about people whom no stored data knows, with a receipt each; later imports of old data will not know them either."""
    if not asked:
        return
    suppress(night.desk, asked)
    nothing = {each.record.id: Found(interactions=0, examples={}, artifacts=0, model_versions=0) for each in asked}
    certify(night.desk, night.requests, [each.record for each in asked], ErasureRecord(found=nothing), night.run.night, night.epoch)
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
    file = record_file(workspace, (each.id for each in records))
    record = _erase_data(night, eraser, asked, file)
    ends = max(each.changed_at for each in records) + timedelta(hours=night.run.night.retention_hours)
    waits = datetime.fromisoformat(night.desk.ledger.now()).astimezone(UTC) < ends
    record = _erase_tracking(night, eraser, record, file, keep_before=waits)
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
    file = record_file(night.room.workspace, (each.id for each in records))
    record = ErasureRecord.read(file)
    certify(night.desk, night.requests, records, record, night.run.night, night.epoch)
    night.erased = record.places
    file.unlink(missing_ok=True)


def _erase_data(night: Night, eraser: Eraser, asked: Sequence[Asked], file: Path) -> ErasureRecord:
    snapshot = night.snapshot()
    doomed = eraser.plan(asked, snapshot)
    request, retold = _asked_of(night, snapshot, asked)
    record = _noted(night, doomed, snapshot, asked, request).with_artifacts(doomed.everything.values())
    record = _merged(ErasureRecord.read(file), record).with_places(eraser.counts(doomed))
    record.write(file)
    failpoint("erase.noted")
    # What is needed to rewrite the data goes after they are rewritten; everything else goes first, which makes room for them.
    needed = {each.digest for each in (snapshot.rows, snapshot.examples, snapshot.tokens, request, retold) if each is not None}
    eraser.remove(each for each in doomed.artifacts if each.digest not in needed)
    if request is not None:
        snapshot = _rewritten(night, snapshot, request, retold)
        record = record.model_copy(update={"data": {**record.data, "interactions_after": snapshot.rows.digest}})
    for rows, found in doomed.stored:
        if rows.digest not in needed:
            _rewrite_other(night, rows, found.users, found.pairs)
    failpoint("erase.rewritten")
    again = eraser.plan(asked, snapshot)
    record = record.with_artifacts(again.everything.values())
    record.write(file)
    eraser.remove([*again.everything.values(), *again.strange])
    eraser.tidy(again)
    return record


def _asked_of(night: Night, snapshot: Snapshot, asked: Sequence[Asked]) -> tuple[ForgetRequest | None, Retold | None]:
    """The request that rewrites the champion's data; nothing where these hold nobody who is asked for."""
    found = find(night.room.store, snapshot.rows, asked)
    if not found:
        return None, None
    rule = ForgetRule(deletions_file=write_deletions(night.room.workspace, batch_name(each.record for each in asked), found))
    request = choose_forgotten(snapshot.rows, snapshot.examples, rule, night.run.seed)
    changed = changes_histories(request)
    return request, retell(snapshot.rows, request, snapshot.tokens, night.run.prompt) if changed else None


def _noted(night: Night, doomed: Doomed, snapshot: Snapshot, asked: Sequence[Asked], request: ForgetRequest | None) -> ErasureRecord:
    """What is there of each request before anything goes."""
    parts = examples_by_part(night.room.store, snapshot.examples, request, asked) if request else {}
    versions = model_versions_of(night.desk)
    found = {
        each.record.id: Found(
            interactions=max((rows.counts[each.record.id] for _, rows in doomed.stored), default=0),
            examples=parts.get(each.record.id, {}),
            artifacts=len(doomed.everything),
            model_versions=len(versions.without(each.record.subject)),
        )
        for each in asked
    }
    return ErasureRecord(found=found, data={"interactions_before": snapshot.rows.digest} if request else {})


def _merged(before: ErasureRecord, now: ErasureRecord) -> ErasureRecord:
    """What an earlier try of this erasure had noted, and what is found now."""
    return before.with_found(now.found).model_copy(
        update={"artifacts": {**before.artifacts, **now.artifacts}, "data": {**now.data, **before.data}}
    )


def _rewritten(night: Night, snapshot: Snapshot, request: ForgetRequest, retold: Retold | None) -> Snapshot:
    champion = night.champion()
    rows = prune_interactions(snapshot.rows, request)
    examples = prune_examples(snapshot.examples, request, rows)
    if same_tokenizer(night, night.desk.bundle_of(champion), snapshot):
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


def _erase_tracking(night: Night, eraser: Eraser, record: ErasureRecord, file: Path, *, keep_before: bool) -> ErasureRecord:
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
    record = record.with_places({"tracking_runs": len(plan.runs), "model_versions": len(plan.versions), "tracking_files": files})
    record.write(file)
    purged = purge.carry_out(plan)
    desk.mirror()
    record = record.model_copy(update={"left": purged.left})
    record.write(file)
    failpoint("erase.tracking")
    return record


def _tracking_run(night: Night, bundle: str) -> str:
    from tasks._journal import Journal

    run = night.desk.releases.release(bundle).run
    return Journal.open(night.room.workspace / "runs", run).record.tracking_run
