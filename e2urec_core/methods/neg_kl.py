"""Stay near the original on retained rows, and go away from it on forgotten ones.

Both are divergences KL(original || student) over the original's 32 likeliest words and all others together, so that the student may
not flee into words that are no answer without being seen. The original itself is a point where both are 0 and flat: without a nudge
the gradient of the first step would be rounding alone, and AdamW would blow that up to full steps. So the weights start a little off.

Source: NegKL, a baseline of E2URec (Wang et al., arXiv 2403.03536); its public code has the divergence and no script.
Differs: the weight and the schedule are NegGrad's, as none are published; the start is nudged; both kinds of rows share one forward
pass.
Cost: one forward pass of the original over the rows that will be drawn, then one forward and backward a step over as many retained as
forgotten rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Outcome, Problem, Trainer, refuse_nothing_to_forget
from e2urec_core.settings import Training

if TYPE_CHECKING:
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender


class NegKL(Trainer):
    """The divergence from the original on forgotten rows, turned around."""

    title: ClassVar[str] = "NegKL"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "ascent_weight")

    kind: Literal["neg_kl"] = "neg_kl"
    """Name of the method."""
    ascent_weight: float = Field(0.2, ge=0, le=100)
    """Weight of the divergence that is ascended on forgotten rows; at 0 they are not drawn. Usual symbol: lambda."""
    nudge: float = Field(0.01, ge=0, le=1)
    """Size of the noise that the weights start with, as a share of each weight matrix' root mean square; ours."""
    training: Training = Training(num_epochs=4, batch_size=16, learning_rate=5e-5, schedule="constant", warmup_share=0.0)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Term, divergence, said_by, train_side_by_side

        refuse_nothing_to_forget(problem)
        student = self.student(problem.original, bench)
        _nudge(student, self.nudge, bench.seed)
        terms = {"remember": Term(RETAINED, 1.0, divergence), "ascent": Term(FORGOTTEN, -self.ascent_weight, divergence)}
        asked = said_by(problem.original, bench)
        beside = {RETAINED: asked, FORGOTTEN: asked}
        return train_side_by_side(student, problem, terms, self.training, bench, self.kind, beside)


def _nudge(student: Recommender, share: float, seed: int) -> None:
    """Add noise to what is trained; a matrix of zeros, as an adapter begins with, takes the mean size of the others."""
    import torch

    from e2urec_core.seeding import torch_generator

    trained = [weight for weight in student.network.parameters() if weight.requires_grad]
    sizes = [weight.detach().square().mean().sqrt().item() for weight in trained]
    usual, random = sum(sizes) / len(sizes), torch_generator(seed, "neg-kl-nudge")
    with torch.no_grad():
        for weight, size in zip(trained, sizes, strict=True):
            weight.add_(share * (size or usual) * torch.randn(weight.shape, generator=random).to(weight))
