"""Searches Parquet files: every column of every row group, the words beside them, and the statistics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e2urec_core.scanning.fields import kind_of
from e2urec_core.scanning.matching import Matcher, by_length
from e2urec_core.scanning.targets import FEWEST_DIGITS, ROW

ROWS_AT_A_TIME = 100_000
# Texts that may hold a code, a document or an escape; of the rest only those that hold the identifier are looked into.
_WORTH_READING = rf"[0-9a-f]{{20}}|[0-9]{{{FEWEST_DIGITS}}}|^\s*[\[{{]"


def search_parquet(path: Path, matcher: Matcher) -> Counter[str]:
    """What a Parquet file names.

    Raises:
        pyarrow.ArrowException: It cannot be read.
    """
    found = Counter[str]()
    texts = [name for name, kind in _leaves(path) if kind]
    # As dictionaries, which also shows values that a dictionary page holds and no row names.
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        columns = [name for name, kind in _leaves(path) if kind is not None]
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
            for name in batch.schema.names:
                for field, values in _flat(name, batch[name]):
                    found += _in_column(field, values, matcher)
            found += _rows(batch, matcher)
        # What stands in a column stands in its statistics, too.
        beside = _beside(file, matcher)
        return found + Counter({kind: count for kind, count in beside.items() if kind not in found})


def _leaves(path: Path) -> Iterator[tuple[str, bool | None]]:
    """Columns by their paths; True for texts, False for what else may name somebody, None for fractions."""
    with pq.ParquetFile(path) as file:
        for at in range(len(file.schema)):
            column = file.schema.column(at)
            fraction = column.physical_type in ("FLOAT", "DOUBLE", "BOOLEAN")
            yield column.path, None if fraction else column.physical_type == "BYTE_ARRAY"


def _beside(file: pq.ParquetFile, matcher: Matcher) -> Counter[str]:
    """Names of columns, key-value metadata and statistics."""
    if matcher.targets.items:
        return Counter()
    schema, found = file.schema_arrow, Counter[str]()
    metadata = [schema.metadata or {}, *(field.metadata or {} for field in schema)]
    if file.metadata.metadata != schema.metadata:
        metadata.append({k: v for k, v in (file.metadata.metadata or {}).items() if k not in (schema.metadata or {})})
    for pairs in metadata:
        for key, value in pairs.items():
            if key != b"ARROW:schema":
                found += matcher.record([("", key), (key.decode(errors="replace"), value)])
    for name in schema.names:
        found += matcher.value("", name)
    for group in range(file.num_row_groups):
        for at in range(file.metadata.num_columns):
            column = file.metadata.row_group(group).column(at)
            if column.is_stats_set and column.statistics.has_min_max:
                for value in {column.statistics.min, column.statistics.max}:
                    found += matcher.value(column.path_in_schema, value)
    return found


def _flat(field: str, values: Any) -> Iterator[tuple[str, Any]]:
    """The plain columns inside of lists, maps and structures."""
    kind = values.type
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from _flat(f"{field}.{kind.field(at).name}", values.field(at))
    elif pa.types.is_map(kind):
        yield from _flat(field, values.keys)
        yield from _flat(field, values.items)
    elif pa.types.is_nested(kind):
        yield from _flat(field, values.flatten())
    else:
        yield field, values


def _in_column(field: str, values: Any, matcher: Matcher) -> Counter[str]:
    kind, targets, found = values.type, matcher.targets, Counter[str]()
    if pa.types.is_dictionary(kind):
        return _in_dictionary(field, values, matcher)
    if pa.types.is_integer(kind):
        wanted = {number: what for number, what in targets.numbers.items() if kind.bit_width == 64}
        if targets.is_number and not targets.items and kind_of(field) in ("user", "users"):
            wanted |= {int(user): "identifier" for user in targets.users}
        most = 2 ** (kind.bit_width - (not str(kind).startswith("u"))) - 1
        wanted = {number: what for number, what in wanted.items() if number <= most}
        if wanted:
            held = values.filter(pc.is_in(values, value_set=pa.array(list(wanted), kind)))
            found += Counter(wanted[number] for number in held.to_pylist())
        return found
    if _is_text(kind):
        return _in_dictionary(field, values.dictionary_encode(), matcher)
    return found


def _in_dictionary(field: str, values: Any, matcher: Matcher) -> Counter[str]:
    texts, found = values.dictionary, Counter[str]()
    if not _is_text(texts.type):
        return found
    seen = pc.value_counts(values.indices)
    times = {pair["values"]: pair["counts"] for pair in seen.to_pylist()} if len(texts) else {}
    for place, text in _worth_reading(texts, matcher):
        inside = matcher.codes(text) if matcher.targets.items else matcher.value(field, text)
        found += Counter({what: count * max(1, times.get(place, 0)) for what, count in inside.items()})
    return found


def _is_text(kind: Any) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
        )
    )


def _worth_reading(texts: Any, matcher: Matcher) -> Iterator[tuple[int, str]]:
    if pa.types.is_binary(texts.type) or pa.types.is_large_binary(texts.type) or pa.types.is_fixed_size_binary(texts.type):
        for place, value in enumerate(texts.to_pylist()):
            if value is not None:
                yield place, value.decode(errors="replace")
        return
    chosen = pc.or_(_holding(texts, matcher), pc.match_substring_regex(texts, _WORTH_READING))
    places = pc.indices_nonzero(chosen.fill_null(False))
    yield from zip(places.to_pylist(), texts.take(places).to_pylist(), strict=True)


def _holding(texts: Any, matcher: Matcher) -> Any:
    """Which texts have an identifier as a part."""
    targets = matcher.targets
    if not targets.together:
        return pc.match_substring(texts, targets.user)
    return pc.match_substring_regex(texts, "|".join(map(re.escape, by_length(targets.users))))


def _rows(batch: pa.RecordBatch, matcher: Matcher) -> Counter[str]:
    """Rows that name both the user and one of the items that are looked for."""
    if not matcher.targets.items:
        return Counter()
    named, thing = (_rows_where(batch, matcher, what) for what in ("user", "item"))
    return Counter({ROW: pc.sum(pc.and_(named, thing)).as_py() or 0}) if named is not None and thing is not None else Counter()


def _rows_where(batch: pa.RecordBatch, matcher: Matcher, what: str) -> Any:
    masks = None
    for name in batch.schema.names:
        column = batch[name]
        column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if pa.types.is_nested(column.type) or not (_is_text(column.type) or pa.types.is_integer(column.type)):
            continue
        distinct = pc.unique(column)
        test = matcher.names if what == "user" else matcher.is_item
        hits = [value for value in distinct.to_pylist() if value is not None and test(name, value)]
        if hits:
            mask = pc.is_in(column, value_set=pa.array(hits, column.type))
            masks = mask if masks is None else pc.or_(masks, mask)
    return masks


def found_rows(path: Path, matcher: Matcher) -> tuple[set[int], set[str], set[str]]:
    """Of a Parquet file: ids of the user's rows, all items, and names of other users that hold the identifier.

    Raises:
        pyarrow.ArrowException: It cannot be read.
    """
    ids, items, others = set[int](), set[str](), set[str]()
    targets = matcher.targets
    with pq.ParquetFile(path) as file:
        kinds = {field.name: field.type for field in file.schema_arrow}
        users = [name for name, kind in kinds.items() if kind_of(name) == "user" and _is_text(kind) and pa.types.is_string(kind)]
        things = [name for name in ("item_id",) if name in kinds and pa.types.is_string(kinds[name])]
        numbers = [name for name in ("interaction_id", "example_id") if name in kinds and kinds[name] == pa.int64()]
        if not users and not things:
            return ids, items, others
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[*users, *things, *numbers]):
            for name in things:
                items.update(value for value in pc.unique(batch[name]).to_pylist() if value is not None)
            for name in users:
                column = batch[name]
                holding = _holding(column, matcher).fill_null(False)
                if not pc.any(holding).as_py():
                    continue
                some = batch.filter(holding)
                for row in some.to_pylist():
                    mine = bool(matcher.names(name, row[name]))
                    if not mine:
                        others.add(row[name])
                    elif not targets.items or any(row[thing] in targets.items for thing in things):
                        ids.update(row[number] for number in numbers if row[number] is not None)
    return ids, items, others
