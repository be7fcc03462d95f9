"""Puts a released recommender into the champion's place, or takes an earlier one back there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2urec_core.artifacts import Bundle
from e2urec_core.data.places import BUNDLE
from e2urec_core.errors import BadRelease
from e2urec_core.failpoints import failpoint
from tasks._desk import Desk

if TYPE_CHECKING:
    from e2urec_core.ledger.records import Line, Promotion, ReleaseRecord

PROBE_BOUND = 1e-6
"""Most by which p(Yes) of a probe may differ from what it was at release; the same bits on the same machine."""


def promote(desk: Desk, version: int, kind: Promotion = "promote") -> Line:
    """Make a version the champion, once the registry's copy of it has been proved to be what was released.

    The ledger decides in one transaction, by compare-and-set; the aliases follow it. Killed between the two, whoever looks next sets the
    aliases. The same call again changes nothing.

    Args:
        desk: Where releases are made.
        version: Of the registered model.
        kind: `promote`, or `rollback` to what was champion before.

    Raises:
        DamagedLedger: The ledger's tables are not what its history says.
        ReleaseRefused: It may not become champion; see `Releases.promote`.
        ChampionChanged: Somebody was quicker.
        UnknownRelease: The ledger holds no such version.
        BadRelease: The registry's copy is not what was released, or answers otherwise.
        TrackingFailed: The registry does not answer; nothing was promoted.
    """
    desk.releases.verify()
    desk.repair()
    before, release = desk.releases.line(), desk.releases.release(version)
    desk.releases.check(version, kind)
    if before.champion != release.bundle:
        prove(desk, release)
        failpoint("promote.proved")
    after = desk.releases.promote(version, seen_epoch=before.epoch, kind=kind, run=desk.run)
    failpoint("promote.recorded")
    desk.mirror()
    failpoint("promote.mirrored")
    return after


def prove(desk: Desk, release: ReleaseRecord) -> None:
    """Load a release back from the registry and compare every byte, and what it answers to its probe.

    Raises:
        BadRelease: It is not what was released.
    """
    from e2urec_core.release.probe import check_probe

    assert release.registry_version is not None, "only a registered release is proved"
    with desk.store.workplace() as place:
        folder = desk.registry.fetch(release.registry_version, Bundle(digest=release.bundle), place)
        difference = check_probe(folder / BUNDLE)
    if not difference <= PROBE_BOUND:
        raise BadRelease(
            f"version {release.registry_version} answers its probe otherwise than when it was released: by up to {difference:.2g}",
            facts={"bound": PROBE_BOUND},
            hint="it was released on another machine or with other packages: make it here again, and promote that",
        )
