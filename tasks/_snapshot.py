"""Which stored data the champion stands on: the ratings, the examples and the tokens that a night starts from.

A release's run says so until people are erased; from then on the ledger's history does, by an event of digests and settings whenever data
are rewritten. There a run that was taken over can write no more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.artifacts import Artifact, Examples, ForgetRequest, Interactions, Tokens, canonical_json
from e2urec_core.data.places import PARTS
from e2urec_core.errors import UnknownRun
from e2urec_core.notes import facts
from e2urec_core.settings import Settings
from e2urec_core.store import Store
from tasks._stores import journals_of

if TYPE_CHECKING:
    from e2urec_core.ledger.history import Ledger

EVENT = "data rewritten"
STAGES = {"rows": "ingest", "examples": "split", "tokens": "tokenise", "request": "forget"}


class Snapshot(Settings):
    """The data that releases stand on."""

    releases: tuple[str, ...]
    """Bundles of the releases that a night may start from with these data: the champion, and the one before while it is retained."""
    settings: dict[str, Any]
    """Settings of the run that the first of them was trained in."""
    rows: Interactions
    """The ratings."""
    examples: Examples
    """The ratings cut by time."""
    tokens: Tokens
    """The prompts as token ids."""
    request: ForgetRequest | None = None
    """Whom the champion had forgotten already, whose rows are still among the data."""

    def num_users(self, store: Store) -> int:
        """Users among the ratings.

        Raises:
            DamagedArtifact: They are damaged.
        """
        return int(facts(store.open(self.rows, apart_from=PARTS))["users"])

    def write(self, ledger: Ledger, epoch: int) -> None:
        """Make these the data from now on; the same again changes nothing.

        Raises:
            Fenced: Another run has claimed or taken over since `epoch`.
        """
        from e2urec_core.ledger.requests import Requests

        with ledger.writing() as connection:
            Requests(ledger).refuse_fenced(epoch, connection)
            newest = ledger.newest(EVENT, connection)
            told = self.canonical()
            if newest is None or json.loads(newest.facts) != json.loads(canonical_json(told)):
                ledger.append(connection, EVENT, self.rows.digest, told)


def written(ledger: Ledger) -> Snapshot | None:
    """The data that the ledger names, if it does."""
    with ledger.reading() as connection:
        newest = ledger.newest(EVENT, connection)
    return None if newest is None else Snapshot.model_validate_json(newest.facts)


def snapshot_of(workspace: Path, store: Store, ledger: Ledger, bundle: str, run: str) -> Snapshot:
    """The data behind a release.

    Args:
        workspace: Its folder.
        store: Its artifacts.
        ledger: Its ledger.
        bundle: Of the release.
        run: Name of the run that made it.

    Raises:
        UnknownRun: The run's record is gone, or says nothing of its data.
        DamagedArtifact: The data are damaged or gone.
    """
    there = written(ledger)
    if there is not None and bundle in there.releases:
        return there
    record = journals_of(workspace).open(run).record
    found: dict[str, Artifact | None] = {
        name: entry.artifact() if (entry := record.stages.get(stage)) else None for name, stage in STAGES.items()
    }
    if missing := [stage for name, stage in STAGES.items() if found[name] is None]:
        raise UnknownRun(
            f"run `{run}`, which made the champion, does not say what {len(missing)} of its stages gave: {', '.join(missing)}",
            hint="train a champion anew with `e2urec train`",
        )
    request = found.pop("request")
    assert request is not None
    counts = facts(store.open(request))["counts"]
    names_somebody = counts.get("forgotten_users") or counts.get("forgotten_interactions")
    return Snapshot.model_validate(
        {"releases": (bundle,), "settings": record.settings, **found, "request": request if names_somebody else None}
    )
