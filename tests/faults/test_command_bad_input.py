"""Bad input through the command: exit code 2, one sentence, facts, a hint, no traceback, and the store as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2urec_console import TINY, TINY_NETWORK, WORDS, Answer, Console, command

from e2urec_core import errors

NAMES = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.UserError)}


def refusal(answer: Answer, kind: str) -> tuple[str, str]:
    """The sentence and the hint of a well-formed refusal."""
    assert answer.code == 2, answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert 'File "' not in answer.stderr
    lines = answer.stderr.splitlines()
    opens = [number for number, line in enumerate(lines) if line.split(":")[0] in NAMES]
    assert len(opens) == 1, answer.stderr
    assert [number for number, line in enumerate(lines) if line.startswith("hint: ")] == [len(lines) - 1]
    for talk in lines[: opens[0]]:
        assert re.match(r"[a-z-]+ +(cached|\d+\.\d s) ", talk), talk
    for fact in lines[opens[0] + 1 : -1]:
        assert re.match(r"  \S.*   \S", fact), fact
    name, sentence = lines[opens[0]].split(": ", 1)
    assert name == kind
    assert not sentence.endswith(".")
    hint = lines[-1].removeprefix("hint: ")
    assert len(hint) > 5
    return sentence, hint


def everything(workspace: Path) -> set[str]:
    return {str(path.relative_to(workspace)) for path in (workspace / "store").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console in which nothing but early refusals happen, so that what it imports was imported for them."""
    console = Console(tmp_path_factory.mktemp("quick") / "workspace")
    yield console
    console.close()


