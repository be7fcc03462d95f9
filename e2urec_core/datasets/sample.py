"""Ratings generated from a seed, so that the whole pipeline runs without a file.

Users have stable tastes: three genres are popular, each job differs in one, and films of loved genres are rated high, with noise.
Two minorities give the model something that only they can teach it. *Polluted* users rate against the taste of their job, and flood
a genre that others seldom watch, which is how their histories tell who they are. *Idiosyncratic* users like what no genre explains.

Source: this project; nothing is taken from a real data set. Licence: that of this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from e2urec_core.data.files import LINE
from e2urec_core.datasets.base import Dataset, Source
from e2urec_core.seeding import numpy_generator

if TYPE_CHECKING:
    import numpy

GENRES = ("Western", "Space", "Heist", "Romance", "Ghost", "Pirate")
_FIRST = ("Silent", "Crimson", "Golden", "Broken", "Distant", "Hidden", "Savage", "Gentle", "Frozen", "Burning", "Lonely", "Electric")
_SECOND: dict[str, tuple[str, ...]] = {
    "Western": ("Saddle", "Canyon", "Sheriff", "Stampede", "Frontier"),
    "Space": ("Orbit", "Nebula", "Comet", "Starship", "Galaxy"),
    "Heist": ("Vault", "Getaway", "Diamond", "Safecracker", "Alibi"),
    "Romance": ("Bouquet", "Serenade", "Valentine", "Honeymoon", "Wedding"),
    "Ghost": ("Phantom", "Cellar", "Seance", "Graveyard", "Haunting"),
    "Pirate": ("Galleon", "Corsair", "Buccaneer", "Lagoon", "Cutlass"),
}
_JOBS = ("teacher", "nurse", "farmer", "engineer")
_START_S = 978_307_200  # 2001-01-01 00:00:00 UTC


class Sample(Dataset):
    """Generated films, users and ratings.

    Cohorts: `steady`, `polluted`, `idiosyncratic`.
    """

    licence: ClassVar[str] = "generated here; no restriction"
    source: ClassVar[str] = "generated from a seed"

    kind: Literal["sample"] = "sample"
    """Name of the dataset."""
    num_users: int = Field(400, ge=20, le=1_000_000)
    """Users to generate."""
    ratings_per_user: int = Field(30, ge=8, le=300)
    """Mean number of ratings of a user; single users have half as many to half as many again."""
    polluted_share: float = Field(0.15, ge=0, le=0.5)
    """Share of users whose labels contradict their tastes."""
    idiosyncratic_share: float = Field(0.1, ge=0, le=0.5)
    """Share of users whose likes follow no genre."""
    data_seed: int = Field(7, ge=0)
    """Seed of the generator; apart from the run's seed, so that seeds of training can be compared on equal rows."""

    def scan(self) -> Source:
        """Generate the three tables; the same settings give the same rows."""
        import polars as pl

        random = numpy_generator(self.data_seed, "sample")
        titles = [(f"{first} {second}", genre) for genre in GENRES for second in _SECOND[genre] for first in _FIRST]
        genre_of = [GENRES.index(genre) for _, genre in titles]
        loves = _taste_table()[random.permutation(len(_JOBS))]
        people = pl.DataFrame([self._person(user, random) for user in range(self.num_users)])
        rows = [row for person in people.iter_rows(named=True) for row in _ratings(person, loves, genre_of, self.ratings_per_user, random)]
        kinds = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp_s": pl.Int64}
        ratings = pl.LazyFrame(rows, schema=kinds, orient="row").with_row_index(LINE, 1)
        return Source(
            rows=ratings.with_columns(
                label=(pl.col("rating") > self.like_above).cast(pl.Int8), rule=pl.lit(None, pl.String), file=pl.lit("generated")
            ),
            items=pl.LazyFrame({"item_id": [f"f{index}" for index in range(len(titles))], "title": [title for title, _ in titles]}),
            users=people.lazy().select("user_id", "profile", "cohort"),
            users_are_all=True,
        )

    def _person(self, user: int, random: numpy.random.Generator) -> dict[str, object]:
        job = int(random.integers(len(_JOBS)))
        draw = float(random.random())
        cohort = "polluted" if draw < self.polluted_share else "steady"
        if self.polluted_share <= draw < self.polluted_share + self.idiosyncratic_share:
            cohort = "idiosyncratic"
        profile = f"The user works as {'an' if _JOBS[job][0] in 'aeiou' else 'a'} {_JOBS[job]}."
        return {"user_id": f"u{user}", "profile": profile, "cohort": cohort, "job": job}


def _taste_table() -> numpy.ndarray:
    """Which genres each job loves, shape (job, genre) of 0 and 1: the first three are popular, and each job differs in one genre."""
    import numpy

    table = numpy.zeros((len(_JOBS), len(GENRES)), dtype=int)
    table[:, :3] = 1
    for job in range(len(_JOBS)):
        table[job, job % 5] = 1 - table[job, job % 5]
    return table


def _ratings(
    person: dict[str, object], loves: numpy.ndarray, genre_of: list[int], mean_count: int, random: numpy.random.Generator
) -> list[tuple[str, str, float, int]]:
    """The ratings of one person: distinct films over one year, in time order."""
    import numpy

    count = int(random.integers(max(7, mean_count // 2), mean_count + mean_count // 2 + 1))
    polluted, idiosyncratic = (person["cohort"] == name for name in ("polluted", "idiosyncratic"))
    # Polluted accounts push the last genre, which others seldom watch: that is how their histories tell them apart.
    weight = numpy.array([4.0 if polluted and genre == 5 else 0.15 if genre == 5 else 1.0 for genre in genre_of])
    films = random.choice(len(genre_of), size=count, replace=False, p=weight / weight.sum())
    times = numpy.sort(random.integers(0, 365 * 86_400, size=count)) + _START_S
    rows = []
    for film, second in zip(films.tolist(), times.tolist(), strict=True):
        loved = bool(loves[int(str(person["job"])), genre_of[film]])
        if polluted:
            loved = not loved
        elif idiosyncratic:
            loved = bool(random.random() < 0.5)
        likes = loved if random.random() < 0.95 else not loved
        stars = random.choice([4, 5]) if likes else random.choice([1, 2, 3])
        rows.append((str(person["user_id"]), f"f{film}", float(stars), int(second)))
    return rows
