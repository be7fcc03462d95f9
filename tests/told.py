"""Interactions that a test tells row by row, stored as the stage stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import polars as pl
import pyarrow as pa
from pydantic import Field

from e2urec_core.data.examples import HistoryRule, example_tables, order_by_user, read_events
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.data.prompts import Catalogue, PromptRule, texts
from e2urec_core.datasets.base import Dataset, Source

Rating = tuple[str, str, float | None, int]
KINDS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp_s": pl.Int64}


class Told(Dataset):
    """A dataset that is told its rows."""

    ratings: tuple[tuple[str, str, float | None, int], ...]
    """user, item, rating, second."""
    titles: Mapping[str, str] = Field({})
    """By item; without a title an item is called `Film` and its id."""
    profiles: Mapping[str, str | None] = Field({})
    """By user."""
    cohorts: Mapping[str, str | None] = Field({})
    """By user."""

    def scan(self) -> Source:
        """See `Dataset.scan`; a missing rating is a No."""
        users = sorted({user for user, *_ in self.ratings})
        items = sorted({item for _, item, *_ in self.ratings})
        rows = pl.LazyFrame(list(self.ratings), schema=KINDS, orient="row").with_columns(
            label=(pl.col("rating") > self.like_above).fill_null(value=False).cast(pl.Int8),
            rule=pl.lit(None, pl.String),
            file=pl.lit("told"),
            line=pl.int_range(pl.len()),
        )
        told = {
            "user_id": users,
            "profile": [self.profiles.get(user) for user in users],
            "cohort": [self.cohorts.get(user) for user in users],
        }
        return Source(
            rows=rows,
            items=pl.LazyFrame({"item_id": items, "title": [self.titles.get(item, f"Film {item}") for item in items]}),
            users=pl.LazyFrame(told, schema={"user_id": pl.String, "profile": pl.String, "cohort": pl.String}),
        )


def stored(place: Path, ratings: Sequence[Rating], **told: Mapping[str, str | None] | float) -> Path:
    """A new folder of stored interactions below `place`."""
    folder = place / f"interactions-{len(list(place.iterdir()))}"
    folder.mkdir()
    ingest(Told(ratings=tuple(ratings), **told), IngestRule(), folder)
    return folder


def examples_of(interactions: Path, rule: HistoryRule) -> pa.Table:
    """All examples, as training rows."""
    events = read_events(interactions)
    histories = order_by_user(events)
    rows = numpy.flatnonzero(histories.num_earlier >= rule.at_least)
    tables = example_tables(events, histories, rows, numpy.zeros(len(rows), numpy.int8), rule.length)
    return pa.concat_tables(tables) if len(rows) else pa.table({})


def prompts_of(interactions: Path, history: HistoryRule, prompt: PromptRule) -> list[str]:
    """The prompts of all examples, in time order."""
    table = examples_of(interactions, history)
    told: list[str] = texts(table, Catalogue(interactions, prompt), prompt).to_pylist() if table.num_rows else []
    return told
