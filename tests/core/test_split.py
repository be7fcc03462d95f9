"""The cut through time, and the users who stay out of training."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.data.split import SplitRule, refuse_leakage, split_by_time
from e2urec_core.errors import BadInput, SplitLeak

PLAIN = SplitRule(holdout_share=0)


def examples(times: list[int], users: list[str] | None = None) -> pl.DataFrame:
    """Examples in time order; by default one user."""
    return pl.DataFrame(
        {"example_id": range(len(times)), "user_id": users or ["canary"] * len(times), "timestamp_s": times},
        schema={"example_id": pl.Int64, "user_id": pl.String, "timestamp_s": pl.Int64},
    )


def cohorts(groups: dict[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": list(groups), "cohort": list(groups.values())}, schema={"user_id": pl.String, "cohort": pl.String})


NOBODY = cohorts({"canary": None})


def counts(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows["split"].value_counts().iter_rows())


def test_a_hundred_examples_are_cut_six_to_two_to_two_by_time() -> None:
    rows = split_by_time(examples(list(range(100))), NOBODY, PLAIN, 0)
    # 100 * .6 = 60 train, 100 * .2 = 20 validation, the other 20 test, oldest first
    assert rows["split"].to_list() == ["train"] * 60 + ["validation"] * 20 + ["test"] * 20


def test_rows_of_one_second_stay_on_the_later_side_of_a_cut() -> None:
    # The cut at row 6 of 10 falls into second 5 (rows 4 to 6), the cut at row 8 into second 9 (rows 7 and 8).
    rows = split_by_time(examples([1, 2, 3, 4, 5, 5, 5, 9, 9, 11]), NOBODY, PLAIN, 0)
    assert rows["split"].to_list() == ["train"] * 4 + ["validation"] * 3 + ["test"] * 3


def slow_oracle(times: list[int], train: float, validation: float) -> list[str]:
    """Parts row by row: a cut moves back to the first row of the second it falls into."""
    cuts = []
    for share in (train, train + validation):
        second = times[min(round(len(times) * share), len(times) - 1)]
        cuts.append(times.index(second))
    return ["train" if place < cuts[0] else "validation" if place < cuts[1] else "test" for place in range(len(times))]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40).map(sorted), st.sampled_from([(0.6, 0.2), (0.3, 0.3), (0.1, 0.8), (0.9, 0.05)])
)
def test_whatever_the_times_no_second_is_parted_and_an_empty_part_is_refused(times: list[int], shares: tuple[float, float]) -> None:
    rule = SplitRule(train_share=shares[0], validation_share=shares[1], holdout_share=0)
    expected = slow_oracle(times, *shares)
    if set(expected) != {"train", "validation", "test"}:
        with pytest.raises(BadInput, match="part of the split is empty"):
            split_by_time(examples(times), NOBODY, rule, 0)
        return
    rows = split_by_time(examples(times), NOBODY, rule, 0)
    assert rows["split"].to_list() == expected
    assert all(len(set(group["split"])) == 1 for _, group in rows.group_by("timestamp_s"))


def test_a_part_without_rows_is_refused_with_the_number_of_seconds() -> None:
    with pytest.raises(BadInput, match="10 examples lie in 1 different seconds") as refused:
        split_by_time(examples([7] * 10), NOBODY, PLAIN, 0)
    assert "--split.train-share" in refused.value.hint
    assert "canary" not in str(refused.value)


def test_a_holdout_that_takes_every_training_user_is_refused_with_the_setting_that_did_it() -> None:
    with pytest.raises(BadInput) as refused:
        split_by_time(examples(list(range(10))), NOBODY, SplitRule(holdout_share=0.9), 0)
    assert "holdout" in str(refused.value)


def test_only_the_newest_examples_are_used_and_they_are_numbered_anew() -> None:
    rows = split_by_time(examples(list(range(100))), NOBODY, SplitRule(holdout_share=0, last_examples=10), 0)
    assert rows["timestamp_s"].to_list() == list(range(90, 100))
    assert rows["example_id"].to_list() == list(range(10))
    assert counts(rows) == {"train": 6, "validation": 2, "test": 2}


def test_more_newest_examples_than_there_are_means_all() -> None:
    assert split_by_time(examples(list(range(20))), NOBODY, SplitRule(holdout_share=0, last_examples=1000), 0).height == 20


def busy_users(num_users: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users who each have a row in every second of 1 to 10; the first half steady, the second half polluted."""
    users = [f"canary-{number:02}" for number in range(num_users)]
    rows = examples([second for second in range(1, 11) for _ in users], users * 10)
    return rows, cohorts({user: "steady" if number < num_users // 2 else "polluted" for number, user in enumerate(users)})


def held_users(rows: pl.DataFrame) -> list[str]:
    return sorted(rows.filter(pl.col("split") == "holdout")["user_id"].unique())


def test_held_out_users_are_drawn_from_every_cohort_alike() -> None:
    rows, groups = busy_users(40)
    held = held_users(split_by_time(rows, groups, SplitRule(holdout_share=0.25), 0))
    # 25 % of 20 steady and of 20 polluted users
    assert dict(groups.filter(pl.col("user_id").is_in(held))["cohort"].value_counts().iter_rows()) == {"steady": 5, "polluted": 5}


def test_rows_of_held_out_users_neither_train_nor_select_but_still_test() -> None:
    rows, groups = busy_users(40)
    split = split_by_time(rows, groups, SplitRule(holdout_share=0.25), 0)
    own = split.filter(pl.col("user_id").is_in(held_users(split)))
    # 10 users, seconds 1 to 8 lie in training and selection, seconds 9 and 10 in the test
    assert counts(own) == {"holdout": 80, "test": 20}
    assert counts(split) == {"train": 180, "validation": 60, "test": 80, "holdout": 80}


def test_who_is_held_out_depends_on_the_seed_alone() -> None:
    rows, groups = busy_users(40)
    rule = SplitRule(holdout_share=0.25)
    first = split_by_time(rows, groups, rule, 0)
    assert split_by_time(rows, groups.reverse(), rule, 0).equals(first)
    assert held_users(split_by_time(rows, groups, rule, 1)) != held_users(first)


def test_without_a_share_nobody_is_held_out() -> None:
    rows, groups = busy_users(10)
    assert "holdout" not in counts(split_by_time(rows, groups, PLAIN, 0))


def test_users_without_a_cohort_are_drawn_too() -> None:
    rows, groups = busy_users(20)
    held = held_users(split_by_time(rows, groups.with_columns(cohort=pl.lit(None, pl.String)), SplitRule(holdout_share=0.5), 0))
    assert len(held) == 10


def test_a_training_row_as_new_as_a_validation_row_is_a_leak_told_with_both_times() -> None:
    rows = split_by_time(examples([981_173_805 + second for second in range(10)]), NOBODY, PLAIN, 0)
    # Rows 4 and 5 change places with row 6: one training row of second +6 against the oldest validation row of second +4.
    broken = rows.with_columns(split=pl.Series(["train"] * 4 + ["validation", "validation", "train", "validation", "test", "test"]))
    with pytest.raises(SplitLeak) as refused:
        refuse_leakage(broken)
    # 981173805 s = 2001-02-03 04:16:45 UTC
    assert str(refused.value).splitlines()[:3] == [
        "SplitLeak: 1 train rows are as new as the oldest validation row or newer",
        "  newest train row        2001-02-03 04:16:51 UTC",
        "  oldest validation row   2001-02-03 04:16:49 UTC",
    ]
    assert "canary" not in str(refused.value)


def test_a_row_of_the_very_second_of_the_next_part_is_a_leak_too() -> None:
    rows = examples([1, 2, 2, 3]).with_columns(split=pl.Series(["train", "train", "validation", "test"]))
    with pytest.raises(SplitLeak, match="1 train rows"):
        refuse_leakage(rows)


def test_a_validation_row_newer_than_a_test_row_is_a_leak() -> None:
    rows = examples([1, 2, 5, 4]).with_columns(split=pl.Series(["train", "validation", "validation", "test"]))
    with pytest.raises(SplitLeak, match=re.escape("1 validation rows are as new as the oldest test row")):
        refuse_leakage(rows)


def test_examples_that_are_not_in_time_order_are_a_leak() -> None:
    with pytest.raises(SplitLeak, match="as new as the oldest"):
        split_by_time(examples([0, 1, 2, 9, 4, 5, 6, 7, 8, 3]), NOBODY, PLAIN, 0)


def test_the_examples_given_are_left_as_they_were() -> None:
    rows, groups = busy_users(10)
    before = rows.clone()
    split_by_time(rows, groups, SplitRule(), 0)
    assert rows.equals(before)
