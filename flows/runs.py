"""The settings of a whole run, assembled from their owners, and how they are made from words and flags."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError

from e2urec_core.backbones.base import Backbone
from e2urec_core.data.examples import HistoryRule
from e2urec_core.data.forget import ForgetRule
from e2urec_core.data.ingest import IngestRule
from e2urec_core.data.prompts import PromptRule
from e2urec_core.data.split import SplitRule
from e2urec_core.datasets.base import Dataset
from e2urec_core.errors import BadSetting
from e2urec_core.methods.base import Method
from e2urec_core.plugins import load, word
from e2urec_core.release.gates import Gates
from e2urec_core.release.rule import ReleaseRule
from e2urec_core.settings import Augment, CacheRule, EngineRule, EvaluateRule, Seat, Settings, Training
from flows.presets import Sections, preset_sections

STAGES = (
    "ingest",
    "split",
    "forget",
    "tokenise",
    "retell",
    "train-original",
    "train-shards",
    "train-augmented",
    "cache-original",
    "cache-teachers",
    "unlearn",
    "train-retrained",
    "score",
    "evaluate",
    "report",
    "verdict",
    "bundle",
)
S = TypeVar("S", bound=Settings)
FAMILIES: dict[str, type[Dataset] | type[Backbone] | type[Method]] = {"dataset": Dataset, "backbone": Backbone, "method": Method}


class Run(Settings):
    """Everything that decides what a run gives."""

    dataset: SerializeAsAny[Dataset]
    """Where the ratings come from."""
    backbone: SerializeAsAny[Backbone]
    """The network."""
    method: SerializeAsAny[Method]
    """How users are forgotten."""
    ingest: IngestRule = IngestRule()
    """What the gate lets through."""
    history: HistoryRule = HistoryRule()
    """What of a user's past a row shows."""
    prompt: PromptRule = PromptRule()
    """How an example becomes text."""
    split: SplitRule = SplitRule()
    """Where the examples are cut."""
    forget: ForgetRule = ForgetRule()
    """Who is forgotten."""
    training: Training = Training()
    """Schedule of the original and of every Retrain."""
    augment: Augment = Augment()
    """How the augmented model is made: the original, trained further on the forgotten rows."""
    cache: CacheRule = CacheRule()
    """What the teacher cache keeps."""
    evaluate: EvaluateRule = EvaluateRule()
    """What recommenders are judged by."""
    gates: Gates = Gates()
    """What a recommender must prove before it may be released."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of everything that is drawn."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are trained and scored."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of a training stage; part of its key, as they change the last digits. More pay for large networks on idle cores."""
    processes: int = Field(1, ge=1, le=64)
    """Processes that share a stage that trains or scores, each with its own GPU or its own CPU threads; part of its key."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products; weights, sums and losses are in 32 bits."""
    execution: Literal["inline", "process"] = "inline"
    """Whether stages that train or score run inside the flow's process, or each in one of its own that may die alone."""
    fan_out: Literal["threads", "ray"] = "threads"
    """Who runs what trains or scores side by side: threads that each ask a child process, or the workers of a Ray cluster."""
    parallel: int = Field(1, ge=1, le=1024)
    """Stages of a comparison, or shards of a stage, that train or score side by side; part of no stage's key."""
    release: ReleaseRule = ReleaseRule()
    """What becomes of the recommender."""
    engine: EngineRule = EngineRule()
    """How the engine runs a stage."""

    def seat(self) -> Seat:
        """Where the stages work."""
        return Seat(**{name: getattr(self, name) for name in ("seed", "device", "threads", "processes", "precision", "engine")})


class Reading(Settings):
    """Everything that decides how a source is read, where nothing else is done with it."""

    dataset: SerializeAsAny[Dataset]
    """Where the ratings come from."""
    ingest: IngestRule = IngestRule()
    """What the gate lets through."""


def build_reading(dataset: str, flags: Mapping[str, str]) -> Reading:
    """The settings that the word of a dataset and flags such as `dataset.path` describe.

    Raises:
        BadSetting: A word, flag or value that the settings do not admit; rows that would be appended to what is stored.
    """
    member = load(Dataset.package, dataset)
    reading = filled(Reading, {"dataset": {"kind": member.model_fields["kind"].default}}, {"dataset": member}, flags)
    if reading.ingest.onto:
        raise BadSetting(
            "`--ingest.onto` appends to stored interactions, and this command reads the source alone",
            hint="leave it out here, and give it to `e2urec unlearn`",
        )
    return reading


def build_run(words: Mapping[str, str], preset: str | None, flags: Mapping[str, str]) -> Run:
    """The settings that three words, a preset and flags such as `method.suppression` describe; flags win.

    Raises:
        BadSetting: A word, flag or value that the settings do not admit, with the nearest that they do.
    """
    members = {family: load(base.package, words[family]) for family, base in FAMILIES.items()}
    kinds = {family: member.model_fields["kind"].default for family, member in members.items()}
    sections: Sections = {family: {"kind": kind} for family, kind in kinds.items()}
    _merge(sections, preset_sections(preset, **kinds))
    return changed(sections, members, flags)


def change_run(run: Run, flags: Mapping[str, Any]) -> Run:
    """`run` with flags applied."""
    members = {family: type(getattr(run, family)) for family in FAMILIES}
    return changed(run.canonical(), members, flags)


