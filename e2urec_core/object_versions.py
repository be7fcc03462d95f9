"""Removes objects in every version that a store keeps of them, and what is left of uploads that were broken off.

Arrow's clients see the newest version alone. For S3 it is done through boto3, where that is installed; elsewhere whoever runs this says
that the store keeps no versions, or nothing is erased.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from e2urec_core.data.object_stores import ADDRESS, SCHEMES, opened
from e2urec_core.errors import BadSetting, StorageFailed

if TYPE_CHECKING:
    from e2urec_core.remote import Remote

VARIABLE, NO_VERSIONS = "E2UREC_STORE_VERSIONS", "none"
MOST_AT_ONCE = 1000


def cannot_remove(address: str) -> BadSetting | None:
    """Why objects below an address cannot be removed for good from here, or None where they can."""
    given = os.environ.get(VARIABLE, "")
    if given not in ("", NO_VERSIONS):
        return BadSetting(f"`{VARIABLE}={given}` is refused", hint=f"`{NO_VERSIONS}` says that the bucket keeps no earlier versions")
    if given == NO_VERSIONS or (_is_s3(address) and find_spec("boto3") is not None):
        return None
    scheme = address.split("://", maxsplit=1)[0]
    mend = "install `e2urec[s3]`, or " if _is_s3(address) else ""
    return BadSetting(
        f"nothing can be erased in this {scheme}:// store: earlier versions of objects, if it keeps any, cannot be removed from here",
        hint=f"{mend}set `{VARIABLE}={NO_VERSIONS}` if the bucket keeps no versions and no removed objects",
    )


def remover_for(remote: Remote) -> Callable[[str], None]:
    """What removes an object or folder below an address; see `Remote.remove`.

    Raises:
        BadSetting: See `cannot_remove`.
    """
    refusal = cannot_remove(remote.address)
    if refusal is not None:
        raise refusal
    return _S3(remote).remove if _is_s3(remote.address) and find_spec("boto3") is not None else _Newest(remote).remove


class _Newest:
    """Removes what is seen, where there are no other versions."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._system, root = opened(remote.address)
        self._root = root.rstrip("/")

    def remove(self, below: str) -> None:
        delete = self._system.delete_file if self._remote.holds(below) else self._system.delete_dir
        with suppress(FileNotFoundError):
            self._remote.patiently(lambda: delete(f"{self._root}/{below}"), _passes, _says)


class _S3:
    """Removes all versions from a bucket that speaks S3."""

    def __init__(self, remote: Remote) -> None:
        import boto3
        from botocore.config import Config

        bucket, _, root = remote.address.split("://", maxsplit=1)[1].partition("/")
        self._remote, self._bucket, self._root = remote, bucket, f"{root}/" if root else ""
        # A store of one's own is seldom found under a name of the bucket.
        style = "path" if os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3") else "auto"
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._client: Any = boto3.client("s3", region_name=region, config=Config(s3={"addressing_style": style}))

    def remove(self, below: str) -> None:
        key = self._root + below
        for upload in self._listed("list_multipart_uploads", "Uploads", key):
            asked = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            self._ask(lambda asked=asked: self._client.abort_multipart_upload(**asked))  # type: ignore[misc]
        found = [
            {"Key": each["Key"], "VersionId": each["VersionId"]}
            for part in ("Versions", "DeleteMarkers")
            for each in self._listed("list_object_versions", part, key)
        ]
        for start in range(0, len(found), MOST_AT_ONCE):
            asked = {"Bucket": self._bucket, "Delete": {"Objects": found[start : start + MOST_AT_ONCE], "Quiet": True}}
            answer = self._ask(lambda asked=asked: self._client.delete_objects(**asked))  # type: ignore[misc]
            if refused := answer.get("Errors"):
                raise StorageFailed(
                    f"the store refuses to remove {len(refused):,} versions of objects: {refused[0].get('Code')}",
                    facts={"store": self._remote.address},
                    hint="allow s3:DeleteObjectVersion; a bucket that locks its objects cannot be a store from which people are erased",
                )

    def _listed(self, call: str, part: str, key: str) -> Iterator[dict[str, Any]]:
        pages = self._ask(lambda: list(self._client.get_paginator(call).paginate(Bucket=self._bucket, Prefix=key)))
        for page in pages:
            yield from (each for each in page.get(part, ()) if each["Key"] == key or each["Key"].startswith(f"{key}/"))

    def _ask(self, call: Callable[[], Any]) -> Any:
        return self._remote.patiently(call, _passes, _says)


def _is_s3(address: str) -> bool:
    scheme = ADDRESS.match(address)
    return scheme is not None and SCHEMES.get(scheme[1].lower()) == "s3"


def _passes(error: BaseException) -> bool:
    status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return bool(_says(error)) and (status >= 500 or status in (408, 429))


def _says(error: BaseException) -> str:
    """What a call has failed of, in words that hold no answer of the store; nothing for what is no fault of its."""
    if isinstance(error, FileNotFoundError):
        return ""
    code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")
    if code:
        return f"it answers {code}"
    owned = type(error).__module__.split(".")[0] in ("botocore", "boto3", "urllib3", "pyarrow")
    return "the store does not answer" if owned or (isinstance(error, OSError) and error.errno is None) else ""
