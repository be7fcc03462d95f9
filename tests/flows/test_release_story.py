"""From a run to the champion through the command: gates, registry, promotion, rollback, and what is refused on the way."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2urec_console import TINY, WORDS, Console, Story, command, copied, trained_users

PASSING = ("--gates.forgetting.residual", "100", "--gates.utility.least-auc", "0")
REFUSED = ("--gates.forgetting.residual", "0")
pytestmark = pytest.mark.slow


class Shop:
    """A workspace with a registry, asked through the command."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def unlearn(self, *flags: str | Path) -> int:
        """Run the tiny story and register what comes out; returns its version."""
        answer = self.console(*WORDS, *TINY, *flags)
        assert answer.code == 0, answer.stderr
        return int(answer.stderr.rsplit("version ", 1)[1].split(" ")[0]) if "version" in answer.stderr else self.versions()[0]["version"]

    def versions(self) -> list[dict[str, Any]]:
        """What `models list` says, newest first."""
        return list(self.console("models", "list", "--json").json())

    def champion(self) -> int | None:
        """The champion's version."""
        return next((int(row["version"]) for row in self.versions() if row["role"] == "champion"), None)

    def aliases(self) -> dict[str, int]:
        """What the registry says."""
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{self.console.workspace / 'mlflow.db'}")
        return {name: int(version) for name, version in client.get_registered_model("e2urec").aliases.items()}

    def source(self, version: int) -> Path:
        """Folder of a version's files in the registry."""
        import mlflow

        client = mlflow.MlflowClient(f"sqlite:///{self.console.workspace / 'mlflow.db'}")
        return Path(client.get_model_version("e2urec", str(version)).source.removeprefix("file://"))

    def run_of(self, version: int) -> dict[str, Any]:
        """The run that made a version."""
        return self.console.run(next(row["run"] for row in self.versions() if row["version"] == version))


