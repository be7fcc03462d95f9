"""What every set of knobs has in common, and the groups of knobs that several owners share or whose owner is slow to import.

A setting is a field with a bound and a sentence. The sentence becomes the command's help, the validation message and the
documentation, so it is written once, under the field. Settings are frozen and refuse unknown keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ModelWrapValidatorHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, union_schema

T = TypeVar("T")


class Settings(BaseModel):
    """Frozen knobs; an unknown key is refused, and a value is checked against the bound at its field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True)

    def canonical(self) -> dict[str, Any]:
        """The settings as plain JSON values, the same in every process; what stage keys and reports are made of."""
        return self.model_dump(mode="json")


class Plugin(Settings):
    """Settings of one dataset, backbone or method; `kind` is the name of the file that holds it.

    Validating the family's base class (`Method`, `Dataset`, `Backbone`) builds the member that `kind` names.
    """

    kind: str = ""
    """Which member of the family this is: the name of its file."""
    package: ClassVar[str] = ""

    @model_validator(mode="wrap")
    @classmethod
    def _build_the_member_named_by_kind(cls, data: Any, handler: ModelWrapValidatorHandler[Plugin]) -> Plugin:
        if isinstance(data, dict) and cls.model_fields["kind"].default == "" and data.get("kind"):
            from e2urec_core.plugins import load

            member: Plugin = load(cls.package, str(data["kind"])).model_validate(data)
            return member
        return handler(data)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Of a family: any of its members, so that a form shows their knobs; of a member: its fields, and its `kind` as it must be."""
        kind = cls.model_fields["kind"].default
        if kind == "":
            from e2urec_core.plugins import kinds, load

            return handler(union_schema([load(cls.package, name).__pydantic_core_schema__ for name in kinds(cls.package)]))
        told = handler(core_schema)
        handler.resolve_ref_schema(told)["properties"]["kind"] = {"const": kind, "default": kind, "type": "string"}
        return told


class Training(Settings):
    """Schedule of the one optimisation loop."""

    num_epochs: int = Field(4, ge=1, le=1000)
    """Passes over the rows; for unlearning, over the forgotten rows."""
    batch_size: int = Field(64, ge=1, le=65536)
    """Rows in one step; for unlearning, forgotten rows in one step."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Decay of the weights in AdamW; 0 turns it off."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0 to its peak."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rate after the warm-up: falling linearly to 0, or constant."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Norm to which the gradient is clipped."""
    patience: int = Field(0, ge=0, le=1000)
    """Checks without a better validation loss after which training stops and the best weights return; 0 trains to the end."""
    check_every: int = Field(0, ge=0)
    """Steps between two checks of the validation loss; 0 checks after every pass."""
    diverged_above: float = Field(10.0, gt=1)
    """Training stops when twenty steps' mean loss is over this many times the smallest such mean, and one nat more."""


class Lora(Settings):
    """Low-rank adapter that unlearning trains in place of the network."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the two factors. Paper's reference: 16."""
    alpha: float = Field(32.0, gt=0)
    """Scale of the adapter: its product is multiplied by alpha / rank. Reference: 32."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapter's inputs that is dropped while training. Reference: 0.05."""
    targets: Literal["attention", "all_linear"] = "attention"
    """Layers that carry an adapter: query and value projections as in the paper, or every linear layer of the blocks."""
    layers: Literal["all", "decoder"] = "all"
    """Blocks that carry an adapter: all, or the decoder's alone, over an encoder that stays as it is and whose states can be cached."""


