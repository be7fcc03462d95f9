"""Trains a recommender on forgotten and retained rows side by side, for methods that need no teacher cache.

A method says which weighted terms its loss has and which rows each of them looks at. Here is what these methods share: every step
draws a batch of forgotten rows and a batch of retained rows beside it, both go through the network in one forward pass, and what a
frozen network says of the drawn rows is asked once, before. Rows that no term looks at are not drawn.

The original is compared over its likeliest 32 words, Yes and No among them, and all other words together. That is the whole
vocabulary but for how the others share their weight; Yes against No alone would let both sink below words that answer nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Prompts, pass_order
from e2urec_core.data.draws import Draw, Loaded, Part
from e2urec_core.data.teacher_scoring import original_outputs, remainder
from e2urec_core.engine import Bench, Read
from e2urec_core.errors import BadRequest
from e2urec_core.methods.base import Outcome, Problem
from e2urec_core.ops.answers import answer_nll, narrow
from e2urec_core.ops.distil import teacher_divergence
from e2urec_core.recommender import Recommender
from e2urec_core.settings import CacheRule, Training
from e2urec_core.training import Loss, fit, mean_answer_nll

FORGOTTEN, RETAINED = "forgotten", "retained"
KEPT = CacheRule(support="top")
Beside = Callable[[Prompts], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Seen:
    """Rows of one kind in a piece of a step, as a term sees them.

    Args:
        logits: The student's outputs, (row, vocab).
        answers: Token ids of the right answers, (row,).
        beside: What stands beside each row.
    """

    logits: Tensor
    answers: Tensor
    beside: Mapping[str, Tensor]

    def compared(self) -> Tensor:
        """The student's outputs on the words that were kept of a frozen network, (row, support)."""
        return narrow(self.logits, self.beside["support"], remainder(KEPT))

    def columns(self) -> Tensor:
        """In which kept column the right answers stand, (row,)."""
        return (self.beside["support"] == self.answers[:, None]).int().argmax(dim=1)


@dataclass(frozen=True)
class Term:
    """One named part of a loss.

    Args:
        rows: The kind of rows it looks at: `forgotten` or `retained`.
        weight: What its mean over the step's rows is multiplied with; below 0 it is ascended, at 0 it is left out.
        value: Its mean over some rows.
    """

    rows: str
    weight: float
    value: Callable[[Seen], Tensor]


def right_answers(seen: Seen) -> Tensor:
    """Negative log-likelihood of the right answers among all words, nats."""
    return answer_nll(seen.logits, seen.answers)


def divergence(seen: Seen) -> Tensor:
    """Divergence of the student from the frozen network whose outputs stand beside the rows, nats."""
    return teacher_divergence(seen.beside["original"], seen.compared())


def said_by(frozen: Recommender, bench: Bench) -> Beside:
    """Asks a frozen network what it says of rows: `original`, its logits of the kept words, and `support`, which these are."""
    return lambda rows: original_outputs(frozen, rows, KEPT, bench)


def train_side_by_side(
    student: Recommender,
    problem: Problem,
    terms: Mapping[str, Term],
    training: Training,
    bench: Bench,
    purpose: str,
    beside: Mapping[str, Beside] | None = None,
) -> Outcome:
    """Descend on the sum of the terms, in place.

    Args:
        student: What is trained.
        problem: Its rows.
        terms: Parts of the loss by name.
        training: Schedule; a pass is one over the forgotten rows.
        bench: Seed, device and watcher.
        purpose: The method's kind.
        beside: By kind of rows, gives what stands beside each of them; asked once, for the rows that will be drawn.

    Raises:
        BadRequest: A term looks at retained rows, and there are none.
        Diverged: The loss is no longer a finite number, or has risen.
    """
    used = {name: term for name, term in terms.items() if term.weight}
    kinds = {term.rows for term in used.values()}
    assert kinds, f"{purpose}: every term of the loss has weight 0"
    plan = planned(problem, kinds, training, bench.seed)
    known = {kind: _Known(_rows(problem)[kind], plan, kind, ask) for kind, ask in (beside or {}).items() if kind in kinds}

    def draws(number: int) -> Iterator[Draw]:
        for step in plan[number]:
            yield Draw({kind: _part(_rows(problem)[kind], index, known.get(kind)) for kind, index in step.items()})

    def loss(read: Read, piece: Loaded) -> Loss:
        logits, answers = read(piece.batch), student.answer_ids(piece.batch)
        seen = {kind: Seen(logits[rows], answers[rows], piece.beside[kind]) for kind, rows in piece.rows.items()}
        here = {name: term for name, term in used.items() if term.rows in seen}
        return Loss({name: term.weight * piece.share(term.rows) * term.value(seen[term.rows]) for name, term in here.items()})

    fitted = fit(
        student,
        draws,
        loss,
        tuple(used),
        training,
        bench,
        num_steps=sum(map(len, plan)),
        purpose=purpose,
        validate=lambda read: mean_answer_nll(read, student, problem.validation, bench),
    )
    return Outcome(student, fitted)


def planned(problem: Problem, kinds: set[str], training: Training, seed: int) -> list[list[dict[str, numpy.ndarray]]]:
    """Positions of the rows of each kind that each step of each pass draws.

    Every forgotten row comes once a pass. Retained rows come as one stream over all passes, so that none comes twice before all have
    come once; it is the same stream whatever else is drawn.

    Raises:
        BadRequest: Retained rows are to be drawn, and there are none.
    """
    rows = _rows(problem)
    if RETAINED in kinds and len(rows[RETAINED]) == 0:
        raise BadRequest("there are 0 rows to keep", hint="lower `--forget.share`, so that some users stay")

    def batches(kind: str, number: int) -> list[numpy.ndarray]:
        return pass_order(rows[kind].lengths, training.batch_size, seed, number, purpose=f"{kind}-rows")

    stream = itertools.chain.from_iterable(batches(RETAINED, number) for number in itertools.count())
    plan = []
    for number in range(training.num_epochs):
        steps = []
        for index in batches(FORGOTTEN, number):
            forgotten = {FORGOTTEN: index} if FORGOTTEN in kinds else {}
            steps.append({**forgotten, **({RETAINED: next(stream)} if RETAINED in kinds else {})})
        plan.append(steps)
    return plan


class _Known:
    """What stands beside the rows of one kind, asked once for those that will be drawn."""

    def __init__(self, rows: Prompts, plan: list[list[dict[str, numpy.ndarray]]], kind: str, ask: Beside) -> None:
        self.index = numpy.unique(numpy.concatenate([step[kind] for steps in plan for step in steps]))
        self.values = ask(rows.select(self.index))

    def at(self, index: numpy.ndarray) -> dict[str, Tensor]:
        places = torch.from_numpy(numpy.searchsorted(self.index, index))
        return {name: values[places] for name, values in self.values.items()}


def _part(rows: Prompts, index: numpy.ndarray, known: _Known | None) -> Part:
    return Part(rows, index, len(index), known.at(index) if known else {})


def _rows(problem: Problem) -> dict[str, Prompts]:
    return {FORGOTTEN: problem.forgotten, RETAINED: problem.retained}
