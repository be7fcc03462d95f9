"""Time until a student is good enough, for the rival and for ours: judged alike, at the same points, outside of the clock.

Both sides run until the first check that meets the target, or until their passes are over. A check comes whenever a quarter of the
forgotten rows has been drawn once more, whatever the size of a step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import clock
from benchmarks.ours import PREPARING, Judge, spread
from benchmarks.problem import Inputs, timed
from benchmarks.rival import run_rival
from e2urec_core import stages
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.data.teacher_scoring import Stamp
from e2urec_core.data.tokens import load_tokenizer, prompts_of_split, write_tokens
from e2urec_core.methods.base import Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.recommender import Recommender, load
from e2urec_core.settings import CacheRule, Lora
from flows.runs import Run

BATCH = 16
"""Forgotten rows in a step of the reference."""
CHECKS = 4
"""Checks in a pass over the forgotten rows."""
LEFT_OUT: dict[str, tuple[str, ...]] = {"all": (), "prepared": ("tokenise",), "later": ("tokenise", "cache_original")}
"""Stages of ours that are not counted: none; what training the original has left; and what an earlier request has left besides."""


@dataclass(frozen=True)
class Target:
    """What is good enough.

    Args:
        residual: Largest mean distance to Retrain on forgotten rows, over that of the original.
        validation_auc: Smallest AUC on validation rows.
    """

    residual: float
    validation_auc: float

    def near(self, quality: Mapping[str, float | None]) -> bool:
        """Whether the residual's bound is kept."""
        reached = quality["residual"]
        return reached is not None and reached <= self.residual

    def met(self, quality: Mapping[str, float | None]) -> bool:
        """Whether both bounds are kept."""
        useful = quality.get("validation_auc")
        return self.near(quality) and useful is not None and useful >= self.validation_auc


@dataclass(frozen=True)
class Check:
    """A student at one point of its run; `seconds` leaves the checks themselves out, `quality` the AUC where the residual is too large."""

    step: int
    seconds: float
    quality: Mapping[str, float | None]


@dataclass(frozen=True)
class Crossing:
    """A run until its first check that met the target.

    Args:
        reached: Whether one did; if not, all passes were run.
        by_stage: Seconds of work; the loop's are those until the last check.
        checks: Every check, the last one is the crossing.
        last: Quality at the last check, with the test AUC.
    """

    reached: bool
    by_stage: Mapping[str, float]
    checks: tuple[Check, ...]
    last: Mapping[str, float | None]

    def seconds(self, counted: str = "all") -> float:
        """Seconds of all stages, or of those that `LEFT_OUT` leaves."""
        return sum(seconds for stage, seconds in self.by_stage.items() if stage not in LEFT_OUT[counted])

    def told(self) -> dict[str, Any]:
        """The crossing as plain values."""
        return {"reached": self.reached, "seconds": self.seconds(), **asdict(self)}


class Reached(Exception):
    """The student is good enough: nothing is wrong, the loop is left."""


class Checks:
    """Judges a student as its run goes on."""

    def __init__(self, judge: Judge, target: Target, num_rows: int, batch_size: int) -> None:
        """Judge a run that draws `batch_size` of `num_rows` forgotten rows a step."""
        self.judge, self.target, self.num_rows, self.batch_size = judge, target, num_rows, batch_size
        self.made: list[Check] = []
        self.last: Mapping[str, float | None] = {}

    def see(self, step: int, seconds: float, student: Recommender, *, is_last: bool) -> bool:
        """Judge the student where a check is due; says whether it has met the target."""
        if not (is_last or due(step, self.batch_size, self.num_rows)):
            return False
        quality = self.judge.quality(student, ())
        if is_last or self.target.near(quality):
            quality = self.judge.quality(student)
        self.made.append(Check(step, seconds, quality))
        met = self.target.met(quality)
        if met or is_last:
            self.last = self.judge.quality(student, ("validation", "test"))
        return met

    def crossing(self, reached: bool, before: Mapping[str, float]) -> Crossing:
        """What was seen; `before` are the seconds of what came before the loop."""
        return Crossing(reached, {**before, "loop": self.made[-1].seconds}, tuple(self.made), self.last)


