"""What difference.json holds: the facts of two released versions, and what changes between their answers on the same rows.

Version A is the one that would go, version B the one that would come. Users stand here under pseudonyms alone; NaN is refused on the
way in and on the way out. The page and the lines in the terminal are made from this alone.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from e2urec_core.report.measures import Count, Name, NonNegative, Share
from e2urec_core.settings import Settings

Verdict = Literal["equal", "better", "worse", "higher", "lower", "not told apart"]
MeasureName = Literal["auc", "log_loss", "accuracy", "calibration_error", "mean_yes"]
PSEUDONYM = r"^[0-9a-f]{20}$"
Pseudonym = Annotated[str, Field(pattern=PSEUDONYM)]
Change = Annotated[float, Field(ge=-1, le=1)]


class DifferenceRule(Settings):
    """How two versions are compared."""

    seed: int = Field(0, ge=0)
    """Seed of the draws of users."""
    num_draws: int = Field(1000, ge=10, le=100_000)
    """Draws of users behind the intervals."""
    fewest_users: int = Field(20, ge=2)
    """Users that rows must have for intervals to be drawn; those of fewer are too narrow."""
    num_bins: int = Field(10, ge=1, le=100)
    """Bins of the calibration curves, each with about equally many rows."""
    most_listed: int = Field(20, ge=1, le=1000)
    """Users, and items, that are listed at most."""
    fewest_rows: int = Field(3, ge=1)
    """Rows that a user or an item must have to be listed; the mean of fewer says little."""
    fewest_ranked: int = Field(5, ge=2)
    """Rows that a user must have for the order of their items to be compared."""


class Gate(Settings):
    """What one gate to release said of a version."""

    name: Name
    """Name of the gate."""
    value: float | None = None
    """What was measured; null where it could not be."""
    bound: str = ""
    """What the gate asks for, as people read it, such as `at most 0.01`."""
    margin: float | None = None
    """Room between value and bound, in the unit of the value; negative where the bound is broken."""
    passed: bool
    """Whether the gate let the version pass."""
    remark: str = ""
    """What a reader must know beside the numbers."""


class VersionFacts(Settings):
    """What is known of one released version, taken from its card."""

    version: int = Field(ge=1)
    """Its number in the model registry."""
    kind: Name
    """Kind of artifact that it was released from, such as `Unlearned`."""
    method: str = ""
    """Method that made it; empty for an original."""
    run: Name
    """Run that made it."""
    made_at: Name
    """When it was made, UTC, as the card says it."""
    digest: Name
    """Digest of the recommender."""
    measures: dict[str, float] = Field(default_factory=dict)
    """Measures on its card, as they were taken when it was released."""
    gates: list[Gate] = Field(default_factory=list)
    """What every gate said of it."""
    num_forgotten_requests: Count = 0
    """Forget requests that this version has carried out, those of the versions before it included."""

    @model_validator(mode="after")
    def _each_gate_speaks_once(self) -> Self:
        names = [gate.name for gate in self.gates]
        if len(set(names)) != len(names):
            raise ValueError(f"a gate of version {self.version} has two rows: {', '.join(names)}")
        return self


class Measure(Settings):
    """One measure of both versions on the same rows."""

    name: MeasureName
    """Which measure it is."""
    a: float | None = None
    """Its value for version A; null where it is undefined."""
    b: float | None = None
    """Its value for version B."""
    difference: float | None = None
    """B less A."""
    low: float | None = None
    """Lower end of the interval that holds the middle 95 % of the draws of users; null where it was not drawn."""
    high: float | None = None
    """Its upper end."""
    verdict: Verdict | None = None
    """What the interval says; `better` and `worse` on test rows alone; null without an interval."""


class Histogram(Settings):
    """How the change of p(Yes), B less A, is spread over rows."""

    edges: list[Change] = Field(min_length=2)
    """Edges of the bins, rising; the first and the last reach far enough for every row."""
    counts: list[Count]
    """Rows in each bin; one less than there are edges."""

    @model_validator(mode="after")
    def _bins_fit_the_edges(self) -> Self:
        if any(left >= right for left, right in pairwise(self.edges)):
            raise ValueError("the edges do not rise")
        if len(self.counts) != len(self.edges) - 1:
            raise ValueError(f"{len(self.counts)} bins do not fit {len(self.edges)} edges")
        return self


class Changes(Settings):
    """What both versions say of one group of rows."""

    num_rows: Count
    """Rows that both were asked about."""
    num_users: Count
    """Users of these rows."""
    num_equal: Count
    """Rows whose p(Yes) is the same number in both."""
    num_to_yes: Count
    """Rows whose answer turns from No to Yes; p = 0.5 counts as Yes."""
    num_to_no: Count
    """Rows whose answer turns from Yes to No."""
    mean_absolute: Share | None = None
    """Mean of |p_b - p_a|; null without rows."""
    largest: Share | None = None
    """Largest |p_b - p_a|; null without rows."""
    measures: list[Measure]
    """AUC, log loss, accuracy, calibration error and mean p(Yes) of both."""
    histogram: Histogram
    """How p_b - p_a is spread."""

    @property
    def num_flipped(self) -> int:
        """Rows whose answer turns."""
        return self.num_to_yes + self.num_to_no


class CalibrationCurve(Settings):
    """What a version told and what was true, bin by bin, from the smallest p(Yes) to the largest."""

    told: list[Share]
    """Mean p(Yes) of each bin."""
    liked: list[Share]
    """Share of rows in each bin whose label is Yes."""
    rows: list[Annotated[int, Field(ge=1)]]
    """Rows in each bin."""

    @model_validator(mode="after")
    def _bins_are_whole(self) -> Self:
        if not len(self.told) == len(self.liked) == len(self.rows):
            raise ValueError(f"{len(self.told)} means, {len(self.liked)} shares and {len(self.rows)} counts are no curve")
        return self


class Moved(Settings):
    """How far the rows of one user or one item moved."""

    name: str
    """Whose rows: a user's pseudonym or an item's title."""
    num_rows: int = Field(ge=1)
    """How many there are."""
    mean_absolute: Share
    """Mean of |p_b - p_a|."""
    mean_change: Change
    """Mean of p_b - p_a; positive where version B says Yes more readily."""
    log_loss_a: NonNegative
    """Mean negative log-likelihood of the labels by version A; nats."""
    log_loss_b: NonNegative
    """The same by version B."""


class MovedUser(Moved):
    """How far the rows of one user moved."""

    name: Pseudonym
    """The user's pseudonym, 20 hex digits."""


