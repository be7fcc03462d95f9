"""Unlearn with two teachers, training only a low-rank adapter.

On forgotten rows the student follows a forgetting teacher: the original's logits less what further training on those rows has added.
On retained rows it follows a remembering teacher, the original itself, and the right answers. Both teachers were run once, before.

Source: E2URec (Wang et al., arXiv 2403.03536), equations 4 to 7; defaults of the paper: alpha 2, beta 0.6, rank 16 on query and value.
Differs: both teachers' outputs come from a cache; retained and forgotten rows share one forward pass; the joint loss starts at once
(the reference first spends a pass on forgotten rows alone: set `warm_start` to `forget_first`).
Cost: one student forward and backward a step over as many retained as forgotten rows; with adapters in the decoder alone (a variant of
ours) the encoder is not run at all, its states come from the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field, model_validator

from e2urec_core.artifacts import TeacherLogits
from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Lora, Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.draws import Draw, Loaded
    from e2urec_core.data.logit_cache import TeacherCache
    from e2urec_core.engine import Bench, Read
    from e2urec_core.training import Loss

FORGOTTEN: Final = "forgotten"
RETAINED: Final = "retained"
# Most rows of each kind on which the objective is judged.
JUDGED = 1024


class E2URec(Method):
    """Two teachers, one adapter."""

    title: ClassVar[str] = "E2URec"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "suppression")
    needs: ClassVar = frozenset({TeacherLogits})

    kind: Literal["e2urec"] = "e2urec"
    """Name of the method."""
    suppression: float = Field(2.0, ge=0, le=1000)
    """How strongly the forgetting teacher is pushed off what the augmented model has added. Paper: alpha."""
    forget_weight: float = Field(0.6, ge=0, le=1)
    """Share of the loss that forgotten rows carry; retained rows carry the rest. Paper: beta."""
    least_retained: int = Field(0, ge=0, le=1_000_000)
    """Retained rows that a pass draws at least; else one for each forgotten row, as in the paper, which is few where few are forgotten."""
    losses: Literal["both", "without_forgetting", "without_remembering"] = "both"
    """Which losses are used; the other two are the paper's ablations."""
    centring: Literal["none", "mean", "log_softmax"] = "none"
    """How logits are made comparable before they are subtracted: not at all (paper), each row summing to 0, or as log-probabilities."""
    warm_start: Literal["none", "forget_first"] = "none"
    """`forget_first` spends the first pass on the forgetting loss alone, as the reference code does."""
    stop_on: Literal["answers", "objective"] = "answers"
    """What `training.patience` watches: the answers to validation rows, or the method's own loss with these for retained rows."""
    lora: Lora = Lora()
    """The adapter."""
    training: Training = Training(num_epochs=2, batch_size=16, learning_rate=1e-3, schedule="constant", warmup_share=0.0)
    """Schedule; a pass is one over the forgotten rows, with retained rows beside them."""

    @model_validator(mode="after")
    def _forgets_at_all(self) -> E2URec:
        if self.losses == "without_forgetting" and self.warm_start == "forget_first":
            raise ValueError("warm_start forget_first and losses without_forgetting leave the first pass without a loss")
        return self

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ops.answers import answer_nll
        from e2urec_core.ops.distil import teacher_divergence
        from e2urec_core.training import Loss, fit, mean_answer_nll, mean_loss

        refuse_nothing_to_forget(problem)
        assert problem.teachers is not None, "the teachers' outputs must be cached first"
        student, teachers = problem.original.with_adapter(self.lora, bench.seed), problem.teachers

        def loss(read: Read, piece: Loaded) -> Loss:
            logits, beside = teachers.read(read, piece), piece.beside
            parts: dict[str, Tensor] = {}
            if FORGOTTEN in piece.rows:
                weight, outputs = self.forget_weight * piece.share(FORGOTTEN), logits[piece.rows[FORGOTTEN]]
                parts["forget"] = weight * teacher_divergence(self.forgetting_teacher(beside[FORGOTTEN]), teachers.compared(outputs))
            if RETAINED in piece.rows:
                weight, outputs = (1 - self.forget_weight) * piece.share(RETAINED), logits[piece.rows[RETAINED]]
                answers = student.answer_ids(piece.batch)[piece.rows[RETAINED]]
                parts["answer"] = weight * answer_nll(outputs, teachers.columns(beside[RETAINED], answers))
                parts["remember"] = weight * teacher_divergence(beside[RETAINED]["original"], teachers.compared(outputs))
            return Loss(parts)

        judged = self._judged(problem, bench) if self.training.patience and self.stop_on == "objective" else None

        def validate(read: Read) -> float:
            return mean_loss(read, loss, judged, bench) if judged else mean_answer_nll(read, student, problem.validation, bench)

        fitted = fit(
            student,
            lambda number: self._draws(teachers, bench, number),
            loss,
            ("forget", "answer", "remember"),
            self.training,
            bench,
            num_steps=teachers.num_batches(FORGOTTEN, self.training.batch_size) * self.training.num_epochs,
            purpose=self.kind,
            validate=validate,
        )
        return Outcome(student, fitted)

    def forgetting_teacher(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """What the forgetting teacher says of cached forgotten rows: logits, (row, support). Paper: equation 4.

        Args:
            outputs: Both teachers' logits, `original` and `augmented`, (row, support) each.
        """
        from e2urec_core.ops.distil import centred, suppressed_teacher

        original, augmented = centred(outputs["original"], self.centring), centred(outputs["augmented"], self.centring)
        return suppressed_teacher(original, augmented, self.suppression)

    def retained_draws(self) -> float:
        """See `Method.retained_draws`."""
        return float(self._passes())

    def retained_at_least(self) -> int:
        """See `Method.retained_at_least`."""
        return self._passes() * self.least_retained

    def _passes(self) -> int:
        """Passes that draw retained rows."""
        return 0 if self.losses == "without_remembering" else self.training.num_epochs - (self.warm_start == "forget_first")

    def _judged(self, problem: Problem, bench: Bench) -> Draw:
        """Rows on which the objective is judged: cached forgotten rows, and validation rows in the place of retained ones."""
        import numpy

        from e2urec_core.data.draws import Draw, Part
        from e2urec_core.data.teacher_scoring import original_outputs
        from e2urec_core.seeding import numpy_generator

        assert problem.teachers is not None
        forgotten = next(problem.teachers.batches(FORGOTTEN, JUDGED, bench.seed, 0))
        chosen = numpy_generator(bench.seed, "judged").permutation(len(problem.validation))[:JUDGED]
        rows = problem.validation.select(chosen)
        outputs = original_outputs(problem.original, rows, problem.teachers.rule, bench)
        return Draw({FORGOTTEN: forgotten, RETAINED: Part(rows, numpy.arange(len(rows)), len(rows), outputs)})

    def freezes_encoder(self) -> bool:
        """See `Method.freezes_encoder`."""
        return self.lora.layers == "decoder"

    def _draws(self, teachers: TeacherCache, bench: Bench, number: int) -> Iterator[Draw]:
        """What each step of pass `number` draws: a batch of forgotten rows and one of retained rows, or one of them."""
        from e2urec_core.data.draws import Draw

        size, steps = self.training.batch_size, teachers.num_batches(FORGOTTEN, self.training.batch_size)
        remembers = self.losses != "without_remembering" and not (self.warm_start == "forget_first" and number == 0)
        # One stream of retained rows over all passes, so that the passes together draw every cached row.
        first = (number - (self.warm_start == "forget_first")) * steps
        wide = size * max(1, -(-self.least_retained // (size * steps)))
        retained = teachers.endless(RETAINED, wide, bench.seed, first) if remembers else itertools.repeat(None)
        for forgotten, beside in zip(teachers.batches(FORGOTTEN, size, bench.seed, number), retained, strict=False):
            parts = {} if self.losses == "without_forgetting" else {FORGOTTEN: forgotten}
            yield Draw({**parts, RETAINED: beside} if beside else parts)