def drawn(step: int, batch_size: int, num_rows: int) -> int:
    """Forgotten rows drawn by the end of a step, where a pass ends with a short one.

    >>> [drawn(step, 4, 10) for step in range(5)]
    [0, 4, 8, 10, 14]
    """
    passes, within = divmod(step, -(-num_rows // batch_size))
    return passes * num_rows + min(within * batch_size, num_rows)


def due(step: int, batch_size: int, num_rows: int) -> bool:
    """Whether a check comes after this step: it is the one in which another quarter of the rows became full.

    >>> [step for step in range(1, 9) if due(step, 2, 16)], [step for step in range(1, 9) if due(step, 4, 16)]
    ([2, 4, 6, 8], [1, 2, 3, 4, 5, 6, 7, 8])
    """
    before, after = (drawn(number, batch_size, num_rows) * CHECKS // num_rows for number in (step - 1, step))
    return after > before


def rival_until(inputs: Inputs, run: Run, judge: Judge, target: Target, passes: int) -> Crossing:
    """The rival, whose suppression, weight and rate are those of `run`.

    It runs at its best: with the answer position alone, as the original was trained.
    """
    method = method_of(run)
    forgotten, retained = inputs.rows("forgotten"), inputs.rows("retained")
    num_rows = min(len(forgotten), len(retained))
    num_steps = passes * -(-num_rows // BATCH)
    checks, reached = Checks(judge, target, num_rows, BATCH), False

    def after(step: int, seconds: float, student: Recommender) -> bool:
        nonlocal reached
        reached = checks.see(step, seconds, student, is_last=step == num_steps)
        return not reached

    run_rival(
        inputs.original,
        inputs.augmented(run.augment),
        forgotten,
        retained,
        suppression=method.suppression,
        forget_weight=method.forget_weight,
        learning_rate=method.training.learning_rate,
        num_epochs=passes,
        batch_size=BATCH,
        seed=run.seed,
        after_step=after,
        target_tail=(),
    )
    return checks.crossing(reached, {})


class Followed(Recommender):
    """A recommender that hands on every student made of it."""

    tell: Callable[[Recommender], None]

    def with_adapter(self, lora: Lora, seed: int) -> Recommender:
        """See `Recommender.with_adapter`."""
        student = super().with_adapter(lora, seed)
        self.tell(student)
        return student


def ours_until(inputs: Inputs, run: Run, judge: Judge, target: Target, place: Path) -> Crossing:
    """Ours under the settings of `run`: tokenising all rows, the cache, opening both, and the loop; `place` is a new folder."""
    method, original, tokens, request = method_of(run), inputs.original, inputs.tokens, inputs.request
    augmented, bench, rows = inputs.augmented(run.augment), inputs.bench(), (inputs.examples, inputs.interactions)
    rule = run.cache.planned(method.retained_draws(), method.freezes_encoder(), method.retained_at_least())
    folders = {name: place / name for name in ("tokenise", *PREPARING)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write, remembering, teachers = folders.values()
    before = {
        "tokenise": timed(lambda: write_tokens(*rows, run.prompt, load_tokenizer(tokens), write)),
        "cache_original": timed(lambda: stages.cache_original(original, tokens, request, rule, (), bench, remembering)),
        "cache_teachers": timed(lambda: stages.cache_teachers(original, augmented, tokens, request, rule, bench, teachers)),
    }
    checks = Checks(judge, target, len(inputs.prompts("forgotten")), method.training.batch_size)
    students: list[Recommender] = []
    judging = 0.0

    def watch(done: int, total: int, unit: str, numbers: Mapping[str, float]) -> None:
        nonlocal judging
        # This thread's time alone is taken off: rows that another one loads meanwhile stay counted.
        at, began = clock(), time.thread_time()
        met = checks.see(done, at - started - judging, students[-1], is_last=done == total)
        students[-1].network.train()
        judging += time.thread_time() - began
        if met:
            raise Reached

    started, reached = clock(), False
    parts = {name: inputs.prompts(name) for name in ("retained", "forgotten", "validation")}
    cache = opened(inputs, rule, augmented, place)
    loaded = load(original)
    followed = Followed(loaded.network, loaded.tokenizer, loaded.answers)
    followed.tell = students.append
    try:
        method.unlearn(Problem(followed, **parts, teachers=cache), inputs.bench(watch))
    except Reached:
        reached = True
    return checks.crossing(reached, before)


def opened(inputs: Inputs, rule: CacheRule, augmented: Path, caches: Path) -> TeacherCache:
    """The cache that both stages wrote below `caches`."""
    forgotten, retained = inputs.prompts("forgotten"), inputs.prompts("retained")
    everyone = prompts_of_split(inputs.tokens, "train")
    stamps = Stamp.of(forgotten, inputs.original, augmented), Stamp.of(everyone, inputs.original)
    remembering, teachers = (caches / name for name in PREPARING)
    return TeacherCache(
        remembering, teachers, {"forgotten": forgotten, "retained": retained}, {"forgotten": stamps[0], "retained": stamps[1]}, rule
    )


def method_of(run: Run) -> E2URec:
    """The method of `run`, which is E2URec."""
    assert isinstance(run.method, E2URec)
    return run.method


def target_of(judge: Judge, level: float) -> tuple[Target, list[dict[str, float | None]]]:
    """The target of a seed, and the Retrains that its lower bound is taken from.

    As useful as Retrain, less the spread between Retrains; where the original is worse than Retrain, nobody has to mend it.
    """
    retrains = judge.retrains()
    floor, best = spread(retrains, "validation_auc"), retrains[0]["validation_auc"]
    original = judge.quality(judge.inputs.original)["validation_auc"]
    assert floor is not None, "the validation rows have one label only"
    assert best is not None
    assert original is not None
    return Target(level, min(best, original) - floor), retrains


def ratio(rival: Crossing, ours: Sequence[Crossing], counted: str = "all") -> dict[str, Any]:
    """The rival's seconds over ours, the mean of several runs, and what it is where one side was not good enough in its passes.

    `bound` is `none` for a ratio, `least` where the rival needs longer than it ran, `most` where ours does; without either there is
    no ratio.
    """
    mine = all(run.reached for run in ours)
    if not (rival.reached or mine):
        return {"ratio": None, "bound": "none"}
    value = rival.seconds() / statistics.mean(run.seconds(counted) for run in ours)
    return {"ratio": value, "bound": "none" if rival.reached and mine else "least" if mine else "most"}


def over_seeds(ratios: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median over seeds; null where a seed has none, or where bounds of both kinds meet."""
    bounds = {each["bound"] for each in ratios} - {"none"}
    if len(bounds) > 1 or any(each["ratio"] is None for each in ratios):
        return {"ratio": None, "bound": "none"}
    return {"ratio": statistics.median(each["ratio"] for each in ratios), "bound": bounds.pop() if bounds else "none"}
