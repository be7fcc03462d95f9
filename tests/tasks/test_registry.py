"""The model registry: versions found by the digest of their bundle, verified byte by byte on the way back, on every back end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2urec_core.artifacts import Bundle
from e2urec_core.errors import BadRelease, TrackingFailed
from e2urec_core.store import Store
from tasks._registry import FOLDER, Registry, fetched_bundle
from tasks._tracking import Tracker
from tests.tracking_servers import Way, mlflow_server, object_store, way_to

MODEL_FILE = "artifacts/bundle/model.safetensors"


class Shelf:
    """A workspace with a registry, and bundles to put there."""

    def __init__(self, place: Path) -> None:
        self.place, self.store = place, Store(place / "store")
        self.tracker = Tracker(place)
        self.registry = Registry(self.tracker, "shop")
        self.tracker.start("run-1", {"seed": 0}, "")

    def bundle(self, weights: bytes = b"weights") -> Bundle:
        with self.store.workplace() as place:
            (place / MODEL_FILE).parent.mkdir(parents=True)
            (place / MODEL_FILE).write_bytes(weights)
            (place / "MLmodel").write_text("flavors: {}\n")
            return self.store.publish(Bundle, place, parents=("a" * 64,), rows=1, made_by="bundle")

    def register(self, bundle: Bundle) -> int:
        return self.registry.register(bundle, self.store.open(bundle), "# card", {"e2urec.passed": "true"})

    def fetched(self, version: int, bundle: Bundle) -> bytes:
        with self.store.workplace() as place:
            return (self.registry.fetch(version, bundle, place) / MODEL_FILE).read_bytes()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@pytest.fixture
def shelf(local: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Shelf(local)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Way, dict[str, str]]]:
    """The address of a way to a real server whose artifacts lie in an object store."""
    folder = tmp_path_factory.mktemp("server")
    with (
        object_store("shelf") as environment,
        mlflow_server(folder, "--default-artifact-root", "s3://shelf/models", "--no-serve-artifacts", environment=environment) as address,
        way_to(address) as (way_address, way),
    ):
        yield way_address, way, environment


@pytest.fixture
def remote(served: tuple[str, Way, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shelf, Way]:
    address, way, environment = served
    way.mend()
    way.seen.clear()
    settings = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "E2UREC_TRACKING_PATIENCE_S": "20", **environment}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return Shelf(tmp_path), way


def source_of(shelf: Shelf, version: int) -> Path:
    uri = shelf.tracker.client.get_model_version_download_uri("shop", str(version))
    return Path(uri.removeprefix("file://"))


def test_a_bundle_is_registered_once_however_often_it_is_asked_for(shelf: Shelf) -> None:
    bundle = shelf.bundle(b"once")
    version = shelf.register(bundle)
    assert shelf.register(bundle) == version
    assert shelf.register(shelf.bundle(b"other")) == version + 1
    kept = shelf.tracker.client.get_model_version("shop", str(version))
    assert (kept.tags["e2urec.bundle"], kept.tags["e2urec.passed"], kept.description) == (bundle.digest, "true", "# card")
    assert kept.run_id == shelf.tracker.run_id
    assert shelf.fetched(version, bundle) == b"once"


def test_aliases_are_set_moved_and_taken_away(shelf: Shelf) -> None:
    first, second = (shelf.register(shelf.bundle(weights)) for weights in (b"one", b"two"))
    shelf.registry.point("champion", first)
    shelf.registry.point("previous", second)
    assert shelf.registry.aliases() == {"champion": first, "previous": second}
    shelf.registry.point("champion", second)
    shelf.registry.point("previous", None)
    shelf.registry.point("previous", None)
    assert shelf.registry.aliases() == {"champion": second}


def altered(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"weighty")


def shortened(folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(b"weight")


def lost(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()


def planted(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("raise SystemExit")


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (altered, f"the bytes of `{MODEL_FILE}` have changed"),
        (shortened, f"the bytes of `{MODEL_FILE}` have changed"),
        (lost, f"`{MODEL_FILE}` is missing"),
        (planted, "`sitecustomize.py` was not published"),
        (gone, "does not hand out version"),
    ],
)
def test_what_comes_back_from_the_registry_is_verified(shelf: Shelf, fault: Any, said: str) -> None:
    bundle = shelf.bundle(said.encode())
    version = shelf.register(bundle)
    fault(source_of(shelf, version))
    with pytest.raises(BadRelease) as caught:
        shelf.fetched(version, bundle)
    assert said in str(caught.value)
    assert list((shelf.place / "store" / "tmp").iterdir()) == []


def test_a_version_that_was_erased_is_not_called_a_fault_of_the_server(shelf: Shelf) -> None:
    bundle = shelf.bundle(b"forgotten")
    version = shelf.register(bundle)
    shelf.tracker.client.delete_model_version("shop", str(version))
    with pytest.raises(BadRelease, match=f"version {version} of `shop` is no longer there: it was erased"):
        shelf.fetched(version, bundle)


def test_a_bundle_that_the_store_lost_comes_back_from_the_registry(shelf: Shelf) -> None:
    bundle = shelf.bundle(b"lost and found")
    version = shelf.register(bundle)
    shutil.rmtree(shelf.store.open(bundle))
    assert fetched_bundle(shelf.store, shelf.registry, version, bundle.digest) == bundle.model_copy(update={"rows": 0, "made_by": ""})
    assert (shelf.store.open(bundle) / MODEL_FILE).read_bytes() == b"lost and found"


@pytest.mark.slow
def test_a_server_with_an_object_store_keeps_versions_and_gives_them_back(remote: tuple[Shelf, Way]) -> None:
    shelf, _ = remote
    bundle = shelf.bundle(b"far away")
    version = shelf.register(bundle)
    source = shelf.tracker.client.get_model_version("shop", str(version)).source
    assert source.startswith("s3://shelf/models/")
    assert source.endswith(f"/{FOLDER}/{bundle.short}")
    assert shelf.fetched(version, bundle) == b"far away"
    assert shelf.register(bundle) == version
    shelf.registry.point("champion", version)
    assert shelf.registry.aliases()["champion"] == version


@pytest.mark.slow
def test_a_call_whose_answer_was_lost_makes_no_second_version(remote: tuple[Shelf, Way]) -> None:
    shelf, way = remote
    bundle = shelf.bundle(b"answer lost")
    way.spoil("model-versions/create", times=2, after=True)
    version = shelf.register(bundle)
    made = [call for call in way.seen if "model-versions/create" in call]
    assert len(made) == 3
    found = shelf.tracker.client.search_model_versions(f"name='shop' and tags.`e2urec.bundle`='{bundle.digest}'")
    assert [int(each.version) for each in found] == [version]
    assert shelf.fetched(version, bundle) == b"answer lost"


@pytest.mark.slow
def test_a_server_that_answers_500_for_a_while_is_asked_until_it_does_not(remote: tuple[Shelf, Way]) -> None:
    shelf, way = remote
    way.spoil("/api/2.0/mlflow/registered-models/", times=2)
    way.spoil("/api/2.0/mlflow/model-versions/", times=2)
    bundle = shelf.bundle(b"at last")
    assert shelf.fetched(shelf.register(bundle), bundle) == b"at last"


@pytest.mark.slow
def test_a_server_that_stays_down_is_one_sentence_and_everything_stays_on_disk(
    remote: tuple[Shelf, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, way = remote
    monkeypatch.setenv("E2UREC_TRACKING_PATIENCE_S", "1")
    bundle = shelf.bundle(b"later")
    way.spoil("/api/", times=1000)
    with pytest.raises(TrackingFailed, match="did not answer within 1 s"):
        shelf.register(bundle)
    way.mend()
    assert shelf.fetched(shelf.register(bundle), bundle) == b"later"
