"""A bucket of an object store on the loopback address, as tests of the shared store use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from tracking_servers import LOOPBACK, Way, object_store, way_to

from e2urec_core.remote import PATIENCE

BUCKET = "shelf"
# Set in the tests' own process too, where Arrow and boto3 read them.
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "E2UREC_STORE", "E2UREC_STORE_VERSIONS")


class Shelf(NamedTuple):
    """The bucket.

    Args:
        client: For looking into it, by the straight way.
        way: For spoiling calls of everybody else.
        environment: In which others find it.
    """

    client: Any
    way: Way
    environment: dict[str, str]

    def address(self, folder: str) -> str:
        """The address of a folder of it."""
        return f"s3://{BUCKET}/{folder}"

    def keys(self, below: str) -> list[str]:
        """Names of all objects below a folder, without the folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{below}/")
        return [each["Key"].removeprefix(f"{below}/") for page in pages for each in page.get("Contents", ())]

    def num_versions(self, below: str) -> int:
        """Versions and marks of removal below a folder."""
        told = self.client.list_object_versions(Bucket=BUCKET, Prefix=below)
        return len(told.get("Versions", ())) + len(told.get("DeleteMarkers", ()))

    def get(self, key: str) -> bytes:
        """The bytes of an object."""
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)


@contextmanager
def shelf() -> Iterator[Shelf]:
    """The bucket, behind a way that can be spoiled."""
    import boto3

    with object_store(BUCKET) as told, way_to(told["MLFLOW_S3_ENDPOINT_URL"]) as (address, way):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED")
        environment = {**{name: told[name] for name in names}, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address, "NO_PROXY": LOOPBACK}
        known = {"aws_access_key_id": told["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": told["AWS_SECRET_ACCESS_KEY"]}
        client = boto3.client("s3", endpoint_url=told["MLFLOW_S3_ENDPOINT_URL"], region_name="us-east-1", **known)
        yield Shelf(client, way, environment)


@contextmanager
def shelf_of_this_process() -> Iterator[Shelf]:
    """The bucket, where this process looks for it; a call that fails is not repeated."""
    with shelf() as found, pytest.MonkeyPatch.context() as patch:
        for name in UNSET:
            patch.delenv(name, raising=False)
        for name, value in {**found.environment, PATIENCE: "0"}.items():
            patch.setenv(name, value)
        yield found
