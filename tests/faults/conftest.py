"""What all tests of the faults share: the small stages, the told story, and a console in a copy of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "flows"))

from e2urec_console import Console, Story, copied, shared_folder, story_told_once


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every stage of `small_stages` reads and gives; leave it as it is."""
    from small_stages import make_inputs

    root = tmp_path_factory.mktemp("small") / "stages"
    make_inputs(root)
    return root


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Read it and leave it as it is."""
    return story_told_once(shared_folder(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The command in a copy of the told story's workspace, without a GPU; whoever damages the told run mends it."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("copy") / "workspace"), CUDA_VISIBLE_DEVICES="")
    yield console
    console.close()
