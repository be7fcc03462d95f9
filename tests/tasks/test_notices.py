"""Who is told that a run failed or that gates refused: the log, blocks by setting, each once; and the events for automations."""

from __future__ import annotations

from typing import Any

import pytest

from e2urec_core.errors import BadInput

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

SENTENCE = "BadInput: 3 of 9 rows are blue (hint: paint them)"


@pytest.fixture
def paged() -> list[tuple[str, str | None]]:
    """What a pager, a notification block of Prefect called `pager/night`, was sent; `pager/broken` raises."""
    from prefect.blocks.abstract import NotificationBlock

    sent: list[tuple[str, str | None]] = []

    class Pager(NotificationBlock):
        """Keeps what it is sent."""

        breaks: bool = False

        def notify(self, body: str, subject: str | None = None) -> None:
            if self.breaks:
                raise ConnectionError("no line")
            sent.append((body, subject))

    Pager().save("night", overwrite=True)
    Pager(breaks=True).save("broken", overwrite=True)
    return sent


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Our events, with what they hold."""
    from tasks import _notices

    kept: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(_notices, "emit_event", lambda event, resource, payload: kept.append((event, payload)))
    return kept


def failing() -> tuple[Any, Any]:
    """A flow that fails, and one that fails because the first does."""
    from prefect import flow

    from tasks._notices import run_failed
    from tasks._shown import truthful

    @flow(name="below", flow_run_name="below-1", persist_result=False, on_failure=[run_failed])
    @truthful
    def below() -> None:
        raise BadInput("3 of 9 rows are blue", hint="paint them", facts={"row": "subject-4711"})

    @flow(name="above", flow_run_name="above-1", persist_result=False, on_failure=[run_failed])
    @truthful
    def above() -> None:
        below()

    return below, above


def test_a_failed_run_tells_every_block_once_in_one_sentence(paged: list[Any], emitted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2UREC_NOTIFY", "log, pager/night")
    with pytest.raises(BadInput):
        failing()[0]()
    ((text, subject),) = paged
    assert text.startswith(f"below-1: below failed: {SENTENCE}")
    assert "4711" not in text
    assert subject == "e2urec: below-1"
    assert emitted == [("e2urec.run.failed", {"run": "below-1", "flow": "below", "state": "Failed", "message": SENTENCE})]


def test_a_run_that_fails_because_one_below_it_did_is_not_told_again(
    paged: list[Any], emitted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2UREC_NOTIFY", "pager/night")
    with pytest.raises(BadInput):
        failing()[1]()
    assert [subject for _, subject in paged] == ["e2urec: below-1"]
    assert [facts["run"] for _, facts in emitted] == ["below-1"]


def test_blocks_that_are_missing_broken_or_no_notifiers_are_warnings_and_the_next_one_is_told(
    paged: list[Any], emitted: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from prefect.blocks.system import Secret

    Secret(value="hush").save("no-notifier", overwrite=True)
    monkeypatch.setenv("E2UREC_NOTIFY", "pager/nowhere,pager/broken,secret/no-notifier,pager/night")
    with pytest.raises(BadInput):
        failing()[0]()
    assert len(paged) == 1
    told = capfd.readouterr().err
    for name in ("pager/nowhere", "pager/broken", "secret/no-notifier"):
        assert f"`{name}` of E2UREC_NOTIFY was not told: " in told
    assert "hush" not in told


def test_by_default_the_log_alone_is_told(paged: list[Any], emitted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.delenv("E2UREC_NOTIFY", raising=False)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.flow_runs")
    before = logger.level
    logger.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        with pytest.raises(BadInput):
            failing()[0]()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert paged == []
    assert any(line.startswith(f"below-1: below failed: {SENTENCE}") for line in lines)


def test_nothing_is_emitted_or_told_outside_of_a_flow_run(paged: list[Any], emitted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks._notices import emit, notify

    monkeypatch.setenv("E2UREC_NOTIFY", "pager/night")
    emit("e2urec.champion.promoted", "run", {"version": 1})
    notify("refused by 2 of 7 gates")
    assert (paged, emitted) == ([], [])
