"""Calls to a tracking server that may be down or slow: again with back-off, and one sentence where that does not help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from e2urec_core.errors import TrackingFailed, TrackingRefused
from e2urec_core.patience import FIRST_DELAY_S, LONGEST_DELAY_S, patience_in

T = TypeVar("T")
VARIABLE = "E2UREC_TRACKING_PATIENCE_S"
# What another try may mend; all other answers of a server are final.
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
CREDENTIALS = re.compile(r"//[^/@\s]+@")


def patience_s() -> float:
    """Seconds for which a call is repeated: `E2UREC_TRACKING_PATIENCE_S`, else a minute; see `patience_in`."""
    return patience_in(VARIABLE)


def patiently(call: Callable[[], T], address: str, patience: float) -> T:
    """What `call` returns; where it fails in a way that may pass, it is made again with growing delays until `patience` seconds are over.

    Raises:
        TrackingFailed: It failed to the end; a TrackingRefused where it failed in a way that does not pass.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

    waits = wait_exponential_jitter(initial=FIRST_DELAY_S, max=LONGEST_DELAY_S, jitter=FIRST_DELAY_S)
    again = Retrying(stop=stop_after_delay(patience), wait=waits, retry=retry_if_exception(may_pass), reraise=True)
    try:
        return again(call)
    except Exception as error:
        if not is_trackings(error):
            raise
        facts = {"server": CREDENTIALS.sub("//", address)}
        if not may_pass(error):
            hint = "look at the server's log; everything finished is in the store, and the same command goes on from there"
            raise TrackingRefused(f"the tracking server refused a call: {_first_line(error)}", facts=facts, hint=hint) from error
        raise TrackingFailed(
            f"the tracking server did not answer within {patience:.0f} s: {_first_line(error)}",
            facts=facts,
            hint="when it answers again, run the same command again: everything finished is in the store and is not made anew",
        ) from error


def may_pass(error: BaseException) -> bool:
    """Whether a failed call may succeed at another try."""
    code = getattr(error, "error_code", None)
    if type(error).__module__.startswith("mlflow"):
        return code is None or code in PASSING
    status = getattr(error, "response", None)
    if isinstance(status, dict):
        number = status.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(number >= 500 or number in (408, 429))
    return is_trackings(error)


def is_trackings(error: BaseException) -> bool:
    """Whether a call failed for a reason of the server, of the way to it, or of the store behind it."""
    owners = ("mlflow", "requests", "urllib3", "botocore", "boto3", "s3transfer", "sqlalchemy")
    return type(error).__module__.split(".")[0] in owners or isinstance(error, ConnectionError | TimeoutError)


def _first_line(error: BaseException) -> str:
    told = CREDENTIALS.sub("//", str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
    return told if len(told) <= 200 else f"{told[:197]}..."
