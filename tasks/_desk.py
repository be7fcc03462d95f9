"""What releases are made with: the store, the ledger, the registry; and the copying of the ledger's line into the registry's aliases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2urec_core.artifacts import Bundle
from e2urec_core.failpoints import failpoint
from e2urec_core.store import Store
from tasks._progress import say
from tasks._registry import Registry, fetched_bundle
from tasks._stores import store_of
from tasks._tracking import Tracker

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger
    from e2urec_core.ledger.records import ReleaseRecord
    from e2urec_core.ledger.releases import Releases
    from e2urec_core.pseudonyms import Pseudonyms

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
MODEL_NAME_VARIABLE, MODEL_NAME = "E2UREC_MODEL_NAME", "e2urec"


def model_name() -> str:
    """Name of the registered model: `E2UREC_MODEL_NAME`, else `e2urec`."""
    return os.environ.get(MODEL_NAME_VARIABLE) or MODEL_NAME


@dataclass(frozen=True)
class Desk:
    """Where releases are made.

    Args:
        workspace: The workspace's folder.
        store: Its artifacts.
        ledger: The truth about releases.
        registry: Their copy for the tools that serve them.
        run: Name that the ledger notes as whose doing it was.
    """

    workspace: Path
    store: Store
    ledger: Ledger
    registry: Registry
    run: str

    @classmethod
    def open(cls, workspace: Path, store: Store, tracker: Tracker, name: str, run: str) -> Desk:
        """Open the ledger of a workspace and the registered model `name`.

        Raises:
            StorageFailed: The ledger cannot be used; see `open_ledger` for what else.
        """
        from e2urec_core.ledger import ledger_place, open_ledger

        return cls(workspace, store, open_ledger(ledger_place(workspace)), Registry(tracker, name), run)

    @classmethod
    def of(cls, workspace: Path, run: str) -> Desk:
        """The desk of a workspace in which no run is under way, for a command that the ledger is to note as `run`; see `open`."""
        return cls.open(workspace, store_of(workspace), Tracker(workspace), model_name(), run)

    @property
    def releases(self) -> Releases:
        """The ledger's releases."""
        from e2urec_core.ledger.releases import Releases

        return Releases(self.ledger)

    def pseudonyms(self) -> Pseudonyms:
        """Names for people that say nothing without the workspace's key.

        Raises:
            BadKey: See `open_pseudonyms`.
        """
        from e2urec_core.pseudonyms import open_pseudonyms

        return open_pseudonyms(self.workspace, self.ledger)

    def champion(self) -> ReleaseRecord | None:
        """The release that is in production."""
        found = self.releases.line().champion
        return self.releases.release(found) if found else None

    def bundle_of(self, release: ReleaseRecord) -> Bundle:
        """A release's bundle, whole in the store; from the registry where the store has lost it.

        Raises:
            BadRelease: Neither has it as it was released.
        """
        assert release.registry_version is not None, "a champion is registered"
        return fetched_bundle(self.store, self.registry, release.registry_version, release.bundle)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other process of this machine changes the aliases."""
        from filelock import FileLock

        with FileLock(self.workspace / "aliases.lock", mode=0o600):
            yield

    def mirror(self) -> list[str]:
        """Make the registry's aliases what the ledger says; returns what had to be changed, for people.

        Raises:
            TrackingFailed: The registry does not answer.
        """
        changed: list[str] = []
        with self.alone():
            # Another machine may promote meanwhile: what is set must be what the ledger says afterwards.
            for _ in range(10):
                wanted, there = self._wanted(), self.registry.aliases()
                different = [alias for alias in ALIASES if wanted.get(alias) != there.get(alias)]
                if not different:
                    return changed
                for alias in different:
                    self.registry.point(alias, wanted.get(alias))
                    failpoint("alias.set")
                    changed.append(f"{alias}: {_version(there.get(alias))} -> {_version(wanted.get(alias))}")
        raise AssertionError("ten promotions in a row while aliases were set")

    def repair(self) -> None:
        """Set back aliases that do not say what the ledger says, note it there, and tell people."""
        changed = self.mirror()
        if changed:
            say(f"the registry's aliases were not the ledger's and were set back: {', '.join(changed)}")
            with self.ledger.writing() as connection:
                self.ledger.append(connection, "aliases set back", self.registry.name, {"changes": changed, "run": self.run})

    def _wanted(self) -> dict[str, int]:
        line, newest = self.releases.line(), next((each for each in self.releases.releases() if each.registry_version), None)
        named = {CHAMPION: line.champion, PREVIOUS: line.previous}
        if newest is not None and newest.bundle not in named.values() and not self.releases.was_champion(newest.bundle):
            named[CHALLENGER] = newest.bundle
        versions = {alias: self.releases.release(bundle).registry_version for alias, bundle in named.items() if bundle}
        # A release that was erased stays in the ledger, and its version is gone. Of the champion that would be a fault, and is one.
        return {
            alias: version
            for alias, version in versions.items()
            if version is not None and (alias == CHAMPION or self.registry.holds(version))
        }


def _version(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
