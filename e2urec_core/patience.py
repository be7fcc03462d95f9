"""How long calls to servers are repeated before they are given up."""

from __future__ import annotations

import os

from e2urec_core.errors import BadSetting

DEFAULT_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0


def patience_in(variable: str) -> float:
    """Seconds for which a call is repeated: what the environment's `variable` holds, else a minute.

    Raises:
        BadSetting: It holds no such number.
    """
    given = os.environ.get(variable, "")
    try:
        seconds = float(given) if given else DEFAULT_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadSetting(f"`{variable}={given}` is refused: it is no number of seconds", hint=f"take one such as {DEFAULT_S:.0f}")
    return seconds
