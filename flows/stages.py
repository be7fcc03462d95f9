"""A flow for every stage, so that each can be run again from Prefect's page, with its own form.

What a form leaves empty stays as the run had it. The command `e2urec stage` calls the same flows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_table_artifact

from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.release.gates import Gates
from e2urec_core.release.rule import ReleaseRule
from e2urec_core.settings import Augment, CacheRule, EvaluateRule, Settings, Training
from flows.earlier_runs import LAST, open_run
from flows.forms import filled_in, form_of
from flows.runs import Run
from flows.stage import rerun
from tasks._journal import Journal
from tasks._notices import run_failed
from tasks._shown import aside, truthful
from tasks.bundle import bundle as bundle_stage
from tasks.cache_logits import cache_original_logits, cache_teacher_logits
from tasks.evaluate import evaluate as evaluate_stage
from tasks.forget import choose_forgotten
from tasks.ingest import ingest as ingest_stage
from tasks.report import write_report
from tasks.retell import retell as retell_stage
from tasks.score import score as score_stage
from tasks.split import split_by_time
from tasks.tokenise import tokenise as tokenise_stage
from tasks.train import train_augmented as augmented_stage
from tasks.train import train_original as original_stage
from tasks.train import train_retrained as retrained_stage
from tasks.train import train_shards as shards_stage
from tasks.unlearn import unlearn_users
from tasks.verdict import decide

KEYWORD = inspect.Parameter.KEYWORD_ONLY
ON = form_of(Run, only=("device", "threads", "processes", "precision", "execution", "parallel", "fan_out"))
"""Where a stage that trains or scores works."""
DOCUMENTED = """{about}

Runs this stage of an earlier run again. Earlier stages are as recorded, later ones are only compared; returns those that are now stale.

Args:
    run: Name of the run, or `last`: the newest of `unlearn` or `train`.
{sections}    settings: Further settings by name, such as `method.suppression` or `threads`; `none` for none.
    workspace: The workspace's folder. Empty: the worker's `E2UREC_WORKSPACE`, else `workspace`.
"""


def stage_flow(name: str, does: Callable[..., Any], *, on: bool = False, **sections: type[Settings]) -> Flow[..., list[str]]:
    """The flow that runs a stage again.

    Args:
        name: Of the stage.
        does: The stage; its first sentence says what it does.
        on: Whether it trains or scores, and may so do elsewhere than the run did.
        **sections: Groups of settings that the form shows, by name.
    """
    forms = {section: form_of(owner) for section, owner in sections.items()} | ({"on": ON} if on else {})

    def again(*, run: str, settings: dict[str, Any], workspace: str, on: Settings | None = None, **filled: Settings | None) -> list[str]:
        given = [filled_in(section, form) for section, form in {**filled, "": on}.items()]
        journal = open_run(workspace, run)
        stale = rerun(name, journal, {flag: value for flags in (*given, settings) for flag, value in flags.items()}, workspace)
        _show(journal)
        return stale

    def parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, KEYWORD, annotation=kind, default=default)

    groups = [parameter(section, form, form()) for section, form in forms.items()]
    first, last = parameter("run", str, LAST), [parameter("settings", dict[str, Any], {}), parameter("workspace", str, "")]
    again.__signature__ = inspect.Signature([first, *groups, *last], return_annotation=list[str])  # type: ignore[attr-defined]
    told = "".join(f"    {section}: {(inspect.getdoc(form) or '').splitlines()[0]}\n" for section, form in forms.items())
    again.__doc__ = DOCUMENTED.format(about=(inspect.getdoc(does) or "").splitlines()[0], sections=told)
    again.__name__ = again.__qualname__ = name.replace("-", "_")
    again.__module__ = __name__
    return flow(
        name=f"stage-{name}",
        flow_run_name=f"{name} of {{run}}",
        persist_result=False,
        validate_parameters=True,
        on_failure=[run_failed],
        on_crashed=[run_failed],
    )(truthful(again))


def _show(journal: Journal) -> None:
    """What has become of the run's stages, as a table beside the flow run."""
    rows = [{"stage": label, "state": entry.state, "seconds": round(entry.seconds, 1)} for label, entry in journal.record.stages.items()]
    with aside("which stages are stale"):
        told = f"Stages of {journal.record.run}; stale ones are to be run again."
        create_table_artifact(key="stages-of-the-run", table=rows, description=told)


ingest = stage_flow("ingest", ingest_stage, ingest=IngestRule)
split = stage_flow("split", split_by_time, history=HistoryRule, split=SplitRule)
forget = stage_flow("forget", choose_forgotten, forget=ForgetRule)
tokenise = stage_flow("tokenise", tokenise_stage, prompt=PromptRule)
retell = stage_flow("retell", retell_stage, prompt=PromptRule)
train_original = stage_flow("train-original", original_stage, training=Training, on=True)
train_shards = stage_flow("train-shards", shards_stage, on=True)
train_augmented = stage_flow("train-augmented", augmented_stage, augment=Augment, on=True)
cache_original = stage_flow("cache-original", cache_original_logits, cache=CacheRule, on=True)
cache_teachers = stage_flow("cache-teachers", cache_teacher_logits, cache=CacheRule, on=True)
unlearn = stage_flow("unlearn", unlearn_users, on=True)
train_retrained = stage_flow("train-retrained", retrained_stage, training=Training, on=True)
score = stage_flow("score", score_stage, on=True)
evaluate = stage_flow("evaluate", evaluate_stage, evaluate=EvaluateRule, on=True)
report = stage_flow("report", write_report)
verdict = stage_flow("verdict", decide, gates=Gates, on=True)
bundle = stage_flow("bundle", bundle_stage, release=ReleaseRule)

FLOWS = {
    each.name.removeprefix("stage-"): each
    for each in (
        ingest,
        split,
        forget,
        tokenise,
        retell,
        train_original,
        train_shards,
        train_augmented,
        cache_original,
        cache_teachers,
        unlearn,
        train_retrained,
        score,
        evaluate,
        report,
        verdict,
        bundle,
    )
}
