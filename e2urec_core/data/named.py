"""Reads who and what is to be forgotten: from the files that people write, and from the folder of a request."""

from __future__ import annotations

import csv
from pathlib import Path

from e2urec_core.data.places import NAMED, USERS
from e2urec_core.errors import BadRequest

USER, ITEM = "user_id", "item_id"
Pairs = list[tuple[str, str]]


def named_users(file: Path) -> list[str]:
    """The user ids of a text file, one a line, sorted, each once.

    Raises:
        BadRequest: It cannot be read, or names nobody.
    """
    try:
        named = sorted({line.strip() for line in file.read_text().splitlines() if line.strip()})
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise BadRequest(
            f"the file of users to forget cannot be read: {reason}", facts={"file": file}, hint="check `--forget.users-file`"
        ) from None
    if not named:
        raise BadRequest("no users are forgotten: the file names 0 users", facts={"file": file}, hint="write one user id a line into it")
    return named


def named_interactions(file: Path) -> Pairs:
    """User and item of each row of a CSV with the columns user_id and item_id, sorted, each pair once.

    Raises:
        BadRequest: It cannot be read, lacks a column, names nothing, or a row of it lacks a name.
    """
    hint = "check `--forget.interactions-file`: a CSV with the header user_id,item_id"
    rows = _rows(file, "interactions", hint)
    if nameless := sum(not (user and item) for user, item in rows):
        raise BadRequest(f"{nameless:,} of {len(rows):,} rows have no user or no item", facts={"file": file}, hint=hint)
    return sorted({(user, item or "") for user, item in rows})


def named_deletions(file: Path) -> tuple[list[str], Pairs]:
    """Whole users and single interactions of a CSV with the columns user_id and item_id, each sorted, each once.

    A row whose item is empty names the whole user. A row that ends before its item is no such row: it may have been cut off.

    Raises:
        BadRequest: It cannot be read, lacks a column, names nothing, or a row of it has no user or ends before its item.
    """
    hint = "check `--forget.deletions-file`: a CSV with the header user_id,item_id; the item of a whole user is empty, as in `anna,`"
    rows = _rows(file, "users and interactions", hint)
    if unclear := sum(not user or item is None for user, item in rows):
        raise BadRequest(f"{unclear:,} of {len(rows):,} rows have no user or end before the item", facts={"file": file}, hint=hint)
    return sorted({user for user, item in rows if not item}), sorted({(user, item) for user, item in rows if item})


def names_interactions(file: Path) -> bool:
    """Whether a file such as `named_deletions` reads names a single interaction; one that cannot be read names none."""
    try:
        return any(item for _, item in _rows(file, "users and interactions", ""))
    except BadRequest:
        return False


def read_named(request: Path) -> tuple[list[str], Pairs]:
    """Whole users and single interactions that the request in a folder names; an interaction's user may be named whole as well."""
    import pyarrow.parquet as pq

    users, pairs = request / USERS, request / NAMED
    whole = [str(user) for user in pq.read_table(users)[USER].to_pylist()] if users.is_file() else []
    single = pq.read_table(pairs).select([USER, ITEM]).to_pylist() if pairs.is_file() else []
    return whole, [(str(row[USER]), str(row[ITEM])) for row in single]


def _rows(file: Path, what: str, hint: str) -> list[tuple[str, str | None]]:
    """User and item of every row; the item is None where the row ends before it."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            missing = [name for name in (USER, ITEM) if name not in (reader.fieldnames or ())]
            told = [(row.get(USER), row.get(ITEM)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV text"
        raise BadRequest(f"the file of {what} to forget cannot be read: {reason}", facts={"file": file}, hint=hint) from None
    if missing:
        raise BadRequest(
            f"the file of {what} to forget lacks {len(missing)} of 2 columns: {', '.join(missing)}", facts={"file": file}, hint=hint
        )
    if not told:
        raise BadRequest(f"no {what} are forgotten: the file names 0 of them", facts={"file": file}, hint=hint)
    return [((user or "").strip(), None if item is None else item.strip()) for user, item in told]
