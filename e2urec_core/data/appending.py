"""Adds a later file's rows to stored interactions: earlier parts are linked, and looked into only where something in them may change.

A part is read when the new rows reach back into its time, or when users were deleted or suppressed since; it is held against its
digest first.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2urec_core.data.deletions import Deletions
from e2urec_core.data.interaction_rows import Rows, numbered, read_part, write_part
from e2urec_core.data.places import FACTS, part_file, part_files
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.data.suppressing import stored_without_pairs
from e2urec_core.errors import DamagedArtifact

if TYPE_CHECKING:
    import polars


def read_counts(interactions: Path) -> dict[str, Any]:
    """What was noted of a folder of stored interactions: counts, time span, remarks."""
    noted: dict[str, Any] = json.loads((interactions / FACTS).read_bytes())
    return noted


@dataclass(frozen=True)
class Held:
    """What the parts before the new one hold.

    Args:
        rows: How many rows.
        likes: How many of them are liked.
        span: Oldest and newest moment, None without rows.
        dropped: Rows of users and interactions deleted since, which they hold no longer.
        came_back: Names of users whose rows after their deletion they hold.
        left: Names of users who had come back before, and of whom they hold nothing any longer.
    """

    rows: int = 0
    likes: int = 0
    span: tuple[int, int] | None = None
    dropped: int = 0
    came_back: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def verify_parts(earlier: Path) -> None:
    """Hold the part files of stored interactions against the digests in their manifest, where there is one, before they are read.

    Raises:
        DamagedArtifact: The bytes of a part have changed.
    """
    from e2urec_core.artifacts import file_digest
    from e2urec_core.manifests import MANIFEST

    files = json.loads((earlier / MANIFEST).read_bytes())["files"] if (earlier / MANIFEST).is_file() else {}
    for part in part_files(earlier):
        name = str(part.relative_to(earlier))
        if name in files and file_digest(part) != files[name]["sha256"]:
            raise DamagedArtifact(
                f"the stored interactions to append to are damaged: the bytes of `{name}` have changed",
                hint="ingest the files again without `--ingest.onto`; the damaged copy is not used",
            )


def without_known(rows: Rows, held: Held, earlier: Path | None, parts: Sequence[Path]) -> tuple[polars.DataFrame, int]:
    """Drop rows that an earlier part holds; parts are looked into only where the new rows are not newer than all of theirs."""
    import polars as pl

    frame = rows.frame
    if earlier is None or frame.is_empty() or held.span is None or int(frame["timestamp_s"][0]) > held.span[1]:
        return frame, 0
    verify_parts(earlier)
    oldest = int(frame["timestamp_s"][0])
    keys = ["user_id", "item_id", "timestamp_s"]
    known = pl.concat([some.filter(pl.col("timestamp_s") >= oldest) for part in parts for some in read_part(part, keys)])
    named = frame.with_columns(user_id=rows.users.gather(frame["user"]), item_id=rows.items.gather(frame["item"]))
    kept = named.join(known, on=keys, how="anti", maintain_order="left").drop("user_id", "item_id")
    return kept, frame.height - kept.height


def link_parts(earlier: Path, place: Path, deletions: Deletions, suppressed: Suppressed, told: Mapping[str, str]) -> Held:
    """Put the earlier parts into `place` without copying or reading them.

    Where users were deleted or suppressed since, parts that hold rows of theirs are written anew: without the rows up to then, and with
    the later ones under the name of whoever came back.

    Args:
        earlier: Folder of the stored interactions.
        place: Folder of the new ones.
        deletions: Who was deleted, those on the suppression list included.
        suppressed: The suppression list.
        told: What both lists are told by, as it is noted with the counts.

    Raises:
        DamagedArtifact: A part has to be read and its bytes have changed.
    """
    before, parts = read_counts(earlier), part_files(earlier)
    if all(digest == before.get(name, "") for name, digest in told.items()):
        for number, part in enumerate(parts):
            link(part, part_file(place, number))
        return Held(before["rows"], before["likes"], (before["oldest_timestamp_s"], before["newest_timestamp_s"]))
    import polars as pl

    verify_parts(earlier)
    cuts, spans = deletions.frame(), []
    came_back, here, still_here = set[str](), set[str](), set[str]()
    count = likes = dropped = 0
    anew, again = pl.col("name") != pl.col("user_id"), pl.col("name") == pl.col("user_id")
    for part in parts:
        # A part of which nothing is left is not written, and later ones move up.
        target = part_file(place, len(part_files(place)))
        rows = pl.concat(read_part(part))
        kept = stored_without_pairs(rows, suppressed, deletions).join(cuts, on="user_id", how="left", maintain_order="left")
        here |= set(kept.filter(again)["name"])
        kept = kept.filter(pl.col("deleted_at_s").is_null() | (pl.col("timestamp_s") > pl.col("deleted_at_s")))
        still_here |= set(kept.filter(again)["name"])
        back = kept.filter(anew)["name"].unique()
        if kept.height == rows.height and back.is_empty():
            link(part, target)
        elif kept.height:
            write_part(numbered(kept.with_columns(user_id=pl.coalesce("name", "user_id"))), target)
        came_back |= set(back)
        dropped += rows.height - kept.height
        count, likes = count + kept.height, likes + int(kept["label"].sum())
        if kept.height:
            spans += [int(kept["timestamp_s"][0]), int(kept["timestamp_s"][-1])]
    left = here - still_here - came_back
    return Held(count, likes, (min(spans), max(spans)) if spans else None, dropped, tuple(sorted(came_back)), tuple(sorted(left)))


def link(part: Path, target: Path) -> None:
    """Put a part file where `target` says without copying it, where the file system can."""
    try:
        os.link(part, target)
    except OSError:
        shutil.copyfile(part, target)
