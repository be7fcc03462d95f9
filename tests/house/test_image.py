"""The Dockerfile, read without Docker: what it copies is there and suffices, who it runs as, what it tells the programs in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.services.kubernetes import IN_IMAGE, TEMPLATES
from flows.services.setting_up import HEARTBEAT_S
from flows.surroundings import QUIET_OTHERS, QUIET_PREFECT

ROOT = Path(__file__).parents[2]
KNOWN = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
# What a worker's log is to tell; a command sets them for itself.
LEVELS = {"PREFECT_LOGGING_LEVEL", "MLFLOW_LOGGING_LEVEL"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each instruction of a Dockerfile, lines that go on joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


LINES = instructions((ROOT / "Dockerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def rests(name: str) -> list[str]:
    """What follows each instruction of a name."""
    return [rest for each, rest in LINES if each == name]


def copied() -> list[str]:
    """Sources of all COPY instructions."""
    return [source for rest in rests("COPY") for source in rest.split()[:-1]]


def environment() -> dict[str, str]:
    """What ENV sets."""
    return dict(pair.split("=", 1) for rest in rests("ENV") for pair in rest.split())


def test_it_consists_of_known_instructions() -> None:
    assert {name for name, _ in LINES} == KNOWN
    assert [name for name, _ in LINES[:2]] == ["ARG", "FROM"]
    for rest in (*rests("ENTRYPOINT"), *rests("CMD")):
        assert all(isinstance(word, str) for word in json.loads(rest))


def test_its_python_is_one_that_the_project_takes() -> None:
    (image,) = [rest.partition("=")[2] for rest in rests("ARG") if rest.startswith("PYTHON_IMAGE=")]
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim-\w+", image)
    assert found
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert (int(found[1]), int(found[2])) >= (3, 11)


def test_what_it_copies_is_there_tracked_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    tracked = subprocess.run(["git", "ls-files", *copied()], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(name == source or name.startswith(f"{source}/") for name in tracked), source
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied())


def test_packages_are_installed_by_the_tested_versions_before_the_code_is_copied() -> None:
    (installed,) = [rest for rest in rests("RUN") if "--constraint constraints.txt" in rest]
    assert 'PIP_EXTRA_INDEX_URL="$TORCH_INDEX" pip install' in installed
    names = [rest for _, rest in LINES]
    assert names.index("pyproject.toml constraints.txt README.md ./") < names.index(installed) < names.index("flows ./flows")
    (extras,) = [rest.partition("=")[2].strip('"').split(",") for rest in rests("ARG") if rest.startswith("EXTRAS=")]
    assert "k8s" in extras
    assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()
    assert "+cpu" not in str(LINES)
    assert "://" not in str(LINES), "which index, is said by whoever builds"


def test_it_runs_as_a_user_without_rights_by_a_fixed_number_which_jobs_name_too() -> None:
    user = LINES[[name for name, _ in LINES].index("USER")][1]
    assert user == "10001:10001"
    assert rests("USER") == [user]
    assert [name for name, _ in LINES][-4:] == ["USER", "VOLUME", "ENTRYPOINT", "CMD"]
    for queue in ("cpu", "gpu"):
        template = json.loads((TEMPLATES / f"work-pool-{queue}.json").read_text())
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        context, (container,) = pod["securityContext"], pod["containers"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {environment()["E2UREC_WORKSPACE"], environment()["HOME"]} <= mounts
        assert container["workingDir"] == IN_IMAGE
    for deployment in yaml.safe_load_all((TEMPLATES / "worker.yaml").read_text()):
        if deployment["kind"] == "Deployment":
            assert f"{deployment['spec']['template']['spec']['securityContext']['runAsUser']}:10001" == user


def test_it_holds_no_secret() -> None:
    secret = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|AUTH", re.IGNORECASE)
    assert secret.search("E2UREC_RECEIPT_KEY")
    assert not [name for name in environment() if secret.search(name)]
    assert not [rest for rest in rests("ARG") if secret.search(rest)]
    assert all(not any(part in (".", "keys", "workspace") for part in source.split("/")) for source in copied())


def test_it_sets_what_commands_set_and_what_workers_need() -> None:
    told = {name: value for name, value in {**QUIET_OTHERS, **QUIET_PREFECT}.items() if name not in LEVELS}
    assert told.items() <= environment().items()
    assert not LEVELS & environment().keys()
    assert environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_S)
    assert rests("VOLUME") == [environment()["E2UREC_WORKSPACE"]]
    assert rests("WORKDIR") == [IN_IMAGE]
    # Prefect's own database of a command lies in the workspace.
    assert "PREFECT_HOME" not in environment()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the code as the image has it."""
    app = tmp_path_factory.mktemp("image") / "app"
    app.mkdir()
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, app / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, app / source)
    return app


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "flows.cli", "--help"],
        ["-m", "flows.services.kubernetes", "--help"],
        ["-c", "import flows.services.kubernetes as own; own.template('gpu', image='a', namespace='b')"],
        ["-m", "flows.cli", "doctor", "--help"],
    ],
    ids=" ".join,
)
def test_what_it_copies_suffices(app: Path, words: list[str]) -> None:
    told = {
        **os.environ,
        **environment(),
        "HOME": str(app.parent),
        "E2UREC_WORKSPACE": str(app.parent / "workspace"),
        "PYTHONPATH": str(app),
    }
    done = subprocess.run([sys.executable, *words], cwd=app, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (app.parent / "workspace").exists()
