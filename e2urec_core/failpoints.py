"""Named places at which a test can end, stop or fail a process; without the variable they do nothing.

A failpoint stands before every step of the ledger that another process can see. `E2UREC_FAILPOINT=name:nth:action` arms one: at its
`nth` passing in a process, or at every passing where `nth` is 0, the action happens.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "E2UREC_FAILPOINT"
_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Pass the place `name`: nothing happens unless the variable arms it.

    Actions: `kill` ends the process with SIGKILL, `stop` holds it with SIGSTOP, `raise` raises an OSError.

    >>> failpoint("nowhere")
    """
    armed = os.environ.get(VARIABLE)
    if armed is None:
        return
    place, nth, action = armed.split(":")
    if place != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if int(nth) not in (0, _passed[name]):
        return
    if action == "raise":
        raise OSError(f"failpoint `{name}`")
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[action])
