"""E2URec's equations (arXiv 2403.03536) against arithmetic done by hand, with `math` alone on the expected side.

Tolerance `FLOAT32`: the code computes in 32-bit floats, whose step near 1 is 1.2e-7; a handful of operations lose a few of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from types import SimpleNamespace

import numpy
import pytest
import torch

from e2urec_core.data.batches import Prompts
from e2urec_core.data.draws import Part
from e2urec_core.data.logit_cache import TeacherCache
from e2urec_core.engine import Bench
from e2urec_core.methods.base import Problem
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.ops.answers import answer_nll
from e2urec_core.ops.distil import suppressed_teacher, teacher_divergence
from e2urec_core.recommender import Answers, Recommender
from e2urec_core.settings import CacheRule, Lora, Training

FLOAT32 = 2e-6
YES, NO = 0, 1


def probabilities(logits: list[float]) -> list[float]:
    whole = sum(math.exp(one) for one in logits)
    return [math.exp(one) / whole for one in logits]


def divergence(teacher: list[float], student: list[float]) -> float:
    """KL(softmax teacher || softmax student) in nats, as the textbook writes it."""
    return sum(p * math.log(p / q) for p, q in zip(probabilities(teacher), probabilities(student), strict=True))


class Table(torch.nn.Module):
    """A network that answers the prompt `[t]` with row t of a table."""

    def __init__(self, answers: list[list[float]]) -> None:
        super().__init__()
        self.answers = torch.nn.Parameter(torch.tensor(answers))

    def forward(self, token_ids: torch.Tensor, mask: torch.Tensor, support: None, remainder: str, states: None) -> torch.Tensor:
        return self.answers[token_ids[:, 0]]


class TableRecommender(Recommender):
    """Answers from a `Table`; its adapter is a copy of the table."""

    def reader(self) -> torch.nn.Module:  # type: ignore[override]
        return self.network

    def with_adapter(self, lora: Lora, seed: int) -> Recommender:
        return TableRecommender(copy.deepcopy(self.network), self.tokenizer, self.answers)


class HandWrittenCache(TeacherCache):
    """Teachers whose outputs on the whole vocabulary stand in the test; one batch of every part a pass."""

    def __init__(self, rows: dict[str, Prompts], outputs: dict[str, dict[str, torch.Tensor]]) -> None:
        self.rule, self.parts = CacheRule(support="full"), {}
        for part, beside in outputs.items():
            everyone = numpy.arange(len(rows[part]))
            self.parts[part] = Part(rows[part], everyone, len(everyone), beside)

    def batches(self, part: str, batch_size: int, seed: int, number: int) -> Iterator[Part]:
        yield self.parts[part]

    def num_batches(self, part: str, batch_size: int) -> int:
        return 1


def one_token_prompts(tokens: list[int], labels: list[int]) -> Prompts:
    count = len(tokens)
    ids = numpy.array(tokens, dtype=numpy.int32)
    return Prompts(numpy.arange(count), numpy.array(labels, dtype=numpy.int64), ids, numpy.arange(count + 1))


def first_parts(
    method: E2URec,
    student: list[list[float]],
    num_forgotten: int,
    labels: list[int],
    forgotten: dict[str, torch.Tensor],
    retained: dict[str, torch.Tensor],
    token_budget: int = 32768,
) -> dict[str, float]:
    """Parts of E2URec's loss at its first step: the student's first `num_forgotten` rows are the forgotten ones."""
    answers = Answers(yes_id=YES, no_id=NO, decoder_prefix=(0,), attention_targets=(), linear_targets=())
    original = TableRecommender(Table(student), SimpleNamespace(), answers)
    tokens = list(range(len(student)))
    prompts = {
        "forgotten": one_token_prompts(tokens[:num_forgotten], labels[:num_forgotten]),
        "retained": one_token_prompts(tokens[num_forgotten:], labels[num_forgotten:]),
    }
    cache = HandWrittenCache(prompts, {"forgotten": forgotten, "retained": retained})
    problem = Problem(original, **prompts, validation=one_token_prompts(tokens, labels), teachers=cache)
    point = method.unlearn(problem, Bench(seed=0, token_budget=token_budget)).fitted.curve[0]
    assert point.loss == pytest.approx(sum(point.parts.values()), abs=1e-12)
    return dict(point.parts)


def rows(original: list[list[float]], augmented: list[list[float]] | None = None) -> dict[str, torch.Tensor]:
    told = {"original": torch.tensor(original)}
    return told if augmented is None else {**told, "augmented": torch.tensor(augmented)}


def test_equation_1_and_2_are_the_mean_negative_log_likelihood_of_the_answer_among_all_words() -> None:
    logits = [[1.0, 0.0, -1.0], [0.5, 2.0, 0.5]]
    # -log softmax(1, 0, -1)[0] = log(1 + e^-1 + e^-2)           = 0.407606
    # -log softmax(.5, 2, .5)[1] = log(1 + 2 e^-1.5)             = 0.368981
    # their mean                                                 = 0.388294
    expected = (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + 2 * math.exp(-1.5))) / 2
    assert expected == pytest.approx(0.388294, abs=1e-6)
    assert answer_nll(torch.tensor(logits), torch.tensor([0, 1])).item() == pytest.approx(expected, abs=FLOAT32)


def test_equation_4_takes_away_what_the_augmented_model_has_added_and_nothing_where_it_added_nothing() -> None:
    teacher = suppressed_teacher(torch.tensor([[1.0, 0.5, -2.0, 3.0]]), torch.tensor([[1.5, 0.5, -3.0, 4.0]]), 2.0)
    #  1   - 2 * relu( 1.5 -  1  ) =  1 - 2 * .5 = 0
    #  0.5 - 2 * relu( 0.5 - 0.5 ) =  0.5
    # -2   - 2 * relu(-3   - -2  ) = -2
    #  3   - 2 * relu( 4   -  3  ) =  1
    assert teacher.tolist() == [[0.0, 0.5, -2.0, 1.0]]


def test_equation_5_is_the_mean_divergence_of_the_student_from_the_normalised_forgetting_teacher() -> None:
    teacher, student = [[0.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]
    # Row 1: p = (0.268941, 0.731059), q = (0.731059, 0.268941);
    #        KL = .268941 log(.268941/.731059) + .731059 log(.731059/.268941) = -.268941 + .731059 = 0.462117
    # Row 2: p = q, KL = 0. Mean: 0.231059
    expected = (math.tanh(0.5) + 0.0) / 2
    assert (divergence(teacher[0], student[0]) + divergence(teacher[1], student[1])) / 2 == pytest.approx(expected, abs=1e-12)
    assert teacher_divergence(torch.tensor(teacher), torch.tensor(student)).item() == pytest.approx(expected, abs=FLOAT32)


def test_equation_7_weighs_the_forgetting_loss_by_beta_and_the_remembering_loss_by_the_rest() -> None:
    # Vocabulary (Yes, No, other). Row 0 is forgotten, row 1 is retained with the right answer Yes. alpha = 2, beta = 0.6.
    student = [[0.2, 0.1, -0.3], [1.0, 0.0, -1.0]]
    original, augmented, remembering = [1.0, 0.0, -1.0], [1.5, -0.5, -1.0], [0.8, 0.3, -0.6]
    # Equation 4: (1 - 2 * relu(.5), 0 - 2 * relu(-.5), -1 - 2 * relu(0)) = (0, 0, -1)
    forgetting = [0.0, 0.0, -1.0]
    # Equation 5, with q the student's share of row 0:
    #   p = (1, 1, e^-1) / (2 + e^-1) = (.422319, .422319, .155362); q = softmax(.2, .1, -.3) = (.398, .360, .242), by `divergence`
    forget = divergence(forgetting, student[0])
    # Equation 6: -log softmax(1, 0, -1)[0] = log(1 + e^-1 + e^-2) = .407606, and the divergence from the original on row 1
    answer = math.log(1 + math.exp(-1) + math.exp(-2))
    remember = divergence(remembering, student[1])
    assert forget > 0.01, "the example must have something to forget"
    assert remember > 0.01, "the example must have something to remember"
    method = E2URec(suppression=2.0, forget_weight=0.6, training=Training(num_epochs=1, batch_size=1, learning_rate=1e-3))
    parts = first_parts(method, student, 1, [0, 1], rows([original], [augmented]), rows([remembering]))
    assert parts == {
        "forget": pytest.approx(0.6 * forget, abs=FLOAT32),
        "answer": pytest.approx(0.4 * answer, abs=FLOAT32),
        "remember": pytest.approx(0.4 * remember, abs=FLOAT32),
    }
    # Equation 7: .6 * L_FGT + .4 * (L_pred + L_KL)
    assert sum(parts.values()) == pytest.approx(0.6 * forget + 0.4 * (answer + remember), abs=FLOAT32)


@pytest.mark.parametrize("token_budget", [32768, 1], ids=["in one piece", "row by row"])
def test_equation_7_takes_the_mean_over_the_rows_of_each_side_however_many_there_are(token_budget: int) -> None:
    student = [[0.5, -0.5], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.5], [0.0, 2.0]]
    original, augmented = [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]]
    remembering = [[0.5, 0.0], [0.0, 0.5], [1.0, 1.0]]
    # Equation 4 with alpha 1: (1 - 1, 0) = (0, 0) and (0, 1 - 2) = (0, -1)
    forget = (divergence([0.0, 0.0], student[0]) + divergence([0.0, -1.0], student[1])) / 2
    # Right answers No, Yes, No of the retained rows: logits (1, 0), (-1, .5), (0, 2)
    #   log(1 + e^1) + log(1 + e^1.5) + log(1 + e^-2), divided by 3
    answer = (math.log(1 + math.e) + math.log(1 + math.exp(1.5)) + math.log(1 + math.exp(-2))) / 3
    remember = sum(divergence(*pair) for pair in zip(remembering, student[2:], strict=True)) / 3
    method = E2URec(suppression=1.0, forget_weight=0.25, training=Training(num_epochs=1, batch_size=4, learning_rate=1e-3))
    parts = first_parts(method, student, 2, [0, 0, 0, 1, 0], rows(original, augmented), rows(remembering), token_budget)
    assert parts == {
        "forget": pytest.approx(0.25 * forget, abs=FLOAT32),
        "answer": pytest.approx(0.75 * answer, abs=FLOAT32),
        "remember": pytest.approx(0.75 * remember, abs=FLOAT32),
    }


@pytest.mark.parametrize(
    ("centring", "original", "augmented", "teacher"),
    [
        # The augmented model's logits are all 1 higher: no knowledge, yet the paper's difference sees 1 everywhere.
        # none: (1 - 2, 0 - 2) = (-1, -2), which normalises like (1, 0)
        ("none", [1.0, 0.0], [2.0, 1.0], [-1.0, -2.0]),
        # mean: both are (.5, -.5), difference 0
        ("mean", [1.0, 0.0], [2.0, 1.0], [0.5, -0.5]),
        # log_softmax: both are (-log(1 + e^-1), -1 - log(1 + e^-1)), difference 0
        ("log_softmax", [1.0, 0.0], [2.0, 1.0], [-math.log(1 + math.exp(-1)), -1 - math.log(1 + math.exp(-1))]),
        # mean: (.5, -.5) against (1.5, -1.5): (.5 - 2 * 1, -.5 - 2 * 0)
        ("mean", [1.0, 0.0], [3.0, 0.0], [-1.5, -0.5]),
    ],
)
def test_centring_says_which_constant_is_fixed_before_equation_4(
    centring: str, original: list[float], augmented: list[float], teacher: list[float]
) -> None:
    method = E2URec(suppression=2.0, centring=centring)
    assert method.forgetting_teacher(rows([original], [augmented]))[0].tolist() == pytest.approx(teacher, abs=FLOAT32)


def test_the_defaults_are_the_papers() -> None:
    method = E2URec()
    assert (method.suppression, method.forget_weight, method.losses, method.centring, method.warm_start) == (
        2.0,
        0.6,
        "both",
        "none",
        "none",
    )
    assert (method.lora.rank, method.lora.alpha, method.lora.dropout, method.lora.targets) == (16, 32.0, 0.05, "attention")
