"""A released folder is a whole MLflow model that tells nothing of where, when and by whom it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from e2urec_core.recommender import Recommender
from tests.released import DIGESTS, release

pytestmark = pytest.mark.slow

Build = Callable[..., Recommender]
FILES = {
    "MLmodel",
    "README.md",
    "artifacts/bundle/answers.json",
    "artifacts/bundle/config.json",
    "artifacts/bundle/model.safetensors",
    "artifacts/bundle/probe.json",
    "artifacts/bundle/prompt.json",
    "artifacts/bundle/tokenizer.json",
    "artifacts/served_networks.py",
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "served_model.py",
    "serving_input_example.json",
    "serving_prompt_example.json",
}


@pytest.fixture(scope="module")
def twice(build_tiny: Build, tiny_interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recommender released in two places."""
    one, two = (release(build_tiny("tiny_t5"), tiny_interactions, tmp_path_factory.mktemp(name)) for name in ("here", "elsewhere"))
    return one, two


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_recommender_gives_the_same_bytes_of_the_agreed_files(twice: tuple[Path, Path]) -> None:
    one, two = map(contents, twice)
    assert set(one) == FILES
    assert [name for name in one if one[name] != two[name]] == []


def test_no_file_names_a_folder_a_run_or_a_moment(twice: tuple[Path, Path]) -> None:
    own_paths = re.compile(rb"/(tmp|home|root|work|Users|var|mnt)/|" + re.escape(str(twice[0].parent).encode()))
    assert own_paths.search(b"uri: /tmp/x")
    for name, content in contents(twice[0]).items():
        if not name.endswith(".safetensors"):
            assert not own_paths.search(content), name
    told = yaml.safe_load((twice[0] / "MLmodel").read_text())
    assert not told.get("run_id")
    assert not told.get("model_id")
    assert told["model_uuid"] == DIGESTS["model"][:32]
    assert told["utc_time_created"].startswith("1970-01-01")
    assert told["flavors"]["python_function"]["model_code_path"] == "served_model.py"
    size = sum(len(content) for name, content in contents(twice[0]).items() if name != "MLmodel")
    assert told["model_size_bytes"] == size


def test_mlflow_finds_a_signature_and_nothing_that_it_would_unpickle(twice: tuple[Path, Path]) -> None:
    from mlflow.models import Model

    model = Model.load(str(twice[0]))
    assert model.signature is not None
    assert model.signature.inputs.input_names() == ["prompt", "profile", "candidate", "history", "candidates"]
    assert model.signature.inputs.required_input_names() == []
    assert [(param.name, param.default) for param in model.signature.params.params] == [("top", 0)]
    assert "loader_module: mlflow.pyfunc.loaders.code_model\n" in (twice[0] / "MLmodel").read_text()
    assert not [name for name in contents(twice[0]) if name.endswith((".pkl", ".bin", ".pt"))]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("serving_input_example.json", ["row", "rank", "candidate", "yes_probability"]),
        ("serving_prompt_example.json", ["yes_probability"]),
    ],
)
def test_both_examples_are_answered_as_a_server_would(twice: tuple[Path, Path], name: str, columns: list[str]) -> None:
    from mlflow.models import validate_serving_input

    answered = validate_serving_input(str(twice[0]), (twice[0] / name).read_text())
    assert list(answered.columns) == columns
    assert len(answered) >= 1
    assert answered["yes_probability"].between(0, 1).all()


def test_mlflows_own_example_is_one_of_a_history_and_candidates(twice: tuple[Path, Path]) -> None:
    from mlflow.models import Model

    (row,) = Model.load(str(twice[0])).load_input_example(str(twice[0])).to_dict("records")
    (probed, *_) = [row for row in json.loads((twice[0] / "artifacts/bundle/probe.json").read_text())["rows"] if row["history"]]
    assert (row["history"], row["profile"]) == (probed["history"], probed["profile"])
    assert len(row["candidates"]) == 3


def test_the_requirements_are_the_versions_that_are_installed(twice: tuple[Path, Path]) -> None:
    from importlib.metadata import version

    lines = (twice[0] / "requirements.txt").read_text().splitlines()
    assert f"mlflow=={version('mlflow')}" in lines
    assert {line.split("==")[0] for line in lines} == {"mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas"}
    assert not any("+" in line for line in lines)
