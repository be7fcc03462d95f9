"""`--help` shows every knob of the chosen words, at once and without the heavy packages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2urec_console import Console

WORDS = ("unlearn", "sample", "tiny-t5", "e2urec")


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console that has run nothing else, so that what it has imported was imported for help."""
    console = Console(tmp_path_factory.mktemp("help") / "workspace")
    yield console
    console.close()


def knobs(text: str) -> dict[str, tuple[str, str]]:
    """Value and sentence by flag."""
    return {flag: (value, sentence) for flag, value, sentence in re.findall(r"^(--\S+) (.*)\n    (.+)$", text, re.MULTILINE)}


def test_help_with_words_shows_knobs_with_sentence_bounds_and_default(helper: Console) -> None:
    answer = helper(*WORDS, "--preset", "default", "--help")
    assert answer.code == 0
    shown = knobs(answer.stdout)
    value, sentence = shown["--method.suppression"]
    assert value == "2.0"
    assert sentence == (
        "How strongly the forgetting teacher is pushed off what the augmented model has added. Paper: alpha. [number, >= 0, <= 1000]"
    )
    assert shown["--method.lora.targets"][1].endswith("[attention|all_linear]")
    assert shown["--backbone.width"][1].endswith("[whole number, >= 8, <= 1024, multiple of 8]")
    assert shown["--seed"][0] == "0"


def test_every_knob_of_help_has_a_sentence_and_a_type(helper: Console) -> None:
    shown = knobs(helper(*WORDS, "--help").stdout)
    assert len(shown) > 40
    for flag, (_, sentence) in shown.items():
        assert re.fullmatch(r"[A-Z`].+[.)] \[.+\]", sentence), f"{flag}: {sentence}"


def test_help_shows_the_values_of_the_named_preset(helper: Console) -> None:
    for preset, suppression, epochs in (("demo", "60.0", "8"), ("paper", "2.0", "100")):
        shown = knobs(helper(*WORDS, "--preset", preset, "--help").stdout)
        assert (shown["--method.suppression"][0], shown["--training.num-epochs"][0]) == (suppression, epochs)


def test_help_shows_the_knobs_of_the_chosen_words_alone(helper: Console) -> None:
    sample = knobs(helper(*WORDS, "--help").stdout)
    real = knobs(helper("unlearn", "ml-1m", "tiny-bart", "e2urec", "--help").stdout)
    assert "--dataset.num-users" in sample
    assert "--dataset.num-users" not in real
    assert "--dataset.path" in real


def test_help_without_words_lists_what_can_be_chosen(helper: Console) -> None:
    answer = helper("unlearn", "--help")
    listed = {line.split()[0]: line for line in answer.stdout.splitlines() if line}
    assert "sample" in listed["datasets"]
    assert "ml-1m" in listed["datasets"]
    assert "tiny-bart" in listed["backbones"]
    assert "e2urec" in listed["methods"]
    assert "smoke" in listed["presets"]


def test_help_of_the_command_lists_its_verbs(helper: Console) -> None:
    answer = helper("--help")
    assert answer.code == 0
    for verb in ("unlearn", "stage", "runs"):
        assert re.search(rf"^  {verb}  ", answer.stdout, re.MULTILINE)


def test_help_of_an_unknown_word_offers_the_nearest(helper: Console) -> None:
    answer = helper("unlearn", "sampel", "tiny-t5", "e2urec", "--help")
    assert answer.code == 2
    assert "did you mean `sample`?" in answer.stderr


def test_help_loads_no_heavy_package_and_makes_no_workspace(helper: Console) -> None:
    for arguments in ((), ("unlearn",), WORDS, ("unlearn", "ml-1m", "tiny-bart", "e2urec"), ("stage",), ("runs",)):
        answer = helper(*arguments, "--help") if arguments else helper("--help")
        assert (arguments, answer.code, answer.imported) == (arguments, 0, ())
    assert not Path(helper.workspace).exists()
