"""What every gate said of a recommender that is to be released: numbers, bounds, and sentences for people.

A gate is passed only by a value that is there and inside its bounds. A value that is missing, not a number or taken from no rows at all
passes nothing.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from e2urec_core.settings import Settings

Group = Literal["utility", "forgetting", "completeness", "contracts"]
Blind = Literal["", "pass", "refuse"]
Direction = Literal["at_most", "at_least", "between"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Share = Annotated[float, Field(ge=0, le=1)]
NO_VALUE = "–"
HEAD = ("gate", "value", "bound", "margin", "verdict", "remark")


class Gate(Settings):
    """One question to a recommender, and its answer."""

    name: Name
    """Name of the gate."""
    group: Group
    """What it is about."""
    value: float | None
    """What was measured; null where it could not be."""
    low: float | None
    """Smallest value that passes; null where there is none."""
    high: float | None
    """Largest value that passes; null where there is none."""
    margin: float | None
    """How far inside the bounds the value lies, in its unit; below 0 it lies outside; null without a value."""
    passed: bool
    """Whether the recommender may pass."""
    blind: Blind = ""
    """What it counts for that this gate would hardly refuse a recommender that forgot nothing; empty where it would, or nobody asked."""
    sentence: str
    """What was asked and what was found, for people."""
    remark: str = ""
    """What else a reader must know."""

    @classmethod
    def of(
        cls,
        name: str,
        group: Group,
        value: float | None,
        sentence: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        remark: str = "",
        blind: Blind = "",
    ) -> Gate:
        """A gate whose margin and outcome follow from the value and the bounds, of which one at least is given.

        Args:
            name: Name of the gate.
            group: What it is about.
            value: What was measured; None or NaN where it could not be, which does not pass.
            sentence: For people.
            at_most: Largest value that passes.
            at_least: Smallest value that passes.
            remark: What else a reader must know; where there is no value, why.
            blind: See the field.
        """
        told = value if value is not None and math.isfinite(value) else None
        margin = _margin(told, at_least, at_most)
        return cls(
            name=name,
            group=group,
            value=told,
            low=at_least,
            high=at_most,
            margin=margin,
            passed=_passes(margin, blind),
            blind=blind,
            sentence=sentence,
            remark=remark if told is not None else f"Nothing could be measured: {remark or 'the value is not a number'}.",
        )

    @property
    def direction(self) -> Direction:
        """How the bounds bound."""
        return "between" if self.low is not None and self.high is not None else "at_most" if self.low is None else "at_least"

    @property
    def bound(self) -> float:
        """The bound; of two, the one that is nearer to the value."""
        low, high, value = self.low, self.high, self.value
        if low is None or high is None:
            return next(end for end in (low, high) if end is not None)
        return low if value is not None and value - low < high - value else high

    @property
    def bounds(self) -> str:
        """The bounds for people."""
        if self.direction == "between":
            return f"{shown(self.low)} to {shown(self.high)}"
        return f"{'at most' if self.direction == 'at_most' else 'at least'} {shown(self.bound)}"

    @property
    def verdict(self) -> str:
        """One word or two for people."""
        if self.passed:
            return "blind, passed" if self.blind else "passed"
        return "REFUSED, blind" if self.margin is not None and self.margin >= 0 else "REFUSED"

    @model_validator(mode="after")
    def _says_what_follows_from_its_value(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError(f"the gate {self.name} has no bound")
        if self.margin != _margin(self.value, self.low, self.high) or self.passed != _passes(self.margin, self.blind):
            raise ValueError(f"the outcome of the gate {self.name} does not follow from its value and its bounds")
        return self


class Power(Settings):
    """How well a gate sees: what it says of the unmodified champion, which remembers everybody."""

    gate: Name
    """The gate; `forgetting_without_retrain` where two of them are taken together."""
    champion: float | None
    """The champion's value; null where several gates are taken together, or nothing could be measured."""
    refused: bool
    """Whether the champion is refused."""
    refused_share: Share | None
    """Share of the draws of users in which the champion would be refused, a small one overstated; null where nothing was drawn."""
    num_resamples: int = Field(ge=0)
    """Draws of as many users as there are, with replacement within each group."""
    blind: bool
    """Whether the share is below what is asked for."""
    sentence: str
    """The same for people."""


