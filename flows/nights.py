"""The settings of a night: those of the champion's training, what is tried to forget with, and how nights go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny

from e2urec_core.artifacts import Shards
from e2urec_core.deletion.rule import NightRule
from e2urec_core.errors import BadSetting
from e2urec_core.ledger.request_records import RequestRule
from e2urec_core.methods.base import Method
from e2urec_core.plugins import load, word
from flows.comparison import fixed_knobs
from flows.presets import preset_sections
from flows.runs import FAMILIES, Run, changed, filled

# The first rung's knobs are those that cost many nights in a row the least for what they forget (LOG.md).
GENTLE = "e2urec:suppression=6;centring=log_softmax;least-retained=1024;training.learning-rate=1e-3"
LADDER = f"{GENTLE},e2urec:suppression=8;least-retained=1024,undial:strength=2,retrain"
# Of polluted users: all are made, and the best on validation rows is taken. Forgetting alone, and learning what stays.
POLLUTION_LADDER = (
    "undial:strength=2,simnpo,retain-only:rows=all;num-copies=3;training.num-epochs=4;training.batch-size=32;training.learning-rate=0.001"
)
ANEW = "retrain"
# What the champion was trained with stays as it was; whoever wants it otherwise trains another one.
FIXED = ("dataset", "backbone", "ingest", "history", "prompt", "split", "forget", "release", "ladder", "pollution-ladder", "method")


class Nightly(Run):
    """Everything that decides what a night does."""

    ladder: tuple[SerializeAsAny[Method], ...] = Field(min_length=1)
    """Methods in the order in which they are tried until one passes the gates; `retrain` trains anew on what stays."""
    pollution_ladder: tuple[SerializeAsAny[Method], ...] = Field(min_length=1)
    """Methods that are all made where every request is of polluted data; of those that pass the gates the best on validation is taken, else
    the other ladder is gone down."""
    night: NightRule = NightRule()
    """How nights go."""
    requests: RequestRule = RequestRule()
    """How requests are treated."""


def build_nightly(
    settings: Mapping[str, Any], ladder: str, preset: str | None, flags: Mapping[str, str], pollution_ladder: str = POLLUTION_LADDER
) -> Nightly:
    """The settings of a night on the champion's.

    Args:
        settings: Those of the run that trained the champion.
        ladder: Methods with commas between them; METHOD:KNOB=VALUE sets knobs.
        preset: Named settings that the methods start from.
        flags: By name, such as `night.retention-hours` or `gates.utility.auc-fall`.
        pollution_ladder: As `ladder`, for nights of polluted data alone.

    Raises:
        BadSetting: A word, flag or value that the settings do not admit.
    """
    for name in flags:
        if (section := name.split(".")[0]) in FIXED:
            raise BadSetting(
                f"`--{name}` is refused: nights go on with the champion's own `{section}`"
                if section != "method"
                else f"`--{name}` is refused: a night may try several methods",
                hint="write knobs behind a method, as in `--ladder e2urec:suppression=4,retrain`"
                if section == "method"
                else "train another champion with `e2urec train`",
            )
    plain = {name: value for name, value in settings.items() if name in Run.model_fields and name != "forget"}
    members = {family: type(getattr(Run.model_validate(plain), family)) for family in FAMILIES}
    methods, of_pollution = (
        tuple(_rung(name.strip(), plain, members, preset) for name in told.split(",") if name.strip())
        for told in (ladder, pollution_ladder)
    )
    for name, rungs, such in (("ladder", methods, LADDER), ("pollution-ladder", of_pollution, POLLUTION_LADDER)):
        if not rungs:
            raise BadSetting(f"`--{name}` names 0 methods", hint=f"such as `--{name} {such}`")
    # Each method keeps as many retained rows as it draws, which is little where few rows are forgotten.
    plain["cache"] = {**plain["cache"], "retained_per_forgotten": None}
    ladders = {"ladder": methods, "pollution_ladder": of_pollution}
    told = plain | {"method": methods[0].canonical()} | {name: [rung.canonical() for rung in rungs] for name, rungs in ladders.items()}
    return filled(Nightly, told, {**members, "method": type(methods[0])}, flags)


def load_method(kind: str) -> Method:
    """A method with the knobs that it has by default."""
    member = load(Method.package, kind)
    assert issubclass(member, Method)
    return member()


def _rung(name: str, plain: Mapping[str, Any], members: Mapping[str, Any], preset: str | None) -> Method:
    kind, *knobs = name.split(":", maxsplit=1)
    member = load(Method.package, kind)
    assert issubclass(member, Method)
    kinds = {family: plain[family]["kind"] for family in ("dataset", "backbone")}
    start = preset_sections(preset, **kinds, method=member.model_fields["kind"].default).get("method", {})
    sections = {**plain, "method": {"kind": member.model_fields["kind"].default, **start}}
    method = changed(sections, {**members, "method": member}, fixed_knobs(name, knobs)).method
    if method.wants(Shards):
        raise BadSetting(
            f"`{word(method.kind)}` cannot forget at night: it keeps a network for every shard, and nights start from one recommender",
            hint=f"such as `--ladder {LADDER}`",
        )
    if method.trains_nothing:
        raise BadSetting(f"`{word(method.kind)}` forgets nothing", hint=f"such as `--ladder {LADDER}`")
    return method
