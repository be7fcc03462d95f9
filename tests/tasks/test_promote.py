"""Promotion: proved before it is decided, decided by the ledger alone, copied to the aliases; killed anywhere, it comes out whole."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2urec_core.artifacts import Bundle
from e2urec_core.data import places
from e2urec_core.errors import BadRelease, ChampionChanged, ReleaseRefused, TrackingFailed
from e2urec_core.ledger.records import Release
from e2urec_core.store import Store
from tasks._tracking import Tracker
from tasks.promote import promote
from tests.by_default import few
from tests.promoting_children import open_shop, promote_until
from tests.released import release
from tests.tracking_servers import mlflow_server, way_to

if TYPE_CHECKING:
    from e2urec_core.recommender import Recommender

WEIGHTS = f"{places.BUNDLE}/model.safetensors"
POINTS = ("promote.proved", "ledger.begin", "ledger.commit", "ledger.committed", "promote.recorded", "alias.set", "promote.mirrored")


class Shop:
    """A workspace with releases of one small recommender; what tells them apart is a note in their bundles."""

    def __init__(self, place: Path, made: Path) -> None:
        self.made, self.store = made, Store(place / "store")
        self.desk = open_shop(place)
        self.tracker = self.desk.registry.tracker
        self.tracker.start("run-1", {}, "")

    def bundle(self, note: str) -> Bundle:
        with self.store.workplace() as place:
            folder = Path(shutil.copytree(self.made, place / "copy"))
            (folder / "note.txt").write_text(note)
            return self.store.publish(Bundle, folder, parents=(), rows=1, made_by="bundle")

    def release(self, note: str, *, passed: bool = True, forgotten: tuple[str, ...] = (), against: str | None = None) -> int:
        """Register a release that was judged against the present champion; returns its version."""
        bundle, champion = self.bundle(note), self.desk.releases.line().champion
        told: dict[str, Any] = {
            "bundle": bundle.digest,
            "model": "a" * 64,
            "kind": "Unlearned",
            "run": note,
            "verdict": {},
            "passed": passed,
        }
        judged = Release(**told, judged_against=(champion or "") if against is None else against)
        self.desk.releases.add(judged, {subject * 20: "b" * 64 for subject in forgotten})
        version = self.desk.registry.register(bundle, self.store.open(bundle), "# card", {})
        self.desk.releases.registered(bundle.digest, version)
        self.desk.mirror()
        return version

    @property
    def champion(self) -> int | None:
        found = self.desk.champion()
        return found.registry_version if found else None


def killed(place: Path, version: int, point: str) -> int:
    """Promote in a process that dies at a failpoint; returns the signal that it died of."""
    # Forked from a server that has imported everything and run nothing: a fork of this process would take over the locks of its threads.
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["mlflow", "transformers", "e2urec_core.recommender", "tasks.promote", "tests.promoting_children"])
    child = children.Process(target=promote_until, args=(place, version, point))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "it hangs"
    return -child.exitcode


@pytest.fixture(scope="module")
def made(build_tiny: Callable[..., Recommender], tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(build_tiny("tiny_t5"), tiny_interactions, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh tracking database, whose making takes seconds."""
    place = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(place).start("run-0", {}, "")
    return place / "mlflow.db"


