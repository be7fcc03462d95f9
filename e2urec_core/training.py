"""The one optimisation loop: every training stage and every method that trains goes through `fit`.

A caller hands over a recommender, a plan (which rows each step draws) and a function that turns drawn rows into a `Loss` with named
parts. The loop owns what is the same for all: the optimiser, its schedule, clipping, the watch for a loss that is no number, the
pieces that a step is cut into, the processes that share them, checkpoints, progress, and early stopping on a validation loss with
the best weights restored.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy
import torch
from torch import Tensor

from e2urec_core.data.batches import Prompts, pass_order
from e2urec_core.data.draws import Draw, Drawn, Loaded, Part, pieces
from e2urec_core.engine import Bench, Read, ahead
from e2urec_core.errors import Diverged
from e2urec_core.ops.answers import answer_nll
from e2urec_core.recommender import Recommender
from e2urec_core.seeding import seeded
from e2urec_core.settings import Training
from e2urec_core.training_state import CurvePoint, Fitted, TrainingState, descended, rate_factor

D = TypeVar("D", bound=Drawn)
# The only part of an ordinary training: of its rows, and of its loss.
ROWS, ANSWER = "rows", "answer"


@dataclass(frozen=True)
class Loss:
    """A loss with named parts, each already weighted: the loop descends on their sum, and logs and plots them under these names."""

    parts: Mapping[str, Tensor]

    def total(self) -> Tensor:
        """Sum of the parts."""
        return torch.stack(list(self.parts.values())).sum()


def fit(
    recommender: Recommender,
    passes: Callable[[int], Iterable[D]],
    loss: Callable[[Read, Loaded], Loss],
    parts: tuple[str, ...],
    training: Training,
    bench: Bench,
    *,
    num_steps: int,
    purpose: str,
    validate: Callable[[Read], float] | None = None,
) -> Fitted:
    """Train the weights of `recommender` that require a gradient, in place.

    Args:
        recommender: Network to train; left in evaluation mode.
        passes: Gives the rows that each step of pass 0, 1, ... draws.
        loss: Loss of a piece of a step: its part of the means over the step. `Read` runs the network.
        parts: Names of all parts that `loss` may give.
        training: Schedule.
        bench: Seed, device and watcher.
        num_steps: Steps of all passes together; the learning rate falls over these.
        purpose: Names the dropout's generator and the curve.
        validate: Loss that decides when to stop, nats; needed when `training.patience` is above 0.

    Raises:
        Diverged: A loss or its gradient was not a finite number; no weight has been touched by it.
    """
    loop = _Loop(recommender, loss, parts, training, bench, num_steps, purpose)
    state, workers = loop.state, bench.workers
    started = time.perf_counter()
    # Only dropout draws while training; every process draws its own.
    with seeded(bench.seed, f"dropout-{purpose}" + (f"-{workers.rank}" if workers.rank else "")):
        if bench.checkpoints is not None and (saved := bench.checkpoints.newest()) is not None:
            state.restore(saved, workers.rank)
        while state.number < training.num_epochs and not state.stopped:
            recommender.network.train()
            for prepared in loop.prepared(itertools.islice(passes(state.number), state.in_pass, None)):
                due = loop.step(*prepared)
                if training.check_every and len(state.curve) % training.check_every == 0:
                    loop.check(validate)
                bench.watch(len(state.curve), num_steps, "steps", {"loss": state.curve[-1].loss, **state.curve[-1].parts})
                if due:
                    loop.save()
                if state.stopped:
                    break
            else:
                state.number, state.in_pass = state.number + 1, 0
                if not training.check_every:
                    loop.check(validate)
        if training.check_every and not state.stopped and len(state.curve) % training.check_every:
            # The last weights are judged too.
            loop.check(validate)
    state.return_to_best()
    recommender.network.eval()
    seconds = time.perf_counter() - started
    return Fitted(tuple(state.curve), tuple(state.losses), state.best_check, state.token_budget, tuple(state.halved_at), seconds)


class _Loop:
    """The parts of `fit` that are the same at every step."""

    def __init__(
        self,
        recommender: Recommender,
        loss: Callable[[Read, Loaded], Loss],
        parts: tuple[str, ...],
        training: Training,
        bench: Bench,
        num_steps: int,
        purpose: str,
    ) -> None:
        trained = {name: weight for name, weight in recommender.network.named_parameters() if weight.requires_grad}
        assert trained, f"{purpose}: nothing to train"
        self.recommender, self.loss, self.parts, self.training, self.bench = recommender, loss, parts, training, bench
        self.num_steps, self.purpose, self.read = num_steps, purpose, bench.reader(recommender)
        # One kernel for all weights: half the time of the step on a CPU, see LOG.md.
        optimiser = torch.optim.AdamW(trained.values(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
        self.state = TrainingState(trained, optimiser, bench.token_budget, training.patience)

    def prepared(self, draws: Iterable[D]) -> Iterator[tuple[D, int, list[Loaded]]]:
        """Every step's rows, with this process's pieces of them under a token budget, loaded by another thread."""
        return ahead(functools.partial(self._prepare, drawn) for drawn in draws)

    def _prepare(self, drawn: D) -> tuple[D, int, list[Loaded]]:
        workers, budget = self.bench.workers, self.state.token_budget
        loaded = [piece.load() for piece in pieces(drawn, budget, workers.rank, workers.world)]
        return drawn, budget, [piece.pinned() for piece in loaded] if self.bench.device.type == "cuda" else loaded

    def step(self, drawn: Drawn, budget: int, made: list[Loaded]) -> bool:
        """Descend once; says whether a checkpoint is due. Nothing is changed when the loss or its gradient is no number."""
        state, training, workers, at = self.state, self.training, self.bench.workers, len(self.state.curve) + 1
        while True:
            if budget != state.token_budget:
                _, budget, made = self._prepare(drawn)
            losses, due, ran_out = self._descend(made, at)
            if not ran_out:
                break
            state.halve(drawn.lengths, at)
        point = CurvePoint(at, sum(losses.values()), losses)
        if not math.isfinite(point.loss):
            raise self.diverged("loss", point.loss, at)
        workers.sum_gradients(list(state.trained.values()))
        norm = torch.nn.utils.clip_grad_norm_(state.trained.values(), training.max_gradient_norm).item()
        if not math.isfinite(norm):
            raise self.diverged("gradient", norm, at)
        for group in state.optimiser.param_groups:
            group["lr"] = training.learning_rate * rate_factor(len(state.curve), self.num_steps, training)
        state.optimiser.step()
        state.curve.append(point)
        state.in_pass += 1
        if state.risen(training.diverged_above):
            kept = descended(point)
            raise self.diverged("loss" if kept == point.loss else "descended part of the loss", kept, at)
        return due

    def _descend(self, made: list[Loaded], at: int) -> tuple[dict[str, float], bool, bool]:
        """Losses of the whole step, whether a checkpoint is due, and whether some device's memory ran out."""
        bench, workers = self.bench, self.bench.workers
        self.state.optimiser.zero_grad(set_to_none=True)
        # Of each part of the loss: its value, and whether any process saw it.
        told = torch.zeros(2 * len(self.parts) + 2, dtype=torch.float64, device=bench.device)
        try:
            for piece in made:
                loss = self.loss(self.read, piece.to(bench.device))
                workers.backward(loss.total())
                for name, part in loss.parts.items():
                    place = 2 * self.parts.index(name)
                    told[place] += part.detach()
                    told[place + 1] = 1
        except torch.OutOfMemoryError:
            self.state.optimiser.zero_grad(set_to_none=True)
            told[-1] = 1
        if told[-1] and bench.device.type == "cuda":
            torch.cuda.empty_cache()
        # The main process's clock decides for all whether a checkpoint is due.
        told[-2] = float(workers.is_main and bench.checkpoints is not None and bench.checkpoints.due(at))
        *values, due, ran_out = workers.summed(told).tolist()
        return {name: values[2 * at] for at, name in enumerate(self.parts) if values[2 * at + 1]}, bool(due), bool(ran_out)

    def check(self, validate: Callable[[Read], float] | None) -> None:
        """Take the validation loss, where the schedule has patience at all."""
        if self.training.patience:
            assert validate is not None, f"{self.purpose}: early stopping needs a validation loss"
            self.recommender.network.eval()
            loss = validate(self.read)
            if not math.isfinite(loss):
                raise self.diverged("validation loss", loss, len(self.state.curve))
            self.state.judge(loss)
            self.recommender.network.train()

    def save(self) -> None:
        """Write a checkpoint; every process hands over its random state."""
        states = {"random": torch.get_rng_state()}
        if self.bench.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state()
        random = {name: self.bench.workers.gathered(state) for name, state in states.items()}
        if self.bench.workers.is_main and self.bench.checkpoints is not None:
            self.bench.checkpoints.save(len(self.state.curve), *self.state.saved(random))

    def diverged(self, what: str, value: float, at: int) -> Diverged:
        """The error that stops a training whose loss, gradient or validation loss is no number at step `at`, or has risen."""
        curve, checkpoints = self.state.curve, self.bench.checkpoints
        before = f"{curve[-1].loss:.4g} at step {curve[-1].step}" if curve else "none: this was the first step"
        saved = checkpoints.last_step() if checkpoints else None
        return Diverged(
            f"the {what} of {self.purpose} is {value:.4g} at step {at}",
            facts={
                "last finite loss": before,
                "learning rate": self.training.learning_rate,
                "last good checkpoint": "none" if saved is None else f"after step {saved}",
            },
            hint="lower the learning rate; nothing of this stage was published",
        )


