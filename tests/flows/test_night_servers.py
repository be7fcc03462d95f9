"""Nights whose ledger is a PostgreSQL database, and whose tracking server keeps the artifacts in a store that speaks S3."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from e2urec_console import Story
from nightly_shops import NightShop
from tracking_servers import mlflow_server, object_store

pytestmark = pytest.mark.long
BUCKET = "shelf"


def test_a_request_is_carried_out_with_a_ledger_and_a_registry_on_servers(
    story: Story, tmp_path: Path, postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "server").mkdir()
    place = ("--default-artifact-root", f"s3://{BUCKET}/models", "--no-serve-artifacts")
    with object_store(BUCKET) as store, mlflow_server(tmp_path / "server", *place, environment=store) as address:
        servers = {**store, "MLFLOW_TRACKING_URI": address, "E2UREC_LEDGER": postgres()}
        shop = NightShop.opened(story.workspace, tmp_path / "workspace", **servers)
        request.addfinalizer(shop.console.close)
        before, first = objects(store, monkeypatch), shop.champion()
        whole, single = shop.users[0], shop.users[1]
        asked = [shop.ask(whole), shop.ask("who-is-that-7")]
        assert shop.scan(whole)
        (night,) = shop.night()
        assert [shop.states()[each] for each in asked] == ["certified", "no_data"]
        assert (first, shop.champion(), night["champion"]) == (1, 2, 2)
        assert (shop.scan(whole), shop.scan("who-is-that-7")) == ([], [])
        assert shop.console("receipt", "verify-all").code == 0
        receipt = next(each for each in shop.receipts() if each["request"] == asked[0])
        assert receipt["erased"]["places"]["model_versions"] == 1
        # What only the server's operators can remove is said to the subject.
        assert any("mlflow gc" in each["what"] for each in receipt["kept"])
        after = objects(store, monkeypatch)
        assert before
        assert not before & after
        assert not (shop.place / "requests.db").exists()

        again = shop.ask(single)
        shop.night()
        assert (shop.states()[again], shop.champion(), shop.scan(single)) == ("certified", 3, [])
        assert not after & objects(store, monkeypatch)


def objects(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the champion's and other files of models in the store."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {each["Key"] for page in pages for each in page.get("Contents", ()) if each["Key"].endswith(".safetensors")}