class MovedUsers(Settings):
    """The users whose test rows moved most."""

    most: list[MovedUser]
    """From the largest mean |change| down."""
    num_all: Count
    """Users with a test row."""
    num_few: Count
    """Those with too few rows to be listed."""


class MovedItems(Settings):
    """The items whose test rows moved most."""

    most: list[Moved]
    """From the largest mean |change| down."""
    num_all: Count
    """Items with a test row."""
    num_few: Count
    """Those with too few rows to be listed."""


class RankAgreement(Settings):
    """Whether both versions put a user's test rows in the same order."""

    num_users: Count
    """Users with enough test rows."""
    median_tau: Change | None = None
    """Median over these users of Kendall's tau-b between both orders: 1 same order, 0 unrelated, -1 reversed; null where undefined."""
    num_undefined: Count = 0
    """Users whose tau is undefined, because one version gives all their rows the same p(Yes) and the other does not."""
    share_unchanged: Share | None = None
    """Share of these users whose order is the same to the last row; null without such users."""
    share_same_first: Share | None = None
    """Share of these users whose first row is the same; of tied first rows one in common is enough."""


class Flips(Settings):
    """How many answers turn among the test rows of one group of users."""

    users: Literal["all", "active", "inactive"]
    """Which users: active ones have more rows than the median user."""
    num_users: Count
    """How many they are."""
    num_rows: Count
    """Their test rows."""
    num_to_yes: Count
    """Rows whose answer turns from No to Yes."""
    num_to_no: Count
    """Rows whose answer turns from Yes to No."""


class DifferenceDocument(Settings):
    """The whole of difference.json."""

    schema_version: Literal[1] = 1
    """Version of this schema; it rises when a field changes its meaning or goes."""
    a: VersionFacts
    """The version that would go."""
    b: VersionFacts
    """The version that would come."""
    test: Changes
    """Both on the test rows."""
    forgotten: Changes | None = None
    """Both on the rows that version B has forgotten; null where it has forgotten nobody."""
    calibration_a: CalibrationCurve
    """Calibration of version A on the test rows."""
    calibration_b: CalibrationCurve
    """Calibration of version B on the test rows."""
    users: MovedUsers
    """Users whose test rows moved most."""
    items: MovedItems
    """Items whose test rows moved most."""
    ranks: RankAgreement
    """Whether users' items keep their order."""
    flips: list[Flips]
    """Answers that turn, of all users, of active and of inactive ones."""
    activity: Literal["training rows", "test rows"]
    """What makes a user active: how many training rows they have, or, where that was not told, how many test rows."""
    rule: DifferenceRule
    """How they were compared."""
    notes: list[str] = Field(default_factory=list)
    """Sentences that a reader of the numbers must know."""

    def to_json(self) -> str:
        """The text of difference.json; equal documents give equal bytes."""
        return json.dumps(self.canonical(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The document of a difference.json; an unknown field, a number out of bounds or NaN is refused."""
        return cls.model_validate(json.loads(text))
