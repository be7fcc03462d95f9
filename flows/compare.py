"""Many methods on the same rows: each one's knobs are chosen blind on a seed of its own, then all are measured on the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from prefect import flow

from e2urec_core.artifacts import Model, Report, Scores
from e2urec_core.errors import UserError
from e2urec_core.methods.base import Method
from e2urec_core.report.assemble import ALL_IN, OWN
from e2urec_core.report.comparison.plan import ComparisonPlan, Taking, label
from e2urec_core.report.comparison.schema import Try
from e2urec_core.settings import ScoreRule
from e2urec_core.tuning import Tried, chosen, knobs_of, tries
from flows.comparison import REFERENCE, Comparison
from flows.published import DEFECTS, EXPERIMENTS
from flows.rooms import open_room, settled
from flows.runs import Run
from flows.story import Prepared, forget, prepare, retrain
from tasks._notices import run_failed
from tasks._progress import say
from tasks._room import CHAPTER, ROOM
from tasks._shown import truthful
from tasks.compare import hand_out_comparison, judge, write_comparison
from tasks.score import score

T = TypeVar("T")
BLIND = ScoreRule(groups=("validation", "forgotten"))


@dataclass(frozen=True)
class Seen:
    """One model of one seed, scored.

    Args:
        model: The model.
        scores: What it answers.
        chapter: Where its stages stand in the journal.
        stages: Stages of which its time is made, itself the last.
    """

    model: Model
    scores: Scores
    chapter: str
    stages: tuple[str, ...]


@flow(
    name="compare",
    flow_run_name="compare {plan.run.dataset.kind} {plan.run.backbone.kind}",
    persist_result=False,
    validate_parameters=True,
    on_failure=[run_failed],
    on_crashed=[run_failed],
)
@truthful
def compare(plan: Comparison, workspace: str = "") -> str:
    """Choose every method's knobs, measure all of them on the same seeds and rows, and report. Returns the comparison's name."""
    plan = plan.model_copy(update={"run": settled(plan.run, workspace)})
    words = ("compare", plan.run.dataset.kind, plan.run.backbone.kind)
    with open_room(plan, words, workspace, plan.run, in_processes=True) as room:
        hand_out_comparison(room, tell(plan))
        return room.journal.record.run


def tell(plan: Comparison) -> Report:
    """The stages of every seed and method; each is taken from the store where it was run before."""
    seeds = (plan.tuning.seed, *plan.reported)
    prepared = dict(zip(seeds, _side_by_side(plan, [(f"seed {seed}", _prepare(plan, seed)) for seed in seeds]), strict=True))
    poles = _poles(plan, prepared)
    taking, methods = _chosen(plan, prepared[plan.tuning.seed], poles[plan.tuning.seed])
    return _report(plan, prepared, poles, taking, _unlearned(plan, prepared, methods))


def _prepare(plan: Comparison, seed: int) -> Callable[[], Prepared]:
    return lambda: prepare(plan.of(plan.run.method, seed))


def _poles(plan: Comparison, prepared: dict[int, Prepared]) -> dict[int, dict[str, Seen]]:
    """Original, Retrain and the further Retrains of every seed, scored; of the tuning seed only what a choice may see."""

    def seen(seed: int, further: int | None) -> Callable[[], Seen]:
        run, start, asked = plan.of(plan.run.method, seed), prepared[seed], BLIND if seed == plan.tuning.seed else ScoreRule()

        def made() -> Seen:
            model = start.original if further is None else retrain(run, start, further)
            told = score(model, start.tokens, start.request, asked, run.seat(), start.retold)
            # The original was trained where its seed was prepared.
            chapter, pole = (f"seed {seed}", "original") if further is None else (CHAPTER.get(), "retrain")
            return Seen(model, told, chapter, OWN[pole])

        return made

    wanted = {seed: [None, *range(1 if seed == plan.tuning.seed else 1 + plan.run.evaluate.floor_seeds)] for seed in prepared}
    pairs = [(seed, further) for seed, all_of_them in wanted.items() for further in all_of_them]
    jobs = [(label(seed, _pole(further)), seen(seed, further)) for seed, further in pairs]
    poles: dict[int, dict[str, Seen]] = {seed: {} for seed in prepared}
    for (seed, further), told in zip(pairs, _side_by_side(plan, jobs), strict=True):
        poles[seed][_pole(further)] = told
    return poles


def _pole(further: int | None) -> str:
    return "original" if further is None else f"retrain_{further}" if further else "retrain"


def _chosen(plan: Comparison, prepared: Prepared, poles: dict[str, Seen]) -> tuple[list[Taking], dict[str, Method]]:
    """What every method's tries came to, and the methods with the knobs that were chosen; those that failed are left out."""
    room = ROOM.get()

    def tried(method: Method) -> Callable[[], Tried]:
        run = plan.of(method, plan.tuning.seed)

        def made() -> Tried:
            try:
                seen = _forgotten(run, prepared, BLIND)
            except UserError as error:
                return Tried(fault=error.fact)
            return judge(room, seen.scores, poles["original"].scores, poles["retrain"].scores)

        return made

    variants = {entry.name: tries(entry.method, plan.tuning, entry.fixed) for entry in plan.methods}
    several = {name: each for name, each in variants.items() if len(each) > 1}
    jobs = [(f"{name}, try {number}", tried(method)) for name, each in several.items() for number, method in enumerate(each, 1)]
    say(f"choosing knobs: {len(jobs)} tries on seed {plan.tuning.seed}")
    told = iter(_side_by_side(plan, jobs))
    least = min(
        judge(room, poles[pole].scores, poles["original"].scores, poles["retrain"].scores).auc or 0 for pole in ("original", "retrain")
    )
    taking: list[Taking] = []
    methods: dict[str, Method] = {}
    for entry in plan.methods:
        each = variants[entry.name]
        results = [next(told) for _ in each] if len(each) > 1 else []
        at = chosen(results, least, plan.tuning) if results else 0
        fault = "" if at is not None else f"all {len(results)} tries failed, the first because {results[0].fault}"
        listed = tuple(
            Try(knobs=knobs_of(method), residual=result.residual, auc=result.auc, fault=result.fault, chosen=number == at)
            for number, (method, result) in enumerate(zip(each, results, strict=False))
        )
        method = each[at or 0]
        taking.append(Taking(method=entry.name, title=entry.title, settings=method.canonical(), tries=listed, fault=fault))
        if not fault:
            methods[entry.name] = method
    return taking, methods


