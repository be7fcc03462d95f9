"""A method is its hyper-parameters plus one verb.

One new method = one new file in this folder: a frozen class whose fields are the knobs and whose `unlearn` is the algorithm in its
paper's order. A method sees the opened problem and nothing else; there is no test split in it, so that peeking is impossible.
A method without teachers that trains on forgotten and retained rows side by side is a `Trainer` and takes `side_by_side`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from e2urec_core.artifacts import Artifact
from e2urec_core.settings import Lora, Plugin, Sharding, Training

if TYPE_CHECKING:
    from e2urec_core.data.batches import Prompts
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender
    from e2urec_core.sharding.system import ShardsFolder
    from e2urec_core.training_state import Fitted


@dataclass(frozen=True)
class Changed:
    """Training rows that stay, but whose history showed a forgotten interaction.

    Args:
        before: As the original learned them.
        after: The same rows in the same order, told without the interaction.
    """

    before: Prompts
    after: Prompts

    @classmethod
    def of(cls, retained: Prompts, retold: Prompts) -> Changed | None:
        """The rows that are in both, before and after; None where there are none."""
        import numpy

        before, after = (
            rows.select(numpy.flatnonzero(numpy.isin(rows.example_ids, others.example_ids)))
            for rows, others in ((retained, retold), (retold, retained))
        )
        assert numpy.array_equal(before.example_ids, after.example_ids), "both stand in the order of time"
        return cls(before, after) if len(before) else None


@dataclass(frozen=True)
class Problem:
    """What a method is given, opened.

    Args:
        original: The recommender in production; methods work on copies.
        retained: Training rows that stay, as they are told without what is forgotten.
        forgotten: Training rows to forget; at least one. What only the old prompts of changed rows tell is not among them.
        validation: Rows for model selection, without those of forgotten users.
        teachers: Cached outputs of both teachers, for methods that need `TeacherLogits`.
        shards: What was trained of each shard of the training rows, for methods that need `Shards`.
        fresh: Builds an untrained network of the original's kind, with its tokenizer, from a seed.
        training: Schedule of the original.
        changed: Retained rows that were told otherwise before, where single interactions are forgotten; None where no row was.
    """

    original: Recommender
    retained: Prompts
    forgotten: Prompts
    validation: Prompts
    teachers: TeacherCache | None = None
    shards: ShardsFolder | None = None
    fresh: Callable[[int], Recommender] | None = None
    training: Training = field(default_factory=Training)
    changed: Changed | None = None


@dataclass(frozen=True)
class Outcome:
    """What a method gives back.

    Args:
        recommender: Forgets; still carries its adapter, if it has one.
        fitted: What the loop did.
        facts: What else the method notes about its work, plain JSON values.
        num_changed: Weights that may have changed, where they are fewer than the recommender's trainable ones.
    """

    recommender: Recommender
    fitted: Fitted
    facts: Mapping[str, Any] = field(default_factory=dict)
    num_changed: int | None = None


class Method(Plugin):
    """Knobs of one way to unlearn."""

    package: ClassVar[str] = "e2urec_core.methods"
    title: ClassVar[str] = ""
    needs: ClassVar[frozenset[type[Artifact]]] = frozenset()
    trains_nothing: ClassVar[bool] = False
    knows_interactions: ClassVar[bool] = True
    tuned: ClassVar[tuple[str, ...]] = ()
    """Knobs that a comparison tries several values of, as dotted names; numbers above 0 whose size matters by factors."""

    @property
    def row(self) -> str:
        """Its name in scores and in the report; there, `original` and `retrain` are what methods are compared with."""
        return f"{self.kind}_method" if self.kind in ("original", "retrain") else self.kind

    def wants(self, artifact: type[Artifact]) -> bool:
        """Whether `artifact` must exist before this method can run."""
        return artifact in self.needs

    def sharding(self, training: Training) -> Sharding | None:
        """What of it shapes shards and their training, for methods that need `Shards`; `training` is the original's schedule."""
        return None

    def retained_draws(self) -> float:
        """Retained rows that are drawn for every forgotten row, all passes together; what the teacher cache must hold."""
        return 1.0

    def retained_at_least(self) -> int:
        """Retained rows that all passes together draw, however few rows are forgotten."""
        return 0

    def freezes_encoder(self) -> bool:
        """Whether the original's encoder stays as it is, so that its states can be cached."""
        return False

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """Make a recommender that no longer knows the forgotten rows; leaves `problem` as it is.

        Raises:
            BadRequest: There is nothing to forget.
            Diverged: The loss is no longer a finite number.
        """
        raise AssertionError(f"{type(self).__name__} does not unlearn")


class Trainer(Method):
    """Knobs of a method that trains a copy of the original: all of its weights, or an adapter."""

    trains: Literal["network", "adapter"] = "network"
    """What is trained: every weight, as in the source, or an adapter, which is cheaper and is merged at the end."""
    lora: Lora = Lora()
    """The adapter, where one is trained."""

    def student(self, original: Recommender, bench: Bench) -> Recommender:
        """A copy of `original` with the weights that are to be trained."""
        return original.with_adapter(self.lora, bench.seed) if self.trains == "adapter" else original.trainable()


def unchanged(problem: Problem, bench: Bench) -> Outcome:
    """A copy of the original, of which no weight was trained, and whose count of trained weights says so.

    Raises:
        BadRequest: There is nothing to forget.
    """
    from e2urec_core.training_state import Fitted

    refuse_nothing_to_forget(problem)
    same = problem.original.trainable()
    same.network.requires_grad_(False)
    return Outcome(same, Fitted((), (), 0, bench.token_budget, (), 0.0))


def refuse_nothing_to_forget(problem: Problem) -> None:
    """Make sure there are rows to forget.

    Raises:
        BadRequest: There are none.
    """
    from e2urec_core.errors import BadRequest

    if len(problem.forgotten) == 0:
        raise BadRequest("there are 0 rows to forget", hint="raise `--forget.share` or name users with `--forget.users-file`")
