"""Who is forgotten, and which part every example plays from then on. User ids are canaries: no message may sing of one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from e2urec_core.data.forget import PARTS, ForgetRule, choose_forgotten, mark_parts
from e2urec_core.errors import BadRequest


def examples(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Rows of (user, split, second)."""
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "split": pl.String, "timestamp_s": pl.Int64}, orient="row")
    return frame.with_row_index("example_id").cast({"example_id": pl.Int64})


def cohorts(groups: dict[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": list(groups), "cohort": list(groups.values())}, schema={"user_id": pl.String, "cohort": pl.String})


USERS = [f"canary-{number:02}" for number in range(40)]
TRAINED = examples(*((user, "train", 1) for user in USERS), ("canary-new", "test", 9))
GROUPS = cohorts({user: "polluted" if number < 3 else "steady" for number, user in enumerate([*USERS, "canary-new"])})


def refused(rule: ForgetRule) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        choose_forgotten(TRAINED, GROUPS, rule, 0)
    assert "canary" not in str(error.value)
    assert error.value.hint
    return error.value


def named(tmp_path: Path, text: str | bytes) -> ForgetRule:
    file = tmp_path / "users.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return ForgetRule(users_file=file)


def test_a_share_of_the_training_users_is_drawn_and_sorted() -> None:
    chosen = choose_forgotten(TRAINED, GROUPS, ForgetRule(share=0.25), 0)
    # 25 % of 40 training users; the user with test rows alone is none of them
    assert len(chosen) == len(set(chosen)) == 10
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(USERS)


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    rule = ForgetRule(share=0.25)
    first = choose_forgotten(TRAINED, GROUPS, rule, 0)
    assert choose_forgotten(TRAINED.reverse(), GROUPS.reverse(), rule, 0) == first
    assert choose_forgotten(TRAINED, GROUPS, rule, 1) != first


def test_the_share_is_one_of_users_however_many_rows_they_have() -> None:
    busy = pl.concat([TRAINED, *[TRAINED.filter(pl.col("user_id") == "canary-07")] * 50])
    assert choose_forgotten(busy, GROUPS, ForgetRule(share=0.25), 0) == choose_forgotten(TRAINED, GROUPS, ForgetRule(share=0.25), 0)


def test_a_cohort_bounds_the_draw() -> None:
    assert choose_forgotten(TRAINED, GROUPS, ForgetRule(share=1, cohort="polluted"), 0) == ["canary-00", "canary-01", "canary-02"]
    # round(.7 * 3) = 2
    assert len(choose_forgotten(TRAINED, GROUPS, ForgetRule(share=0.7, cohort="polluted"), 0)) == 2


def test_an_unknown_cohort_is_refused_with_those_there_are() -> None:
    error = refused(ForgetRule(cohort="pirates"))
    assert "none of 40 training users belongs to the cohort `pirates`" in error.fact
    assert "polluted, steady" in error.hint


def test_a_dataset_without_cohorts_says_so() -> None:
    with pytest.raises(BadRequest, match="cohort `polluted`") as error:
        choose_forgotten(TRAINED, cohorts(dict.fromkeys(USERS)), ForgetRule(cohort="polluted"), 0)
    assert "none" in error.value.hint


def test_users_named_in_a_file_replace_the_draw(tmp_path: Path) -> None:
    rule = named(tmp_path, "canary-09\n\n  canary-04  \r\ncanary-09\n")
    assert choose_forgotten(TRAINED, GROUPS, rule, 0) == ["canary-04", "canary-09"]


def test_named_users_without_a_training_row_are_counted_and_not_named(tmp_path: Path) -> None:
    error = refused(named(tmp_path, "canary-01\ncanary-new\ncanary-stranger\n"))
    assert "2 of 3 named users have no training row" in error.fact
    assert error.facts["training users"] == "40"


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(ForgetRule(users_file=tmp_path / "nowhere.txt")).fact
    assert "it is not text" in refused(named(tmp_path, b"\xff\xfe\x00canary-01")).fact


def test_a_file_that_names_nobody_is_refused_as_such_and_not_as_a_share(tmp_path: Path) -> None:
    error = refused(named(tmp_path, "\n  \n"))
    assert "file" in error.fact
    assert "share" not in error.fact


def test_a_share_that_comes_to_nobody_is_refused_with_its_arithmetic() -> None:
    # round(.01 * 40) = 0
    assert "a share of 0.01 of 40 training users is 0 users" in refused(ForgetRule(share=0.01)).fact


def test_a_share_of_a_cohort_that_comes_to_nobody_counts_the_cohort() -> None:
    # round(.1 * 3) = 0, while .1 * 40 would be 4
    fact = refused(ForgetRule(share=0.1, cohort="polluted")).fact
    assert "40 training users is 0" not in fact
    assert " 3 " in fact


def test_forgetting_everybody_is_refused(tmp_path: Path) -> None:
    assert "all 40 training users would be forgotten" in refused(ForgetRule(share=1)).fact
    assert "all 40 training users would be forgotten" in refused(named(tmp_path, "\n".join(USERS))).fact


PARTED = examples(
    ("canary-kept", "train", 1),
    ("canary-gone", "train", 2),
    ("canary-gone", "validation", 3),
    ("canary-kept", "validation", 3),
    ("canary-gone", "test", 4),
    ("canary-kept", "test", 4),
    ("canary-peer", "holdout", 2),
    ("canary-peer", "holdout", 3),
    ("canary-other", "holdout", 1),
    ("canary-peer", "test", 4),
)
PARTED_GROUPS = cohorts({"canary-kept": "steady", "canary-gone": "polluted", "canary-peer": "polluted", "canary-other": "steady"})


def test_every_example_is_marked_with_its_part() -> None:
    parts = mark_parts(PARTED, PARTED_GROUPS, ["canary-gone"])
    assert parts.columns == ["example_id", "part"]
    assert parts.rows() == [
        (0, "retained"),
        (1, "forgotten"),
        (2, "forgotten_validation"),
        (3, "validation"),
        (4, "forgotten_test"),
        (5, "test"),
        (6, "holdout"),
        # Newer than the newest training row of second 2: another window.
        (7, "other"),
        # Of a cohort that nobody forgotten belongs to.
        (8, "other"),
        (9, "test"),
    ]
    assert set(parts["part"]) == set(PARTS)


def test_without_cohorts_all_held_out_users_of_the_window_are_comparable() -> None:
    parts = mark_parts(PARTED, cohorts(dict.fromkeys(PARTED_GROUPS["user_id"])), ["canary-gone"])
    assert dict(parts.rows())[6] == dict(parts.rows())[8] == "holdout"


def test_marks_keep_the_order_of_the_examples() -> None:
    backwards = PARTED.reverse()
    assert mark_parts(backwards, PARTED_GROUPS, ["canary-gone"])["example_id"].to_list() == backwards["example_id"].to_list()


def test_the_marks_of_the_tiny_problem_agree_with_the_choice(tiny_examples: pl.DataFrame) -> None:
    gone = set(tiny_examples.filter(pl.col("part") == "forgotten")["user_id"])
    told = {part: set(rows["user_id"]) for (part,), rows in tiny_examples.group_by("part")}
    assert len(gone) == round(0.2 * tiny_examples.filter(pl.col("split") == "train")["user_id"].n_unique())
    assert told["forgotten_validation"] <= gone
    assert told["forgotten_test"] <= gone
    assert not gone & (told["retained"] | told["validation"] | told["test"] | told["holdout"])
