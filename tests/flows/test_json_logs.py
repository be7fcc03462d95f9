"""`E2UREC_LOG=json`: every line on stderr is one object, and stdout is what it is in text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2urec_console import STAGES, Answer, Console, Story, copied

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def console(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("json") / "workspace"), E2UREC_LOG="json")
    yield console
    console.close()


def lines(answer: Answer) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in answer.stderr.splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in told)
    return told


@pytest.mark.long
def test_every_line_of_a_run_is_an_object_that_names_run_and_stage(console: Console) -> None:
    answer = console.unlearn("--json")
    assert answer.code == 0, answer.stderr
    run, told = answer.json()["run"], lines(answer)
    assert [line["stage"] for line in told if "state" in line] == list(STAGES)
    assert {line["run"] for line in told} == {run}
    assert {line["state"] for line in told if "state" in line} == {"cached"}


def test_a_refusal_is_an_object_with_its_kind_and_hint(console: Console) -> None:
    answer = console.unlearn("--forget.share", "0")
    told = lines(answer)
    assert (answer.code, answer.stdout) == (2, "")
    assert (told[-1]["level"], told[-1]["error"]) == ("ERROR", "BadRequest")
    assert told[-1]["message"].startswith("no users are forgotten")
    assert told[-1]["hint"]


def test_a_wrong_word_is_an_object_too(console: Console) -> None:
    (told,) = lines(console("unlearn", "sample", "--no-such-flag", "1", "--json"))
    assert told["error"] == "BadSetting"