@pytest.fixture
def shop(made: Path, tracking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(tracking, tmp_path / "mlflow.db")
    return Shop(tmp_path, made)


def test_the_first_champion_and_the_next_one_move_all_three_aliases(shop: Shop) -> None:
    first = shop.release("first")
    assert shop.desk.registry.aliases() == {"challenger": first}
    assert promote(shop.desk, first).epoch == 1
    assert shop.desk.registry.aliases() == {"champion": first}
    second = shop.release("second")
    assert shop.desk.registry.aliases() == {"champion": first, "challenger": second}
    promote(shop.desk, second)
    assert shop.desk.registry.aliases() == {"champion": second, "previous": first}
    assert promote(shop.desk, second).epoch == 2
    assert promote(shop.desk, first, "rollback").epoch == 3
    assert shop.desk.registry.aliases() == {"champion": first, "previous": second}


def test_a_refusal_is_said_before_anything_is_downloaded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = shop.release("first", forgotten=("a",))
    promote(shop.desk, champion)
    monkeypatch.setattr(type(shop.desk.registry), "fetch", lambda *_: pytest.fail("it was downloaded"))
    refused = {
        "failed its gates": shop.release("failed", passed=False, forgotten=("a",)),
        "still knows 1 of those": shop.release("remembers"),
        "was judged against": shop.release("late", against="", forgotten=("a",)),
    }
    for said, version in refused.items():
        with pytest.raises(ReleaseRefused, match=said):
            promote(shop.desk, version)
    with pytest.raises(ReleaseRefused, match="never champion"):
        promote(shop.desk, refused["failed its gates"], "rollback")
    assert shop.champion == champion


# Right before the ledger decides, right after, and while the registry follows.
@pytest.mark.parametrize("point", few({"ledger.commit", "ledger.committed", "alias.set"}, POINTS))
def test_killed_anywhere_the_champion_is_one_of_the_two_and_the_same_call_ends_it(shop: Shop, tmp_path: Path, point: str) -> None:
    first = shop.release("first")
    promote(shop.desk, first)
    second = shop.release("second")
    assert killed(tmp_path, second, point) == signal.SIGKILL
    recorded = point not in ("promote.proved", "ledger.begin", "ledger.commit")
    assert shop.champion == (second if recorded else first)
    shop.desk.repair()
    assert shop.desk.registry.aliases()["champion"] == shop.champion
    assert promote(shop.desk, second).epoch == 2
    assert shop.desk.registry.aliases() == {"champion": second, "previous": first}
    shop.desk.ledger.verify()


def test_two_promotions_judged_against_the_same_champion_cannot_both_win(shop: Shop) -> None:
    promote(shop.desk, shop.release("first"))
    rivals = [shop.release(note) for note in ("second", "third")]
    # The first one stands right before its decision while the second one is carried out.
    steps = iter([lambda: promote(shop.desk, rivals[1])])
    shop_promote = type(shop.desk.releases).check

    def late(releases: Any, version: int, kind: Any) -> None:
        shop_promote(releases, version, kind)
        for step in steps:
            step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(shop.desk.releases), "check", late)
        with pytest.raises(ChampionChanged, match=f"from version 1 to version {rivals[1]} meanwhile"):
            promote(shop.desk, rivals[0])
    assert shop.champion == rivals[1]
    assert shop.desk.registry.aliases()["champion"] == rivals[1]


def test_an_alias_moved_by_somebody_else_is_set_back_noted_and_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    first = shop.release("first")
    promote(shop.desk, first)
    second = shop.release("second")
    shop.desk.registry.point("champion", second)
    shop.desk.repair()
    assert shop.desk.registry.aliases() == {"champion": first, "challenger": second}
    assert f"champion: version {second} -> version {first}" in capsys.readouterr().err
    assert shop.desk.ledger.events()[-1].event == "aliases set back"
    shop.desk.repair()
    assert capsys.readouterr().err == ""


def altered(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


def lost(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(("fault", "said"), [(altered, "have changed"), (lost, "is missing")])
def test_a_copy_that_is_not_what_was_released_is_not_promoted(shop: Shop, fault: Callable[[Path], None], said: str) -> None:
    first = shop.release("first")
    promote(shop.desk, first)
    version = shop.release("second")
    fault(Path(shop.tracker.client.get_model_version_download_uri("shop", str(version)).removeprefix("file://")))
    with pytest.raises(BadRelease, match=said):
        promote(shop.desk, version)
    assert shop.champion == first


def test_a_model_that_answers_otherwise_than_at_its_release_is_not_promoted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    version = shop.release("first")
    for difference in (2e-6, float("inf"), float("nan")):
        monkeypatch.setattr("e2urec_core.release.probe.check_probe", lambda _, difference=difference: difference)
        with pytest.raises(BadRelease, match="answers its probe otherwise"):
            promote(shop.desk, version)
    assert shop.champion is None


@pytest.mark.long
def test_a_registry_that_answers_500_promotes_nothing_that_is_not_recorded_and_goes_on_later(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    with (
        mlflow_server(tmp_path / "server", "--artifacts-destination", str(tmp_path / "artifacts")) as address,
        way_to(address) as (through, way),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", through)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("E2UREC_TRACKING_PATIENCE_S", "1")
        shop = Shop(tmp_path / "shop", made)
        version = shop.release("first")
        for path in ("/registered-models/get", "/model-versions/get-download-uri", "/mlflow-artifacts/"):
            way.spoil(path, times=1000)
            with pytest.raises(TrackingFailed, match="did not answer within 1 s"):
                promote(shop.desk, version)
            assert shop.champion is None
            way.mend()
        # The ledger has decided; the alias follows when the registry answers again.
        way.spoil("/registered-models/alias", times=1000)
        with pytest.raises(TrackingFailed):
            promote(shop.desk, version)
        assert shop.champion == version
        way.mend()
        assert promote(shop.desk, version).epoch == 1
        assert shop.desk.registry.aliases() == {"champion": version}


def test_only_the_ledgers_releases_have_roles(shop: Shop) -> None:
    shop.release("first")
    assert dataclasses.replace(shop.desk, run="other").champion() is None
