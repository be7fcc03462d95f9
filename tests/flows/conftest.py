"""One told story for all tests of the flows, and a console in a copy of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2urec_console import Console, Story, copied, shared_folder, story_told_once


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Read it and leave it as it is."""
    return story_told_once(shared_folder(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The command in a copy of the told story's workspace, kept running; add runs to it and change none that is there."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("copy") / "workspace"))
    yield console
    console.close()