@pytest.fixture(scope="module")
def shop(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of its own, with a first champion (version 1) that has forgotten the story's users."""
    console = Console(copied(story.workspace, tmp_path_factory.mktemp("shop") / "workspace"))
    shop = Shop(console)
    version = shop.unlearn(*PASSING)
    assert shop.console("models", "promote", str(version)).code == 0
    yield shop
    console.close()


@pytest.fixture(scope="module")
def one_more(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that names the users of the first request and one more."""
    import pyarrow.parquet as pq

    run = shop.run_of(1)
    folder = shop.console.workspace / "store" / "objects" / "ForgetRequest" / run["stages"]["forget"]["handle"]["digest"]
    asked = pq.read_table(folder / "users.parquet")["user_id"].to_pylist()
    further = next(user for user in trained_users(shop.console.workspace, run) if user not in asked)
    path = tmp_path_factory.mktemp("request") / "users.txt"
    path.write_text("\n".join([*asked, further]))
    return path


@pytest.fixture(scope="module")
def second(shop: Shop, one_more: Path) -> int:
    """A second champion, which has forgotten one person more."""
    version = shop.unlearn(*PASSING, "--forget.users-file", one_more, "--release.then", "promote")
    assert shop.champion() == version
    return version


def test_a_run_ends_in_a_registered_version_with_its_verdict(shop: Shop) -> None:
    import mlflow

    run = shop.run_of(1)
    client = mlflow.MlflowClient(f"sqlite:///{shop.console.workspace / 'mlflow.db'}")
    version = client.get_model_version("e2urec", "1")
    assert version.tags["e2urec.passed"] == "true"
    assert version.tags["e2urec.run"] == run["run"]
    assert version.run_id == run["tracking_run"]
    assert "| auc |" in version.description
    assert client.get_run(version.run_id).data.tags["e2urec.passed"] == "true"
    nested = client.search_runs([client.get_run(version.run_id).info.experiment_id], "tags.`e2urec.stage` = 'verdict'")
    assert {"gate.auc.value", "gate.auc.margin", "gate.auc.passed"} <= set(nested[0].data.metrics)
    assert (shop.console.workspace / "reports" / run["run"] / "verdict.json").is_file()


def test_the_champion_loads_with_mlflows_own_tools_and_ranks(shop: Shop) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(f"sqlite:///{shop.console.workspace / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/e2urec@champion")
    rows = pd.DataFrame([{"history": [{"title": "Crimson Orbit", "rating": 4}], "candidates": ["Iron Parade", "Crimson Orbit"]}])
    ranked = model.predict(rows)
    assert list(ranked["rank"]) == [1, 2]
    assert ranked["yes_probability"].is_monotonic_decreasing


@pytest.mark.long
def test_the_same_run_again_makes_no_second_version(shop: Shop) -> None:
    """That a bundle is registered once: `tests/tasks/test_registry.py`."""
    before = len(shop.versions())
    # Judged against itself now, as it is the champion: a verdict of its own, and so a version of its own; the third time nothing is new.
    shop.unlearn(*PASSING)
    again = len(shop.versions())
    shop.unlearn(*PASSING)
    assert len(shop.versions()) == again <= before + 1


def test_a_refused_model_is_a_challenger_with_its_reasons_and_is_never_promoted(shop: Shop, second: int) -> None:
    answer = shop.console(*WORDS, *TINY, *REFUSED, "--release.then", "promote")
    assert answer.code == 0
    assert "refused by" in answer.stdout
    version = shop.versions()[0]["version"]
    assert shop.aliases() == {"champion": second, "previous": 1, "challenger": version}
    refusal = shop.console("models", "promote", str(version))
    assert refusal.code == 2
    assert "failed its gates" in refusal.stderr
    shown = shop.console("models", "show", str(version))
    assert "REFUSED" in shown.stdout
    assert shop.champion() == second


def test_a_model_that_remembers_whom_the_champion_forgot_is_not_promoted(shop: Shop, second: int) -> None:
    version = shop.unlearn(*PASSING, "--method.suppression", "3")
    answer = shop.console("models", "promote", str(version))
    assert answer.code == 2
    assert "still knows 1 of those who were forgotten" in answer.stderr
    assert shop.champion() == second


def test_no_rollback_to_a_model_that_remembers_somebody_who_is_forgotten(shop: Shop, second: int, one_more: Path) -> None:
    answer = shop.console("models", "rollback")
    assert answer.code == 2
    assert "version 1 still knows 1 of those who were forgotten: " in answer.stderr
    pseudonym = answer.stderr.split("forgotten: ")[1].split()[0]
    assert len(pseudonym) == 20
    assert not any(user in answer.stderr for user in one_more.read_text().split())
    assert shop.champion() == second
    assert shop.console("models", "show", "1", "--json").json()["still_known"] == [pseudonym]


@pytest.fixture(scope="module")
def third(shop: Shop, second: int, one_more: Path) -> int:
    """A third champion that has forgotten the same people as the second, so that there is a way back."""
    return shop.unlearn(*PASSING, "--forget.users-file", one_more, "--method.suppression", "5", "--release.then", "promote")


@pytest.mark.long
def test_there_is_a_way_back_and_forth_between_models_that_forgot_the_same(shop: Shop, second: int, third: int) -> None:
    """In parts: `tests/tasks/test_promote.py`; through the command: `test_night_story.py`."""
    assert shop.aliases()["champion"] == third
    assert shop.console("models", "rollback").code == 0
    assert shop.aliases() == {**shop.aliases(), "champion": second, "previous": third}
    assert shop.console("models", "rollback", str(third)).code == 0
    assert shop.champion() == third


@pytest.mark.long
def test_killed_while_promoting_the_ledger_and_the_registry_agree_again(shop: Shop, second: int, third: int) -> None:
    """In parts: `tests/tasks/test_promote.py`; through the command: `tests/faults/test_night_kill.py`."""
    target = second if shop.champion() == third else third
    killed = command("models", "rollback", str(target), "--workspace", shop.console.workspace, E2UREC_FAILPOINT="promote.recorded:1:kill")
    assert killed.code == -signal.SIGKILL
    assert shop.aliases()["champion"] != target
    assert shop.champion() == target == shop.aliases()["champion"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "99"), "does not hold version 99"),
        (("promote", "99"), "does not hold version 99"),
        (("rollback", "99"), "does not hold version 99"),
        (("diff", "1", "1"), "version 1 is compared with itself"),
        (("show", "one"), "valid integer"),
    ],
)
def test_bad_words_get_one_sentence(shop: Shop, words: tuple[str, ...], said: str) -> None:
    answer = shop.console("models", *words)
    assert answer.code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_no_user_is_named_in_the_ledger_or_the_registry(shop: Shop, second: int) -> None:
    users = trained_users(shop.console.workspace, shop.run_of(1))
    place = shop.console.workspace
    files = [path for path in shop.source(second).rglob("*") if path.suffix in (".json", ".md", ".yaml", ".txt") or path.name == "MLmodel"]
    told = [path.read_text() for path in files]
    for name in ("requests.db", "mlflow.db"):
        with sqlite3.connect(place / name) as database:
            told += database.iterdump()
    assert len(files) > 5
    assert len(told) > 100
    # The sample's users are u1, u2, ...
    assert [text for text in told if re.search(r"\bu[0-9]+\b", text)] == []
    assert all(re.fullmatch("u[0-9]+", user) for user in users)


def test_a_workspace_without_releases_says_so(tmp_path: Path, console: Console) -> None:
    empty = console("models", "list", workspace=tmp_path / "empty")
    assert (empty.code, empty.stdout.splitlines()[0]) == (0, "no releases yet")
    nothing = console("models", "rollback", workspace=tmp_path / "empty")
    assert nothing.code == 2
    assert "there is no champion before this one" in nothing.stderr
