"""E2URec as its public reference runs it: the rival of `unlearning.py`.

The loss and the adapter are those of `e2urec_core.methods.e2urec`; how they are computed is not. Nothing is kept between steps: every
step tokenises its prompts, asks both teachers again, and decodes three target positions over the whole vocabulary.

Source: E2URec (Wang et al., arXiv 2403.03536), equations 4 to 7, and a description of its public reference; written here, no line is
copied.
Differs from the reference, each time in the rival's favour or neutral: padding is masked (the reference passes no attention mask, so
its outputs depend on the batch); the joint loss starts at once (the reference spends its first pass on forgotten rows alone); dropout
stays on after `after_step` (the reference loses it at its first evaluation); the tokenizer is a fast one; the divergence is the plain
Kullback-Leibler one (same gradient as the reference's cross entropy against the teacher).
The same as the reference: 32-bit floats, AdamW at a constant rate without clipping, a pass that ends with its shorter side. Decay of
the weights is 0, as in `e2urec_core`; the description does not name the reference's.
Cost of a step: the student runs once on forgotten and twice on retained rows, with gradients; the original runs on both and the
augmented model on forgotten rows, without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from benchmarks.measuring import clock
from benchmarks.rows import Rows
from e2urec_core.ops.distil import suppressed_teacher, teacher_divergence
from e2urec_core.recommender import Recommender, load
from e2urec_core.seeding import numpy_generator, seeded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 16, 32.0, 0.05
"""The reference's adapter."""


@dataclass(frozen=True)
class Teachers:
    """Both teachers, frozen and in evaluation mode.

    Args:
        original: The recommender that still remembers.
        augmented: The original trained further on the forgotten rows.
    """

    original: Recommender
    augmented: Recommender


@dataclass(frozen=True)
class Examples:
    """Prompts of one batch with their targets, ready for teacher forcing.

    Args:
        token_ids: Ids of the prompts' tokens, padded at the end to the longest of the batch, (row, token).
        mask: 1 where a token stands, 0 on padding, (row, token).
        decoder_ids: The decoder's prefix and all targets but the last, (row, prefix + position - 1).
        target_ids: The answer word and what follows it, (row, position).
    """

    token_ids: Tensor
    mask: Tensor
    decoder_ids: Tensor
    target_ids: Tensor


@dataclass(frozen=True)
class RivalResult:
    """What a call of `run_rival` did.

    Args:
        steps: Joint steps taken.
        rows: Forgotten and retained rows drawn, a row counted as often as it was drawn.
        seconds: Time of the loop alone, see `clock`: drawing, tokenising, teachers, student, optimiser. Loading the networks and
            `after_step` are left out.
        losses: Parts of every step's loss, not weighted, nats: `answer`, `remember`, `forget`.
        student: Original with a trained adapter, not merged; in evaluation mode.
    """

    steps: int
    rows: int
    seconds: float
    losses: tuple[dict[str, float], ...]
    student: Recommender


def run_rival(
    original: Path,
    augmented: Path,
    forgotten: Rows,
    retained: Rows,
    *,
    suppression: float,
    forget_weight: float,
    learning_rate: float,
    num_epochs: int,
    batch_size: int = 16,
    seed: int,
    max_steps: int | None = None,
    after_step: Callable[[int, float, Recommender], bool] | None = None,
    target_tail: tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> RivalResult:
    """Unlearn the forgotten rows, the reference's way.

    Args:
        original: Folder of the recommender that still remembers; it is read only.
        augmented: Folder of the original trained further on the forgotten rows; it is read only.
        forgotten: Rows to forget.
        retained: Rows that stay.
        suppression: Push of the forgetting teacher, no unit. Paper: alpha.
        forget_weight: Share of the loss that forgotten rows carry, 0 to 1; retained rows carry the rest. Paper: beta. The reference's
            flag is the other share: its shipped 0.6 is 0.4 here.
        learning_rate: Rate of AdamW, constant.
        num_epochs: Passes over the shorter side, as the reference zips both.
        batch_size: Forgotten rows in a step, and as many retained rows. Reference: 16.
        seed: Fixes the order of rows, the adapter's first weights and dropout.
        max_steps: Steps after which the loop ends; None takes all passes.
        after_step: Called with the number of the step, from 1, the seconds counted so far, and the student; may score it, and says
            whether to go on. Its time is not counted.
        target_tail: Token ids that follow the answer word; None takes those of `sentence_end`. `()` decodes the answer word alone,
            for an original that was never trained on what follows it.
        device: Where the networks run.
    """
    teachers = Teachers(frozen(load(original, device)), frozen(load(augmented, device)))
    student = with_reference_adapter(load(original, device), seed)
    tail = sentence_end(teachers.original) if target_tail is None else target_tail
    network = student.network.train()
    optimiser = torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], lr=learning_rate, weight_decay=0.0)
    parts: list[dict[str, Tensor]] = []
    rows, seconds = 0, 0.0
    with seeded(seed, "dropout-rival"):
        started = clock(device)
        drawn = draws(len(forgotten), len(retained), batch_size, num_epochs, seed)
        for step, (forgotten_index, retained_index) in enumerate(itertools.islice(drawn, max_steps), 1):
            forgotten_batch = examples(student, forgotten, forgotten_index, tail, device)
            retained_batch = examples(student, retained, retained_index, tail, device)
            losses = loss_parts(student, teachers, forgotten_batch, retained_batch, suppression)
            optimiser.zero_grad(set_to_none=True)
            joint_loss(losses, forget_weight).backward()
            optimiser.step()
            parts.append({name: loss.detach() for name, loss in losses.items()})
            rows += len(forgotten_index) + len(retained_index)
            if after_step is not None:
                seconds += clock(device) - started
                goes_on = after_step(step, seconds, student)
                network.train()
                started = clock(device)
                if not goes_on:
                    break
        seconds += clock(device) - started
    network.eval()
    curve = tuple({name: loss.item() for name, loss in losses.items()} for losses in parts)
    return RivalResult(len(parts), rows, seconds, curve, student)


