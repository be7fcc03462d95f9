"""Fine-tuning on right answers: what is drawn, what is left out, and by what it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy
import pytest
import torch
from torch import Tensor

from e2urec_core.data.batches import Batch, Prompts
from e2urec_core.engine import Bench, Read
from e2urec_core.recommender import Recommender
from e2urec_core.settings import Training
from e2urec_core.training import Fitted, fit_answers, mean_answer_nll

PIECES = 1e-5
"""A step in pieces sums in another order; some dozen steps let 1e-7 grow."""
Build = Callable[..., Recommender]
RowsOf = Callable[[Recommender, str], Prompts]


@dataclass(frozen=True)
class Witness(Bench):
    """Notes the rows of every batch that is run with gradients."""

    seen: list[list[int]] = field(default_factory=list)

    def reader(self, recommender: Recommender) -> Read:
        read = super().reader(recommender)

        def noted(batch: Batch, support: Tensor | None = None, remainder: str = "none") -> Tensor:
            if torch.is_grad_enabled():
                self.seen.append(batch.index.tolist())
            return read(batch, support, remainder)

        return noted


def same_bits(one: Recommender, other: Recommender) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.network.parameters(), other.network.parameters(), strict=True))


def trained(build_tiny: Build, rows_of: RowsOf, seed: int) -> tuple[Recommender, Fitted]:
    recommender = build_tiny("tiny_t5", dropout=0.1)
    rows, validation = rows_of(recommender, "retained"), rows_of(recommender, "validation")
    training = Training(num_epochs=2, batch_size=32, learning_rate=5e-3)
    return recommender, fit_answers(recommender, rows, validation, training, Bench(seed=seed), purpose="original")


def test_the_same_seed_gives_the_same_bits_and_another_does_not(build_tiny: Build, rows_of: RowsOf) -> None:
    (one, first), (two, second), (three, third) = (trained(build_tiny, rows_of, seed) for seed in (1, 1, 2))
    assert same_bits(one, two)
    assert first.curve == second.curve
    assert not same_bits(one, three)
    assert [point.loss for point in first.curve] != [point.loss for point in third.curve]


def test_fine_tuning_on_answers_visits_every_row_each_pass_and_lowers_the_loss(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender, bench = build_tiny("tiny_t5"), Bench(seed=0)
    rows, read = rows_of(recommender, "retained"), bench.reader(recommender)
    before = mean_answer_nll(read, recommender, rows, bench)
    training = Training(num_epochs=3, batch_size=32, learning_rate=1e-2)
    fitted = fit_answers(recommender, rows, rows, training, bench, purpose="original")
    # 3 passes of ceil(rows / 32) steps
    assert len(fitted.curve) == 3 * -(-len(rows) // 32)
    assert {name for point in fitted.curve for name in point.parts} == {"answer"}
    assert mean_answer_nll(read, recommender, rows, bench) < 0.8 * before


def drawn_rows(recommender: Recommender, rows: Prompts, left_out: numpy.ndarray | None) -> tuple[list[list[int]], Fitted]:
    witness, training = Witness(seed=0), Training(num_epochs=2, batch_size=8, learning_rate=1e-3)
    return witness.seen, fit_answers(recommender, rows, rows, training, witness, purpose="test", left_out=left_out)


def test_each_pass_draws_every_row_once(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "forgotten")
    seen, _ = drawn_rows(recommender, rows, None)
    half = len(seen) // 2
    for batches in (seen[:half], seen[half:]):
        assert sorted(place for batch in batches for place in batch) == list(range(len(rows)))
    assert seen[:half] != seen[half:]


def test_rows_left_out_are_never_drawn_and_the_others_keep_their_order_and_their_batches(build_tiny: Build, rows_of: RowsOf) -> None:
    recommender = build_tiny("tiny_t5")
    rows = rows_of(recommender, "forgotten")
    whole, _ = drawn_rows(recommender, rows, None)
    left_out = numpy.zeros(len(rows), dtype=bool)
    # Two of three rows, and one batch in whole, which then is no step at all.
    left_out[::3] = left_out[1::3] = True
    left_out[whole[1]] = True
    kept, fitted = drawn_rows(build_tiny("tiny_t5"), rows, left_out)
    expected = [[place for place in batch if not left_out[place]] for batch in whole]
    assert [] in expected
    assert kept == [batch for batch in expected if batch]
    assert len(fitted.curve) == len(kept)


def test_leaving_nothing_out_changes_no_bit(build_tiny: Build, rows_of: RowsOf) -> None:
    one, two = build_tiny("tiny_t5"), build_tiny("tiny_t5")
    rows = rows_of(one, "forgotten")
    first, second = drawn_rows(one, rows, None)[1], drawn_rows(two, rows, numpy.zeros(len(rows), dtype=bool))[1]
    assert first.curve == second.curve
    assert same_bits(one, two)


def test_a_step_cut_into_pieces_is_the_same_step(build_tiny: Build, rows_of: RowsOf) -> None:
    training, curves, seen = Training(num_epochs=1, batch_size=16, learning_rate=5e-3), [], []
    for budget in (32768, 500):
        recommender, witness = build_tiny("tiny_t5"), Witness(seed=0, token_budget=budget)
        fitted = fit_answers(recommender, rows_of(recommender, "forgotten"), (), training, witness, purpose="test")  # type: ignore[arg-type]
        curves.append([point.loss for point in fitted.curve])
        seen.append(witness.seen)
    # 47 rows make steps of 16, 16 and 15. No row is under 84 tokens, so five fit into 500 at most: 4 + 4 + 3 pieces or more.
    assert len(seen[0]) == len(curves[0]) == 3
    assert len(seen[1]) >= 11
    assert curves[1] == pytest.approx(curves[0], rel=PIECES)
    assert sorted(place for piece in seen[1] for place in piece) == sorted(place for step in seen[0] for place in step)


@pytest.mark.parametrize("token_budget", [32768, 400])
def test_the_mean_loss_of_rows_weighs_every_row_alike_whatever_the_batch(
    build_tiny: Build, rows_of: RowsOf, bench: Bench, token_budget: int
) -> None:
    recommender, bench = build_tiny("tiny_t5"), dataclasses.replace(bench, token_budget=token_budget)
    rows = rows_of(recommender, "forgotten")
    recommender.network.eval()
    with torch.inference_mode():
        logits = torch.cat([recommender.logits(rows.batch(numpy.array([place])))[0:1] for place in range(len(rows))])
    right = [recommender.answers.yes_id if label else recommender.answers.no_id for label in rows.labels]
    # -log softmax(z)[right] of every row by itself, and their plain mean
    expected = numpy.mean([-torch.log_softmax(row.double(), 0)[token].item() for row, token in zip(logits, right, strict=True)])
    sizes = {len(batch.labels) for batch in rows.in_order(bench.scoring_budget)}
    assert len(sizes) > 1 or token_budget == 32768, "batches must differ in size"
    assert mean_answer_nll(bench.reader(recommender), recommender, rows, bench) == pytest.approx(expected, abs=1e-5)


def test_early_stopping_of_fine_tuning_follows_the_validation_rows(build_tiny: Build, rows_of: RowsOf, bench: Bench) -> None:
    recommender = build_tiny("tiny_t5")
    rows, validation = rows_of(recommender, "retained"), rows_of(recommender, "validation")
    training = Training(num_epochs=6, batch_size=32, learning_rate=2e-2, patience=2, schedule="constant")
    fitted = fit_answers(recommender, rows, validation, training, bench, purpose="original")
    found = mean_answer_nll(bench.reader(recommender), recommender, validation, bench)
    assert found == pytest.approx(min(fitted.validation), abs=1e-6)
    assert fitted.validation[fitted.best_check - 1] == min(fitted.validation)
