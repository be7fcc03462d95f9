"""Asks whether forgotten users can be told from strangers, users nobody ever trained on, by a recommender's losses on their rows.

To a recommender that knows nothing of the forgotten users, both groups are the same: who of all these users was forgotten is a label
without meaning. So users are exchanged between the groups again and again, and the true groups must not stand out. Users are exchanged
and not rows, because rows of one user hang together. Both ends count: losses far above those of strangers give a user away too.

How much such a test can see depends on the users at hand, so it says how often it would refuse a recommender that forgot nothing:
that one is put through the same test on users drawn from each group with replacement.

Source: permutation tests (Fisher 1935), with the truth counted among the draws (Phipson and Smyth 2010); membership by the loss (Yeom
et al. 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy

# Sums of the same users run in another order; what differs by less is the same.
ROUNDING = 1e-12
CELLS_AT_A_TIME = 2**23
# AUC of an attack that tells nothing.
UNTOLD = 0.5


@dataclass(frozen=True)
class People:
    """The losses of both groups' users: first the forgotten ones, then the strangers.

    Args:
        num_forgotten: How many of them are forgotten, at least 1.
        num_people: Forgotten users and strangers together, at least one more.
        place: Which of them each row is of, (row,).
        losses: Nats, finite, (row,).
    """

    num_forgotten: int
    num_people: int
    place: numpy.ndarray
    losses: numpy.ndarray

    @classmethod
    def of(
        cls, forgotten: numpy.ndarray, forgotten_losses: numpy.ndarray, strangers: numpy.ndarray, stranger_losses: numpy.ndarray
    ) -> People:
        """From the user and the loss of each row of each group, (row,) each; within a group, users stand in the order of their numbers."""
        first, second = (numpy.unique(users, return_inverse=True) for users in (forgotten, strangers))
        place = numpy.concatenate([first[1], len(first[0]) + second[1]])
        return cls(len(first[0]), len(first[0]) + len(second[0]), place, numpy.concatenate([forgotten_losses, stranger_losses]))

    @property
    def counts(self) -> numpy.ndarray:
        """Rows of each user, (person,)."""
        return numpy.bincount(self.place, minlength=self.num_people)

    @property
    def means(self) -> numpy.ndarray:
        """Mean loss of each user, nats, (person,)."""
        return numpy.bincount(self.place, self.losses, self.num_people) / self.counts

    def rank_sums(self, times: numpy.ndarray) -> numpy.ndarray:
        """Sum of the ranks of each user's rows where every user stands there so many `times`, (person,); the smallest loss ranks highest.

        Equal losses share the mean of their ranks. A user who stands there several times is told once.
        """
        _, level = numpy.unique(-self.losses, return_inverse=True)
        weights = numpy.bincount(level, times[self.place])
        ranks = numpy.cumsum(weights) - weights + (weights + 1) / 2
        return numpy.bincount(self.place, ranks[level], self.num_people)

    def as_they_are(self) -> numpy.ndarray:
        """Every user once, (1, person)."""
        return numpy.arange(self.num_people)[None]

    def resampled(self, num_draws: int, random: numpy.random.Generator) -> numpy.ndarray:
        """As many users as there are, drawn with replacement within each group, (draw, person)."""
        groups = (0, self.num_forgotten), (self.num_forgotten, self.num_people)
        return numpy.concatenate([random.integers(low, high, size=(num_draws, high - low)) for low, high in groups], axis=1)


@dataclass(frozen=True)
class Outcome:
    """What both tests say, for each draw of users, (draw,) each.

    Args:
        attack: AUC of the attack by the loss, 0.5 where it cannot tell.
        low: Smallest AUC that passes.
        high: Largest AUC that passes.
        gap: Mean over the forgotten users of their mean loss, less that of the strangers, nats.
        p_value: Share of the splits whose gap is as far from 0.
    """

    attack: numpy.ndarray
    low: numpy.ndarray
    high: numpy.ndarray
    gap: numpy.ndarray
    p_value: numpy.ndarray

    @property
    def attacked(self) -> numpy.ndarray:
        """Whether the attack lies outside what passes, (draw,)."""
        return (self.attack < self.low) | (self.attack > self.high)


def examine(people: People, splits: numpy.ndarray, drawn: numpy.ndarray, level: float, least_half_width: float) -> Outcome:
    """Put draws of users through both tests.

    Args:
        people: The losses.
        splits: See `draw_splits`.
        drawn: Which users stand there, `as_they_are` or `resampled`, (draw, person).
        level: Chance with which each test refuses a recommender that never saw the forgotten users, at most.
        least_half_width: An attack this near to 0.5 passes in any case.
    """
    sums, counts = numpy.empty((2, people.num_people, len(drawn)))
    for number, users in enumerate(drawn):
        times = numpy.bincount(users, minlength=people.num_people)
        sums[:, number], counts[:, number] = people.rank_sums(times)[users], people.counts[users]
    attacks, gaps = attack_auc(splits, sums, counts), loss_gap(splits, people.means[drawn].T)
    low, high = band(attacks, level)
    low, high = numpy.minimum(low, UNTOLD - least_half_width), numpy.maximum(high, UNTOLD + least_half_width)
    return Outcome(attacks[0], low, high, gaps[0], p_values(gaps))


def draw_splits(people: People, num_draws: int, random: numpy.random.Generator) -> numpy.ndarray:
    """Who counts as forgotten, (split, person) of True and False; the truth comes first, and again only by chance.

    All splits there are, each once, where they are no more than `num_draws`; then nothing is drawn.

    >>> people = People.of(numpy.array([7]), numpy.array([0.1]), numpy.array([8, 9]), numpy.array([0.5, 0.9]))
    >>> draw_splits(people, 2000, numpy.random.default_rng(0)).astype(int)
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 0, 1]])
    """
    size, among = people.num_forgotten, people.num_people
    if math.comb(among, size) <= num_draws:
        chosen = numpy.array(list(combinations(range(among), size)))
        splits = numpy.zeros((len(chosen), among), dtype=bool)
        numpy.put_along_axis(splits, chosen, values=True, axis=1)
        return splits
    truth = numpy.arange(among) < size
    drawn = random.permuted(numpy.broadcast_to(truth, (num_draws, among)), axis=1)
    return numpy.concatenate([truth[None], drawn])


def loss_gap(splits: numpy.ndarray, means: numpy.ndarray) -> numpy.ndarray:
    """Mean over the users of a split of their mean loss, less that of all others, nats, (split, ...).

    Args:
        splits: (split, person).
        means: Mean loss of each user, (person, ...).

    >>> loss_gap(numpy.array([[True, False, False]]), numpy.array([0.1, 0.5, 0.9])).round(4)  # 0.1 - (0.5 + 0.9) / 2
    array([-0.6])
    """
    inside, size = _sums(splits, means), int(splits[0].sum())
    gaps: numpy.ndarray = inside / size - (means.sum(axis=0) - inside) / (splits.shape[1] - size)
    return gaps


def attack_auc(splits: numpy.ndarray, rank_sums: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """Chance that a row of a split's users has a smaller loss than a row of the others, 0 to 1, ties counting one half, (split, ...).

    Args:
        splits: (split, person).
        rank_sums: See `People.rank_sums`, (person, ...).
        counts: Rows of each user, (person, ...).

    >>> people = People.of(numpy.array([7, 7]), numpy.array([0.1, 0.6]), numpy.array([8, 9]), numpy.array([0.5, 0.9]))
    >>> attack_auc(numpy.array([[True, False, False]]), people.rank_sums(numpy.ones(3)), people.counts)  # 3 of 4 pairs
    array([0.75])
    """
    rows = _sums(splits, counts)
    others = counts.sum(axis=0) - rows
    chances: numpy.ndarray = (_sums(splits, rank_sums) - rows * (rows + 1) / 2) / (rows * others)
    return chances


def p_values(statistics: numpy.ndarray) -> numpy.ndarray:
    """Share of the splits that lie as far from 0 as the first, the truth, does, to either side: (1 + extreme) / (1 + draws), (...).

    >>> p_values(numpy.array([-0.6, 0.0, 0.6, 0.1])).item()  # the truth itself, and 0.6
    0.5
    """
    shares: numpy.ndarray = (numpy.abs(statistics) >= numpy.abs(statistics[0]) - ROUNDING).mean(axis=0)
    return shares


def band(statistics: numpy.ndarray, level: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What the middle of the splits holds, (...) each: by chance, the truth is below `low` or above `high` with `level` at most.

    >>> band(numpy.arange(100.0), 0.1)
    (np.float64(5.0), np.float64(94.0))
    """
    ordered = numpy.sort(statistics, axis=0)
    outside = int(level / 2 * len(ordered))
    return ordered[outside], ordered[len(ordered) - 1 - outside]


def _sums(splits: numpy.ndarray, values: numpy.ndarray) -> numpy.ndarray:
    """Sum of `values` over the people of each split; some splits at a time, as numbers take eight times their memory."""
    step = max(1, CELLS_AT_A_TIME // splits.shape[1])
    return numpy.concatenate([splits[start : start + step].astype(numpy.float64) @ values for start in range(0, len(splits), step)])
