"""The gate at the door: rows of a source become the stored interactions, or are put aside with the name of the rule they break.

What goes in is what comes out: rows read = kept + quarantined + left out + repeated + rows of deleted users + suppressed rows + rows that
are held already, and all seven are counted.
Users and items are numbers while rows are sorted and compared, so that 25 million rows fit into little memory; their names return when
the rows are written. A later file is appended as a part of its own, and the parts before it are linked, not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data_contracts.interactions import ITEMS as ITEMS_TABLE
from data_contracts.interactions import USERS as USERS_TABLE
from e2urec_core.data.appending import Held, link_parts, read_counts, without_known
from e2urec_core.data.deletions import Deletions
from e2urec_core.data.files import find
from e2urec_core.data.interaction_rows import Rows, without_deleted, without_repeated, write_part, write_table
from e2urec_core.data.places import FACTS, ITEMS, PARTS, USERS, part_file, part_files
from e2urec_core.data.quarantine import blank, collect_rows, items_of, put_aside, refuse_too_many, unknown_names, users_of
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.data.suppressing import without_pairs
from e2urec_core.data.unreadable import reading
from e2urec_core.datasets.base import Dataset, Source
from e2urec_core.errors import BadInput, BadSetting
from e2urec_core.settings import Settings

if TYPE_CHECKING:
    import polars


class IngestRule(Settings):
    """What the gate lets through."""

    max_quarantined: float = Field(0.001, ge=0, le=1)
    """Largest share of rows that may break a rule; with more the run stops and shows which rules."""
    onto: str = Field("", pattern=r"^([0-9a-f]{12,64}|latest)?$")
    """Stored interactions to which the rows are appended: their digest, its first letters, or `latest` for those of the same dataset."""
    deleted: Path | None = None
    """Table of deleted users (columns user_id, deleted_at): their rows up to that moment are dropped, later ones are a new user's."""

    def fingerprint(self) -> str:
        """Digest of the table of deleted users, one file or many; without one the empty text."""
        return find(str(self.deleted)).fingerprint() if self.deleted is not None else ""


@dataclass(frozen=True)
class Counts:
    """What became of the rows that were read.

    Args:
        read: Rows of the source.
        kept: Rows written, by this reading alone.
        quarantined: By rule.
        left_out: Rows that are no fault and no interaction, by reason.
        repeated: Rows that repeat user, item and moment of another.
        conflicting: Those of them whose rating or answer differs from the row that stayed.
        deleted: Rows of deleted users.
        known: Rows that an earlier part holds already.
        suppressed: Rows of users and interactions on the suppression list, but for those of `deleted`.
        withheld: Of `quarantined`, rows that are not kept in the quarantine, because they name a user on the suppression list.
    """

    read: int
    kept: int
    quarantined: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    conflicting: int = 0
    deleted: int = 0
    known: int = 0
    suppressed: int = 0
    withheld: int = 0

    def add_up(self) -> bool:
        """Whether no row was lost."""
        aside = sum(self.quarantined.values()) + sum(self.left_out.values())
        return self.read == self.kept + aside + self.repeated + self.deleted + self.suppressed + self.known


def ingest(
    dataset: Dataset,
    rule: IngestRule,
    place: Path,
    earlier: Path | None = None,
    counted: Callable[[Source, Counts], None] | None = None,
    suppressed: Suppressed | None = None,
) -> int:
    """Read the dataset and write its interactions, items, users and what was put aside into `place`; returns the rows it now holds.

    Args:
        dataset: The source.
        rule: What the gate lets through.
        place: Empty folder.
        earlier: Folder of the stored interactions to append to.
        counted: Told what became of the rows, also where none is left and the reading is refused for that.
        suppressed: The suppression list of the workspace, if it has one.

    Raises:
        BadInput: Too many rows break a rule, or there are none.
        BadSetting: Stored interactions were made with deleted or suppressed users, and none are told now.
    """
    suppressed = suppressed or Suppressed()
    table = _deletions(dataset, rule, earlier, suppressed)
    source = dataset.scan()
    with _reading(dataset, source, "path"):
        rows, broken = collect_rows(source)
    with _reading(dataset, source, "items_path"):
        items = items_of(source, rows.items, earlier)
    with _reading(dataset, source, "users_path"):
        listed = users_of(source)
    deletions = suppressed.joined(table, {*rows.users, *listed["user_id"], *_stored_users(earlier)})
    deletions.refuse_names_in_use(listed["user_id"])
    unknown = unknown_names(source, items, listed, rows)
    aside, withheld = put_aside(source, broken, unknown, place, suppressed, deletions)
    rows.leave_out(unknown)
    told = {name: count for name, count in aside.items() if name not in source.left_out}
    left_out = {name: aside.get(name, 0) for name in source.left_out}
    read = rows.frame.height + sum(aside.values())
    refuse_too_many(read - sum(left_out.values()), told, source, rule.max_quarantined, place)
    dropped = without_pairs(rows, suppressed, deletions)
    # What the table alone would drop is counted as its own.
    deleted = without_deleted(rows, table)[1]
    rows, gone = without_deleted(rows, deletions)
    dropped += gone - deleted
    rows.frame, repeated, conflicting = without_repeated(rows.frame)
    (place / PARTS).mkdir(exist_ok=True)
    told_by = {"deletions": table.digest, "suppressions": suppressed.digest}
    held = link_parts(earlier, place, deletions, suppressed, told_by) if earlier is not None else Held()
    rows.frame, known = without_known(rows, held, earlier, part_files(place))
    counts = Counts(read, rows.frame.height, told, left_out, repeated, conflicting, deleted, known, dropped, withheld)
    assert counts.add_up(), f"rows were lost: {counts}"
    if counted is not None:
        counted(source, counts)
    total = held.rows + rows.frame.height
    if not total and (deleted or dropped or held.dropped):
        raise BadInput("no interactions are left", hint="every row belongs to a deleted or suppressed user")
    if not total:
        raise BadInput("the dataset holds 0 interactions", hint="check the path, and the columns that settings name")
    if rows.frame.height:
        write_part(rows, part_file(place, len(part_files(place))))
    write_table(items.filter(~blank()).select("item_id", "title").to_arrow().cast(ITEMS_TABLE.schema()), place / ITEMS)
    _write_users(listed, rows, held, place, earlier, deletions, all_are_listed=source.users_are_all)
    _note(dataset, rows, counts, place, held, told_by, source.remarks)
    return total


