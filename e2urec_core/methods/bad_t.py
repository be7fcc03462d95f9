"""Teach wrong answers on forgotten rows and right ones on retained rows.

With `teacher` set to `labels`, both losses are of one answer among all words of the vocabulary. With `incompetent`, both are divergences
from a frozen network, over its 32 likeliest words and all others together: from one of the same architecture with random weights on
forgotten rows, from the original on retained rows.

Source: Bad Teacher (Chundawat et al., arXiv 2205.08096) for `incompetent`; for `labels`, E2URec (Wang et al., arXiv 2403.03536),
where forgotten rows get arbitrary labels, and its public code, where these are always flipped: lambda 0.2, learning rate 5e-5, 16
rows of each kind, 2400 steps.
Differs: random labels are drawn once for each row and do not change from pass to pass; both kinds of rows share one forward pass; 2400
steps over the reference's 12,982 forgotten rows are the 3 passes of the default.
Cost: one forward and backward a step over as many retained as forgotten rows; with `incompetent`, also one forward pass of each frozen
network over the rows that will be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.batches import Prompts
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Answers, Recommender


class BadT(Trainer):
    """Wrong answers in place of forgotten ones."""

    title: ClassVar[str] = "Bad-T"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "forget_weight")

    kind: Literal["bad_t"] = "bad_t"
    """Name of the method."""
    teacher: Literal["labels", "incompetent"] = "labels"
    """What forgotten rows are taught: wrong labels, or what a network with random weights says."""
    labels: Literal["random", "flipped"] = "random"
    """Which labels are wrong: drawn from the seed once for each row, as in the paper, or always the other one, as in its code."""
    forget_weight: float = Field(0.2, ge=0, le=100)
    """Weight of the loss on forgotten rows; at 0 they are not drawn. Paper: lambda; Bad Teacher itself weighs all rows alike: 1."""
    training: Training = Training(num_epochs=3, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ops.answers import answer_nll
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Seen, Term, divergence, right_answers, said_by, train_side_by_side

        def wrong_answers(seen: Seen) -> Tensor:
            return answer_nll(seen.logits, seen.beside["wrong"])

        refuse_nothing_to_forget(problem)
        original = problem.original
        if self.teacher == "incompetent":
            terms = {"remember": Term(RETAINED, 1.0, divergence), "forget": Term(FORGOTTEN, self.forget_weight, divergence)}
            beside = {RETAINED: said_by(original, bench), FORGOTTEN: said_by(_untrained(original, bench), bench)}
        else:
            terms = {"answer": Term(RETAINED, 1.0, right_answers), "forget": Term(FORGOTTEN, self.forget_weight, wrong_answers)}
            beside = {FORGOTTEN: lambda rows: self.wrong(rows, original.answers, bench.seed)}
        return train_side_by_side(self.student(original, bench), problem, terms, self.training, bench, self.kind, beside)

    def wrong(self, rows: Prompts, answers: Answers, seed: int) -> Mapping[str, Tensor]:
        """Token ids of the answers that are taught on forgotten `rows`, (row,), as `wrong`; random ones are right every other time."""
        import numpy
        import torch

        from e2urec_core.seeding import numpy_generator

        labels = 1 - rows.labels
        if self.labels == "random":
            labels = numpy_generator(seed, "bad-t-labels").integers(0, 2, len(rows))
        return {"wrong": torch.from_numpy(numpy.where(labels == 1, answers.yes_id, answers.no_id).astype(numpy.int64))}


def _untrained(original: Recommender, bench: Bench) -> Recommender:
    """A network like the original's, with random weights."""
    from e2urec_core.recommender import Recommender
    from e2urec_core.seeding import seeded

    network = original.network
    with seeded(bench.seed, "incompetent-teacher"):
        fresh = type(network)(network.config)
    return Recommender(fresh.to(bench.device).eval(), original.tokenizer, original.answers)
