"""Takes a back-up of a workspace while nothing in it writes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.errors import BadInput, DamagedArtifact, UnknownRun, WorkspaceBusy
from tasks._progress import say

if TYPE_CHECKING:
    from e2urec_core.backup.manifest import Manifest
    from e2urec_core.ledger.history import Ledger


def back_up(workspace: Path, folder: Path, *, with_keys: bool, only_deletions: bool = False) -> Manifest:
    """Copy a workspace into `folder`, all or nothing.

    Args:
        workspace: Its folder.
        folder: A new folder outside of it.
        with_keys: Whether secret keys are copied, too.
        only_deletions: Whether to copy the ledger, the receipts and the keys alone.

    Raises:
        WorkspaceBusy: A run or a night writes into the workspace.
        BadInput: There is nothing to copy, or the folder lies in the workspace or is not empty.
        StorageFailed: The disk refuses; nothing is left of the copy.
    """
    from importlib.metadata import version

    from e2urec_core.backup import copying
    from e2urec_core.backup.manifest import FILE, FILES, Manifest
    from e2urec_core.disk import sync
    from e2urec_core.ledger import ledger_place, open_ledger
    from flows.night_running import alone
    from tasks._stores import FOLDER as STORE
    from tasks._stores import address_of

    folder = folder.expanduser().absolute()
    if folder.is_relative_to(workspace):
        raise BadInput("a back-up cannot lie in the workspace that it is of", facts={"folder": folder}, hint="name one outside of it")
    if not only_deletions and (address := address_of(workspace)) != str(workspace / STORE):
        raise BadInput(
            "the artifacts lie outside of the workspace, and are not copied with it",
            facts={"they lie in": address},
            hint="copy them by that store's own means, without versions of what was erased, and the rest with `--only-deletions`",
        )
    if not copying.places(workspace, with_keys=with_keys):
        raise BadInput("there is no workspace to copy", facts={"folder": workspace}, hint="name it with `--workspace`")
    with alone(workspace, take_over=False), copying.beside(folder) as part:
        refuse_live_runs(workspace, "copied")
        before = _runs(workspace)
        place = ledger_place(workspace)
        # Opening brings its schema up to date, and writes anew what an erasure has left in its file.
        ledger = open_ledger(place) if isinstance(place, str) or place.exists() else None
        only = copying.DELETIONS if only_deletions else ()
        names = copying.key_names(workspace)
        files = copying.copy_all(copying.places(workspace, only=only, with_keys=with_keys), workspace, part / FILES)
        if _runs(workspace) != before:
            raise WorkspaceBusy("a run has begun in the workspace while it was copied", hint="do the same again when it has ended")
        if isinstance(place, Path) and ledger is not None:
            # Requests may have come in while it was copied: what the copy says counts.
            ledger = open_ledger(part / FILES / place.name)
            (part / FILES / f"{place.name}.lock").unlink(missing_ok=True)
        champion, data = (None, None) if ledger is None else _champion(workspace, ledger)
        manifest = Manifest(
            taken_at=datetime.now(UTC),
            program=f"e2urec {version('e2urec')}",
            workspace=str(workspace),
            whole=not only_deletions,
            ledger=None if ledger is None else ledger.head(),
            champion=champion,
            data=data,
            server_ledger=isinstance(place, str),
            keys_left_out=() if with_keys else tuple(names),
            files=files,
        )
        (part / FILE).write_text(manifest.to_text())
        (part / FILE).chmod(0o600)
        sync(part / FILE)
    return manifest


def _champion(workspace: Path, ledger: Ledger) -> tuple[str | None, dict[str, Any] | None]:
    """The champion's bundle, and the data that it stands on, where that is known."""
    from e2urec_core.ledger.releases import Releases
    from tasks._snapshot import snapshot_of
    from tasks._stores import store_of

    bundle = Releases(ledger).line().champion
    if bundle is None:
        return None, None
    try:
        run = Releases(ledger).release(bundle).run
        return bundle, snapshot_of(workspace, store_of(workspace), ledger, bundle, run).canonical()
    except (UnknownRun, DamagedArtifact) as fault:
        say(f"{fault.fact}; the back-up can be restored only where nobody was forgotten since")
        return bundle, None


def _runs(workspace: Path) -> dict[str, int]:
    """The records of runs, with the times at which they were last written."""
    return {path.name: path.stat().st_mtime_ns for path in (workspace / "runs").glob("*.json")}


def refuse_live_runs(workspace: Path, what: str) -> None:
    """Refuse while a run of this machine works in a workspace that is to be treated as `what` says.

    Raises:
        WorkspaceBusy: One does.
    """
    from tasks._stores import journals_of

    live = [record.run for record in journals_of(workspace).all() if record.is_alive()]
    if live:
        raise WorkspaceBusy(
            f"{len(live)} runs still work in the workspace that is to be {what}: {', '.join(live[:3])}",
            hint="wait for them or end them, then do the same again",
        )
