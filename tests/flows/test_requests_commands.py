"""`e2urec requests`: what goes in, what is shown, what is refused, and that nobody is named where none may be."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2urec_console import COMMAND, Answer, Console, clean_environment

HEAD = "request_id,scope,user_id,item_id,reason,requested_at"
WHEN = ("--requested-at", "2026-01-01T00:00:00Z")
CANARY = "canary-user"


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    console = Console(tmp_path_factory.mktemp("requests"))
    yield console
    console.close()


class Office:
    """A workspace of one test, asked through a console that several share."""

    def __init__(self, console: Console, workspace: Path) -> None:
        self.console, self.workspace = console, workspace

    def __call__(self, *words: str | Path) -> Answer:
        return self.console("requests", *words, workspace=self.workspace)

    def listed(self, *words: str) -> list[dict[str, object]]:
        return list(self("list", "--json", *words).json())

    def added(self, user: str, *words: str) -> str:
        answer = self("add", "--user", user, *WHEN, *words)
        assert answer.code == 0, answer.stderr
        return answer.stdout.split()[0]


@pytest.fixture
def office(helper: Console, tmp_path: Path) -> Office:
    return Office(helper, tmp_path / "workspace")


def test_a_request_is_added_listed_shown_and_cancelled_without_a_word_about_the_user(office: Office) -> None:
    added = office("add", "--user", CANARY, "--note", "canary-note", "--item", "canary-b", "--item", "canary-a", *WHEN)
    found = re.fullmatch(r"(r-[0-9a-f]{16})  queued  due \d{4}-\d\d-\d\d  subject ([0-9a-f]{20})\n", added.stdout)
    assert found, added
    shown = office("show", found[1])
    assert "request queued" in shown.stdout
    told = [added, office("list"), office("list", "--json"), shown, office("show", found[1], "--json")]
    cancelled = office("cancel", found[1])
    assert cancelled.stdout.startswith(f"{found[1]}  cancelled")
    for answer in (*told, cancelled):
        assert answer.code == 0, answer.stderr
        assert "canary" not in answer.stdout + answer.stderr
        assert found[2] in answer.stdout
    written = b"".join(path.read_bytes() + str(path).encode() for path in office.workspace.rglob("*") if path.is_file())
    assert b"canary" not in written


def test_who_a_request_is_about_is_shown_where_it_is_asked_for(office: Office) -> None:
    name = office.added(CANARY, "--item", "b", "--item", "a", "--note", "two\nlines")
    shown = office("show", name, "--identity").stdout
    assert re.search(rf"^user +{CANARY}$", shown, re.MULTILINE)
    assert re.search(r"^items +a, b$", shown, re.MULTILINE)
    assert re.search(r'^note +"two\\nlines"$', shown, re.MULTILINE)
    person = office("show", name, "--identity", "--json").json()["identity"]
    assert (person["user_id"], len(person["nonce"])) == (CANARY, 64)
    office("cancel", name)
    assert re.search(r"^user +erased$", office("show", name, "--identity").stdout, re.MULTILINE)


def test_the_same_user_again_is_the_same_request(office: Office) -> None:
    assert office.added("7") == office.added("7")
    assert office.added("7", "--item", "a") != office.added("7")
    assert len(office.listed()) == 2
    assert office.listed("--state", "certified") == []


def test_the_user_is_read_from_stdin(tmp_path: Path) -> None:
    words = [COMMAND, "requests", "add", "--user", "-", *WHEN, "--workspace", tmp_path]
    done = subprocess.run(words, input=f"{CANARY}\n", capture_output=True, text=True, check=True, timeout=60, env=clean_environment())
    assert CANARY not in done.stdout + done.stderr
    shown = [COMMAND, "requests", "show", done.stdout.split()[0], "--identity", "--json", "--workspace", tmp_path]
    assert json.loads(subprocess.check_output(shown, env=clean_environment()))["identity"]["user_id"] == CANARY


def test_a_file_is_taken_in_once_and_wholly_or_not_at_all(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "asked.csv"
    rows = [f"canary-{row},user,canary-{row % 3},,privacy,2026-01-01" for row in range(5)]
    file.write_text("\n".join([HEAD, *rows, "canary-x,user,,,privacy,2026-01-01"]))
    refused = office("import", file)
    assert (refused.code, office.listed()) == (2, [])
    assert "1 of 6 rows" in refused.stderr
    assert "1 rows: 6" in refused.stderr
    assert "canary" not in refused.stderr
    file.write_text("\n".join([HEAD, *rows]))
    for _ in range(2):
        assert office("import", file).stdout.startswith("5 rows are 3 requests;")
    assert [each["source"] for each in office.listed()] == ["import"] * 3
    file.write_text("\n".join([HEAD, "new,user,canary-9,,privacy,2026-01-01", "canary-1,user,canary-8,,privacy,2026-01-01"]))
    reused = office("import", file)
    assert (reused.code, len(office.listed())) == (2, 3)
    assert "which, from 1   2" in reused.stderr
    assert "canary" not in reused.stderr


def test_a_hold_is_put_and_ended(office: Office) -> None:
    name = office.added("7")
    assert "legal_hold" in office("hold", name).stdout
    refused = office("cancel", name)
    assert refused.code == 2
    assert "back by `e2urec requests release` alone" in refused.stderr
    assert "queued" in office("release", name).stdout
    assert "queued" in office("approve", name).stdout
    assert "queued" in office("verify", name).stdout
    assert "rejected" in office("reject", name).stdout


def test_settings_of_requests_are_flags(office: Office) -> None:
    answer = office("add", "--user", "7", "--json", "--requests.due-days", "1")
    record = answer.json()
    assert record["received_at"][:10] < record["due_at"][:10]
    assert office("add", "--user", "8", "--requests.due-days", "0").code == 2
    unknown = office("add", "--user", "8", "--requests.due-day", "3")
    assert (unknown.code, len(office.listed())) == (2, 1)
    assert "due-days" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "r-0123456789abcdef"), "does not hold this request"),
        (("cancel", "canary"), "does not hold this request"),
        (("list", "--state", "done"), "is none of the 14 states"),
        (("add", "--user", " "), "user_id"),
        (("add", "--user", "canary", "--reason", "canary"), "reason"),
        (("add", "--user", "canary", "--note", "canary" * 100), "note"),
        (("add", "--user", "canary", "--requested-at", "canary"), "requested_at"),
        (("add", "--user", "canary", "--requested-at", "2026-01-01T00:00:00"), "requested_at"),
        (("add", "--user", "canary", "--requested-at", "2099-01-01T00:00:00Z"), "dated after now"),
        (("import", "nowhere.csv"), "0 files found"),
        (("serve",), "the token has 0 characters"),
    ],
)
def test_bad_words_get_one_sentence(office: Office, words: tuple[str, ...], said: str) -> None:
    answer = office(*words)
    assert answer.code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "canary" not in answer.stderr + answer.stdout
    assert office.listed() == []


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    console = Console(tmp_path / "workspace")
    answers = [console("requests", *words) for words in (("approve", "--help"), ("serve", "--help"), ("list",))]
    console.close()
    assert [(answer.code, answer.imported) for answer in answers] == [(0, ())] * 3
