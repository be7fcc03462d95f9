"""`e2urec data check` and `e2urec data users`: what they say, write and refuse, and that no user is named where none may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from e2urec_console import Answer, Console, command

REAL = Path(__file__).parents[3] / "shared" / "data" / "ml-1m-tail"
SAMPLE = ("sample", "--dataset.num-users", "30")
CANARIES = [f"canary{number:03}" for number in range(40)]
ROWS = 10
GOOD_DAY = 1_600_000_000


def invent(path: Path, *, spoilt: int = 0, every: str = "") -> Path:
    """A table in which each canary has ten rows, the first one twelve; `spoilt` rows have a rating off the scale."""
    lines = ["user_id,item_id,rating,timestamp"]
    for number, user in enumerate(CANARIES):
        for row in range(ROWS + 2 * (number == 0)):
            rating = every or ("99" if len(lines) <= spoilt else str(row % 6))
            lines.append(f"{user},item{row},{rating},{GOOD_DAY + 86_400 * row + number}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    console = Console(tmp_path_factory.mktemp("data") / "workspace")
    yield console
    console.close()


class Checked(NamedTuple):
    """What a check of invented tables said, and the folder that it wrote."""

    answer: Answer
    folder: Path
    table: Path


@pytest.fixture(scope="module")
def good(console: Console, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("good")
    table = invent(folder / "table.csv")
    return Checked(console("data", "check", "interactions", "--dataset.path", table, "--data-docs", "--out", folder / "out"), folder, table)


@pytest.fixture(scope="module")
def bad(console: Console, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("bad")
    table = invent(folder / "table.csv", spoilt=7)
    return Checked(console("data", "check", "interactions", "--dataset.path", table, "--out", folder / "out"), folder, table)


def names_a_canary(text: str) -> bool:
    return "canary" in text


def test_help_answers_at_once_and_makes_no_workspace(tmp_path: Path) -> None:
    console = Console(tmp_path / "workspace")
    for arguments in (("data", "check", "--help"), ("data", "check", "ml-1m", "--help"), ("data", "users", "--help")):
        answer = console(*arguments)
        assert (arguments, answer.code, answer.imported) == (arguments, 0, ())
    console.close()
    assert not console.workspace.exists()


@pytest.mark.parametrize("flags", [(), ("--help",)], ids=["alone", "--help"])
def test_the_group_lists_its_commands(flags: tuple[str, ...]) -> None:
    answer = command("data", *flags)
    assert answer.code == 0
    for verb in ("check", "users"):
        assert re.search(rf"^  {verb}  ", answer.stdout, re.MULTILINE)


def test_help_shows_the_settings_of_the_dataset_and_of_the_gate(console: Console) -> None:
    shown = console("data", "check", "ml-1m", "--help").stdout
    flags = re.findall(r"^(--\S+) .*\n    .+\[.+\]$", shown, re.MULTILINE)
    assert flags == ["--dataset.like-above", "--dataset.path", "--ingest.max-quarantined", "--ingest.deleted"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check",), "1 of 1 words is missing: DATASET"),
        (("users",), "1 of 1 words is missing: DATASET"),
        (("check", "sampel"), "did you mean `sample`?"),
        (("check", "sample", "--dataset.num-user", "30"), "did you mean `--dataset.num-users`?"),
        (("check", "sample", "--method.suppression", "2"), "there is no setting `--method.suppression`"),
        (("check", "sample", "--dataset.num-users", "3"), "`--dataset.num-users 3` is refused"),
        (("check", "sample", "--ingest.max-quarantined", "2"), "`--ingest.max-quarantined 2` is refused"),
        (("users", "sample", "--ingest.onto", "latest"), "`--ingest.onto` appends to stored interactions"),
        (("check", "interactions"), "add `--dataset.path FILE`"),
        (("check", "interactions", "--dataset.path", "/nowhere.csv"), "0 files found"),
    ],
)
def test_wrong_words_and_settings_are_refused_in_a_sentence(console: Console, arguments: tuple[str, ...], said: str) -> None:
    answer = console("data", *arguments)
    assert answer.code == 2
    assert said in answer.stderr
    assert "hint: " in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_a_good_source_is_told_and_written_below_the_workspace(console: Console) -> None:
    answer = console("data", "check", *SAMPLE)
    assert (answer.code, answer.stderr) == (0, "")
    assert answer.stdout.startswith("good: ")
    folder = console.workspace / "data-check" / "sample"
    assert sorted(path.name for path in folder.iterdir()) == ["contract.html", "quarantine.parquet"]
    assert str(folder / "contract.html") in answer.stdout
    assert str(folder / "quarantine.parquet") in answer.stdout
    assert not list((console.workspace / "store" / "tmp").iterdir()), "the rows that were read are dropped"
    assert not list((console.workspace / "store" / "objects").iterdir()), "nothing is published"


def test_json_is_one_document_of_the_same_numbers(console: Console) -> None:
    told = console("data", "check", *SAMPLE, "--json").json()
    assert told["verdict"] == "good"
    assert told["rows"]["read"] == told["rows"]["kept"] == sum(told["by_time"]["rows"])
    assert told["users"] == {"with_rows": 30, "listed": 30}
    assert [table["contract"] for table in told["tables"]] == ["interactions", "items", "users", "quarantine"]
    assert all(rule["kept"] and not rule["broken_rows"] for table in told["tables"] for rule in table["rules"])
    assert Path(told["page"]).is_file()
    assert Path(told["quarantine"]).is_file()


def test_too_many_bad_rows_are_shown_and_then_refused(bad: Checked) -> None:
    answer = bad.answer
    assert answer.code == 2
    assert answer.stderr.startswith("BadInput: 7 of 402 rows (1.74 %) break a rule; at most 0.1 % may\n")
    assert answer.stdout.startswith("refused: 7 of 402 rows (1.74 %) break a rule; at most 0.1 % may\n")
    assert re.search(r"^  rating outside the scale +7  first at table.csv:2\n    hint: the scale is 0 to 10", answer.stdout, re.MULTILINE)
    assert "rating outside the scale" in (bad.folder / "out" / "contract.html").read_text()


def test_a_refusal_has_its_json_too(console: Console, bad: Checked) -> None:
    answer = console("data", "check", "interactions", "--dataset.path", bad.table, "--out", bad.folder / "out", "--json")
    assert (answer.code, answer.stderr) == (2, bad.answer.stderr)
    assert answer.json()["verdict"] == "refused"
    assert answer.json()["sentence"] == "7 of 402 rows (1.74 %) break a rule; at most 0.1 % may."


def test_the_quarantine_is_its_owner_s_alone(bad: Checked) -> None:
    assert (bad.folder / "out" / "quarantine.parquet").stat().st_mode & 0o777 == 0o600


def test_the_refusal_is_that_of_the_gate(console: Console, bad: Checked) -> None:
    listed = console("data", "users", "interactions", "--dataset.path", bad.table)
    assert (listed.code, listed.stdout) == (2, "")
    assert listed.stderr == bad.answer.stderr


def test_more_may_be_let_through(console: Console, bad: Checked, tmp_path: Path) -> None:
    flags = ("--dataset.path", bad.table, "--ingest.max-quarantined", "0.5", "--out", tmp_path)
    told = console("data", "check", "interactions", *flags, "--json").json()
    assert (told["verdict"], told["rows"]["quarantined"], told["rows"]["kept"]) == ("good", 7, 395)
    (aside,) = told["quarantined"]
    assert (aside["rule"], aside["rows"], aside["file"], aside["line"]) == ("rating outside the scale", 7, "table.csv", 2)


def test_a_source_without_a_good_row_has_a_page_too(console: Console, tmp_path: Path) -> None:
    table = invent(tmp_path / "table.csv", every="99")
    answer = console("data", "check", "interactions", "--dataset.path", table, "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.stderr.startswith("BadInput: 402 of 402 rows (100 %) break a rule")
    assert "not judged, as nothing was written" in (tmp_path / "out" / "contract.html").read_text()


def test_the_page_refers_to_nothing_outside_and_runs_nothing(good: Checked) -> None:
    page = (good.folder / "out" / "contract.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "<script" not in page
    assert "<svg" in page


def test_no_user_is_named_but_in_the_quarantine(good: Checked, bad: Checked) -> None:
    assert (good.answer.code, good.answer.stderr) == (0, "")
    for checked in (good, bad):
        assert not names_a_canary(checked.answer.stdout + checked.answer.stderr)
        written = [path for path in (checked.folder / "out").rglob("*") if path.is_file() and path.name != "quarantine.parquet"]
        assert written
        for path in written:
            assert not names_a_canary(path.read_bytes().decode(errors="replace")), path


def test_data_docs_are_made_only_when_asked(good: Checked, bad: Checked) -> None:
    docs = good.folder / "out" / "data-docs"
    assert (docs / "index.html").is_file()
    assert {path.stem for path in (docs / "expectations").glob("*.html")} == {"interactions", "items", "users", "quarantine"}
    assert len(list((docs / "validations").rglob("*.html"))) == 4
    assert "pulls its styles from the network" in good.answer.stdout
    assert not (bad.folder / "out" / "data-docs").exists()


def test_users_are_listed_on_stdout_with_most_rows_first(console: Console, good: Checked) -> None:
    answer = console("data", "users", "interactions", "--dataset.path", good.table)
    assert (answer.code, answer.stderr) == (0, "")
    expected = [f"{CANARIES[0]}\t12", *(f"{user}\t10" for user in CANARIES[1:])]
    assert answer.stdout.splitlines() == ["user_id\trows", *expected]


def test_users_as_json_are_one_document(console: Console, good: Checked) -> None:
    told = console("data", "users", "interactions", "--dataset.path", good.table, "--json").json()
    assert told["dataset"] == "interactions"
    assert told["users"][:2] == [{"user_id": CANARIES[0], "rows": 12}, {"user_id": CANARIES[1], "rows": 10}]


def test_rows_of_deleted_users_are_counted_and_not_listed(console: Console, good: Checked, tmp_path: Path) -> None:
    deleted = tmp_path / "deleted.csv"
    deleted.write_text(f"user_id,deleted_at\n{CANARIES[3]},{GOOD_DAY * 2}\n")
    flags = ("interactions", "--dataset.path", good.table, "--ingest.deleted", deleted)
    answer = console("data", "check", *flags, "--out", tmp_path / "out", "--json")
    assert answer.json()["rows"]["deleted"] == ROWS
    assert CANARIES[3] not in console("data", "users", *flags).stdout


def test_what_is_on_the_workspaces_suppression_list_is_counted_and_not_listed(good: Checked, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from e2urec_core.ledger import open_ledger
    from e2urec_core.ledger.suppressions import open_suppressions

    workspace = tmp_path / "workspace"
    workspace.mkdir()
    until = datetime.fromtimestamp(GOOD_DAY * 2, UTC)
    open_suppressions(workspace, open_ledger(workspace / "requests.db")).add({CANARIES[3]: until}, {(CANARIES[4], "item1"): until})
    flags = ("interactions", "--dataset.path", good.table)
    console = Console(workspace)
    answer = console("data", "check", *flags, "--out", tmp_path / "out", "--json")
    assert answer.json()["rows"]["suppressed"] == ROWS + 1
    listed = console("data", "users", *flags).stdout
    assert CANARIES[3] not in listed
    assert f"{CANARIES[4]}\t{ROWS - 1}" in listed
    console.close()


def test_a_user_with_a_line_break_stays_one_line(console: Console, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('user_id,item_id,rating,timestamp\n"a\nb",i,3,1600000000\nc,i,3,1600000000\n')
    assert console("data", "users", "interactions", "--dataset.path", table).stdout.splitlines() == ["user_id\trows", '"a\\nb"\t1', "c\t1"]


def test_a_folder_that_cannot_be_written_is_told(console: Console, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = console("data", "check", *SAMPLE, "--out", tmp_path / "file" / "below")
    assert answer.code == 2
    assert answer.stderr.startswith("StorageFailed: ")


def test_the_page_is_no_part_of_the_keys_of_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import e2urec_core
    from tasks import _keys

    copy = tmp_path / "e2urec_core"
    shutil.copytree(Path(str(e2urec_core.__file__)).parent, copy)
    monkeypatch.setattr(e2urec_core, "__file__", str(copy / "__init__.py"))
    digest = _keys._code_files.__wrapped__
    before = [digest(with_report) for with_report in (True, False)]
    for name in ("contract.html", "wording.py"):
        (copy / "data_page" / name).write_text("changed")
    assert [digest(with_report) for with_report in (True, False)] == before
    (copy / "stages.py").write_text("changed")
    assert all(one != other for one, other in zip(before, map(digest, (True, False)), strict=True))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real MovieLens rows are not here")
def test_the_real_rows_are_good_and_their_counts_stand_beside_the_published_ones(console: Console, tmp_path: Path) -> None:
    told = console("data", "check", "ml-1m", "--dataset.path", REAL, "--out", tmp_path, "--json").json()
    assert told["verdict"] == "good"
    assert told["expected"]["items"] == {"published": 3883, "found": 3883}
    assert told["expected"]["rows"]["published"] == 1_000_209
