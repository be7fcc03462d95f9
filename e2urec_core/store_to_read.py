"""A store that is only looked at."""

from __future__ import annotations

from pathlib import Path

from e2urec_core.store import Store


class StoreToRead(Store):
    """A store in which nothing is made, probed or swept when it is opened, and which need not be there; nothing may be published in it."""

    def __init__(self, root: Path) -> None:
        """The store at `root` as it lies there."""
        self.root, self.checkpoints = root, root / "checkpoints"