def loss_parts(student: Recommender, teachers: Teachers, forgotten: Examples, retained: Examples, suppression: float) -> dict[str, Tensor]:
    """The three losses of one step, each a mean over rows and target positions, over the whole vocabulary, nats.

    Args:
        student: The network that is trained; runs once on `forgotten` and twice on `retained`.
        teachers: Run here, without gradients.
        forgotten: Rows to forget.
        retained: Rows that stay.
        suppression: Push of the forgetting teacher, no unit.

    Returns:
        `answer`: cross entropy on retained rows. `remember`: divergence from the original on retained rows. `forget`: divergence from
        the suppressed teacher on forgotten rows.

    Source: E2URec, equations 4 to 6; the mean over all target positions is the reference's.
    """
    with torch.no_grad():
        remembering = outputs(teachers.original, retained)
        forgetting = suppressed_teacher(outputs(teachers.original, forgotten), outputs(teachers.augmented, forgotten), suppression)
    return {
        "forget": teacher_divergence(forgetting, outputs(student, forgotten)),
        "answer": torch.nn.functional.cross_entropy(outputs(student, retained), retained.target_ids.flatten()),
        "remember": teacher_divergence(remembering, outputs(student, retained)),
    }


def joint_loss(parts: dict[str, Tensor], forget_weight: float) -> Tensor:
    """(answer + remember) * (1 - forget_weight) + forget * forget_weight, nats.

    Source: E2URec, equation 7 with beta = `forget_weight`; the reference writes `1 - forget_weight` as its weight.

    >>> joint_loss({"answer": torch.tensor(1.0), "remember": torch.tensor(2.0), "forget": torch.tensor(5.0)}, 0.5)
    tensor(4.)
    """
    return (parts["answer"] + parts["remember"]) * (1 - forget_weight) + parts["forget"] * forget_weight


def draws(
    num_forgotten: int, num_retained: int, batch_size: int, num_epochs: int, seed: int
) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """Positions of the forgotten and of the retained rows of each step.

    Each pass shuffles both sides anew and ends with the shorter one; the last batch of a side may be short.
    """
    random = numpy_generator(seed, "rival-row-order")
    for _ in range(num_epochs):
        forgotten, retained = random.permutation(num_forgotten), random.permutation(num_retained)
        for start in range(0, min(num_forgotten, num_retained), batch_size):
            yield forgotten[start : start + batch_size], retained[start : start + batch_size]


def examples(recommender: Recommender, rows: Rows, index: numpy.ndarray, tail: tuple[int, ...], device: torch.device | str) -> Examples:
    """Tokenise the rows at `index` and pad them to their longest; `tail` follows each answer word as a target."""
    encoded = [row.ids for row in recommender.tokenizer.encode_batch([rows.texts[place] for place in index])]
    token_ids = torch.zeros(len(encoded), max(map(len, encoded)), dtype=torch.int64)
    mask = torch.zeros_like(token_ids)
    for row, ids in enumerate(encoded):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    answers = recommender.answers
    target_ids = torch.tensor([[answers.yes_id if rows.labels[place] else answers.no_id, *tail] for place in index])
    prefix = torch.tensor([answers.decoder_prefix]).expand(len(index), -1)
    decoder_ids = torch.cat([prefix, target_ids[:, :-1]], dim=1)
    return Examples(token_ids.to(device), mask.to(device), decoder_ids.to(device), target_ids.to(device))


def outputs(recommender: Recommender, batch: Examples) -> Tensor:
    """Logits at every target position, (row * position, vocab)."""
    given = recommender.network(input_ids=batch.token_ids, attention_mask=batch.mask, decoder_input_ids=batch.decoder_ids, use_cache=False)
    logits: Tensor = given.logits[:, -batch.target_ids.shape[1] :]
    return logits.flatten(0, 1)


def sentence_end(recommender: Recommender) -> tuple[int, int]:
    """Ids of the two tokens that follow the answer word in the reference's targets: the full stop and the end of the sequence."""
    network: Any = recommender.network
    tokenizer: Tokenizer = recommender.tokenizer
    stop, end = tokenizer.token_to_id("."), network.config.eos_token_id
    assert stop is not None, "the tokenizer has no token for a full stop: name `target_tail`"
    assert tokenizer.id_to_token(end) is not None, f"the network's end token {end} is not the tokenizer's: name `target_tail`"
    return stop, end


def with_reference_adapter(recommender: Recommender, seed: int) -> Recommender:
    """`recommender` with a fresh adapter on query and value, the only weights that train; its network is changed in place."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=list(recommender.answers.attention_targets),
        bias="none",
    )
    with seeded(seed, "adapter-weights"):
        network: Any = get_peft_model(recommender.network, config)
    return Recommender(network, recommender.tokenizer, recommender.answers)


def frozen(recommender: Recommender) -> Recommender:
    """The same recommender in evaluation mode, none of whose weights trains."""
    recommender.network.eval().requires_grad_(False)
    return recommender
