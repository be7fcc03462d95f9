"""What lies at an address in an object store, and whether it changed; the bytes themselves are read by Polars.

Addresses begin with `s3://`, `gs://` or `abfss://`. Credentials, and the address of a store of one's own (`AWS_ENDPOINT_URL`), come from
the environment alone: they are refused in an address, which is written down with the run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from e2urec_core.errors import BadInput

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

ADDRESS = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss"}
LONGEST_TRY_S = 10
WRITTEN_AT_ONCE = "?allow_delayed_open=true"
"""What is small is sent to S3 in one call, and is there whole or not at all."""
SAFE = "/@:=+,;~!$&'()"
"""Letters of a name that may stand in an address as they are."""
CREDENTIALS = re.compile(r"^\w+://[^/@]*:[^/]*@")
CHECK = "check the address, and the store's settings in the environment (for s3:// such as AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL)"


def is_remote(path: str) -> bool:
    """Whether a path is an address in place of a file on this machine."""
    return bool(ADDRESS.match(path))


def files_at(path: str) -> list[str]:
    """The address itself if a file lies there, else those of all files below it, sorted.

    Raises:
        BadInput: The store is of no known kind, refuses, or does not answer; or nothing lies there.
    """
    from pyarrow import fs
    from pyarrow.lib import ArrowException

    system, inner = opened(path)
    try:
        told = system.get_file_info(inner)
        if told.type == fs.FileType.File:
            return [path]
        below = system.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    except (OSError, ArrowException) as error:
        raise _refused(path, error) from None
    return sorted(f"{path.rstrip('/')}{each.path[len(inner.rstrip('/')) :]}" for each in below if each.type == fs.FileType.File)


def stamp(path: str) -> str:
    """Size and time of change of the file at an address.

    Raises:
        BadInput: There is no such file, or the store does not answer.
    """
    from pyarrow.lib import ArrowException

    system, inner = opened(path)
    try:
        told: FileInfo = system.get_file_info(inner)
    except (OSError, ArrowException) as error:
        raise _refused(path, error) from None
    if told.size is None:
        raise BadInput(f"there is no `{path}`", hint=CHECK)
    return f"{told.size} {told.mtime_ns}"


def why(said: str) -> str | None:
    """What is wrong, in words, from the message of a library that speaks to a store; None if it says nothing of the kind.

    The messages themselves go on with headers and answers of the store, so that nothing of them may be shown.
    """
    marks = {
        r"NoSuchBucket|NO_SUCH_BUCKET": "there is no such bucket",
        r"object-store error.*not found|\b404\b|NO_SUCH_KEY": "there is no such file",
        r"\b40[13]\b|AccessDenied|ACCESS_DENIED|InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE|PermissionDenied"
        r"|INVALID_CLIENT_TOKEN|Unauthenticated|Authentication|Credential": "the store refuses the credentials",
        r"object-store error|AWS Error|Generic \w+ error|NETWORK_CONNECTION|curl": "the store does not answer",
    }
    return next((words for mark, words in marks.items() if re.search(mark, said, re.DOTALL | re.IGNORECASE)), None)


def opened(path: str) -> tuple[FileSystem, str]:
    """A client of the store that an address names, and what it calls the place there.

    Raises:
        BadInput: The store is of no known kind, or cannot be used.
    """
    from pyarrow import fs
    from pyarrow.lib import ArrowException

    scheme = ADDRESS.match(path)
    assert scheme is not None
    if CREDENTIALS.match(path):
        raise BadInput(
            "the address holds a password, which would be written down with the run", hint="put credentials into the environment"
        )
    if scheme[1].lower() not in SCHEMES:
        raise BadInput(
            f"`{scheme[1]}://` addresses are not read", hint="name a file, or an address that begins with s3://, gs:// or abfss://"
        )
    try:
        kind = SCHEMES[scheme[1].lower()]
        # Left to itself, the client of Google's store tries for a quarter of an hour.
        options = {"gs": f"?retry_limit_seconds={LONGEST_TRY_S}", "s3": WRITTEN_AT_ONCE}.get(kind, "")
        system, inner = fs.FileSystem.from_uri(f"{kind}://{quote(path[scheme.end() :], safe=SAFE)}{options}")
    except (OSError, ArrowException) as error:
        raise _refused(path, error) from None
    return system, inner


def _refused(path: str, error: Exception) -> BadInput:
    return BadInput(f"`{path}` cannot be read: {why(str(error)) or 'the store does not answer'}", hint=CHECK)
