"""Trains the original, the augmented model, and Retrains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2urec_core.artifacts import Augmented, ForgetRequest, Original, Retold, Retrained, Shards, Tokens
from e2urec_core.backbones.base import Backbone
from e2urec_core.settings import Augment, Seat, Sharding, Training
from tasks._stage import Work, stage


@stage("train-original", writes=Original)
def train_original(work: Work, tokens: Tokens, backbone: Backbone, training: Training, seat: Seat) -> int:
    """Train a recommender on all training rows."""
    return work.perform(seat, "train_original", tokens=work.open(tokens), backbone=backbone, training=training)


@stage("train-augmented", writes=Augmented)
def train_augmented(
    work: Work, original: Original, tokens: Tokens, request: ForgetRequest, augment: Augment, seat: Seat, retold: Retold | None = None
) -> int:
    """Train the original further on the forgotten rows alone."""
    folders = work.folders(original=original, tokens=tokens, request=request, retold=retold)
    return work.perform(seat, "train_augmented", **folders, augment=augment)


@stage("train-shards", writes=Shards)
def train_shards(work: Work, original: Original | None, tokens: Tokens, backbone: Backbone, sharding: Sharding, seat: Seat) -> int:
    """Train a sharded system on all training rows, before any request; the original decides who comes together, where it is given."""
    folders = work.folders(original=original, tokens=tokens)
    return work.perform(seat, "train_shards", **folders, backbone=backbone, sharding=sharding)


def _named_by_seed(given: Mapping[str, Any]) -> str:
    return "train-retrained" if given["paired"] else f"train-retrained seed {given['seat'].seed}"


@stage("train-retrained", writes=Retrained, aside=("paired",), label=_named_by_seed)
def train_retrained(
    work: Work,
    tokens: Tokens,
    request: ForgetRequest,
    backbone: Backbone,
    training: Training,
    seat: Seat,
    paired: bool,
    retold: Retold | None = None,
) -> int:
    """Train a recommender on the retained rows alone; with the original's seed it is paired with it, with others it gives the floor."""
    folders = work.folders(tokens=tokens, request=request, retold=retold)
    return work.perform(seat, "train_retrained", **folders, backbone=backbone, training=training)
