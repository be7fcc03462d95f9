"""Keeps the state of a training on disk, so that a killed stage goes on from where it was and ends in the same bits.

A checkpoint is a folder: tensors in safetensors, facts in JSON, and a manifest with the digest of both. It is written beside and
renamed, so it is whole or absent; one whose bytes have changed is passed over, with a warning, for the one before it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.artifacts import canonical_json, file_digest
from e2urec_core.disk import sync

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

TENSORS, FACTS, MANIFEST = "tensors.safetensors", "facts.json", "manifest.json"
# The one before the newest is there for the case that the newest is damaged.
KEPT = 2

log = logging.getLogger("e2urec")


@dataclass(frozen=True)
class Saved:
    """One checkpoint, read back and verified.

    Args:
        step: Steps done when it was taken.
        tensors: Weights, moments of the optimiser, random state.
        facts: Everything else, plain JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Checkpoints:
    """Checkpoints of one training in one folder."""

    def __init__(self, folder: Path, *, every_s: float, every_steps: int = 0) -> None:
        """Use `folder`, which need not exist.

        Args:
            folder: The training's own; nothing else may be in it.
            every_s: Seconds after which a checkpoint is due.
            every_steps: Steps after which one is due whatever the time; 0 goes by time alone.
        """
        self.folder, self.every_s, self.every_steps = folder, every_s, every_steps
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps."""
        return time.monotonic() - self._last >= self.every_s or (self.every_steps > 0 and step % self.every_steps == 0)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, and drop all but the newest `KEPT`."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self.folder / f".{uuid.uuid4().hex}"
        place.mkdir(mode=0o700)
        try:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, place / TENSORS)
            (place / FACTS).write_text(canonical_json(facts))
            digests = {name: file_digest(place / name) for name in (TENSORS, FACTS)}
            (place / MANIFEST).write_text(canonical_json(digests))
            for name in (TENSORS, FACTS, MANIFEST, "."):
                sync(place / name)
            target = self._path(step)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(place, target)
            sync(self.folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        for old in self._steps()[:-KEPT]:
            shutil.rmtree(self._path(old), ignore_errors=True)
        self._last = time.monotonic()

    def last_step(self) -> int | None:
        """Steps done when the newest checkpoint was taken, or None without one; not verified."""
        return max(self._steps(), default=None)

    def newest(self) -> Saved | None:
        """The newest whole checkpoint, or None; damaged ones are named in the log and passed over."""
        from safetensors.torch import load_file

        for step in reversed(self._steps()):
            place = self._path(step)
            try:
                digests = json.loads((place / MANIFEST).read_bytes())
                changed = [name for name in (TENSORS, FACTS) if file_digest(place / name) != digests[name]]
                if not changed:
                    return Saved(step, load_file(place / TENSORS), json.loads((place / FACTS).read_bytes()))
                told = f"the bytes of `{changed[0]}` have changed"
            except (OSError, ValueError, KeyError, TypeError) as error:
                told = type(error).__name__
            log.warning("the checkpoint after %d steps is damaged (%s); the one before it is used", step, told)
        return None

    def clear(self) -> None:
        """Remove all checkpoints: the training has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        found = self.folder.glob("step-*") if self.folder.is_dir() else ()
        return sorted(int(path.name.removeprefix("step-")) for path in found if path.name.removeprefix("step-").isdigit())

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"


class KeptTables:
    """Tables that an unfinished stage keeps, as the row groups of a cache, one file each; its name carries the digest of its bytes."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which need not exist."""
        self.folder = folder

    def put(self, part: str, number: int, table: pa.Table) -> None:
        """Keep a table, whole or not at all; several processes may keep the same one."""
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.folder / f".{uuid.uuid4().hex}"
        # Statistics would put numbers of users into the footer, where a scan for them must look too.
        pq.write_table(table, beside, compression="none", use_dictionary=False, write_statistics=False)
        sync(beside)
        os.replace(beside, self.folder / f"{part}-{number:06d}-{file_digest(beside)}.parquet")

    def get(self, part: str, number: int, schema: pa.Schema) -> pa.Table | None:
        """A kept table, or None where there is none or its bytes have changed."""
        import pyarrow.parquet as pq

        for path in self.folder.glob(f"{part}-{number:06d}-*.parquet"):
            if path.stem.rsplit("-", 1)[1] == file_digest(path):
                return pq.read_table(path).replace_schema_metadata(schema.metadata).cast(schema)
            log.warning("a kept table of an unfinished stage is damaged; it is made again")
        return None