def fit_answers(
    recommender: Recommender,
    rows: Prompts,
    validation: Prompts,
    training: Training,
    bench: Bench,
    *,
    purpose: str,
    left_out: numpy.ndarray | None = None,
    ordered_by: numpy.ndarray | None = None,
) -> Fitted:
    """Fine-tune on the right answers of `rows` (E2URec, equation 2), in place; see `fit`.

    Args:
        recommender: Network to train.
        rows: Rows to draw.
        validation: Rows for early stopping.
        training: Schedule.
        bench: Seed, device and watcher.
        purpose: Names the dropout's generator and the curve.
        left_out: True for rows that are never drawn, (row,). The others come in the order and in the batches they would have with
            them: a Retrain is paired with its original this way.
        ordered_by: Tokens of each row that decide which rows share a batch, (row,); without, the rows' own. A Retrain some of whose
            prompts were told anew keeps to the lengths that its original saw.
    """
    lengths = rows.lengths if ordered_by is None else ordered_by
    order = [pass_order(lengths, training.batch_size, bench.seed, number) for number in range(training.num_epochs)]
    if left_out is not None:
        kept = [[index[~left_out[index]] for index in batches] for batches in order]
        order = [[index for index in batches if len(index)] for batches in kept]

    def passes(number: int) -> Iterable[Draw]:
        return (Draw({ROWS: Part(rows, index, len(index))}) for index in order[number])

    def loss(read: Read, piece: Loaded) -> Loss:
        return Loss({ANSWER: piece.share(ROWS) * answer_nll(read(piece.batch), recommender.answer_ids(piece.batch))})

    return fit(
        recommender,
        passes,
        loss,
        (ANSWER,),
        training,
        bench,
        num_steps=sum(map(len, order)),
        purpose=purpose,
        validate=lambda read: mean_answer_nll(read, recommender, validation, bench),
    )


def mean_loss(read: Read, loss: Callable[[Read, Loaded], Loss], drawn: Drawn, bench: Bench) -> float:
    """The loss of `drawn` as one step, nats, without gradients."""
    workers = bench.workers
    total = torch.zeros(1, dtype=torch.float64, device=bench.device)
    with torch.inference_mode():
        for piece in pieces(drawn, bench.scoring_budget, workers.rank, workers.world):
            total += loss(read, piece.load().to(bench.device)).total()
    return workers.summed(total).item()


def mean_answer_nll(read: Read, recommender: Recommender, rows: Prompts, bench: Bench) -> float:
    """Mean negative log-likelihood of the right answers of `rows`, nats, without gradients."""
    workers = bench.workers
    total = torch.zeros(1, dtype=torch.float64, device=bench.device)
    with torch.inference_mode():
        for batch in rows.in_order(bench.scoring_budget, workers.rank, workers.world):
            there = batch.to(bench.device)
            total += answer_nll(read(there), recommender.answer_ids(there)) * len(batch.labels)
    return workers.summed(total).item() / max(1, len(rows))
