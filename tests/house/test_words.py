"""Names, sizes, sentences and files that every part of the house keeps."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import data_contracts
import e2urec_core
import flows
import tasks

ROOT = Path(__file__).parents[2]
PACKAGES = (data_contracts, e2urec_core, tasks, flows)
# The served model is code for another process; importing it would register a model here.
MODULES = sorted(
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name != "tasks._served_model"
)
FILES = sorted(path for package in PACKAGES for path in Path(str(package.__file__)).parent.rglob("*.py"))
LONGEST_FILE, VAGUE = 300, {"utils", "util", "helpers", "misc", "common", "manager", "handler"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    assert not VAGUE & set(path.stem.split("_"))
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), "the file begins with a paragraph for newcomers"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    silent = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None:
            silent.append(node.name)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and ast.get_docstring(node) is None:
            silent.append(node.name)
    assert not silent


@pytest.mark.parametrize("name", MODULES)
def test_every_setting_has_a_sentence(name: str) -> None:
    module = importlib.import_module(name)
    for owner in vars(module).values():
        if isinstance(owner, type) and issubclass(owner, BaseModel) and owner.__module__ == name:
            silent = [field for field, info in owner.model_fields.items() if not (info.description or "").strip().endswith((".", "?"))]
            assert not silent, f"{name}.{owner.__name__}: {silent}"


def test_nothing_can_unpickle_or_run_what_it_loads() -> None:
    banned = re.compile(
        r"pickle\.loads?\(|torch\.load\(|joblib\.load\(|allow_pickle=True|trust_remote_code=True|yaml\.load\(|pyfunc\.load_model\("
    )
    assert banned.search("x = torch.load(path)")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if banned.search(line)
    ]
    assert not wrong


def test_no_tracked_file_is_large_or_looks_like_ratings_of_others() -> None:
    rating = re.compile(rb"^[0-9]+::[0-9]+::[1-5]::[0-9]{9}", re.MULTILINE)
    assert rating.search(b"1::2::3::978300019")
    for path in tracked():
        content = path.read_bytes()
        assert len(content) <= 2**20, f"{path} has {len(content):,} bytes"
        assert not rating.search(content), f"{path} looks like MovieLens ratings"


def test_the_top_level_is_the_agreed_one() -> None:
    for name in (
        "flows",
        "tasks",
        "e2urec_core",
        "data_contracts",
        "tests",
        "prefect.yaml",
        "pyproject.toml",
        "README.md",
        "Makefile",
        ".ci/run",
    ):
        assert (ROOT / name).exists(), name


def test_every_deployment_names_a_flow_that_exists_and_takes_its_parameters() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        path, name = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        flow = getattr(module, name)
        flow.validate_parameters(deployment.get("parameters", {}))


def test_every_stage_has_a_deployment_in_the_queue_of_what_it_needs() -> None:
    from flows.runs import STAGES
    from flows.stages import FLOWS

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    queues = {each["entrypoint"]: each["work_pool"]["work_queue_name"] for each in deployments}
    assert tuple(FLOWS) == STAGES
    for name, flow in FLOWS.items():
        trains = "on" in flow.parameters.properties
        assert queues[f"flows/stages.py:{name.replace('-', '_')}"] == ("gpu" if trains else "cpu"), name


def test_the_tested_versions_lie_within_the_declared_caps() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): pin for name, pin in pins.items()}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert len(wanted) > 15
    for requirement in map(Requirement, wanted):
        pin = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pin), f"{requirement} does not admit the tested {pin}"
        assert "+" not in pin


def test_the_readme_names_commands_that_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", readme))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no target `{target}`"
    commands = set(re.findall(r"\be2urec ([a-z]+)", readme))
    cli = "".join(path.read_text() for path in (ROOT / "flows").glob("*.py") if path.stem.endswith(("cli", "_command", "_commands")))
    for command in commands:
        assert f"def {command}(" in cli, f"the README names `e2urec {command}`, the command does not exist"
    assert len(readme.splitlines()) <= 120
