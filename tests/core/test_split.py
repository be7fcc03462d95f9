"""The cut through time, and the users who stay out of training."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2urec_core.data.split import SPLITS, TEST, TRAIN, VALIDATION, SplitRule, refuse_leakage, split_by_time
from e2urec_core.errors import BadInput, SplitLeak

PLAIN = SplitRule(holdout_share=0)


@dataclass
class Case:
    """Rows in time order, and their users."""

    times: list[int]
    users: list[str]
    cohorts: dict[str, str | None]

    def split(self, rule: SplitRule, seed: int = 0) -> list[str]:
        """What each row is for."""
        names = sorted(self.cohorts)
        users = numpy.array([names.index(user) for user in self.users], numpy.uint32)
        groups = pa.array([self.cohorts[name] for name in names], pa.string())
        parts = split_by_time(numpy.array(self.times, numpy.int64), users, pa.array(names), groups, rule, seed)
        assert parts.dtype == numpy.int8
        return [SPLITS[part] for part in parts]


def rows_of_one(times: list[int]) -> Case:
    return Case(times, ["canary"] * len(times), {"canary": None})


def test_a_hundred_examples_are_cut_six_to_two_to_two_by_time() -> None:
    rows = rows_of_one(list(range(100))).split(PLAIN)
    # 100 * .6 = 60 train, 100 * .2 = 20 validation, the other 20 test, oldest first
    assert rows == ["train"] * 60 + ["validation"] * 20 + ["test"] * 20


def test_rows_of_one_second_stay_on_the_later_side_of_a_cut() -> None:
    # The cut at row 6 of 10 falls into second 5 (rows 4 to 6), the cut at row 8 into second 9 (rows 7 and 8).
    rows = rows_of_one([1, 2, 3, 4, 5, 5, 5, 9, 9, 11]).split(PLAIN)
    assert rows == ["train"] * 4 + ["validation"] * 3 + ["test"] * 3


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
            rows_of_one(times).split(rule)
        return
    rows = rows_of_one(times).split(rule)
    assert rows == expected
    assert len(set(zip(times, rows, strict=True))) == len(set(times))


def test_a_part_without_rows_is_refused_with_the_number_of_seconds() -> None:
    with pytest.raises(BadInput, match="10 examples lie in 1 different seconds") as refused:
        rows_of_one([7] * 10).split(PLAIN)
    assert "--split.train-share" in refused.value.hint
    assert "canary" not in str(refused.value)


def test_a_holdout_that_takes_every_training_user_is_refused_with_the_setting_that_did_it() -> None:
    with pytest.raises(BadInput) as refused:
        rows_of_one(list(range(10))).split(SplitRule(holdout_share=0.9))
    assert "holdout" in str(refused.value)


def busy_users(num_users: int) -> Case:
    """Users who each have a row in every second of 1 to 10; the first half steady, the second half polluted."""
    users = [f"canary-{number:02}" for number in range(num_users)]
    groups: dict[str, str | None] = {user: "steady" if number < num_users // 2 else "polluted" for number, user in enumerate(users)}
    return Case([second for second in range(1, 11) for _ in users], users * 10, groups)


def held_users(case: Case, rows: list[str]) -> list[str]:
    return sorted({user for user, part in zip(case.users, rows, strict=True) if part == "holdout"})


def test_held_out_users_are_drawn_from_every_cohort_alike() -> None:
    case = busy_users(40)
    held = held_users(case, case.split(SplitRule(holdout_share=0.25)))
    # 25 % of 20 steady and of 20 polluted users
    assert Counter(case.cohorts[user] for user in held) == {"steady": 5, "polluted": 5}


def test_rows_of_held_out_users_neither_train_nor_select_but_still_test() -> None:
    case = busy_users(40)
    rows = case.split(SplitRule(holdout_share=0.25))
    held = held_users(case, rows)
    # 10 users, seconds 1 to 8 lie in training and selection, seconds 9 and 10 in the test
    assert Counter(part for user, part in zip(case.users, rows, strict=True) if user in held) == {"holdout": 80, "test": 20}
    assert Counter(rows) == {"train": 180, "validation": 60, "test": 80, "holdout": 80}


def test_who_is_held_out_depends_on_the_seed_alone() -> None:
    case, rule = busy_users(40), SplitRule(holdout_share=0.25)
    assert case.split(rule) == case.split(rule)
    assert held_users(case, case.split(rule, 1)) != held_users(case, case.split(rule))


def test_without_a_share_nobody_is_held_out() -> None:
    assert "holdout" not in busy_users(10).split(PLAIN)


def test_users_without_a_cohort_are_drawn_too() -> None:
    case = busy_users(20)
    case.cohorts = dict.fromkeys(case.cohorts)
    assert len(held_users(case, case.split(SplitRule(holdout_share=0.5)))) == 10


def leak(times: list[int], parts: str) -> None:
    """Parts are told by their first letters."""
    letters = {"t": TRAIN, "v": VALIDATION, "e": TEST}
    refuse_leakage(numpy.array(times), numpy.array([letters[letter] for letter in parts], numpy.int8))


def test_a_training_row_as_new_as_a_validation_row_is_a_leak_told_with_both_times() -> None:
    # Row 6 trains although the oldest validation row is row 4: one training row of second +6 against second +4.
    with pytest.raises(SplitLeak) as refused:
        leak([981_173_805 + second for second in range(10)], "ttttvvtvee")
    # 981173805 s = 2001-02-03 04:16:45 UTC
    assert str(refused.value).splitlines()[:3] == [
        "SplitLeak: 1 train rows are as new as the oldest validation row or newer",
        "  newest train row        2001-02-03 04:16:51 UTC",
        "  oldest validation row   2001-02-03 04:16:49 UTC",
    ]
    assert "canary" not in str(refused.value)


def test_a_row_of_the_very_second_of_the_next_part_is_a_leak_too() -> None:
    with pytest.raises(SplitLeak, match="1 train rows"):
        leak([1, 2, 2, 3], "ttve")


def test_a_validation_row_newer_than_a_test_row_is_a_leak() -> None:
    with pytest.raises(SplitLeak, match=re.escape("1 validation rows are as new as the oldest test row")):
        leak([1, 2, 5, 4], "tvve")


def test_parts_in_their_order_leak_nothing() -> None:
    leak([1, 2, 3, 4], "ttve")