class Augment(Training):
    """Schedule of the augmented model, and what of it is trained."""

    num_epochs: int = Field(2, ge=1, le=1000)
    """Passes over the forgotten rows."""
    batch_size: int = Field(32, ge=1, le=65536)
    """Rows in one step."""
    learning_rate: float = Field(5e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    trains: Literal["network", "adapter"] = "network"
    """What is trained on the forgotten rows: every weight as in the paper, or an adapter, which is cheaper and is merged at the end."""
    lora: Lora = Lora()
    """The adapter, where one is trained."""


class Sharding(Settings):
    """What of a method shapes its shards and their training: all that the stage which trains them knows of the method."""

    by: Literal["digest", "original", "base"] = "digest"
    """How users come together: by digest of a user's number, or by what the original or the untrained network makes of their prompts."""
    num_shards: int = Field(4, ge=2, le=256)
    """Shards of the users."""
    num_slices: int = Field(1, ge=1, le=64)
    """Slices of a shard; a shard is trained on its first slice, then on its first two, and so on, and is kept after each."""
    capacity: float = Field(1.2, ge=1, le=10)
    """Most users of a clustered shard, in even shares: 1.2 allows a fifth more than the mean."""
    num_iterations: int = Field(50, ge=1, le=1000)
    """Most rounds of the clustering."""
    lora: Lora | None = None
    """Adapter that a shard trains on the untrained network, which stays as it is; none where it trains a whole network."""
    training: Training = Training()
    """Schedule of each shard."""

    def passes(self) -> int:
        """Passes of one slice: with all slices together, a shard's rows are drawn about as often as without slices.

        Source: SISA (Bourtoule et al., arXiv 1912.03817): 2 / (slices + 1) of the passes.
        """
        return max(1, round(2 * self.training.num_epochs / (self.num_slices + 1)))


class CacheRule(Settings):
    """What the teacher cache keeps."""

    support: Literal["full", "top", "answers"] = "top"
    """Columns kept: the whole vocabulary, the original's likeliest words and what all others weigh together, or Yes and No alone."""
    top: int = Field(32, ge=2, le=4096)
    """Words kept when `support` is `top`; Yes and No are always among them."""
    retained_per_forgotten: float | None = Field(None, gt=0)
    """Retained rows that are cached for every forgotten row; without a number, as many as the method's passes will draw."""
    least_retained: int = Field(0, ge=0)
    """Retained rows that are cached at least, however few rows are forgotten; a method that draws more by itself caches those."""
    encoder_states: bool | None = None
    """Whether the original's encoder states are kept too; without a word, where the method's adapter leaves the encoder as it is."""
    rows_per_group: int = Field(512, ge=16, le=1_048_576)
    """Rows in one row group: what is in memory at a time."""

    def planned(self, draws: float, states: bool, least: int = 0) -> CacheRule:
        """The same rule with what a method plans filled in where nothing is set.

        Args:
            draws: Retained rows that the method draws for every forgotten row.
            states: Whether the method can use the encoder's states.
            least: Retained rows that the method draws at least.
        """
        rows = self.retained_per_forgotten or max(draws, 1e-9)
        kept = states if self.encoder_states is None else self.encoder_states
        least = max(self.least_retained, least)
        return self.model_copy(update={"retained_per_forgotten": rows, "least_retained": least, "encoder_states": kept})


class EvaluateRule(Settings):
    """What recommenders are judged by."""

    floor_seeds: int = Field(0, ge=0, le=32)
    """Further Retrains with other seeds; their spread is the floor under which a difference means nothing."""


class ScoreRule(Settings):
    """Which rows one recommender is scored on."""

    groups: tuple[Literal["validation", "test", "forgotten", "holdout", "forgotten_test"], ...] = (
        "test",
        "forgotten",
        "holdout",
        "forgotten_test",
    )
    """Parts of the examples under the request; those that a choice may not see are left out."""


class Share(Settings):
    """Which of a stage's shards are trained where several processes train them: every `total`-th, from `number` on."""

    number: int = Field(ge=0, le=1023)
    """Number of the share, from 0."""
    total: int = Field(ge=1, le=1024)
    """How many shares there are."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Share:
        if self.number >= self.total:
            raise ValueError(f"share {self.number} is none of {self.total}, which are counted from 0")
        return self

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this share.

        >>> [Share(number=number, total=2).of("abcde") for number in range(2)]
        ['ace', 'bd']
        """
        return items[self.number :: self.total]


class EngineRule(Settings):
    """How the engine runs a stage; none of it changes what the stage gives beyond the last digits."""

    token_budget: int = Field(32768, ge=16)
    """Most tokens in one forward pass with gradients, padding included; a step with more is run in pieces."""
    compiled: Literal["auto", "on", "off"] = "auto"
    """Whether networks are compiled; `auto` does where it was measured to pay, which is nowhere yet (LOG.md)."""
    checkpoint_every_s: float = Field(30.0, gt=0)
    """Seconds between two checkpoints of a training."""
    checkpoint_every_steps: int = Field(0, ge=0)
    """Steps between two checkpoints, whatever the time; 0 goes by time alone."""


class Seat(Settings):
    """Where and from which seed a stage works; part of its key, but for how often it keeps checkpoints."""

    seed: int
    """Seed of everything that is drawn."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the networks."""
    threads: int = 1
    """CPU threads of each process."""
    processes: int = 1
    """Processes that share the stage."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products."""
    engine: EngineRule = EngineRule()
    """How the engine runs it."""

    def keyed(self) -> dict[str, Any]:
        """The settings that decide what the stage gives."""
        kept = self.model_copy(update={"engine": EngineRule(token_budget=self.engine.token_budget, compiled=self.engine.compiled)})
        return kept.canonical()
