"""Releases and the line of champions: what is noted, what may become champion, and what is refused, in both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import champion, digest, registered, release, releases_at, subject
from pydantic import ValidationError
from sqlalchemy import text

from e2urec_core.errors import ChampionChanged, DamagedLedger, ReleaseRefused, UnknownRelease
from e2urec_core.ledger.records import Line
from e2urec_core.ledger.releases import Releases


@pytest.fixture
def releases(place: Path | str) -> Releases:
    return releases_at(place)


def test_a_release_comes_back_as_it_was_added(releases: Releases) -> None:
    added = releases.add(release(1), {subject(7): digest(70)})
    assert added.state == "built"
    assert added.model_dump(exclude={"registry_version", "made_at", "registered_at"}) == release(1).model_dump()
    assert releases.release(digest(1)) == added
    assert releases.forgotten_by(digest(1)) == {subject(7): digest(70)}
    assert releases.registered(digest(1), 4).state == "registered"
    assert releases.release(4).registered_at is not None


def test_releases_are_listed_newest_first(releases: Releases) -> None:
    for number in (3, 1, 2):
        releases.add(release(number), {})
    assert [each.bundle for each in releases.releases()] == [digest(number) for number in (2, 1, 3)]


def test_adding_and_registering_again_changes_nothing(place: Path | str, releases: Releases) -> None:
    added, now = releases.add(release(1), {subject(7): digest(70)}), releases.registered(digest(1), 1)
    events = len(releases._ledger.events())
    again = releases_at(place)
    assert again.add(release(1), {subject(7): digest(70)}) == now != added
    assert again.registered(digest(1), 1) == now
    assert len(releases._ledger.events()) == events == 2


def test_another_content_under_one_digest_is_a_bug(releases: Releases) -> None:
    releases.add(release(1), {})
    with pytest.raises(AssertionError, match="stands for one release"):
        releases.add(release(1, passed=False), {})
    with pytest.raises(AssertionError, match="stands for one release"):
        releases.add(release(1), {subject(1): digest(1)})


def test_a_user_identifier_in_place_of_a_subject_is_a_bug_that_does_not_repeat_it(releases: Releases) -> None:
    for wrong in ("90417", subject(1) + "\n", "A" * 20):
        with pytest.raises(AssertionError, match=r"^a subject is not 20 hex digits$"):
            releases.add(release(1), {wrong: digest(1)})
    assert releases.releases() == []


def test_a_release_of_an_unknown_base_is_refused_and_leaves_nothing(releases: Releases) -> None:
    with pytest.raises(UnknownRelease, match="does not hold release 000000000000"):
        releases.add(release(2, base=1), {})
    assert (releases.releases(), releases._ledger.events()) == ([], [])
    releases.add(release(1), {})
    assert releases.add(release(2, base=1), {}).base == digest(1)


def test_a_version_is_one_releases_and_a_release_has_one_version(releases: Releases) -> None:
    registered(releases, 1)
    releases.add(release(2), {})
    with pytest.raises(ReleaseRefused, match="is registered as version 1, not 2"):
        releases.registered(digest(1), 2)
    with pytest.raises(ReleaseRefused, match="version 1 is another release's"):
        releases.registered(digest(2), 1)
    with pytest.raises(UnknownRelease):
        releases.registered(digest(3), 3)
    assert releases.release(digest(2)).registry_version is None


def test_champions_follow_one_another(releases: Releases) -> None:
    assert releases.line() == Line(epoch=0)
    assert champion(releases, 1) == Line(epoch=1, champion=digest(1))
    assert champion(releases, 2) == releases.line() == Line(epoch=2, champion=digest(2), previous=digest(1))
    back = releases.promote(digest(1), seen_epoch=2, kind="rollback", run="back")
    assert back == Line(epoch=3, champion=digest(1), previous=digest(2))
    assert [event.event for event in releases._ledger.events()].count("champion changed") == 3


def test_promoting_the_champion_again_changes_nothing_whatever_was_seen(releases: Releases) -> None:
    line = champion(releases, 1)
    head = releases._ledger.head()
    assert releases.promote(1, seen_epoch=0, kind="promote", run="again") == line
    assert releases._ledger.head() == head


def test_a_promotion_decided_on_another_champion_is_refused_and_says_which(releases: Releases) -> None:
    champion(releases, 1)
    registered(releases, 3, against=1)
    champion(releases, 2)
    with pytest.raises(ChampionChanged, match="from version 1 to version 2 meanwhile") as refused:
        releases.promote(3, seen_epoch=1, kind="promote", run="late")
    assert refused.value.facts == {"epoch that was seen": 1, "epoch now": 2}
    assert releases.line() == Line(epoch=2, champion=digest(2), previous=digest(1))


@pytest.mark.parametrize("kind", ["promote", "rollback"])
def test_what_is_not_registered_or_unknown_is_not_promoted(releases: Releases, kind: str) -> None:
    releases.add(release(1), {})
    with pytest.raises(ReleaseRefused, match="is not registered"):
        releases.promote(digest(1), seen_epoch=0, kind=kind, run="test")
    for unknown in (1, digest(2)):
        with pytest.raises(UnknownRelease):
            releases.promote(unknown, seen_epoch=0, kind=kind, run="test")
    assert releases.line() == Line(epoch=0)


def test_what_failed_its_gates_is_registered_but_never_champion(releases: Releases) -> None:
    registered(releases, 1, passed=False)
    with pytest.raises(ReleaseRefused, match="version 1 has failed its gates"):
        releases.promote(1, seen_epoch=0, kind="promote", run="test")
    with pytest.raises(ReleaseRefused, match="was never champion"):
        releases.promote(1, seen_epoch=0, kind="rollback", run="test")
    assert releases.line() == Line(epoch=0)


def test_a_release_is_judged_against_the_champion_it_replaces(releases: Releases) -> None:
    registered(releases, 2, against=0)
    champion(releases, 1)
    with pytest.raises(ReleaseRefused, match="judged against none, the champion is version 1"):
        releases.promote(2, seen_epoch=1, kind="promote", run="test")


@pytest.mark.parametrize("kind", ["promote", "rollback"])
def test_who_was_forgotten_by_a_champion_is_known_to_none_after_it(releases: Releases, kind: str) -> None:
    champion(releases, 1, forgotten=[1])
    champion(releases, 2, forgotten=range(1, 9))
    registered(releases, 3, against=2, forgotten=[1, 9])
    target = {"promote": 3, "rollback": 1}[kind]
    assert releases.completed() == {subject(1): 1} | {subject(number): 2 for number in range(2, 9)}
    assert releases.still_known(target) == [subject(number) for number in range(2, 9)]
    with pytest.raises(ReleaseRefused, match=rf"version {target} still knows 7 .* {subject(6)} and 2 more\n") as refused:
        releases.promote(target, seen_epoch=2, kind=kind, run="test")
    assert refused.value.facts == {subject(number): "version 2 has forgotten it" for number in range(2, 7)}
    assert releases.line().epoch == 2


def test_whom_no_champion_has_forgotten_nobody_must_have_forgotten(releases: Releases) -> None:
    champion(releases, 1)
    registered(releases, 2, against=1, forgotten=[1])
    assert releases.completed() == {}
    assert champion(releases, 3).epoch == 2


@pytest.mark.parametrize(
    ("field", "value"), [("bundle", "1" * 63), ("bundle", "g" * 64), ("kind", "Shards"), ("judged_against", "none"), ("base", "")]
)
def test_a_release_with_a_malformed_field_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        type(release(1)).model_validate(release(1).model_dump() | {field: value})


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE releases SET passed = true WHERE number = 3", "`releases`"),
        ("UPDATE releases SET judged_against = bundle WHERE number = 2", "`releases`"),
        ("UPDATE releases SET registry_version = 9 WHERE number = 1", "`releases`"),
        ("UPDATE releases SET made_at = 'never' WHERE number = 1", "`releases`"),
        ("DELETE FROM releases WHERE number = 3", "`releases`"),
        ("DELETE FROM forgotten", "`forgotten`"),
        (f"INSERT INTO forgotten VALUES ('{digest(3)}', '{subject(1)}', '{digest(1)}')", "`forgotten`"),
        ("UPDATE line SET champion = previous", "`line`"),
        (f"INSERT INTO promotions VALUES (3, '{digest(3)}', '{digest(2)}', 'promote', 'never', 'test')", "`promotions`"),
    ],
)
def test_a_row_that_is_not_what_the_history_says_is_found(place: Path | str, change: str, table: str) -> None:
    releases = releases_at(place)
    champion(releases, 1)
    champion(releases, 2, forgotten=[1])
    releases.add(release(3, passed=False), {})
    assert releases.verify() == releases._ledger.head()
    with releases._ledger.writing() as connection:
        connection.execute(text(change))
    with pytest.raises(DamagedLedger, match=table):
        releases.verify()
