"""What speaks against each user, held against luck: a user with three rows needs worse rows than one with thirty.

The chance of a user is that as many rows, drawn at random from all users' rows, have a mean quality as low as theirs. It is worked out
and not drawn: qualities are rounded to a grid, so that the sum of n of them has a distribution that Fourier transforms give. Over all
users the chances become q by the procedure of Benjamini and Hochberg (1995): proposing everybody with q below 0.05 lets one expect that
at most a twentieth of them is there by luck. Luck in rows is all that this knows: a user whose likes follow no taste is no accident
either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from e2urec_core.pollution.quality import label_quality
from e2urec_core.pollution.rule import Quality

GRID = 200
"""Steps from quality 0 to quality 1."""


@dataclass(frozen=True)
class HeldOut:
    """Training rows as networks answer them that never trained on their users.

    Args:
        example_ids: int64, (row,).
        users: The users' numbers, int64, (row,).
        labels: 0 or 1, (row,).
        yes: p(Yes), (row,).
    """

    example_ids: numpy.ndarray
    users: numpy.ndarray
    labels: numpy.ndarray
    yes: numpy.ndarray

    @property
    def own(self) -> numpy.ndarray:
        """Probability of each row's own label, (row,)."""
        return numpy.where(self.labels == 1, self.yes, 1 - self.yes)


@dataclass(frozen=True)
class Evidence:
    """What speaks against each user; all arrays are (user,).

    Args:
        users: The users' numbers, rising.
        rows: Number of their rows.
        score: Mean quality of their labels, 0 to 1.
        own: Mean probability of their own labels, 0 to 1.
        chance: That luck alone gives a score as low.
        q: The same over all users.
    """

    users: numpy.ndarray
    rows: numpy.ndarray
    score: numpy.ndarray
    own: numpy.ndarray
    chance: numpy.ndarray
    q: numpy.ndarray


def evidence(held: HeldOut, quality: Quality) -> Evidence:
    """What speaks against each user.

    Raises:
        MissingPackage: cleanlab is not installed.
    """
    found = label_quality(held.labels, held.yes, quality)
    users, whose, rows = numpy.unique(held.users, return_inverse=True, return_counts=True)
    score, own = (numpy.bincount(whose, values) / rows for values in (found, held.own))
    chance = chance_of_sums(found, whose, rows)
    return Evidence(users, rows, score, own, chance, benjamini_hochberg(chance))


def chance_of_sums(quality: numpy.ndarray, whose: numpy.ndarray, rows: numpy.ndarray) -> numpy.ndarray:
    """Chance that as many rows as each user has, drawn from all rows with replacement, have a sum as low as theirs, (user,).

    Args:
        quality: 0 to 1, (row,).
        whose: Place of each row's user, (row,).
        rows: Number of each user's rows, at least 1, (user,).

    >>> chance_of_sums(numpy.array([0.0, 0.0, 1.0, 1.0]), numpy.array([0, 0, 1, 2]), numpy.array([2, 1, 1])).round(6)
    array([0.25, 1.  , 1.  ])
    """
    steps = numpy.rint(quality * GRID).astype(numpy.int64)
    share = numpy.bincount(steps, minlength=GRID + 1) / len(steps)
    sums = numpy.rint(numpy.bincount(whose, steps)).astype(numpy.int64)
    chance = numpy.empty(len(rows))
    for count in numpy.unique(rows):
        length = 1 << int(count * GRID).bit_length()
        at_most = numpy.fft.irfft(numpy.fft.rfft(share, length) ** count, length).cumsum()
        chance[rows == count] = at_most[sums[rows == count]]
    # The transform leaves about 1e-16 a step, which is no evidence.
    return chance.clip(1e-12, 1)


def benjamini_hochberg(chance: numpy.ndarray) -> numpy.ndarray:
    """The q of each chance, (user,): the least share of false alarms at which it would be called one.

    >>> benjamini_hochberg(numpy.array([0.01, 0.04, 0.03, 0.5])).round(4)
    array([0.04  , 0.0533, 0.0533, 0.5   ])
    """
    order = numpy.argsort(chance, kind="stable")[::-1]
    ranks = numpy.arange(len(chance), 0, -1)
    q = numpy.empty(len(chance))
    q[order] = numpy.minimum.accumulate(chance[order] * len(chance) / ranks).clip(max=1)
    return q