EARLY = [
    (("unlearn", "sampel", "tiny-t5", "e2urec"), r"there is no `sampel` among the \d+ datasets", "did you mean `sample`?"),
    (("unlearn", "sample", "tiny-t6", "e2urec"), r"there is no `tiny-t6` among the \d+ backbones", "did you mean `tiny-t5`?"),
    (("unlearn", "sample", "tiny-t5", "e2ureck"), r"there is no `e2ureck` among the \d+ methods", "did you mean `e2urec`?"),
    (("unlearn",), "3 of 3 words are missing: DATASET BACKBONE METHOD", "e2urec unlearn sample"),
    (("unlearn", "sample", "tiny-t5"), "1 of 3 words are missing: METHOD", "e2urec unlearn sample"),
    ((*WORDS, "more"), ".*more.*", "--help"),
    (("forgot", "sample"), ".*forgot.*", "--help"),
    ((*WORDS, "--supression", "3"), ".*--supression.*", "--help"),
    ((*WORDS, "--method.supression", "3"), "there is no setting `--method.supression`", "did you mean `--method.suppression`?"),
    ((*WORDS, "--metod.suppression", "3"), "there is no setting `--metod.suppression`", "did you mean `--method`?"),
    ((*WORDS, "--method.suppression.deep", "3"), "there is no setting `--method.suppression.deep`", "is a single value"),
    ((*WORDS, "--method.lora", "3"), "`--method.lora` is a group of settings, not one", "--method.lora."),
    ((*WORDS, "--method.kind", "sisa"), "there is no setting `--method.kind`", "suppression"),
    ((*WORDS, "--preset", "smok"), "there is no preset `smok`", "smoke"),
    ((*WORDS, "--method.suppression", "-1"), "`--method.suppression -1` is refused: .*greater than or equal to 0", "pushed off"),
    ((*WORDS, "--method.suppression", "1001"), "`--method.suppression 1001` is refused: .*less than or equal to 1000", "pushed off"),
    ((*WORDS, "--method.suppression", "nan"), "`--method.suppression nan` is refused: .*finite", "pushed off"),
    ((*WORDS, "--method.suppression", "much"), "`--method.suppression much` is refused: .*number", "pushed off"),
    ((*WORDS, "--method.suppression="), "`--method.suppression ?` is refused: .*number", "pushed off"),
    ((*WORDS, "--method.losses", "some"), "`--method.losses some` is refused: .*'both'", "losses"),
    ((*WORDS, "--training.num-epochs", "0"), "`--training.num-epochs 0` is refused: .*greater than or equal to 1", "Passes"),
    ((*WORDS, "--training.num-epochs", "1.5"), "`--training.num-epochs 1.5` is refused: .*integer", "Passes"),
    ((*WORDS, "--backbone.width", "60"), "`--backbone.width 60` is refused: .*multiple of 8", "hidden"),
    ((*WORDS, "--backbone.num-heads", "5"), "`--backbone.* is refused: width 64 is not a multiple of num_heads 5", ""),
    ((*WORDS, "--split.train-share", "0.9"), "`--split.* is refused: .*leave nothing to test", ""),
    ((*WORDS, "--seed", "-1"), "`--seed -1` is refused: .*greater than or equal to 0", "Seed"),
    ((*WORDS, "--threads", "0"), "`--threads 0` is refused: .*greater than or equal to 1", "CPU threads"),
    ((*WORDS, "--processes", "0"), "`--processes 0` is refused: .*greater than or equal to 1", "Processes"),
    ((*WORDS, "--precision", "fp16"), "`--precision fp16` is refused: .*'fp32' or 'bf16'", "matrix products"),
    ((*WORDS, "--execution", "thread"), "`--execution thread` is refused: .*'inline' or 'process'", "flow's process"),
    ((*WORDS, "--engine.token-budget", "8"), "`--engine.token-budget 8` is refused: .*greater than or equal to 16", "forward pass"),
    ((*WORDS, "--engine.checkpoint-every-s", "0"), "`--engine.checkpoint-every-s 0` is refused: .*greater than 0", "Seconds between"),
    ((*WORDS, "--engine.every-s", "3"), "there is no setting `--engine.every-s`", "checkpoint-every-s"),
    ((*WORDS, "--device", "tpu"), "`--device tpu` is refused: .*'cpu' or 'cuda'", "trained"),
    (("unlearn", "ml-1m", "tiny-t5", "e2urec"), "`ml-1m` was given 0 folders", "--dataset.path FOLDER"),
    (("stage", "unlearn"), ".*--run.*", "--help"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"), EARLY, ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else ""
)
def test_a_bad_word_flag_or_value_is_refused_before_prefect_is_loaded(
    quick: Console, arguments: tuple[str, ...], sentence: str, hint: str
) -> None:
    answer = quick(*arguments)
    said, mend = refusal(answer, "BadSetting")
    assert re.match(sentence, said), said
    assert hint in mend
    assert not {"prefect", "torch", "mlflow", "polars"} & set(answer.imported)


def test_a_flag_without_its_value_is_refused() -> None:
    answer = command(*WORDS, "--method.suppression")
    assert refusal(answer, "BadSetting") == ("`--method.suppression` has no value", "write `--method.suppression VALUE`")


def test_every_setting_may_be_given_the_value_that_help_shows(quick: Console) -> None:
    # A folder that is missing ends the run right after the settings were read.
    shown = re.findall(r"^(--\S+) (\S.*)$", quick("unlearn", "ml-1m", "tiny-t5", "e2urec", "--help").stdout, re.MULTILINE)
    assert len(shown) > 40
    flags = [part for pair in shown for part in pair if pair[0] != "--dataset.path"]
    answer = quick("unlearn", "ml-1m", "tiny-t5", "e2urec", "--dataset.path", "nowhere", *flags)
    assert "there is no folder `nowhere`" in refusal(answer, "BadInput")[0]


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_workspace_that_cannot_be_written_is_refused_before_prefect_is_loaded(quick: Console, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    workspace = tmp_path / "file" / "below" if place == "file" else Path("/proc/e2urec")
    answer = quick(*WORDS, *TINY, workspace=workspace)
    assert "prefect" not in answer.imported
    sentence, hint = refusal(answer, "StorageFailed")
    assert sentence.startswith("the workspace cannot be written: ")
    assert "--workspace" in hint
    assert str(workspace) in answer.stderr
    assert (tmp_path / "file").read_text() == ""


def test_a_stage_in_a_workspace_that_is_not_there_is_refused_and_makes_no_workspace(quick: Console, tmp_path: Path) -> None:
    answer = quick("stage", "unlearn", "--run", "some-run", workspace=tmp_path / "mistyped")
    assert refusal(answer, "UnknownRun")[0] == "this workspace holds no run `some-run` among its 0"
    assert not (tmp_path / "mistyped").exists()


def test_an_unknown_run_is_refused_before_prefect_is_loaded(quick: Console) -> None:
    for name in ("no-such-run", "../runs/x", ""):
        answer = quick("stage", "unlearn", "--run", name)
        sentence, hint = refusal(answer, "UnknownRun")
        assert sentence == f"this workspace holds no run `{name}` among its 0"
        assert "e2urec runs" in hint
        assert "prefect" not in answer.imported


def test_a_missing_folder_or_file_is_refused_before_prefect_is_loaded(quick: Console, tmp_path: Path) -> None:
    answer = quick("unlearn", "ml-1m", "tiny-t5", "e2urec", "--dataset.path", tmp_path / "nowhere")
    assert refusal(answer, "BadInput")[0] == f"0 of 3 files found: there is no folder `{tmp_path / 'nowhere'}`"
    for name in ("ratings.dat", "users.dat"):
        (tmp_path / name).write_bytes(b"")
    answer = quick("unlearn", "ml-1m", "tiny-t5", "e2urec", "--dataset.path", tmp_path)
    assert refusal(answer, "BadInput")[0] == f"1 of 3 files are missing in `{tmp_path}`"
    assert "  missing   movies.dat\n" in answer.stderr
    assert "prefect" not in answer.imported
    assert everything(quick.workspace) == set()


def test_the_installed_command_refuses_as_its_entry_point_does(tmp_path: Path) -> None:
    answer = command("unlearn", "sampel", "tiny-t5", "e2urec", "--workspace", tmp_path / "workspace", "--json")
    assert refusal(answer, "BadSetting")[0].startswith("there is no `sampel`")
    assert not (tmp_path / "workspace").exists()


def test_debug_shows_where_a_refusal_came_from(tmp_path: Path) -> None:
    answer = command("unlearn", "sampel", "tiny-t5", "e2urec", "--debug")
    assert answer.code != 0
    assert "Traceback" in answer.stderr
    assert "BadSetting: there is no `sampel`" in answer.stderr


def invented(place: Path) -> dict[str, list[str]]:
    """Lines of a small folder in MovieLens' format: 20 users who rate 10 movies each, one an hour."""
    lines = {
        "movies": [f"{movie}::Film {movie} (1990)::Drama" for movie in range(10)],
        "users": [f"{90_000 + user}::F::25::9::00000" for user in range(20)],
        "ratings": [
            f"{90_000 + user}::{movie}::{1 + (user + movie) % 5}::{978_307_200 + 3600 * (20 * movie + user)}"
            for user in range(20)
            for movie in range(10)
        ],
    }
    place.mkdir()
    return lines


def write(place: Path, lines: dict[str, list[str]]) -> Path:
    for name, some in lines.items():
        (place / f"{name}.dat").write_text("\n".join([*some, ""]), encoding="latin-1")
    return place


def wrong_separator(lines: list[str]) -> list[str]:
    return [line.replace("::", ",") for line in lines]


def out_of_scale(lines: list[str]) -> list[str]:
    return [line.replace("::5::", "::7::") for line in lines]


def milliseconds(lines: list[str]) -> list[str]:
    return [line + "000" for line in lines]


def as_text(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+$", "2001-01-01", line) for line in lines]


def unlisted(lines: list[str]) -> list[str]:
    return [*lines, "90000::77::3::978307200"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "sentence", "hint"),
    [
        (wrong_separator, "200 of 200 lines of ratings.dat do not have 4 fields between `::`", "by `::`"),
        (out_of_scale, "36 of 200 rows (18 %) break a rule; at most 0.1 % may", "1, 2, 3, 4 or 5"),
        (milliseconds, "200 of 200 rows (100 %) break a rule; at most 0.1 % may", "divide them by 1000"),
        (as_text, "200 of 200 rows (100 %) break a rule; at most 0.1 % may", "seconds since 1970"),
        (unlisted, "1 of 201 rows (0.498 %) break a rule; at most 0.1 % may", "add the missing movies"),
    ],
)
def test_a_bad_file_is_refused_with_its_count_and_the_store_is_as_it_was(
    console: Console, tmp_path: Path, spoil: object, sentence: str, hint: str
) -> None:
    assert callable(spoil)
    before = everything(console.workspace)
    lines = invented(tmp_path / "data")
    data = write(tmp_path / "data", {**lines, "ratings": spoil(lines["ratings"])})
    answer = console("unlearn", "ml-1m", "tiny-t5", "e2urec", *TINY_NETWORK, "--dataset.path", data)
    said, mend = refusal(answer, "BadInput")
    assert said == sentence
    assert hint in mend
    assert not re.search(r"\b90\d{3}\b", answer.stderr)
    assert everything(console.workspace) == before
    run = console.last()
    assert (run["state"], list(run["stages"])) == ("failed", ["ingest"])
    assert run["stages"]["ingest"]["fault"] == f"BadInput: {sentence}"


@pytest.mark.slow
def test_ratings_of_one_moment_are_an_empty_split_and_no_examples_are_kept(console: Console, tmp_path: Path) -> None:
    before = everything(console.workspace)
    lines = invented(tmp_path / "data")
    moments = [re.sub(r"\d+$", "978307200", line) for line in lines["ratings"]]
    data = write(tmp_path / "data", {**lines, "ratings": moments})
    answer = console("unlearn", "ml-1m", "tiny-t5", "e2urec", *TINY_NETWORK, "--dataset.path", data)
    sentence, hint = refusal(answer, "BadInput")
    assert sentence == "the train part of the split is empty: 100 examples lie in 1 different seconds"
    assert "--split.train-share" in hint
    new = {path.split("/")[2] for path in everything(console.workspace) - before if path.startswith("store/objects")}
    assert new == {"Interactions"}
    assert list((console.workspace / "store" / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "users", "sentence", "hint"),
    [
        (("--forget.share", "1", "--forget.cohort", ""), None, r"all 42 training users would be forgotten, so .*", "--forget.share"),
        (("--forget.share", "0"), None, r"no users are forgotten: a share of 0.0 of \d+ training users.* is 0 users", "--forget.share"),
        (("--forget.cohort", "purple"), None, "none of 42 training users belongs to the cohort `purple`", "polluted, steady"),
        ((), "", "no users are forgotten: the file names 0 users", "one user id a line"),
        ((), "\n \n", "no users are forgotten: the file names 0 users", "one user id a line"),
        ((), "u1\nnobody-4711\nstranger-4712\n", "2 of 3 named users have no training row", "take them out"),
        ((), "\n".join(f"u{user}" for user in range(60)), r"\d+ of 60 named users have no training row", "take them out"),
        ((), b"\xff\xfe\x00u", "the file of users to forget cannot be read: it is not text", "--forget.users-file"),
        ((), "missing", "the file of users to forget cannot be read: No such file or directory", "--forget.users-file"),
        ((), "folder", "the file of users to forget cannot be read: Is a directory", "--forget.users-file"),
    ],
    ids=["everybody", "share-0", "cohort", "empty-file", "blank-file", "unknown", "all-named", "no-text", "missing", "folder"],
)
def test_a_request_that_cannot_be_carried_out_is_refused_and_the_store_is_as_it_was(
    console: Console, tmp_path: Path, flags: tuple[str, ...], users: str | bytes | None, sentence: str, hint: str
) -> None:
    before = everything(console.workspace)
    path = tmp_path / "leave.txt"
    if users == "folder":
        path.mkdir()
    elif isinstance(users, bytes):
        path.write_bytes(users)
    elif users is not None and users != "missing":
        path.write_text(users)
    named = () if users is None else ("--forget.users-file", str(path))
    answer = console.unlearn(*flags, *named)
    said, mend = refusal(answer, "BadRequest")
    assert re.fullmatch(sentence, said), said
    assert hint in mend
    assert "471" not in answer.stderr.replace(str(tmp_path), "")
    assert everything(console.workspace) == before
    assert console.last()["state"] == "failed"


@pytest.mark.slow
def test_a_device_that_is_not_there_is_refused_and_the_store_is_as_it_was(console: Console) -> None:
    before = everything(console.workspace)
    answer = console.unlearn("--device", "cuda")
    sentence, hint = refusal(answer, "BadSetting")
    assert sentence == "`--device cuda` is refused: torch sees 0 CUDA devices"
    assert "--device cpu" in hint
    assert everything(console.workspace) == before


@pytest.mark.slow
def test_after_all_refusals_a_good_run_finds_everything_in_the_store(console: Console) -> None:
    assert console.unlearn("--forget.share", "0").code == 2
    assert console.unlearn().code == 0
    assert {entry["state"] for entry in console.last()["stages"].values()} == {"cached"}
