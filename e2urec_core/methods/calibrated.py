"""Teach what a recommender that never saw the forgotten rows would say of them, training only a low-rank adapter.

The target of a forgotten row mixes two answers. The first is a guess from the words of retained rows alone, by a kernel ridge regression
that takes a second: it never saw the row, so it cannot remember it. It is as sure of itself as the original is of validation rows. The
second is the original's own answer less its memory: by how much more it follows the right answers on forgotten rows than on validation
rows, once the guess is accounted for. The student is pushed beyond the target on forgotten rows, as few passes do not go all of the way,
and learns the right answers of retained rows; an adapter that has gone too far is weakened at the end, until the student is as sure of
the forgotten rows' answers, on average, as the target is.

Source: ours.
Differs: from UNDIAL, whose push is one constant for every row; here the push differs from row to row, and its size is measured.
Cost: the guess (the cube of `known_rows`), a forward pass over forgotten and validation rows, then a forward and a backward pass a step
over as many retained as forgotten rows. No augmented model, no cache, no holdout rows: an attack that uses these is independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.methods.base import Method, Outcome, Problem, refuse_nothing_to_forget
from e2urec_core.settings import Lora, Training

if TYPE_CHECKING:
    from torch import Tensor

    from e2urec_core.data.batches import Prompts
    from e2urec_core.engine import Bench
    from e2urec_core.recommender import Recommender

# Below it a guess is the same for all rows, and is not stretched any further.
LEAST_SPREAD = 1e-2
# Of the range in which the adapter's strength is looked for: to one part in 256.
HALVINGS = 8


@dataclass(frozen=True)
class Aim:
    """Answers to forgotten rows, as logit of Yes less logit of No, 64-bit, (row,) each.

    Args:
        margins: What the original says.
        guessed: What retained rows let guess, about -1 for No to 1 for Yes.
        target: What a recommender would say that never saw the rows.
    """

    margins: Tensor
    guessed: Tensor
    target: Tensor


class Calibrated(Method):
    """Self-distillation towards what was never seen."""

    title: ClassVar[str] = "Calibrated"
    tuned: ClassVar[tuple[str, ...]] = ("training.learning_rate", "push")

    kind: Literal["calibrated"] = "calibrated"
    """Name of the method."""
    guess_share: float = Field(0.5, ge=0, le=1)
    """Share of the target that the guess from retained rows gives; the original without its memory gives the rest."""
    push: float = Field(2.0, gt=0, le=100)
    """How many times the way from the original to that mixture the target lies off; above 1, as few passes do not go all of the way."""
    ridge: float = Field(5.0, gt=0, le=1e6)
    """How little the guess trusts single retained rows; more where labels are noisy."""
    known_rows: int = Field(3072, ge=1, le=20_000)
    """Most retained rows that the guess learns from, drawn by the seed; memory grows with its square, time with its cube."""
    num_words: int = Field(512, ge=1, le=65_536)
    """Most words of prompts, and of questions, that the guess counts."""
    question_tokens: int = Field(14, ge=1, le=4096)
    """Tokens at the end of a prompt in which the item stands that is asked about."""
    judged_rows: int = Field(1024, ge=1, le=1_000_000)
    """Most forgotten rows by which the adapter's strength is chosen at the end, drawn by the seed."""
    retain_weight: float = Field(1.0, ge=0, le=100)
    """Weight of the right answers of retained rows; at 0 they are not drawn."""
    lora: Lora = Lora(targets="all_linear", dropout=0.0)
    """The adapter; on every linear layer, as one on query and value alone forgets too little."""
    training: Training = Training(num_epochs=3, batch_size=32, learning_rate=1e-3)
    """Schedule; a pass is one over the forgotten rows, with as many retained rows beside them."""

    def unlearn(self, problem: Problem, bench: Bench) -> Outcome:
        """See `Method.unlearn`."""
        from e2urec_core.ops.distil import teacher_divergence
        from e2urec_core.ops.unseen import with_margin
        from e2urec_core.side_by_side import FORGOTTEN, RETAINED, Seen, Term, right_answers, said_by, train_side_by_side

        refuse_nothing_to_forget(problem)
        aim = self.aim(problem, bench)

        def target(rows: Prompts) -> dict[str, Tensor]:
            pushed = aim.margins + self.push * (aim.target - aim.margins)
            return {**said_by(problem.original, bench)(rows), "target": pushed[problem.forgotten.places_of(rows.example_ids)].float()}

        def follow(seen: Seen) -> Tensor:
            return teacher_divergence(with_margin(seen.beside["original"], seen.beside["target"]), seen.compared())

        terms = {"forget": Term(FORGOTTEN, 1.0, follow), "answer": Term(RETAINED, self.retain_weight, right_answers)}
        student = problem.original.with_adapter(self.lora, bench.seed)
        outcome = train_side_by_side(student, problem, terms, self.training, bench, self.kind, {FORGOTTEN: target})
        return replace(outcome, facts={"adapter_scale": self.scale_adapter(student, problem, aim, bench)})

    def scale_adapter(self, student: Recommender, problem: Problem, aim: Aim, bench: Bench) -> float:
        """Weaken the adapter, in place, until the student is no less sure of right answers than the target is; returns its share.

        The stronger it is, the less sure, so a bisection finds the place. It is never made stronger: that costs utility (LOG.md).
        """
        import torch

        from e2urec_core.ops.unseen import mean_sureness
        from e2urec_core.scoring import margins_of
        from e2urec_core.seeding import numpy_generator

        drawn = numpy_generator(bench.seed, "judged-rows").permutation(len(problem.forgotten))[: self.judged_rows]
        rows, read = problem.forgotten.select(drawn), bench.reader(student)
        wanted = mean_sureness(aim.target[drawn], _signs(rows))
        # An adapter's product grows with this factor, which began at 0.
        factors = [(weight, weight.detach().clone()) for name, weight in student.network.named_parameters() if "lora_B" in name]

        def too_sure_at(scale: float) -> bool:
            with torch.no_grad():
                for weight, trained in factors:
                    weight.copy_(scale * trained)
            return bool(mean_sureness(margins_of(read, student, rows, bench), _signs(rows)) > wanted)

        low, high = 0.0, 1.0
        if not too_sure_at(high):
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if too_sure_at(middle) else (low, middle)
            too_sure_at(high)
        return high

    def aim(self, problem: Problem, bench: Bench) -> Aim:
        """What forgotten rows are to be answered with, and what that is made of.

        Raises:
            BadRequest: There are no retained rows to guess from.
        """
        from e2urec_core.ops.unseen import label_slope
        from e2urec_core.scoring import margins_of

        rows, read = problem.forgotten, bench.reader(problem.original)
        guessed, unseen_guessed = self.guesses([rows, problem.validation], problem, bench)
        margins, unseen_margins = (margins_of(read, problem.original, each, bench) for each in (rows, problem.validation))
        remembered = label_slope(margins, guessed, _signs(rows)) - label_slope(unseen_margins, unseen_guessed, _signs(problem.validation))
        as_sure = unseen_margins.std(correction=0) / unseen_guessed.std(correction=0).clamp_min(LEAST_SPREAD)
        without = margins - remembered * _signs(rows)
        return Aim(margins, guessed, self.guess_share * as_sure * guessed + (1 - self.guess_share) * without)

    def guesses(self, asked: list[Prompts], problem: Problem, bench: Bench) -> list[Tensor]:
        """Answers of rows guessed from retained rows alone, about -1 for No to 1 for Yes, (row,) each, 64-bit.

        Raises:
            BadRequest: There are no retained rows.
        """
        import torch

        from e2urec_core.data.bags import Bags
        from e2urec_core.errors import BadRequest
        from e2urec_core.ops.unseen import likeness, ridge_answers, standardised
        from e2urec_core.seeding import numpy_generator

        if len(problem.retained) == 0:
            raise BadRequest("there are 0 rows to keep", hint="lower `--forget.share`, so that some users stay")
        drawn = numpy_generator(bench.seed, "known-rows").permutation(len(problem.retained))[: self.known_rows]
        known = problem.retained.select(drawn)
        bags = Bags(known, problem.original.tokenizer.get_vocab_size(), self.num_words, self.question_tokens)
        counts = bags.of(known)
        places = [standardised(each, each) for each in counts]

        def like(rows: Prompts) -> Tensor:
            return likeness(*(standardised(each, of) @ place.T for each, of, place in zip(bags.of(rows), counts, places, strict=True)))

        among, across = like(known), torch.cat([like(rows) for rows in asked])
        answers = ridge_answers(among, _signs(known).float(), across, self.ridge).double()
        return list(answers.split([len(rows) for rows in asked]))


def _signs(rows: Prompts) -> Tensor:
    """1 for Yes and -1 for No, (row,)."""
    import torch

    return torch.from_numpy(2.0 * rows.labels - 1.0)
