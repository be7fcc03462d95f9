"""Made-up answers of recommenders about which everything is known: who learnt from whom, who forgot, who was destroyed."""

from __future__ import annotations

import dataclasses

import numpy

from e2urec_core.evaluation import Scored
from e2urec_core.release.evidence import FORGOTTEN, GROUPS, STRANGERS, TEST, Evidence
from e2urec_core.seeding import numpy_generator

ROWS_PER_USER = 15
USERS = {TEST: 80, FORGOTTEN: 30, STRANGERS: 30}
# How far a recommender that trained on a row is drawn to its label.
MEMORY = 1.5


class World:
    """Users, rows and labels of one seed; recommenders are asked for by what they are."""

    def __init__(self, seed: int, **users: int) -> None:
        """Draw everybody; `users` changes how many there are in a group."""
        self._seed, random = seed, numpy_generator(seed, "world")
        counts = {**USERS, **users}
        self.users = {group: numpy.repeat(100_000 * at + numpy.arange(counts[group]), ROWS_PER_USER) for at, group in enumerate(GROUPS)}
        tastes = {group: random.normal(0, 0.8, counts[group]) for group in GROUPS}
        places = {group: rows % 100_000 for group, rows in self.users.items()}
        self._liking = {group: tastes[group][places[group]] + random.normal(0, 1.2, len(places[group])) for group in GROUPS}
        self.labels = {group: (random.random(len(rows)) < _share(rows)).astype(int) for group, rows in self._liking.items()}

    def retrain(self, number: int = 0) -> dict[str, numpy.ndarray]:
        """Never saw the forgotten users; the `number` is its seed."""
        random = numpy_generator(self._seed, f"retrain-{number}")
        return {group: _share(0.8 * rows + random.normal(0, 0.3, len(rows))) for group, rows in self._liking.items()}

    def remembers(self, pull: float = MEMORY, number: int = 99) -> dict[str, numpy.ndarray]:
        """Is drawn to the labels of the forgotten rows, or, below 0, away from them."""
        own = self.retrain(number)
        odds = numpy.log(own[FORGOTTEN] / (1 - own[FORGOTTEN])) + pull * (2 * self.labels[FORGOTTEN] - 1)
        return {**own, FORGOTTEN: _share(odds)}

    def destroyed(self) -> dict[str, numpy.ndarray]:
        """Answers anything."""
        random = numpy_generator(self._seed, "destroyed")
        return {group: random.random(len(rows)) for group, rows in self._liking.items()}

    def evidence(self, **answers: dict[str, numpy.ndarray] | None) -> Evidence:
        """What these recommenders, by role, answered; the champion remembers where none is given, and None leaves it out."""
        roles = {role: told for role, told in {"champion": self.remembers(), **answers}.items() if told is not None}
        groups = {
            group: Scored(numpy.arange(len(rows)) + 10_000 * at, self.labels[group], {role: told[group] for role, told in roles.items()})
            for at, (group, rows) in enumerate(self.users.items())
        }
        # The first half of the test users never trained; the others the more, the later they come.
        people = numpy.unique(self.users[TEST])
        training = numpy.repeat(people, numpy.maximum(0, numpy.arange(len(people)) - len(people) // 2 + 1))
        return Evidence(groups, self.users, training)


def without(evidence: Evidence, group: str, role: str | None = None) -> Evidence:
    """The same without the rows of a group, or without a role's answers to them."""
    rows = evidence.groups[group]
    if role is not None:
        silent = {**rows.yes, role: numpy.full(len(rows.labels), numpy.nan)}
        return dataclasses.replace(evidence, groups={**evidence.groups, group: dataclasses.replace(rows, yes=silent)})
    none = Scored(rows.example_ids[:0], rows.labels[:0], {name: yes[:0] for name, yes in rows.yes.items()})
    return dataclasses.replace(
        evidence, groups={**evidence.groups, group: none}, users={**evidence.users, group: evidence.users[group][:0]}
    )


def _share(odds: numpy.ndarray) -> numpy.ndarray:
    shares: numpy.ndarray = 1 / (1 + numpy.exp(-odds))
    return shares
