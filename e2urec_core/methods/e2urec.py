"""Unlearn with two teachers, training only a low-rank adapter.

On forgotten rows the student follows a forgetting teacher: the original's logits less what further training on those rows has added.
On retained rows it follows a remembering teacher, the original itself, and the right answers. Both teachers were run once, before.

Source: E2URec (Wang et al., arXiv 2403.03536), equations 4 to 7; defaults of the paper: alpha 2, beta 0.6, rank 16 on query and value.
Differs: both teachers' outputs come from a cache; retained and forgotten rows share one forward pass; the joint loss starts at once
(the reference first spends a pass on forgotten rows alone: set `warm_start` to `forget_first`).
Cost: one student forward and backward a step over as many retained as forgotten rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from e2urec_core.artifacts import TeacherLogits
from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Lora, Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.logit_cache import TeacherCache, TeacherRows
    from e2urec_core.training import Bench, Loss

    Drawn = tuple[TeacherRows | None, TeacherRows | None]


class E2URec(Method):
    """Two teachers, one adapter."""

    title: ClassVar[str] = "E2URec"
    needs: ClassVar = frozenset({TeacherLogits})

    kind: Literal["e2urec"] = "e2urec"
    """Name of the method."""
    suppression: float = Field(2.0, ge=0, le=1000)
    """How strongly the forgetting teacher is pushed off what the augmented model has added. Paper: alpha."""
    forget_weight: float = Field(0.6, ge=0, le=1)
    """Share of the loss that forgotten rows carry; retained rows carry the rest. Paper: beta."""
    losses: Literal["both", "without_forgetting", "without_remembering"] = "both"
    """Which losses are used; the other two are the paper's ablations."""
    centring: Literal["none", "mean", "log_softmax"] = "none"
    """How logits are made comparable before they are subtracted: not at all (paper), each row summing to 0, or as log-probabilities."""
    warm_start: Literal["none", "forget_first"] = "none"
    """`forget_first` spends the first pass on the forgetting loss alone, as the reference code does."""
    lora: Lora = Lora()
    """The adapter."""
    training: Training = Training(num_epochs=2, batch_size=16, learning_rate=1e-3, schedule="constant", warmup_share=0.0)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    @model_validator(mode="after")
    def _forgets_at_all(self) -> E2URec:
        if self.losses == "without_forgetting" and self.warm_start == "forget_first":
            raise ValueError("warm_start forget_first and losses without_forgetting leave the first pass without a loss")
        return self

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.data.batches import join
        from e2urec_core.ops.answers import answer_nll
        from e2urec_core.ops.distil import teacher_divergence
        from e2urec_core.training import Loss, fit, mean_answer_nll

        refuse_nothing_to_forget(problem)
        assert problem.teachers is not None, "the teachers' outputs must be cached first"
        student, teachers = problem.original.with_adapter(self.lora, bench.seed), problem.teachers

        def step(drawn: Drawn) -> Loss:
            forgotten, retained = drawn
            batches = [problem.forgotten.batch(forgotten.index)] if forgotten else []
            batches += [problem.retained.batch(retained.index)] if retained else []
            batch = join(batches).to(bench.device)
            logits = student.logits(batch)
            num_forgotten = len(forgotten.index) if forgotten else 0
            parts: dict[str, Tensor] = {}
            if forgotten:
                target = self.forgetting_teacher(forgotten).to(bench.device)
                parts["forget"] = self.forget_weight * teacher_divergence(target, forgotten.kept(logits[:num_forgotten], teachers.rule))
            if retained:
                weight, outputs = 1 - self.forget_weight, logits[num_forgotten:]
                parts["answer"] = weight * answer_nll(outputs, student.answer_ids(batch)[num_forgotten:])
                target = retained.original.to(bench.device)
                parts["remember"] = weight * teacher_divergence(target, retained.kept(outputs, teachers.rule))
            return Loss(parts)

        fitted = fit(
            student,
            lambda number: self._draws(teachers, bench, number),
            step,
            self.training,
            bench,
            num_steps=teachers.num_batches("forgotten", self.training.batch_size) * self.training.num_epochs,
            purpose=self.kind,
            validate=lambda: mean_answer_nll(student, problem.validation, bench),
        )
        return Outcome(student, fitted)

    def forgetting_teacher(self, rows: TeacherRows) -> Tensor:
        """What the forgetting teacher says of cached forgotten rows: logits, (row, support). Paper: equation 4."""
        from e2urec_core.ops.distil import centred, suppressed_teacher

        assert rows.augmented is not None, "retained rows have no forgetting teacher"
        original, augmented = centred(rows.original, self.centring), centred(rows.augmented, self.centring)
        return suppressed_teacher(original, augmented, self.suppression)

    def _draws(self, teachers: TeacherCache, bench: Bench, number: int) -> Iterator[Drawn]:
        """What each step of pass `number` is handed: a batch of forgotten rows and one of retained rows, or one of them."""
        size = self.training.batch_size
        forget_only = self.losses == "without_remembering" or (self.warm_start == "forget_first" and number == 0)
        retained: Iterator[TeacherRows | None] = itertools.repeat(None) if forget_only else self._endless(teachers, bench, number)
        for forgotten, beside in zip(teachers.batches("forgotten", size, bench.seed, number), retained, strict=False):
            yield (None if self.losses == "without_forgetting" else forgotten), beside

    def _endless(self, teachers: TeacherCache, bench: Bench, number: int) -> Iterator[TeacherRows]:
        # Passes of the retained rows are numbered apart for every pass of the forgotten ones, so that each draws anew.
        for again in itertools.count():
            yield from teachers.batches("retained", self.training.batch_size, bench.seed, number * 1000 + again)
