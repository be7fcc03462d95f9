"""A few invented rows with the scores that a recommender gives them, so that whoever loads it later can tell that it is the same.

The rows are drawn from the catalogue alone, of what several people have in common. No row shows a history, or a part of one, that some
person really has.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow as pa

from e2urec_core.artifacts import canonical_json
from e2urec_core.data.examples import Events, order_by_user, read_events
from e2urec_core.data.places import PROBE
from e2urec_core.data.prompts import Catalogue, PromptRule, texts
from e2urec_core.errors import Diverged
from e2urec_core.seeding import numpy_generator

if TYPE_CHECKING:
    import torch
    from numpy import ndarray

    from e2urec_core.data.examples import HistoryRule
    from e2urec_core.engine import Bench

ROWS, PEOPLE = 64, 5
"""Rows of a probe; and how many people must share what it shows: have rated an item, given a rating, or be described alike."""
DRAWN = 4 * ROWS
EMPTY_SHARE = 8
"""One row in so many has no history."""
MADE_UP = 32
"""Titles of nothing, which are shown where no item was rated by enough people."""


class _Shared(Catalogue):
    """The catalogue, of which a row's user is the place of a profile."""

    def profiles_of(self, user_ids: pa.Array) -> ndarray:
        """See `Catalogue.profiles_of`."""
        return numpy.asarray(user_ids)

    def shared_profiles(self) -> ndarray:
        """Places of the profiles that `PEOPLE` share."""
        return numpy.flatnonzero(numpy.bincount(self._profile_of[self._profile_of >= 0], minlength=len(self.profiles)) >= PEOPLE)


@dataclass(frozen=True)
class Common:
    """What `PEOPLE` have in common: places of items, ratings, and places of profiles, -1 for none."""

    items: ndarray
    ratings: ndarray
    profiles: ndarray


def write_probe(interactions: Path, prompt: PromptRule, history: HistoryRule, model: Path, bench: Bench, place: Path) -> int:
    """Write `probe.json` into `place`: invented rows, their prompts, and p(Yes) of each; returns the number of rows.

    Args:
        interactions: Folder of stored interactions, of which only the catalogue and what many people share is shown.
        prompt: The wording.
        history: How many items a row shows.
        model: Folder of a recommender.
        bench: Its seed decides what is drawn; its device scores.
        place: Where the file goes.

    Raises:
        BadInput: A prompt is too long without any history.
        Diverged: A score is no finite number.
    """
    from e2urec_core.data.encoding import PromptEncoder
    from e2urec_core.recommender import load

    catalogue, events = _Shared(interactions, prompt), read_events(interactions)
    common = what_is_common(events, catalogue.shared_profiles())
    if not len(common.items):
        catalogue.titles = pa.array([f"Title {number}" for number in range(MADE_UP)])
        common = dataclasses.replace(common, items=numpy.arange(MADE_UP))
    table = invented(events, common, history.length, bench.seed)
    recommender = load(model, bench.device)
    batch = table.combine_chunks().to_batches()[0]
    _, left_out = PromptEncoder(recommender.tokenizer, catalogue, prompt).encode(batch)
    told: list[str] = texts(table, catalogue, prompt, left_out).to_pylist()
    numbers = numpy.arange(len(told))
    scores = recommender.score(recommender.prompts(numbers, numpy.zeros_like(numbers), told))
    if not numpy.isfinite(scores).all():
        raise Diverged(
            f"{int((~numpy.isfinite(scores)).sum())} of {len(told)} probe rows have no finite score", hint="train this recommender again"
        )
    rows = [
        {
            "profile": None if row["user_id"] < 0 else catalogue.profiles[row["user_id"]].as_py(),
            "history": [
                {"title": catalogue.titles[item].as_py(), "rating": None if math.isnan(stars) else stars}
                for item, stars in zip(row["history"], row["history_ratings"], strict=True)
            ],
            "candidate": catalogue.titles[row["item"]].as_py(),
            "prompt": text,
            "yes_probability": float(score),
        }
        for row, text, score in zip(table.to_pylist(), told, scores, strict=True)
    ]
    (place / PROBE).write_text(canonical_json({"seed": bench.seed, "rows": rows}))
    return len(rows)


def check_probe(folder: Path, device: torch.device | str = "cpu") -> float:
    """The largest difference between p(Yes) of the probe in `folder` and what the recommender beside it says now; no unit.

    A number that is not finite, on either side, counts as infinity.

    Args:
        folder: A recommender's files with their `probe.json`.
        device: Where it is scored.
    """
    from e2urec_core.recommender import load

    rows = json.loads((folder / PROBE).read_bytes())["rows"]
    recommender, numbers = load(folder, device), numpy.arange(len(rows))
    scores = recommender.score(recommender.prompts(numbers, numpy.zeros_like(numbers), [row["prompt"] for row in rows]))
    differences = numpy.abs(scores - numpy.array([row["yes_probability"] for row in rows], dtype=numpy.float64))
    return float(differences.max()) if len(rows) and numpy.isfinite(differences).all() else math.inf


def invented(events: Events, common: Common, length: int, seed: int) -> pa.Table:
    """Rows as `prompts.texts` reads them; a row's user is the place of its profile, or -1.

    Args:
        events: No history is made that is somebody's among them.
        common: What may be shown.
        length: Items of a history.
        seed: Decides what is drawn.
    """
    random = numpy_generator(seed, "probe")
    drawn = [random.choice(common.items, min(length, len(common.items)), replace=False) for _ in range(DRAWN)]
    ordered = order_by_user(events).by_user
    sequence, owners = events.items[ordered].astype(numpy.int64), events.users[ordered]
    free = [items for items in drawn if not _is_somebodys(items, sequence, owners)]
    nothing = drawn[0][:0]
    histories = [free[number] if number % EMPTY_SHARE and number < len(free) else nothing for number in range(ROWS)]
    given = [random.choice(common.ratings, len(items)) for items in histories]
    return pa.table(
        {
            "user_id": pa.array(random.choice(common.profiles, ROWS), pa.int64()),
            "item": pa.array(random.choice(common.items, ROWS), pa.int64()),
            "history": pa.array([items.tolist() for items in histories], pa.list_(pa.int64())),
            "history_ratings": pa.array([stars.tolist() for stars in given], pa.list_(pa.float32())),
        }
    )


def what_is_common(events: Events, profiles: ndarray) -> Common:
    """What `PEOPLE` have in common, of the events and of the `profiles` at these places, which they share."""
    users = events.users.astype(numpy.int64)
    items = _shared(events.items.astype(numpy.int64), users, len(events.user_ids))
    values, codes = numpy.unique(events.ratings, return_inverse=True, equal_nan=True)
    ratings = values[_shared(codes.astype(numpy.int64), users, len(events.user_ids))]
    return Common(items, ratings if len(ratings) else numpy.array([numpy.nan], numpy.float32), numpy.append(profiles, -1))


def _shared(things: ndarray, users: ndarray, num_users: int) -> ndarray:
    """The things that `PEOPLE` different users have."""
    pairs = numpy.unique(things * num_users + users)
    return numpy.flatnonzero(numpy.bincount(pairs // num_users) >= PEOPLE)


def _is_somebodys(items: ndarray, sequence: ndarray, owners: ndarray) -> bool:
    """Whether some user met these items one right after the other; `sequence` is in the order of user, then time."""
    starts = numpy.flatnonzero(sequence[: len(sequence) - len(items) + 1] == items[0])
    for step, item in enumerate(items):
        starts = starts[(sequence[starts + step] == item) & (owners[starts + step] == owners[starts])]
    return bool(len(starts))
