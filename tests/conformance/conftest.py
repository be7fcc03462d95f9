"""What the battery needs to run a member it has never heard of: small settings, and an invented source for datasets that read files.

A new plugin is picked up by itself. Only a dataset with a `path` needs a line in `MINI_FOLDERS`, and a backbone with a `checkpoint` one
in `CHECKPOINTS` of `tests/small_checkpoints.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2urec_core.datasets.base import Dataset
from e2urec_core.methods.base import Method
from e2urec_core.plugins import load
from e2urec_core.settings import Plugin

SMALL: dict[str, Any] = {
    "training": {"num_epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
    "lora": {"rank": 4},
    "num_shards": 3,
    "num_slices": 2,
    "panel_rows": 32,
}
"""Values of knobs that make any method quick; a method takes those it has."""


USERS, ITEMS = (1, 2, 3), range(1, 9)


def stars(user: int, item: int) -> int:
    return 1 + (user + item) % 5


def second(user: int, item: int) -> int:
    return 978_300_000 + 100 * item + user


def write_ml_1m(folder: Path) -> None:
    """Three invented users who rated eight invented films each."""
    ratings = [f"{user}::{film}::{stars(user, film)}::{second(user, film)}" for user in USERS for film in ITEMS]
    (folder / "ratings.dat").write_text("\n".join(ratings))
    (folder / "movies.dat").write_text("\n".join(f"{film}::Invented Tale {film} (19{90 + film})::Drama" for film in ITEMS))
    (folder / "users.dat").write_text("1::F::25::9::00000\n2::M::1::0::11111\n3::F::56::3::22222\n")


def write_goodreads(folder: Path) -> None:
    """Three invented readers who rated eight invented books each, and put a ninth on the shelf unrated."""
    rows = [
        {
            "user_id": f"reader{user}",
            "book_id": str(book),
            "rating": stars(user, book) if book in ITEMS else 0,
            "date_added": datetime.fromtimestamp(second(user, book), UTC).strftime("%a %b %d %H:%M:%S +0000 %Y"),
        }
        for user in USERS
        for book in (*ITEMS, 9)
    ]
    (folder / "goodreads_interactions_poetry.json").write_text("\n".join(map(json.dumps, rows)))
    books = [{"book_id": str(book), "title": f"Invented Verse {book}"} for book in (*ITEMS, 9)]
    (folder / "goodreads_books_poetry.json").write_text("\n".join(map(json.dumps, books)))


def write_interactions(folder: Path) -> None:
    """Three invented users who rated eight things each, in a table."""
    rows = [f"user{user},thing{item},{stars(user, item)},{second(user, item)}" for user in USERS for item in ITEMS]
    (folder / "table.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))


@dataclass(frozen=True)
class Mini:
    """An invented source of files.

    Args:
        write: Writes it into a folder.
        table: The file of interactions, one row a line.
        num_header_lines: Lines of that file before the first row.
    """

    write: Callable[[Path], None]
    table: str
    num_header_lines: int = 0

    def shuffle(self, folder: Path) -> None:
        """Put the rows of the table into another order."""
        file = folder / self.table
        lines = file.read_text().split("\n")
        head, rows = lines[: self.num_header_lines], lines[self.num_header_lines :]
        random.Random(3).shuffle(rows)
        file.write_text("\n".join([*head, *rows]))


MINI_FOLDERS = {
    "ml_1m": Mini(write_ml_1m, "ratings.dat"),
    "goodreads": Mini(write_goodreads, "goodreads_interactions_poetry.json"),
    "interactions": Mini(write_interactions, "table.csv", num_header_lines=1),
}


@pytest.fixture
def small_method() -> Callable[[str], Method]:
    """A method of the given kind with few and small steps, otherwise its defaults."""

    def build(kind: str) -> Method:
        member = load(Method.package, kind)
        small = {}
        for name, values in SMALL.items():
            if name in member.model_fields:
                small[name] = {**member().canonical()[name], **values} if isinstance(values, dict) else values
        method: Method = member(**small)
        return method

    return build


@pytest.fixture
def shuffled_source() -> Callable[[str, Path], None]:
    """Puts the rows of an invented source into another order: `shuffled_source(kind, folder)`."""
    return lambda kind, folder: MINI_FOLDERS[kind].shuffle(folder)


@pytest.fixture
def mini_dataset(tmp_path: Path) -> Callable[[str], Dataset]:
    """A dataset of the given kind over an invented source, if it needs one."""

    def build(kind: str) -> Dataset:
        member = load(Dataset.package, kind)
        if "path" not in member.model_fields:
            dataset: Dataset = member()
            return dataset
        assert kind in MINI_FOLDERS, f"`{kind}` reads files: write an invented mini folder for it in {__file__}"
        folder = tmp_path / kind
        folder.mkdir()
        MINI_FOLDERS[kind].write(folder)
        built: Dataset = member.model_validate({"path": str(folder)})
        return built

    return build


def every_member(family: type[Plugin]) -> list[str]:
    from e2urec_core.plugins import kinds

    return kinds(family.package)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `method_kind`, `dataset_kind` or `backbone_kind` for every member, and `member` for all of them."""
    from small_checkpoints import variants

    from e2urec_core.backbones.base import Backbone

    families = {"method_kind": Method, "dataset_kind": Dataset, "backbone_kind": Backbone}
    for name, family in families.items():
        if name in metafunc.fixturenames:
            members = every_member(family)
            metafunc.parametrize(name, variants(members) if family is Backbone else members)
    if "member" in metafunc.fixturenames:
        pairs = [(family, kind) for family in families.values() for kind in every_member(family)]
        metafunc.parametrize(("family", "kind"), pairs, ids=[kind for _, kind in pairs])


@pytest.fixture
def member(family: type[Plugin], kind: str) -> type[Plugin]:
    """The settings class of one member."""
    found: type[Plugin] = load(family.package, kind)
    return found
