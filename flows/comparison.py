"""The settings of a comparison: what all methods share, who takes part, and how each one's knobs are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from e2urec_core.errors import BadSetting
from e2urec_core.methods.base import Method
from e2urec_core.plugins import kinds, word
from e2urec_core.settings import Settings
from e2urec_core.tuning import TuningRule
from flows.published import EXPERIMENTS
from flows.runs import Run, build_run, flag

ALL = "all"
REFERENCE = "e2urec"
POLES = ("original", "retrain")
FLOOR_SEEDS = 2
PARALLEL = 2


class Entry(Settings):
    """One method that takes part, or a variant of one."""

    name: str
    """The method's word with `_` for `-`, and the knobs that are set for good."""
    title: str
    """Its name for people."""
    method: SerializeAsAny[Method]
    """Its settings before any is chosen."""
    fixed: tuple[str, ...] = ()
    """Knobs that are not chosen, as they are what the variant is."""


class Comparison(Settings):
    """Everything that decides what a comparison gives."""

    run: Run
    """What all methods share; its own method is the reference, or the first of them."""
    methods: tuple[Entry, ...] = Field(min_length=1)
    """Who takes part, beside the poles, which always do."""
    seeds: int = Field(3, ge=1, le=100)
    """Seeds that are reported: the run's, and those after it."""
    tuning: TuningRule = TuningRule()
    """How each method's knobs are chosen."""
    experiment: str = ""
    """Preset whose published figures stand beside ours; empty for none."""

    @model_validator(mode="after")
    def _tunes_on_a_seed_of_its_own(self) -> Comparison:
        if self.tuning.seed in self.reported:
            raise ValueError(f"knobs would be chosen on seed {self.tuning.seed}, which is one of the reported {self.seeds}")
        return self

    @property
    def reported(self) -> tuple[int, ...]:
        """The seeds whose numbers are reported."""
        return tuple(range(self.run.seed, self.run.seed + self.seeds))

    def of(self, method: Method, seed: int) -> Run:
        """The run of one method on one seed."""
        return self.run.model_copy(update={"method": method, "seed": seed})


def build_comparison(
    words: Mapping[str, str], methods: str | None, preset: str | None, flags: Mapping[str, str], given: Mapping[str, object]
) -> Comparison:
    """The settings that two words, a list of methods, a preset and flags describe.

    Args:
        words: `dataset` and `backbone`.
        methods: Words with commas between them, or `all`, which stands for none too unless the preset is an experiment with its own; a
            word may fix knobs, as in `e2urec:forget-weight=0`.
        preset: Named settings to start from.
        flags: By name, such as `training.num-epochs`.
        given: `seeds`, `budget` and `tuning_seed` where they were given.

    Raises:
        BadSetting: A word, flag or value that the settings do not admit.
    """
    for name in flags:
        if name.split(".")[0] == "method":
            raise BadSetting(
                f"`--{name}` is refused: a comparison has many methods, and chooses each one's knobs itself",
                hint="leave it out, or run one method with `e2urec unlearn`",
            )
    shared = {"evaluate.floor-seeds": str(FLOOR_SEEDS), "parallel": str(PARALLEL), **flags}
    experiment = EXPERIMENTS.get(preset or "")
    runs = {}
    for name in _named(methods or (experiment.methods if experiment else ALL)):
        kind, *knobs = name.split(":", maxsplit=1)
        runs[name] = build_run({**words, "method": kind}, preset, {**shared, **fixed_knobs(name, knobs)})
    entries = tuple(_entry(name, run.method) for name, run in runs.items())
    reference = next((run for run in runs.values() if run.method.kind == REFERENCE), next(iter(runs.values())))
    named = {"seeds": ("seeds",), "budget": ("tuning", "budget"), "tuning_seed": ("tuning", "seed")}
    told: dict[str, Any] = {"run": reference, "methods": entries, "tuning": {}, "experiment": preset if experiment else ""}
    for name, path in named.items():
        if given.get(name) is not None:
            (told["tuning"] if len(path) > 1 else told)[path[-1]] = given[name]
    try:
        return Comparison.model_validate(told)
    except ValidationError as error:
        raise _refusal(error, {path: name for name, path in named.items()}) from None


def _refusal(error: ValidationError, names: Mapping[tuple[str, ...], str]) -> BadSetting:
    first = error.errors(include_url=False)[0]
    said = str(first["msg"]).removeprefix("Value error, ")
    path = tuple(str(step) for step in first["loc"])
    if path not in names:
        return BadSetting(said, hint="name another with `--tuning-seed`, so that nothing that is reported was chosen by itself")
    owner = TuningRule if len(path) > 1 else Comparison
    return BadSetting(
        f"`{flag(names[path].split())} {first['input']}` is refused: {said[:1].lower()}{said[1:]}",
        hint=owner.model_fields[path[-1]].description or "",
    )


def _named(methods: str) -> list[str]:
    known = [word(kind) for kind in kinds(Method.package) if kind not in POLES]
    if methods == ALL:
        return known
    named = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    strange = [name for name in named if name.split(":")[0] not in (*known, *POLES)]
    if strange or not named:
        raise BadSetting(
            f"{len(strange)} of {len(named)} methods are unknown: {', '.join(strange)}" if named else "0 methods are named",
            hint=f"methods: {ALL}, or some of {', '.join(known)}",
        )
    # The poles always take part.
    return [name for name in named if name not in POLES] or ["do-nothing"]


def fixed_knobs(name: str, knobs: list[str]) -> dict[str, str]:
    """Flags of a variant such as `e2urec:forget-weight=0;suppression=4`."""
    told = {}
    for knob in knobs[0].split(";") if knobs else ():
        field, is_set, value = knob.partition("=")
        if not is_set or not field:
            raise BadSetting(f"`{name}` sets no knob", hint="write `METHOD:KNOB=VALUE`, several with `;` between them")
        told[f"method.{field}"] = value
    return told


def _entry(name: str, method: Method) -> Entry:
    fixed = {
        knob.removeprefix("method.").replace("-", "_"): value for knob, value in fixed_knobs(name, name.split(":", maxsplit=1)[1:]).items()
    }
    told = ", ".join(f"{knob.replace('_', ' ')} {value}" for knob, value in fixed.items())
    return Entry(
        name=" ".join([method.kind, *(f"{knob} {value}" for knob, value in fixed.items())]),
        title=f"{method.title} ({told})" if told else method.title,
        method=method,
        fixed=tuple(fixed),
    )
