"""The calibrated method on the tiny problem: what it aims at, what it may look at, and that it gets there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
import torch

from e2urec_core.data.bags import Bags
from e2urec_core.data.batches import Prompts
from e2urec_core.engine import Bench
from e2urec_core.errors import BadRequest
from e2urec_core.methods.base import Problem
from e2urec_core.methods.calibrated import Calibrated
from e2urec_core.metrics.utility import auc
from e2urec_core.ops.unseen import mean_sureness
from e2urec_core.scoring import margins_of, yes_probabilities
from e2urec_core.settings import Training
from e2urec_core.training import fit_answers

SHORT = Training(num_epochs=4, batch_size=8, learning_rate=1e-2, schedule="constant", warmup_share=0)


def method(**knobs: Any) -> Calibrated:
    return Calibrated.model_validate({"known_rows": 200, "push": 1.0, "training": SHORT.canonical(), **knobs})


def prompts(texts: list[list[int]], labels: list[int]) -> Prompts:
    starts = numpy.cumsum([0, *map(len, texts)])
    return Prompts(numpy.arange(len(texts)), numpy.array(labels), numpy.concatenate(texts).astype(numpy.int32), starts)


@pytest.fixture(scope="module")
def remembering(tiny_problem: Problem, bench: Bench) -> Problem:
    """The tiny problem with an original that knows the forgotten rows by heart."""
    original = tiny_problem.original.trainable()
    training = Training(num_epochs=30, batch_size=16, learning_rate=5e-3)
    fit_answers(original, tiny_problem.forgotten, tiny_problem.forgotten, training, bench, purpose="known")
    original.network.requires_grad_(False).eval()
    return dataclasses.replace(tiny_problem, original=original, teachers=None)


def aimed_at(knobs: Calibrated, rows: Prompts, problem: Problem, bench: Bench) -> torch.Tensor:
    return knobs.aim(dataclasses.replace(problem, forgotten=rows), bench).target


def flipped(rows: Prompts) -> Prompts:
    return dataclasses.replace(rows, labels=1 - rows.labels)


def test_bags_leave_out_what_stands_in_every_prompt_and_keep_the_commonest_of_the_rest() -> None:
    rows = prompts([[1, 2, 9], [1, 2, 9], [1, 2, 3, 9], [1, 2, 3, 9], [1, 2, 2, 9], [1, 3, 9]] * 2, [0, 1] * 6)
    # Of twelve rows 1 and 9 stand in all, 2 in ten, 3 in six; of the questions, the last two tokens, 2 and 3 stand in six each.
    whole, question = Bags(rows, 10, 1, question_tokens=2).of(rows)
    assert whole[:6].tolist() == [[1], [1], [1], [1], [2], [0]]
    assert question[:6].tolist() == [[1], [1], [0], [0], [1], [0]]


def test_bags_count_what_other_rows_say_of_the_words_learned() -> None:
    learned = prompts([[1, 5]] * 5 + [[2, 6]] * 5, [0] * 10)
    asked = prompts([[5, 5, 6, 7], [7, 7, 7, 7]], [0, 1])
    whole, question = Bags(learned, 8, 4, question_tokens=1).of(asked)
    # Words 1, 2, 5 and 6 stand in five rows each; the last token is the question, and of those only 5 and 6 were seen.
    assert whole.tolist() == [[0, 0, 2, 1], [0, 0, 0, 0]]
    assert question.tolist() == [[0, 0], [0, 0]]
    assert Bags(learned, 8, 4, question_tokens=1).of(learned)[1].sum(dim=0).tolist() == [5, 5]


def test_the_guess_does_not_see_the_forgotten_rows_answers(remembering: Problem, bench: Bench) -> None:
    told = method().guesses([remembering.forgotten], remembering, bench)[0]
    other = dataclasses.replace(remembering, forgotten=flipped(remembering.forgotten))
    assert torch.equal(told, method().guesses([other.forgotten], other, bench)[0])
    changed = dataclasses.replace(remembering, retained=flipped(remembering.retained))
    assert torch.allclose(method().guesses([changed.forgotten], changed, bench)[0], -told, atol=1e-4)


def test_the_target_of_the_guess_alone_is_as_sure_as_the_original_is_of_validation_rows(remembering: Problem, bench: Bench) -> None:
    target = aimed_at(method(guess_share=1.0), remembering.validation, remembering, bench)
    margins = torch.from_numpy(yes_probabilities(remembering.original, remembering.validation, bench)).logit()
    assert target.std().item() == pytest.approx(margins.std().item(), rel=1e-4)


def test_the_target_without_a_guess_is_the_original_where_it_remembers_no_more_than_of_validation_rows(
    remembering: Problem, bench: Bench
) -> None:
    # Rows that are validation rows themselves have the slope of validation rows: nothing is taken.
    target = aimed_at(method(guess_share=0.0), remembering.validation, remembering, bench)
    margins = torch.from_numpy(yes_probabilities(remembering.original, remembering.validation, bench)).logit()
    assert torch.allclose(target, margins, atol=1e-4)


def test_an_adapter_that_has_gone_too_far_is_weakened_until_it_is_as_sure_as_the_target(remembering: Problem, bench: Bench) -> None:
    knobs = method()
    student = knobs.unlearn(remembering, bench).recommender
    aim, signs = knobs.aim(remembering, bench), torch.from_numpy(2.0 * remembering.forgotten.labels - 1.0)
    gone = margins_of(bench.reader(student), student, remembering.forgotten, bench)
    # A target half of the way to where the student is.
    near = dataclasses.replace(aim, target=(aim.margins + gone) / 2)
    share = knobs.scale_adapter(student, remembering, near, bench)
    assert 0 < share < 1
    first, wanted, last, now = (
        mean_sureness(told, signs).item()
        for told in (aim.margins, near.target, gone, margins_of(bench.reader(student), student, remembering.forgotten, bench))
    )
    assert first > wanted > last
    assert now == pytest.approx(wanted, abs=0.1 * (first - last))


def test_an_adapter_that_has_not_gone_far_enough_is_left_as_it_is(remembering: Problem, bench: Bench) -> None:
    outcome = method(training={**SHORT.canonical(), "num_epochs": 1, "learning_rate": 1e-4}).unlearn(remembering, bench)
    assert outcome.facts["adapter_scale"] == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_student_forgets_what_only_the_forgotten_rows_told(remembering: Problem, bench: Bench, share: float) -> None:
    rows = remembering.forgotten
    before = auc(rows.labels, yes_probabilities(remembering.original, rows, bench))
    outcome = method(guess_share=share).unlearn(remembering, bench)
    after = auc(rows.labels, yes_probabilities(outcome.recommender, rows, bench))
    aimed = auc(rows.labels, method(guess_share=share).aim(remembering, bench).target.numpy())
    assert before is not None
    assert after is not None
    assert aimed is not None
    assert before > aimed + 0.05
    assert abs(after - aimed) < before - aimed


def test_only_an_adapter_is_trained(remembering: Problem, bench: Bench) -> None:
    recommender = method().unlearn(remembering, bench).recommender
    assert recommender.has_adapter
    assert all("lora_" in name for name, weight in recommender.network.named_parameters() if weight.requires_grad)


def test_without_rows_to_keep_there_is_nothing_to_guess_from(remembering: Problem, bench: Bench) -> None:
    nobody = dataclasses.replace(remembering, retained=remembering.retained.select(numpy.arange(0)))
    with pytest.raises(BadRequest, match="0 rows to keep"):
        method().unlearn(nobody, bench)
