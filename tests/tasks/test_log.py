"""JSON lines by setting: one object each, with numbers beside the message, and no text of an error that is not for users."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

import pytest

from e2urec_core.errors import BadInput, BadSetting
from tasks import _log, _progress
from tasks._progress import progress, say

SECRET = "subject-4711"


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2UREC_LOG", "json")


@pytest.mark.usefixtures("json_lines")
def test_a_line_is_one_object_with_time_level_run_stage_and_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    with _log.about(run="night-1"), _log.about(stage="unlearn"):
        say("unlearn      1.5 s   3 rows", {"seconds": 1.5, "rows": 3})
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    told = json.loads(line)
    moment = datetime.fromisoformat(told.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert told == {"level": "INFO", "message": "unlearn 1.5 s 3 rows", "run": "night-1", "stage": "unlearn", "seconds": 1.5, "rows": 3}
    assert out == ""


@pytest.mark.usefixtures("json_lines")
def test_progress_tells_its_numbers(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with progress("unlearn") as watch:
        watch(1_500, 3_000, "steps", {"loss": 0.41234})
    told = json.loads(capfd.readouterr().err)
    assert (told["done"], told["total"], told["unit"], told["loss"]) == (1_500, 3_000, "steps", 0.41234)


@pytest.mark.usefixtures("json_lines")
def test_the_end_of_a_command_keeps_its_kind_facts_and_hint(capfd: pytest.CaptureFixture[str]) -> None:
    _log.write_fault(BadInput("3 of 9 rows are blue", hint="paint them", facts={"row": 3}))
    told = json.loads(capfd.readouterr().err)
    del told["time"]
    wanted = {"level": "ERROR", "message": "3 of 9 rows are blue", "error": "BadInput", "facts": {"row": "3"}, "hint": "paint them"}
    assert told == wanted


def test_in_text_a_fault_is_printed_as_ever(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2UREC_LOG", raising=False)
    fault = BadInput("3 of 9 rows are blue", hint="paint them", facts={"row": 3})
    _log.write_fault(fault)
    assert capfd.readouterr().err == f"{fault}\n"


def raised() -> ValueError:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        return error


@pytest.mark.usefixtures("json_lines")
def test_a_bug_says_its_kind_and_where_and_not_what_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    _log.write_bug(raised())
    line = capfd.readouterr().err
    told = json.loads(line)
    assert (told["level"], told["error"]) == ("CRITICAL", "ValueError")
    assert any("raise ValueError(SECRET)" in each for each in told["lines"])
    assert SECRET not in line


@pytest.mark.usefixtures("json_lines")
def test_lines_of_other_packages_become_json_without_what_their_errors_say(capfd: pytest.CaptureFixture[str]) -> None:
    logger, handler = logging.getLogger("mlflow.toy"), logging.StreamHandler()
    logger.addHandler(handler)
    # Where MLflow was imported before, it has a handler of its own above.
    logger.propagate = False
    try:
        _log.take_over()
        logger.error("it failed", exc_info=raised())
    finally:
        logger.removeHandler(handler)
    (line,) = capfd.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["message"], told["exc_info"]["error"]) == ("it failed", "ValueError")
    assert SECRET not in line


def test_any_other_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2UREC_LOG", "xml")
    with pytest.raises(BadSetting, match="E2UREC_LOG is `xml`"):
        say("a line")