class VerdictDocument(Settings):
    """The whole of verdict.json."""

    schema_version: Literal[1] = 1
    """Version of this schema; it rises when a field changes its meaning or goes."""
    candidate: Digest
    """Digest of the recommender that is to be released."""
    champion: Digest = ""
    """Digest of the recommender in production; empty where there is none."""
    retrain: Digest = ""
    """Digest of the Retrain that it was held against; empty where there is none, as at night."""
    seed: int
    """Seed of the draws."""
    counts: dict[str, Annotated[int, Field(ge=0)]]
    """Rows and users by name, such as `test_rows` and `holdout_users`."""
    gates: tuple[Gate, ...] = Field(min_length=1)
    """What every gate said."""
    power: tuple[Power, ...] = ()
    """How well the gates see."""
    passed: bool
    """Whether every gate was passed."""

    @classmethod
    def of(cls, gates: list[Gate], power: list[Power], **told: Any) -> VerdictDocument:
        """The document of these gates; passed where all of them are."""
        return cls(gates=tuple(gates), power=tuple(power), passed=all(gate.passed for gate in gates), **told)

    @model_validator(mode="after")
    def _passes_only_with_every_gate(self) -> Self:
        names = [gate.name for gate in self.gates]
        if len(set(names)) != len(names):
            raise ValueError(f"a gate was asked twice: {', '.join(names)}")
        if self.passed != all(gate.passed for gate in self.gates):
            raise ValueError("the verdict does not follow from its gates")
        return self

    def gate(self, name: str) -> Gate:
        """The gate of this name."""
        return next(gate for gate in self.gates if gate.name == name)

    def reasons(self) -> list[str]:
        """Why the recommender is refused, one sentence a gate; empty where it is not."""
        return [f"{gate.sentence} {gate.remark}".strip() for gate in self.gates if not gate.passed]

    def table(self) -> list[list[str]]:
        """The gates for people: the head, then one row a gate."""
        rows = [[gate.name, shown(gate.value), gate.bounds, shown(gate.margin), gate.verdict, gate.remark] for gate in self.gates]
        return [list(HEAD), *rows]

    @property
    def text(self) -> str:
        """All that a person must read, line by line: the outcome, why, and how well the other gates see."""
        reasons, failed = self.reasons(), {gate.name for gate in self.gates if not gate.passed}
        head = f"passed all {len(self.gates)} gates" if self.passed else f"refused by {len(reasons)} of {len(self.gates)} gates"
        return "\n".join([head, *(f"- {line}" for line in (*reasons, *(each.sentence for each in self.power if each.gate not in failed)))])

    def to_json(self) -> str:
        """The text of verdict.json; equal documents give equal bytes."""
        return json.dumps(self.canonical(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> VerdictDocument:
        """The document of a verdict.json; an unknown field, a value of another type, NaN or an outcome that does not follow is refused."""
        return cls.model_validate_json(text, strict=True)


def shown(value: float | None) -> str:
    """A number for people, four digits after the point; small ones with a power of ten.

    >>> shown(0.71239), shown(0.0), shown(3e-7), shown(None)
    ('0.7124', '0', '3.0e-07', '–')
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    if value == round(value):
        return f"{int(value):,}"
    return f"{value:.1e}" if abs(value) < 0.0005 else f"{value:.4f}"


def _margin(value: float | None, low: float | None, high: float | None) -> float | None:
    if value is None:
        return None
    inside = [value - low] if low is not None else []
    return min([*inside, high - value] if high is not None else inside, default=None)


def _passes(margin: float | None, blind: str) -> bool:
    return margin is not None and margin >= 0 and blind != "refuse"