def changed(sections: Sections, members: Mapping[str, type[BaseModel]], flags: Mapping[str, Any]) -> Run:
    """The run that `sections` describe once `flags` are put in."""
    run = filled(Run, sections, members, flags)
    _refuse_without_encoder(run)
    _refuse_without_ray(run)
    if not run.method.knows_interactions and (setting := run.forget.names_interactions_in):
        raise BadSetting(
            f"`{flag(['forget', setting])}` is refused: `{word(run.method.kind)}` forgets whole users alone",
            hint="name users with `--forget.users-file`, or take another method",
        )
    return run


def filled(owner: type[S], sections: Sections, members: Mapping[str, type[BaseModel]], flags: Mapping[str, Any]) -> S:
    """The settings of `owner` that `sections` describe once `flags` are put in."""
    for name, value in flags.items():
        path = name.replace("-", "_").split(".")
        _refuse_unknown(path, members, name, owner)
        place = sections
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = None if value == "none" and _may_be_absent(path, members, owner) else value
    try:
        return owner.model_validate(sections)
    except ValidationError as error:
        raise bad_value(error, members, owner) from None


def fields_of(path: list[str], members: Mapping[str, type[BaseModel]], whole: type[BaseModel] = Run) -> type[BaseModel] | None:
    """The settings class at a dotted path, `whole` at the empty one; None where the path ends in a value."""
    place = whole
    for depth, step in enumerate(path):
        field = place.model_fields.get(step)
        if field is None:
            return None
        inner = members[step] if depth == 0 and step in members else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        place = inner
    return place


def flag(path: tuple[int | str, ...] | list[str]) -> str:
    """How a setting is spelled on the command line."""
    return "--" + ".".join(str(step).replace("_", "-") for step in path)


def bad_value(error: ValidationError, members: Mapping[str, type[BaseModel]], whole: type[BaseModel] = Run) -> BadSetting:
    """The first thing wrong with the settings, in one sentence."""
    first = error.errors(include_url=False)[0]
    # A plugin's own validation starts a path of its own below the section, without naming the family's class.
    path = [str(step) for step in first["loc"]]
    owner = fields_of(path[:-1], members, whole)
    sentence = owner.model_fields[path[-1]].description if owner and path[-1] in owner.model_fields else None
    said = str(first["msg"]).removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    more = f" ({error.error_count() - 1} more are wrong)" if error.error_count() > 1 else ""
    given = first["input"]
    shown = f"`{flag(path)} {given}`" if isinstance(given, str | int | float) else f"`{flag(path)}`"
    return BadSetting(f"{shown} is refused: {said}{more}", hint=sentence or f"see the settings of `{flag(path[:1])}` with `--help`")


def _refuse_without_encoder(run: Run) -> None:
    """Refuse what only an encoder-decoder can do, before anything is trained."""
    asked = {
        "--method.lora.layers decoder": run.method.freezes_encoder(),
        "--augment.lora.layers decoder": run.augment.trains == "adapter" and run.augment.lora.layers == "decoder",
        "--cache.encoder-states true": bool(run.cache.encoder_states),
    }
    for setting, is_asked in asked.items():
        if is_asked and not run.backbone.has_encoder:
            raise BadSetting(f"`{setting}` is refused: `{word(run.backbone.kind)}` has no encoder", hint="leave it out")


def _refuse_without_ray(run: Run) -> None:
    """Refuse a cluster where nobody could ask it, before anything is started."""
    if run.fan_out == "threads":
        return
    if run.processes > 1:
        raise BadSetting(
            f"`--processes {run.processes}` is refused with `--fan-out ray`: one worker of the cluster runs a stage",
            hint="leave one of them out",
        )
    from tasks._ray_crew import need_ray

    need_ray()


def _may_be_absent(path: list[str], members: Mapping[str, type[BaseModel]], whole: type[BaseModel]) -> bool:
    owner = fields_of(path[:-1], members, whole)
    return owner is not None and type(None) in get_args(owner.model_fields[path[-1]].annotation)


def _refuse_unknown(path: list[str], members: Mapping[str, type[BaseModel]], name: str, whole: type[BaseModel]) -> None:
    for depth in range(len(path)):
        owner = fields_of(path[:depth], members, whole)
        if owner is None or (path[depth] in owner.model_fields and path[depth] != "kind"):
            continue
        known = [field for field in owner.model_fields if field != "kind"]
        near = difflib.get_close_matches(path[depth], known, n=1)
        offer = f"did you mean `{flag([*path[:depth], near[0]])}`? " if near else ""
        below = f" of `{flag(path[:depth])}`" if depth else ""
        raise BadSetting(
            f"there is no setting `--{name}`", hint=f"{offer}settings{below}: {', '.join(field.replace('_', '-') for field in known)}"
        )
    if fields_of(path, members, whole) is not None:
        raise BadSetting(f"`--{name}` is a group of settings, not one", hint=f"name one of them, such as `{flag([*path, 'FIELD'])}`")
    owner = fields_of(path[:-1], members, whole)
    if owner is None:
        raise BadSetting(f"there is no setting `--{name}`", hint=f"`{flag(path[:-1])}` is a single value")


def _merge(below: Sections, above: Sections) -> None:
    for name, value in above.items():
        if isinstance(value, dict):
            _merge(below.setdefault(name, {}), value)
        else:
            below[name] = value
