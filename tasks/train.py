"""Trains the original, the augmented model, and Retrains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2urec_core import stages
from e2urec_core.artifacts import Augmented, Examples, ForgetRequest, Original, Retrained
from e2urec_core.backbones.base import Backbone
from e2urec_core.settings import Training
from tasks._stage import Seat, Work, stage


@stage("train-original", writes=Original)
def train_original(work: Work, examples: Examples, backbone: Backbone, training: Training, seat: Seat) -> int:
    """Train a recommender on all training rows."""
    return stages.train_original(work.open(examples), backbone, training, work.bench(seat), work.place)


@stage("train-augmented", writes=Augmented)
def train_augmented(work: Work, original: Original, examples: Examples, request: ForgetRequest, training: Training, seat: Seat) -> int:
    """Train the original further on the forgotten rows alone."""
    return stages.train_augmented(work.open(original), work.open(examples), work.open(request), training, work.bench(seat), work.place)


def _named_by_seed(given: Mapping[str, Any]) -> str:
    return "train-retrained" if given["paired"] else f"train-retrained seed {given['seat'].seed}"


@stage("train-retrained", writes=Retrained, aside=("paired",), label=_named_by_seed)
def train_retrained(
    work: Work,
    original: Original,
    examples: Examples,
    request: ForgetRequest,
    backbone: Backbone,
    training: Training,
    seat: Seat,
    paired: bool,
) -> int:
    """Train a recommender on the retained rows alone; with the original's seed it is paired with it, with others it gives the floor."""
    folders = work.open(original), work.open(examples), work.open(request)
    return stages.train_retrained(*folders, backbone, training, work.bench(seat), work.place)