def _forgotten(run: Run, start: Prepared, asked: ScoreRule) -> Seen:
    """What a run's method makes of a seed's original, scored.

    Raises:
        UserError: The method refuses, or fails.
    """
    unlearned, _ = forget(run, start)
    return Seen(unlearned, score(unlearned, start.tokens, start.request, asked, run.seat(), start.retold), CHAPTER.get(), ALL_IN)


def _unlearned(plan: Comparison, prepared: dict[int, Prepared], methods: dict[str, Method]) -> dict[tuple[int, str], Seen | str]:
    """Every method on every reported seed, scored; the fact of its error where one failed."""

    def made(method: Method, seed: int) -> Callable[[], Seen | str]:
        run, start = plan.of(method, seed), prepared[seed]

        def job() -> Seen | str:
            try:
                return _forgotten(run, start, ScoreRule())
            except UserError as error:
                return error.fact

        return job

    pairs = [(seed, name) for name in methods for seed in plan.reported]
    say(f"unlearning: {len(methods)} methods on {plan.seeds} seeds")
    told = _side_by_side(plan, [(label(seed, name), made(methods[name], seed)) for seed, name in pairs])
    return dict(zip(pairs, told, strict=True))


def _report(
    plan: Comparison,
    prepared: dict[int, Prepared],
    poles: dict[int, dict[str, Seen]],
    taking: list[Taking],
    unlearned: dict[tuple[int, str], Seen | str],
) -> Report:
    room = ROOM.get()
    faults = {kind: told for (_, kind), told in unlearned.items() if isinstance(told, str)}
    taking = [each.model_copy(update={"fault": each.fault or faults.get(each.method, "")}) for each in taking]
    done = {each.method for each in taking if not each.fault}
    seen = {(seed, name): told for seed in plan.reported for name, told in poles[seed].items()}
    seen |= {place: told for place, told in unlearned.items() if place[1] in done and isinstance(told, Seen)}
    seconds = {}
    for (seed, name), told in seen.items():
        if name.startswith("retrain_"):
            continue
        taken = [room.journal.entry(f"{stage} ({told.chapter})") for stage in told.stages]
        own = [entry.seconds for entry in taken if entry is not None]
        seconds[label(seed, name)] = {"seconds": own[-1], "all_in_seconds": sum(own)}
    shared, experiment = plan.run.canonical(), EXPERIMENTS.get(plan.experiment)
    notes = [f"Seconds are wall-clock time with up to {plan.run.parallel} stages side by side."]
    notes += [f"Beside it: {experiment.title} of the paper, in per cent, come by otherwise:", *DEFECTS] if experiment else []
    del shared["method"], shared["seed"]
    whole = ComparisonPlan(
        reference=REFERENCE if REFERENCE in done else "",
        seeds=plan.reported,
        tuning_seed=plan.tuning.seed,
        budget=plan.tuning.budget,
        taking=tuple(taking),
        scored=tuple((plan.reported.index(seed), name) for seed, name in seen),
        settings=shared,
        published=experiment.rows() if experiment else (),
        notes=tuple(notes),
    )
    handles = [prepared[seed] for seed in plan.reported]
    return write_comparison(
        room.journal.record.run,
        whole,
        [told.scores for told in seen.values()],
        [told.model for told in seen.values()],
        [each.tokens for each in handles],
        [each.request for each in handles],
        seconds,
    )


def _side_by_side(plan: Comparison, jobs: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
    """What the jobs give, in their order; up to `plan.run.parallel` at a time, each under its own chapter of the journal."""

    def run(chapter: str, job: Callable[[], T]) -> T:
        CHAPTER.set(chapter)
        return job()

    foreseen = ROOM.get().foresight is not None
    with ThreadPoolExecutor(1 if foreseen else plan.run.parallel, thread_name_prefix="stages") as threads:
        waiting = [threads.submit(copy_context().run, run, chapter, job) for chapter, job in jobs]
        try:
            if foreseen:
                # Where one job cannot be foreseen to its end, the others can.
                wait(waiting)
            return [future.result() for future in waiting]
        finally:
            for future in waiting:
                future.cancel()
