"""Tells people and automations that a run failed, that gates refused a recommender, who is champion, how a night ended.

`E2UREC_NOTIFY` lists who is told in sentences, with commas between them: `log`, the default, is the log of the flow run; all others
are slugs of notification blocks in Prefect, such as `slack-webhook/ops`. Events are always emitted; they hold counts, and names of runs,
versions and gates.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.logging.loggers import flow_run_logger

from e2urec_core.release.verdict import VerdictDocument
from tasks._progress import say

SETTING = "E2UREC_NOTIFY"
LOG = "log"
RUN_FAILED, GATE_REFUSED, PROMOTED, NIGHT_ENDED = (
    "e2urec.run.failed",
    "e2urec.gate.refused",
    "e2urec.champion.promoted",
    "e2urec.night.ended",
)
# The flow runs that fail because a flow run below them has failed, of which people were told.
_told_below: set[UUID] = set()


def told_once(error: Exception, flow_run: UUID) -> None:
    """Note that a flow run fails by `error`; of those above it that fail by the same nobody is told again."""
    if vars(error).setdefault("e2urec_flow_run", flow_run) != flow_run:
        _told_below.add(flow_run)


def run_failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of flows that fail or crash: emits the event, and tells people."""
    if flow_run.id in _told_below:
        _told_below.discard(flow_run.id)
        return
    told = (state.message or "").splitlines()[0] if state.message else state.name
    emit(RUN_FAILED, flow_run.name, {"flow": flow.name, "state": state.name, "message": told})
    notify(f"{flow.name} failed: {told}", flow_run)


def gates_refused(run: str, verdict: VerdictDocument) -> None:
    """Emit that gates have refused a recommender; `notify` is left to those who know whether that ends the run."""
    refused = [gate.name for gate in verdict.gates if not gate.passed]
    emit(GATE_REFUSED, run, {"gates": len(verdict.gates), "refused": len(refused), "names": refused})


def emit(event: str, run: str, facts: Mapping[str, Any]) -> None:
    """Emit an event about a run, for automations; outside of flow runs nothing is emitted."""
    if FlowRunContext.get() is not None:
        emit_event(
            event, resource={"prefect.resource.id": f"e2urec.run.{run}", "prefect.resource.name": run}, payload={"run": run, **facts}
        )


def notify(sentence: str, flow_run: Any = None) -> None:
    """Tell everybody whom `E2UREC_NOTIFY` lists one sentence, with the run's name and its page.

    Whoever cannot be reached is a warning; the run goes on.
    """
    if flow_run is None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return
        flow_run = context.flow_run
    page = _page_of(flow_run)
    text = f"{flow_run.name}: {sentence}{f' {page}' if page else ''}"
    for name in filter(None, (part.strip() for part in os.environ.get(SETTING, LOG).split(","))):
        try:
            if name == LOG:
                flow_run_logger(flow_run).error(text)
            else:
                _send(name, text, f"e2urec: {flow_run.name}")
        except Exception as error:
            say(f"`{name}` of {SETTING} was not told: {type(error).__name__}", level="WARNING")


def _send(slug: str, text: str, subject: str) -> None:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block
    from prefect.utilities.asyncutils import run_coro_as_sync

    block = Block.load(slug)
    if not isinstance(block, NotificationBlock):
        raise TypeError(slug)
    with block.raise_on_failure():
        sent = block.notify(text, subject)
        if inspect.isawaitable(sent):
            run_coro_as_sync(sent)


def _page_of(flow_run: Any) -> str:
    from prefect.utilities.urls import url_for

    return url_for(flow_run) or ""
