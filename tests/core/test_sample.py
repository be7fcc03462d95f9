"""The generated dataset: the same rows everywhere, and minorities that only their own rows can teach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from e2urec_core.datasets.base import Tables, ordered
from e2urec_core.datasets.sample import GENRES, Sample
from e2urec_core.errors import BadInput

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def many() -> Tables:
    return Sample(num_users=600).read()


def digest_of_rows(tables: Tables) -> list[int]:
    return [int(frame.hash_rows(seed=1).sum()) for frame in (tables.interactions, tables.items, tables.users)]


def test_the_same_settings_give_the_same_rows_in_another_process() -> None:
    code = (
        "from e2urec_core.datasets.sample import Sample; t = Sample(num_users=20).read();"
        "print(t.interactions.write_csv() + t.items.write_csv() + t.users.write_csv(), end='')"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    here = Sample(num_users=20).read()
    assert told == here.interactions.write_csv() + here.items.write_csv() + here.users.write_csv()


def test_another_data_seed_gives_other_rows() -> None:
    assert not Sample(num_users=20, data_seed=1).read().interactions.equals(Sample(num_users=20, data_seed=2).read().interactions)


def test_users_rate_distinct_films_on_five_whole_stars_within_one_year_about_as_often_as_asked(many: Tables) -> None:
    rows = many.interactions
    assert rows.select("user_id", "item_id").is_duplicated().sum() == 0
    assert set(rows["rating"].unique()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    # 2001-01-01 00:00:00 UTC = 978307200 s; 365 days of 86,400 s
    assert 978_307_200 <= rows["timestamp_s"].min() <= rows["timestamp_s"].max() < 978_307_200 + 365 * 86_400
    per_user = rows.group_by("user_id").len()["len"]
    # Half as many to half as many again of 30, and 600 draws of a mean of 30 with a spread of 9 lie within 1.5 of it.
    assert 15 <= per_user.min() <= per_user.max() <= 45
    assert per_user.mean() == pytest.approx(30, abs=1.5)
    assert per_user.len() == 600


def test_cohorts_have_about_their_shares(many: Tables) -> None:
    shares = {cohort: count / 600 for cohort, count in many.users["cohort"].value_counts().iter_rows()}
    # 600 draws: one standard deviation of a share of .15 is .0146, so .06 is four of them.
    assert shares == {
        "polluted": pytest.approx(0.15, abs=0.06),
        "idiosyncratic": pytest.approx(0.10, abs=0.06),
        "steady": pytest.approx(0.75, abs=0.07),
    }


def test_titles_differ_and_name_their_genre_by_their_second_word(many: Tables) -> None:
    assert many.items["title"].n_unique() == many.items.height
    # 6 genres of 5 second words, 12 first words each
    assert many.items.height == len(GENRES) * 5 * 12
    assert many.items["title"].str.split(" ").list.last().n_unique() == len(GENRES) * 5


def likes_by_job_and_genre(many: Tables, cohort: str) -> pl.DataFrame:
    """Share of Yes by job, genre, from at least 20 ratings."""
    rows = many.interactions.join(many.items, on="item_id").join(many.users, on="user_id").filter(pl.col("cohort") == cohort)
    genre = pl.col("item_id").str.strip_prefix("f").cast(pl.Int64) // 60
    counted = rows.group_by("profile", genre.alias("genre")).agg((pl.col("rating") > 3).mean().alias("likes"), pl.len())
    return counted.filter(pl.col("len") >= 20)


def test_steady_users_of_one_job_agree_and_polluted_users_of_the_same_job_rate_the_other_way_round(many: Tables) -> None:
    steady, polluted = (likes_by_job_and_genre(many, cohort) for cohort in ("steady", "polluted"))
    # Rated by taste with 5 % of noise: nearly all Yes or nearly all No.
    assert ((steady["likes"] > 0.85) | (steady["likes"] < 0.15)).all()
    both = steady.join(polluted, on=["profile", "genre"], suffix="_polluted")
    assert both.height >= 12
    assert ((both["likes"] - both["likes_polluted"]).abs() > 0.5).all()


def test_idiosyncratic_users_follow_no_genre(many: Tables) -> None:
    likes = likes_by_job_and_genre(many, "idiosyncratic")["likes"]
    # At least 20 coin tosses each: a share beyond .1 to .9 has a chance of 2 in 10,000.
    assert likes.len() >= 8
    assert likes.is_between(0.1, 0.9).all()


def test_polluted_users_can_be_told_from_their_histories(many: Tables) -> None:
    rows = many.interactions.join(many.users, on="user_id")
    last_genre = pl.col("item_id").str.strip_prefix("f").cast(pl.Int64) // 60 == 5
    shares = dict(rows.group_by("cohort").agg(last_genre.mean().alias("share")).iter_rows())
    # Weights: 4 of 4 + 5 * 1 = .44 against .15 of .15 + 5 * 1 = .03, drawn without replacement
    assert shares["polluted"] > 0.3
    assert shares["steady"] < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: Tables(t.interactions.clear(), t.items, t.users), "0 ratings"),
        (lambda t: Tables(pl.concat([t.interactions, t.interactions.head(2)]), t.items, t.users), "2 of "),
        (lambda t: Tables(t.interactions, pl.concat([t.items, t.items.head(1)]), t.users), "1 of 361 items are listed twice"),
        (lambda t: Tables(t.interactions, t.items, pl.concat([t.users, t.users.head(1)])), "1 of 21 users are listed twice"),
        (lambda t: Tables(t.interactions, t.items, t.users.tail(19)), "name users that the user table does not list"),
        (lambda t: Tables(t.interactions, t.items.clear(), t.users), "name items that the item table does not list"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused_without_naming_a_user(change, message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        ordered(change(Sample(num_users=20).read()))
    assert "u0" not in str(refused.value)


def test_the_order_of_the_source_does_not_matter() -> None:
    tables = Sample(num_users=20).read()
    shuffled = Tables(*(frame.sample(fraction=1, shuffle=True, seed=3) for frame in (tables.interactions, tables.items, tables.users)))
    one, other = ordered(tables), ordered(shuffled)
    assert one.interactions.equals(other.interactions)
    assert one.items.equals(other.items)
    assert one.users.equals(other.users)
    keys = one.interactions.select("timestamp_s", "user_id", "item_id").rows()
    assert keys == sorted(keys)
