"""The clock: against servers, against the ledger's newest event, and against the newest file of the workspace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from flows.health.finding import Check, Finding, fault, ok, warning
from flows.health.servers import WITHIN_S
from flows.health.subject import Subject

TOPIC = "clock"
# The ledger's own bound (`Requests`): a request that is dated further ahead is refused.
MOST_S = 300.0
MUCH_S = 5.0
HINT = "let the machines keep their time by NTP: requests dated after now are refused, and due dates are told by the clock"


def servers(subject: Subject) -> Finding:
    """This machine's clock against that of each server that tells its own."""
    ahead = {}
    looks: dict[str, Callable[[], object]] = {"MLflow": subject.mlflow, "Prefect": subject.prefect, "the ledger": subject.ledger}
    for name, look in looks.items():
        try:
            told = getattr(look(), "ahead_s", None)
        except Exception:
            # That it does not answer is said under the servers.
            continue
        if told is not None:
            ahead[name] = told
    if not ahead:
        return ok("no server answers whose clock could be compared")
    far = max(ahead, key=lambda name: abs(ahead[name]))
    said = f"{far} is {abs(ahead[far]):.0f} s {'ahead of' if ahead[far] > 0 else 'behind'} this machine, of {len(ahead)} compared"
    return _judged(abs(ahead[far]), said)


def ledger(subject: Subject) -> Finding:
    """This machine's clock against the ledger's newest event, which cannot be of the future."""
    try:
        found = subject.ledger()
    except Exception:
        return ok("the ledger cannot be read, so nothing is compared")
    if found is None or found.newest_at is None:
        return ok("the ledger has no event to compare with")
    return _past("the ledger's newest event", found.newest_at, subject.clock())


def files(subject: Subject) -> Finding:
    """This machine's clock against the workspace's newest file, which a file server may have dated."""
    newest = subject.contents().newest_s
    if not newest:
        return ok("the workspace has no file to compare with")
    return _past("the workspace's newest file", datetime.fromtimestamp(newest, UTC), subject.clock())


CHECKS = (Check(TOPIC, "servers", servers, WITHIN_S), Check(TOPIC, "ledger", ledger, WITHIN_S), Check(TOPIC, "files", files))


def _past(what: str, moment: datetime, now: datetime) -> Finding:
    ahead = (moment - now).total_seconds()
    at = f"{what} is of {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if ahead <= 1:
        return ok(f"{at}, {max(0.0, -ahead):,.0f} s ago")
    return _judged(ahead, f"{at}, {ahead:,.0f} s after this machine's time")


def _judged(seconds: float, said: str) -> Finding:
    if seconds > MOST_S:
        return fault(said, HINT)
    return warning(said, HINT) if seconds > MUCH_S else ok(said)