def _reading(dataset: Dataset, source: Source, setting: str) -> reading:
    """Refuses what cannot be read in the words of the setting that names it, or of the whole source."""
    own = getattr(dataset, setting, None)
    if own is not None and setting != "path":
        return reading(str(own))
    return reading(str(getattr(dataset, "path", None) or dataset.kind), source.files)


def _stored_users(earlier: Path | None) -> list[str]:
    import polars as pl

    return pl.read_parquet(earlier / USERS)["user_id"].to_list() if earlier is not None else []


def _deletions(dataset: Dataset, rule: IngestRule, earlier: Path | None, suppressed: Suppressed) -> Deletions:
    deletions = Deletions.read(rule.deleted, dataset.spelled)
    before = read_counts(earlier) if earlier is not None else {}
    if not suppressed and before.get("suppressions"):
        raise BadSetting(
            "the stored interactions were made with a suppression list, and the ledger holds 0 entries now",
            hint="use the ledger of the workspace in which they were stored, or suppressed users come back",
        )
    if not deletions and before.get("deletions"):
        raise BadSetting(
            "the stored interactions were made with a table of deleted users, and 0 deleted users are given now",
            hint="add `--ingest.deleted FILE` with everybody who was deleted, or deleted users come back",
        )
    return deletions


def _write_users(
    listed: polars.DataFrame, rows: Rows, held: Held, place: Path, earlier: Path | None, deletions: Deletions, *, all_are_listed: bool
) -> None:
    """user_id, profile and cohort of every user who has a row, is listed, or was stored before."""
    import polars as pl

    here = set(rows.users.gather(rows.frame["user"].unique())) | set(held.came_back)
    present = pl.DataFrame({"user_id": sorted(here)}, schema={"user_id": pl.String})
    # What a source still tells of a deleted user is kept only of one who came back.
    told = deletions.renamed(listed)
    users = present.join(told, on="user_id", how="left")
    if all_are_listed:
        users = pl.concat([users, deletions.without(listed).join(present, on="user_id", how="anti")])
    if earlier is not None:
        before = deletions.without(pl.read_parquet(earlier / USERS)).filter(~pl.col("user_id").is_in(held.left))
        users = users.join(before, on="user_id", how="full", coalesce=True, suffix=" before").with_columns(
            pl.coalesce(name, f"{name} before").alias(name) for name in ("profile", "cohort")
        )
    write_table(users.select("user_id", "profile", "cohort").sort("user_id").to_arrow().cast(USERS_TABLE.schema()), place / USERS)


def _note(
    dataset: Dataset, rows: Rows, counts: Counts, place: Path, held: Held, told_by: Mapping[str, str], remarks: tuple[str, ...]
) -> None:
    """Write down what was read, and what the folder now holds."""
    import pyarrow.parquet as pq

    times = rows.frame["timestamp_s"]
    spans = [*(held.span or ()), *((int(times[0]), int(times[-1])) if len(times) else ())]
    noted = {
        "dataset": dataset.kind,
        "rows": held.rows + rows.frame.height,
        "users": pq.read_metadata(place / USERS).num_rows,
        "items": pq.read_metadata(place / ITEMS).num_rows,
        "parts": len(part_files(place)),
        "oldest_timestamp_s": min(spans),
        "newest_timestamp_s": max(spans),
        "likes": held.likes + int(rows.frame["label"].sum()),
        "this_reading": {
            "read": counts.read,
            "kept": counts.kept,
            "quarantined": dict(counts.quarantined),
            "left_out": dict(counts.left_out),
            "repeated": counts.repeated,
            "conflicting": counts.conflicting,
            "deleted": counts.deleted,
            "suppressed": counts.suppressed,
            "withheld": counts.withheld,
            "already_held": counts.known,
            "deleted_from_earlier_parts": held.dropped,
        },
        **told_by,
        "remarks": list(remarks),
    }
    (place / FACTS).write_text(json.dumps(noted, sort_keys=True))
