"""What the battery needs to run a member it has never heard of: small settings, and an invented source for datasets that read files.

A new plugin is picked up by itself. Only a dataset with a `path` needs a line in `MINI_FOLDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2urec_core.datasets.base import Dataset
from e2urec_core.methods.base import Method
from e2urec_core.plugins import load
from e2urec_core.settings import Plugin

SMALL: dict[str, Any] = {"training": {"num_epochs": 2, "batch_size": 8, "learning_rate": 1e-2}, "lora": {"rank": 4}}
"""Values of knobs that make any method quick; a method takes those it has."""


def write_ml_1m(folder: Path) -> None:
    """Three invented users who rated eight invented films each."""
    ratings = [f"{user}::{film}::{1 + (user + film) % 5}::{978_300_000 + 100 * film + user}" for user in (1, 2, 3) for film in range(1, 9)]
    (folder / "ratings.dat").write_text("\n".join(ratings))
    (folder / "movies.dat").write_text("\n".join(f"{film}::Invented Tale {film} (19{90 + film})::Drama" for film in range(1, 9)))
    (folder / "users.dat").write_text("1::F::25::9::00000\n2::M::1::0::11111\n3::F::56::3::22222\n")


MINI_FOLDERS: dict[str, Callable[[Path], None]] = {"ml_1m": write_ml_1m}


@pytest.fixture
def small_method() -> Callable[[str], Method]:
    """A method of the given kind with few and small steps, otherwise its defaults."""

    def build(kind: str) -> Method:
        member = load(Method.package, kind)
        small = {}
        for name, values in SMALL.items():
            if name in member.model_fields:
                small[name] = {**member().canonical()[name], **values}
        method: Method = member(**small)
        return method

    return build


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
        MINI_FOLDERS[kind](folder)
        built: Dataset = member(path=folder)
        return built

    return build


def every_member(family: type[Plugin]) -> list[str]:
    from e2urec_core.plugins import kinds

    return kinds(family.package)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `method_kind`, `dataset_kind` or `backbone_kind` for every member, and `member` for all of them."""
    from e2urec_core.backbones.base import Backbone

    families = {"method_kind": Method, "dataset_kind": Dataset, "backbone_kind": Backbone}
    for name, family in families.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, every_member(family))
    if "member" in metafunc.fixturenames:
        pairs = [(family, kind) for family in families.values() for kind in every_member(family)]
        metafunc.parametrize(("family", "kind"), pairs, ids=[kind for _, kind in pairs])


@pytest.fixture
def member(family: type[Plugin], kind: str) -> type[Plugin]:
    """The settings class of one member."""
    found: type[Plugin] = load(family.package, kind)
    return found
