"""The generated dataset: the same rows everywhere, and minorities that only their own rows can teach."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from data_contracts.interactions import INTERACTIONS
from e2urec_core.data.ingest import IngestRule, ingest
from e2urec_core.datasets.base import Source
from e2urec_core.datasets.sample import GENRES, Sample
from e2urec_core.errors import BadInput

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tables:
    """What the sample gives, read whole."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


def tables_of(sample: Sample) -> Tables:
    source = sample.scan()
    assert source.items is not None
    assert source.users is not None
    return Tables(source.rows.collect(), source.items.collect(), source.users.collect())


@pytest.fixture(scope="module")
def many() -> Tables:
    return tables_of(Sample(num_users=600))


def test_the_same_settings_give_the_same_rows_in_another_process() -> None:
    code = (
        "from e2urec_core.datasets.sample import Sample; s = Sample(num_users=20).scan();"
        "print(''.join(frame.collect().write_csv() for frame in (s.rows, s.items, s.users)), end='')"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    here = tables_of(Sample(num_users=20))
    assert told == here.interactions.write_csv() + here.items.write_csv() + here.users.write_csv()


def test_another_data_seed_gives_other_rows() -> None:
    one, other = (tables_of(Sample(num_users=20, data_seed=seed)).interactions for seed in (1, 2))
    assert not one.equals(other)


def test_the_label_says_yes_above_three_stars_and_no_rule_is_broken(many: Tables) -> None:
    rows = many.interactions
    assert rows["label"].to_list() == [int(rating in (4.0, 5.0)) for rating in rows["rating"]]
    assert rows["rule"].null_count() == rows.height
    assert rows["line"].to_list() == list(range(1, rows.height + 1))


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


def stored(source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets another source through the gate in the sample's place."""
    monkeypatch.setattr(Sample, "scan", lambda self: source)
    folder.mkdir(exist_ok=True)
    ingest(Sample(num_users=20), IngestRule(), folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, rows=s.rows.head(0)), "0 interactions"),
        (
            lambda s: replace(s, items=pl.concat([s.items, s.items.head(1).with_columns(title=pl.lit("x"))])),
            "1 of 361 items are listed twice",
        ),
        (lambda s: replace(s, users=pl.concat([s.users, s.users.head(1)])), "1 of 21 users are listed twice"),
        (lambda s: replace(s, users=s.users.tail(19)), r"rows .* break a rule"),
        (lambda s: replace(s, items=s.items.head(0)), r"rows \(100 %\) break a rule"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused_without_naming_a_user(
    change: Callable[[Source], Source], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        stored(change(Sample(num_users=20).scan()), tmp_path, monkeypatch)
    assert "u0" not in str(refused.value)


def test_rows_of_users_and_films_that_no_table_lists_are_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Sample(num_users=20).scan()
    for change, rule in (({"users": source.users.tail(19)}, "unknown user"), ({"items": source.items.head(0)}, "unknown item")):
        with pytest.raises(BadInput) as refused:
            stored(replace(source, **change), tmp_path, monkeypatch)
        assert list(refused.value.facts) == [rule]


def test_an_interaction_that_comes_twice_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Sample(num_users=20).scan()
    once, twice = tmp_path / "once", tmp_path / "twice"
    stored(source, once, monkeypatch)
    stored(replace(source, rows=pl.concat([source.rows, source.rows.head(2)])), twice, monkeypatch)
    part = "interactions/part-00000.parquet"
    assert (once / part).read_bytes() == (twice / part).read_bytes()
    told = json.loads((twice / "facts.json").read_bytes())["this_reading"]
    assert (told["repeated"], told["conflicting"], told["read"] - told["kept"]) == (2, 0, 2)


def test_the_order_of_the_source_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Sample(num_users=20).scan()
    frames = (frame.collect().sample(fraction=1, shuffle=True, seed=3).lazy() for frame in (source.rows, source.items, source.users))
    shuffled = replace(source, **dict(zip(("rows", "items", "users"), frames, strict=True)))
    one, other = (stored(each, tmp_path / name, monkeypatch) for each, name in ((source, "one"), (shuffled, "other")))
    for name in ("interactions/part-00000.parquet", "items.parquet", "users.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    rows = pl.read_parquet(one / "interactions/part-00000.parquet")
    assert rows.columns == INTERACTIONS.schema().names
    keys = rows.select("timestamp_s", "user_id", "item_id").rows()
    assert keys == sorted(keys)
