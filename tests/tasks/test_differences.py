"""What differs between two stage keys, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2urec_core.artifacts import Original, Retrained, Unlearned
from e2urec_core.data.forget import ForgetRule
from e2urec_core.methods.e2urec import E2URec
from e2urec_core.settings import Lora, Seat
from tasks import _keys
from tasks._differences import Reason, code_differences, differences
from tasks._keys import key_parts

GIVEN: dict[str, Any] = {"method": E2URec(), "original": Original(digest="1" * 64), "seat": Seat(seed=0)}


def parts(**changes: Any) -> dict[str, Any]:
    return key_parts("unlearn", Unlearned, {**GIVEN, **changes})


def told(before: dict[str, Any], now: dict[str, Any]) -> list[Reason]:
    return list(differences(before, now, {"seat": ""}))


def test_equal_parts_do_not_differ() -> None:
    assert told(parts(), parts()) == []


def test_a_changed_setting_is_told_by_its_dotted_name_with_both_values() -> None:
    (reason,) = told(parts(), parts(method=E2URec(suppression=3, lora=E2URec().lora)))
    assert (reason.about, reason.name, reason.before, reason.now) == ("setting", "method.suppression", E2URec().suppression, 3.0)
    assert reason.text == f"setting `method.suppression`: {E2URec().suppression} -> 3.0"


def test_every_changed_setting_is_told_however_deep() -> None:
    rank = E2URec().lora.rank
    names = [reason.name for reason in told(parts(), parts(method=E2URec(lora=Lora(rank=rank + 1)), seat=Seat(seed=7, threads=2)))]
    assert names == ["method.lora.rank", "seed", "threads"]


def test_another_input_is_told_by_the_digits_of_both() -> None:
    (reason,) = told(parts(), parts(original=Original(digest="2" * 64)))
    assert (reason.about, reason.name, reason.text) == ("input", "original", "another `original`: 111111111111 -> 222222222222")


def test_an_input_that_was_not_there_is_another_one() -> None:
    one, two = Retrained(digest="3" * 64), Retrained(digest="4" * 64)
    (reason,) = told(parts(further=[one]), parts(further=[one, two]))
    assert reason.text == "another `further`: 333333333333 -> 333333333333, 444444444444"
    (reason,) = told(parts(), parts(augmented=one))
    assert reason.text == "another `augmented`: none -> 333333333333"


def test_a_changed_file_is_told_without_a_digest_by_which_its_users_could_be_guessed(tmp_path: Path) -> None:
    users = tmp_path / "leave.txt"
    users.write_text("u1\n")
    before = parts(rule=ForgetRule(users_file=users))
    users.write_text("u2\n")
    (reason,) = list(differences(before, parts(rule=ForgetRule(users_file=users)), {"rule": "forget"}))
    assert (reason.about, reason.name, reason.before, reason.now) == ("file", "forget", None, None)
    assert reason.text == "the contents of the files that `forget` names have changed"


def test_another_version_of_a_package_or_of_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = parts(), _keys.version
    monkeypatch.setattr(_keys, "version", lambda package: "0.0" if package == "torch" else version(package))
    (reason,) = told(before, parts())
    assert (reason.about, reason.name, reason.before, reason.now) == ("package", "torch", version("torch"), "0.0")
    (reason,) = told({**before, "python": [3, 1]}, before)
    assert (reason.name, reason.before) == ("python", "3.1")


def test_files_of_the_code_that_changed_came_or_went_are_told() -> None:
    before, now = {"a.py": "1", "b.py": "2", "c.py": "3"}, {"a.py": "1", "b.py": "4", "d.py": "5"}
    texts = [reason.text for reason in code_differences(before, now)]
    assert texts == ["code `b.py` has changed", "code `d.py` is new", "code `c.py` is gone"]
    (reason,) = code_differences(None, now)
    assert reason.text == "the code has changed; which files it had is not known"


def test_a_long_value_is_cut_for_people_alone() -> None:
    (reason,) = told(parts(words="a"), parts(words="b" * 100))
    assert reason.text == f"setting `words`: a -> {'b' * 60}..."
    assert reason.now == "b" * 100
