"""MLflow's model registry: where released recommenders are kept for the tools that serve them.

The ledger says which version is what; versions here are found by the digest of their bundle, and aliases are copied from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from e2urec_core.artifacts import Bundle
from e2urec_core.errors import BadRelease, TrackingRefused
from e2urec_core.manifests import damage_of
from e2urec_core.store import Store
from tasks._tracking import Tracker

FOLDER = "recommender"
"""Among the artifacts of a run, the folder below which released recommenders lie, each in a folder named after its bundle."""
BUNDLE_TAG = "e2urec.bundle"
# MLflow's own mark on a folder that it has read a model from.
MARK = "registered_model_meta"
T = TypeVar("T")


class Registry:
    """The versions of one registered model.

    Every call is made again with back-off where a server does not answer, and then raises `TrackingFailed`.
    """

    def __init__(self, tracker: Tracker, name: str) -> None:
        """Versions of the model `name` at the tracker's server."""
        self.name, self.tracker = name, tracker

    def register(self, bundle: Bundle, folder: Path, description: str, tags: Mapping[str, str]) -> int:
        """Upload a bundle below the tracker's run and make a version of it; returns the version's number.

        A bundle that has a version keeps it, also where an earlier call was cut off or repeated by a server.

        Args:
            bundle: What is registered.
            folder: Its files, verified.
            description: Its card, Markdown.
            tags: Further facts.
        """
        known = self._versions_of(bundle)
        if not known:
            self.tracker.settle()
            self._ask(lambda client: client.log_artifacts(self.tracker.run_id, str(folder), _place_of(bundle)))
            self._ask(lambda client: self._make(client, bundle, description, tags))
            known = self._versions_of(bundle)
        # Of a call that was repeated after its answer was lost, the first version stays.
        version, *others = known
        for other in others:
            self._ask(lambda client, other=other: client.delete_model_version(self.name, str(other)))
        return version

    def fetch(self, version: int, bundle: Bundle, place: Path) -> Path:
        """The files of a version, downloaded below `place`, every byte verified; nothing of them is run.

        Raises:
            BadRelease: The registry holds no such version, or other bytes than were released.
        """
        from mlflow.artifacts import download_artifacts

        if not self.holds(version):
            raise BadRelease(
                f"version {version} of `{self.name}` is no longer there: it was erased, or somebody deleted it",
                facts={"bundle": bundle.short},
                hint="`e2urec models list` shows the versions that are there",
            )
        target = place / "fetched"
        target.mkdir()
        try:
            uri = self._ask(lambda client: client.get_model_version_download_uri(self.name, str(version)))
            found = self._ask(lambda client: download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=self.tracker.address))
        except TrackingRefused as error:
            raise BadRelease(
                f"the registry does not hand out version {version} of `{self.name}`",
                facts={"it says": error.fact},
                hint="register it again: run the command that made it; it is taken from the store",
            ) from None
        folder = Path(found)
        (folder / MARK).unlink(missing_ok=True)
        damage = damage_of(folder, bundle.digest, nothing_else=True)
        if damage is not None:
            raise BadRelease(
                f"version {version} of `{self.name}` is not what was released: {damage}",
                facts={"bundle": bundle.short},
                hint="the champion stays as it is; put the registry's files back, or run the command that made it again",
            )
        return folder

    def versions(self) -> list[int]:
        """Numbers of all versions, oldest first."""
        return sorted(int(each.version) for each in self._ask(lambda client: client.search_model_versions(f"name='{self.name}'")))

    def run_of(self, version: int) -> str:
        """MLflow's id of the run below which the files of a version lie."""
        return str(self._ask(lambda client: client.get_model_version(self.name, str(version))).run_id)

    def aliases(self) -> dict[str, int]:
        """Versions by their alias."""
        model = self._ask(self._model)
        return {str(name): int(version) for name, version in model.aliases.items()}

    def holds(self, version: int) -> bool:
        """Whether a version is there and was not deleted."""
        from mlflow.exceptions import MlflowException

        def held(client: Any) -> bool:
            try:
                client.get_model_version(self.name, str(version))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False
            return True

        return bool(self._ask(held))

    def point(self, alias: str, version: int | None) -> None:
        """Let an alias name `version`, or no version."""
        if version is None:
            self._ask(lambda client: client.delete_registered_model_alias(self.name, alias))
        else:
            self._ask(lambda client: client.set_registered_model_alias(self.name, alias, str(version)))

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for name, value in tags.items():
            self._ask(lambda client, name=name, value=value: client.set_model_version_tag(self.name, str(version), name, value))

    def _versions_of(self, bundle: Bundle) -> list[int]:
        found = self._ask(lambda client: client.search_model_versions(f"name='{self.name}' and tags.`{BUNDLE_TAG}`='{bundle.digest}'"))
        return sorted(int(version.version) for version in found)

    def _make(self, client: Any, bundle: Bundle, description: str, tags: Mapping[str, str]) -> None:
        self._model(client)
        run_id = self.tracker.run_id
        source = f"{client.get_run(run_id).info.artifact_uri}/{_place_of(bundle)}"
        client.create_model_version(
            self.name, source=source, run_id=run_id, tags={BUNDLE_TAG: bundle.digest, **tags}, description=description
        )

    def _model(self, client: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            return client.create_registered_model(self.name)
        except MlflowException as error:
            # Another process made it first.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return client.get_registered_model(self.name)

    def _ask(self, call: Any) -> Any:
        return self.tracker.patiently(call)


def _place_of(bundle: Bundle) -> str:
    return f"{FOLDER}/{bundle.short}"


def fetched_bundle(store: Store, registry: Registry, version: int, digest: str) -> Bundle:
    """The bundle of a released version: from the store, or from the registry where the store does not hold it whole.

    Raises:
        BadRelease: See `Registry.fetch`.
    """
    bundle = next((handle for handle in store.all(Bundle) if handle.digest == digest), None)
    if bundle is not None and store.damage(bundle) is None:
        return bundle
    with store.workplace() as place:
        return store.adopt(Bundle, digest, registry.fetch(version, Bundle(digest=digest), place))
