"""What an erasure would remove, without removing anything: `e2urec erase --dry-run`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from e2urec_core.errors import NoChampion
from e2urec_core.ledger.request_records import IN_FLIGHT
from e2urec_core.ledger.requests import Requests
from tasks._desk import Desk
from tasks._purging import TrackingPurge
from tasks._snapshot import snapshot_of
from tasks.claims import asked_by
from tasks.erase import Eraser


def plan_of(workspace: Path) -> dict[str, Any]:
    """The plan for every request that is open: what is erased once a champion has forgotten them.

    Raises:
        NoChampion: There is none.
    """
    desk = Desk.of(workspace, "erase --dry-run")
    champion = desk.champion()
    if champion is None:
        raise NoChampion("there is no champion in this workspace yet, so nothing is erased", hint="make the first one with `e2urec train`")
    requests = Requests(desk.ledger)
    open_ones = [each for each in requests.requests() if each.state in ("queued", *IN_FLIGHT)]
    asked = asked_by(requests, open_ones)
    has_forgotten = desk.releases.forgotten_by(champion.bundle)
    ready = all(each.record.subject in has_forgotten for each in asked)
    eraser = Eraser(workspace, desk.store, frozenset({champion.bundle} if ready else ()), "", frozenset({champion.run} if ready else ()))
    doomed = eraser.plan(asked, snapshot_of(workspace, desk.store, desk.ledger, champion.bundle, champion.run))
    assert champion.registry_version is not None, "a champion is registered"
    tracked = TrackingPurge(desk).plan(
        {desk.registry.run_of(champion.registry_version)}, {champion.bundle}, doomed=lambda _: True, running_too=True
    )
    kinds = Counter(handle.kind for handle in doomed.artifacts)
    lines = [f"{len(open_ones):,} open requests; the champion, version {champion.registry_version}, has forgotten "]
    lines[0] += "all of them" if ready else f"{sum(each.record.subject in has_forgotten for each in asked):,} of them"
    if not ready:
        lines.append("once a recommender that has forgotten them is champion, the champion of today goes too:")
    lines += [f"rewritten without them: {len(doomed.stored):,} stored interactions, and the champion's examples and tokens"]
    lines += [f"removed from the store: {', '.join(f'{count:,} {kind}' for kind, count in sorted(kinds.items())) or 'nothing'}"]
    lines += [f"removed beside it: {len(doomed.strange):,} folders of no artifact, {len(doomed.folders):,} folders of pages and files"]
    lines += [f"removed from MLflow: {sentence}" for sentence in tracked.sentences()]
    if not ready:
        lines.append(f"removed from MLflow then, too: version {champion.registry_version} and the run below which it lies")
    return {
        "requests": [each.id for each in open_ones],
        "ready": ready,
        "rewritten": [rows.digest for rows, _ in doomed.stored],
        "artifacts": [{"kind": handle.kind, "digest": handle.digest} for handle in doomed.artifacts],
        "folders": [str(path.relative_to(workspace)) for path in (*doomed.strange, *doomed.folders)],
        "tracking_runs": [run.id for run in tracked.runs],
        "model_versions": [version.number for version in tracked.versions],
        "text": lines,
    }
