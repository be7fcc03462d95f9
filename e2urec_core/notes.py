"""What stages leave beside their files: facts in numbers that do not depend on the clock, and finished parts of what is not whole yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.data.places import FACTS

if TYPE_CHECKING:
    from e2urec_core.checkpoints import KeptTables
    from e2urec_core.engine import Bench


def facts(folder: Path) -> dict[str, Any]:
    """What a stage noted about itself."""
    noted: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    return noted


def note(place: Path, **noted: Any) -> None:
    """Write down facts about a stage's work."""
    (place / FACTS).write_text(json.dumps(noted, sort_keys=True, allow_nan=False))


def kept(bench: Bench) -> KeptTables | None:
    """Where finished row groups lie while a stage is at the others."""
    from e2urec_core.checkpoints import KeptTables

    return KeptTables(bench.checkpoints.folder) if bench.checkpoints else None
