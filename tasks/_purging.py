"""Removes runs, artifacts and model versions from MLflow for good: first a plan that people can read, then its execution.

MLflow's own deletion marks rows and leaves files. In a workspace's own database everything goes, the rows too; a tracking server keeps
marked rows, which are reported. Every step may be cut off: what is left is in the next plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Bundle
from e2urec_core.errors import ReleaseRefused
from e2urec_core.failpoints import failpoint
from tasks._desk import Desk
from tasks._purging_files import ArtifactFolder, ArtifactFolders, local_path, refuse_elsewhere
from tasks._purging_plan import Choice, Purged, PurgePlan, TrackedRun, TrackedVersion, chosen, named
from tasks._purging_rows import DatabaseRows
from tasks._registry import BUNDLE_TAG, FOLDER
from tasks._tracking import EXPERIMENT

PARENT_TAG = "mlflow.parentRunId"
# Stores that may keep what was deleted.
OBJECT_STORES = ("s3:", "gs:", "wasbs:", "abfss:", "mlflow-artifacts:")
AT_A_TIME = 1000


class TrackingPurge:
    """Removes what the tracking server and the model registry of a desk hold.

    Every call is made again with back-off where a server does not answer, and then raises `TrackingFailed`.
    """

    def __init__(self, desk: Desk) -> None:
        """Remove from the registry of `desk` and its tracker's server; its ledger says which version must stay."""
        self._desk, self._tracker, self._model = desk, desk.registry.tracker, desk.registry.name
        self._folders = ArtifactFolders(self._tracker)
        own = self._tracker.address.startswith("sqlite")
        self._rows = DatabaseRows(self._tracker.address, desk.workspace, self._model) if own else None
        self._place = desk.workspace / "mlartifacts"

    def plan(self, keep_runs: Collection[str], keep_bundles: Collection[str], doomed: Choice, *, running_too: bool = False) -> PurgePlan:
        """What would be removed; nothing is.

        Args:
            keep_runs: MLflow's ids of runs that stay with everything nested in them, whatever `doomed` says.
            keep_bundles: Digests of bundles whose versions and files stay; all other versions go, wherever their files lie.
            doomed: MLflow's ids of the runs to remove, or whether to remove a run. Only runs that are not nested are asked about, and
                those that are nested in a run that is gone. One that is still running goes only where its id is given.
            running_too: Whether runs that have not ended were cut off, because nobody else is at work.

        Raises:
            ReleaseRefused: The champion, or another version that is to be kept, would lose its files or its row.
            StorageFailed: The database names files outside of this workspace.
        """
        # The first use connects under a lock that the rows take, too.
        runs, versions = self._runs(), self._versions()
        if self._rows is not None:
            refuse_elsewhere(self._place, [run.root for run in runs])
        going, running = chosen(runs, keep_runs, doomed, running_too=running_too)
        ids = {run.id for run in going}
        old = tuple(version for version in versions if version.bundle not in keep_bundles)
        folders = [found for run in going if (found := self._measured_all(run)) is not None]
        if self._rows is None:
            # A server keeps marked runs; what had files is told apart from what has none left.
            full = {folder.root for folder in folders}
            going = [run for run in going if not run.marked or run.root in full]
        folders += [each for run in runs if run.id not in ids for each in self._bundles_in(run, keep_bundles)]
        notes = (
            [f"{len(running)} runs are still running or were cut off, and stay: {named([run.id for run in running])}"] if running else []
        )
        strays = self._strays(self._rows) if self._rows else []
        num_rows = self._rows.num_left_behind() if self._rows else 0
        plan = PurgePlan(
            frozenset(keep_bundles), tuple(going), old, tuple(folders), tuple(strays), num_rows, (*notes, *self._others(going))
        )
        self._refuse_loss(plan, versions)
        return plan

    def carry_out(self, plan: PurgePlan) -> Purged:
        """Remove what a plan says; where this is cut off, make a new plan and carry it out.

        In the workspace's own database, rows that were left behind are erased and the file is overwritten even where the plan is empty.

        Raises:
            ReleaseRefused: See `plan`; the ledger is asked again.
            TrackingFailed: A server does not answer, or refuses.
        """
        self._refuse_loss(plan, self._versions())
        for version in plan.versions:
            self._remove_version(version)
        for folder in plan.folders:
            self._folders.remove(folder)
        removed = list(plan.folders)
        for run in plan.runs:
            self._gone(lambda client, run=run: client.delete_run(run.id))
            failpoint("purge.run-marked")
        if self._rows is not None:
            self._rows.erase_before([run.id for run in plan.runs])
            for run in plan.runs:
                # What `mlflow gc` does; MLflow has no public call for it.
                self._gone(lambda client, run=run: client._tracking_client.store._hard_delete_run(run.id))
                failpoint("purge.run")
            self._rows.erase_left_behind()
            for stray in self._strays(self._rows):
                removed.append(self._folders.stray(stray))
                self._folders.remove_stray(stray)
            self._rows.overwrite()
        files, size = sum(folder.num_files for folder in removed), sum(folder.num_bytes for folder in removed)
        return Purged(len(plan.runs), len(plan.versions), files, size, (*plan.notes, *self._left(plan)))

    def _runs(self) -> list[TrackedRun]:
        from mlflow.entities import ViewType

        def search(client: Any) -> list[Any]:
            experiment, found, token = client.get_experiment_by_name(EXPERIMENT).experiment_id, [], None
            while True:
                page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=AT_A_TIME, page_token=token)
                found += page
                token = page.token
                if not token:
                    return found

        return [
            TrackedRun(
                id=str(run.info.run_id),
                name=str(run.info.run_name),
                parent=str(run.data.tags.get(PARENT_TAG, "")),
                running=run.info.status in ("RUNNING", "SCHEDULED") and run.info.lifecycle_stage != "deleted",
                marked=run.info.lifecycle_stage == "deleted",
                root=str(run.info.artifact_uri),
                tags=dict(run.data.tags),
            )
            for run in self._tracker.patiently(search)
        ]

    def _versions(self, *, others: bool = False) -> list[TrackedVersion]:
        def search(client: Any) -> list[Any]:
            found, token = [], None
            while True:
                page = client.search_model_versions(None if others else f"name='{self._model}'", max_results=AT_A_TIME, page_token=token)
                found += page
                token = page.token
                if not token:
                    return found

        return [
            TrackedVersion(
                int(each.version), str(each.tags.get(BUNDLE_TAG, "")), str(each.run_id or ""), str(each.source), tuple(each.tags)
            )
            for each in sorted(self._tracker.patiently(search), key=lambda each: int(each.version))
            if not others or each.name != self._model
        ]

    def _measured_all(self, run: TrackedRun) -> ArtifactFolder | None:
        # What is removed lies in a folder of the run's own.
        assert run.id in run.root, f"{run.root} is not a folder of run {run.id}"
        return self._folders.measured(run.root)

    def _bundles_in(self, run: TrackedRun, keep_bundles: Collection[str]) -> Iterator[ArtifactFolder]:
        kept = {Bundle(digest=bundle).short for bundle in keep_bundles}
        names = self._folders.names_in(run.root, FOLDER) if not run.parent else None
        if names is None:
            return
        going = [f"{FOLDER}/{name}" for name in names if name not in kept] if kept & set(names) else [FOLDER]
        yield from (found for path in going if (found := self._folders.measured(run.root, path)) is not None)

    def _strays(self, rows: DatabaseRows) -> list[Path]:
        # A run that was made between the reading of rows and of folders is no stray the second time.
        seen = self._folders.strays(self._place, rows.places())
        return [stray for stray in self._folders.strays(self._place, rows.places()) if stray in seen]

    def _refuse_loss(self, plan: PurgePlan, versions: list[TrackedVersion]) -> None:
        champion, removed = self._desk.champion(), {version.number for version in plan.versions}
        if champion is not None:
            number = champion.registry_version
            if champion.bundle not in plan.keep_bundles or number in removed:
                raise ReleaseRefused(
                    f"version {number} is the champion, and it was asked for its removal",
                    hint="promote another release first, or keep the champion's bundle",
                )
            if number not in {version.number for version in versions}:
                raise ReleaseRefused(
                    f"the registry holds no version {number}, which is the champion, so it is not known which files are its own",
                    hint="set MLFLOW_TRACKING_URI to the server at which it was registered",
                )
        for version in versions:
            below = [run for run in plan.runs if version.is_below(run)] if version.bundle in plan.keep_bundles else []
            if below:
                raise ReleaseRefused(
                    f"version {version.number} is to be kept, and its files lie below run {below[0].name}, whose removal was asked for",
                    hint=f"keep the run {below[0].id}",
                )

    def _others(self, runs: list[TrackedRun]) -> list[str]:
        lost = [version for version in self._versions(others=True) if any(version.is_below(run) for run in runs)]
        return [f"{len(lost)} versions of other registered models name runs that are removed, and lose their files"] if lost else []

    def _remove_version(self, version: TrackedVersion) -> None:
        number = str(version.number)
        if self._rows is None:
            # A server keeps the tags of a deleted version, but for those that were deleted first.
            for tag in version.tags:
                self._gone(lambda client, tag=tag: client.delete_model_version_tag(self._model, number, tag))
                failpoint("purge.tag")
        self._gone(lambda client: client.delete_model_version(self._model, number))
        failpoint("purge.version")

    def _left(self, plan: PurgePlan) -> list[str]:
        if self._rows is not None:
            return []
        marked = sum(1 for run in self._runs() if run.marked)
        lines = [f"{marked} runs are marked deleted on the tracking server; `mlflow gc` there removes their rows"] if marked else []
        if plan.versions:
            lines.append(
                f"{len(plan.versions)} deleted model versions keep their number and storage path in the tracking server's database;"
                " MLflow has no command that removes them"
            )
        unseen = {str(place.parents[1]) for run in plan.runs if (place := local_path(run.root)) and not place.parents[1].is_dir()}
        lines += [f"the tracking server keeps artifacts in {place}, which this machine does not have" for place in sorted(unseen)]
        if any(folder.root.startswith(OBJECT_STORES) for folder in plan.folders):
            lines.append("an object store that keeps earlier versions of objects keeps the removed files until its own rules delete them")
        return lines

    def _gone(self, call: Any) -> None:
        from mlflow.exceptions import MlflowException

        def asked(client: Any) -> None:
            try:
                call(client)
            except MlflowException as error:
                # A call that is repeated because its answer was lost finds nothing.
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise

        self._tracker.patiently(asked)
