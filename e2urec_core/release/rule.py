"""What becomes of a recommender that was made: nothing, a version in the registry, or the champion."""

from __future__ import annotations

from typing import Literal

from e2urec_core.settings import Settings


class ReleaseRule(Settings):
    """What is done with the unlearned recommender at the end of a run."""

    then: Literal["nothing", "register", "promote"] = "register"
    """`register`: put before the gates and registered with their verdict; `promote`: made the champion too, if it passed every gate."""
