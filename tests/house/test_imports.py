"""Who may import whom: the table of the house, executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("data_contracts", "e2urec_core", "tasks", "flows")
FILES = sorted(path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*.py"))

# What a file of each package may import of ours.
BELOW = {
    "data_contracts": {"data_contracts"},
    "e2urec_core": {"data_contracts", "e2urec_core"},
    "tasks": {"data_contracts", "e2urec_core", "tasks"},
    "flows": {"e2urec_core", "tasks", "flows"},
}
MIGRATIONS = [f"e2urec_core/ledger/migrations/version_{number}.py" for number in ("0001", "0002", "0003", "0004")]
# Which files may import an engine, and nobody else.
ENGINES = {
    "prefect": [
        "tasks/_ray_crew.py",
        "tasks/_stage.py",
        "tasks/_shown.py",
        "tasks/_notices.py",
        "flows/unlearn.py",
        "flows/compare.py",
        "flows/stages.py",
        "flows/services/setting_up.py",
        "flows/services/kubernetes.py",
        "flows/rooms.py",
        "flows/diff.py",
        "flows/train.py",
        "flows/pollution.py",
        "flows/nightly.py",
    ],
    "mlflow": [
        "tasks/_tracking.py",
        "tasks/_registry.py",
        "tasks/_purging.py",
        "tasks/_purging_files.py",
        "tasks/_servable.py",
        "tasks/_served_model.py",
    ],
    "great_expectations": ["data_contracts/expectations.py"],
    "cleanlab": ["e2urec_core/pollution/quality.py"],
    "ray": ["tasks/_ray_crew.py"],
    "prefect_ray": ["tasks/_ray_crew.py"],
    "sqlalchemy": [
        *(f"e2urec_core/ledger/{name}.py" for name in ("database", "history", "looking", "migrating", "releases", "replay", "schema")),
        *(f"e2urec_core/ledger/{name}.py" for name in ("owed", "restoring")),
        *(f"e2urec_core/ledger/{name}.py" for name in ("request_book", "request_replay", "requests", "subjects", "suppressions")),
        *MIGRATIONS,
        "e2urec_core/receipts/witness.py",
        "tasks/_purging_rows.py",
        "e2urec_core/scanning/databases.py",
    ],
    "alembic": ["e2urec_core/ledger/migrating.py", *MIGRATIONS],
    "cryptography": ["e2urec_core/receipts/envelope.py"],
    "fastapi": ["flows/requests_serving.py"],
    "uvicorn": ["flows/requests_serving.py"],
}
# What the command may import before it knows what to do: help answers within half a second.
SLOW = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "polars",
    "pandas",
    "sklearn",
    "matplotlib",
    "mlflow",
    "prefect",
    "great_expectations",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "uvicorn",
    "cleanlab",
    "ray",
    "prefect_ray",
)
QUICK = [
    *(f"flows/{name}.py" for name in ("cli", "comparison", "data_commands", "finding", "flags", "knobs", "models_commands", "presets")),
    "flows/backup_commands.py",
    "flows/doctor_command.py",
    "flows/explain_command.py",
    "flows/gc_command.py",
    "flows/night_commands.py",
    *(f"flows/{name}.py" for name in ("receipt_commands", "requests_commands", "runs", "scan_command", "shown", "surroundings")),
    "tasks/_journal.py",
]
# The doctor answers where they are broken, or cannot be imported at all.
QUICK += sorted(str(path) for path in FILES if path.parts[:2] == ("flows", "health"))
# A stage file is refused before anything slow is loaded.
QUICK += ["e2urec_core/run.py", "e2urec_core/stage_file.py", "e2urec_core/settings.py", "e2urec_core/errors.py"]
# The commands that ask the ledger import it at their top, and open it where they need it.
QUICK += ["e2urec_core/ledger/__init__.py", "e2urec_core/ledger/records.py", "e2urec_core/pseudonyms.py", "e2urec_core/failpoints.py"]
# Receipts are verified by people who have nothing else of ours at work.
QUICK += [f"e2urec_core/receipts/{name}.py" for name in ("chain", "envelope", "folder", "keys", "receipt", "trust", "verify")]
QUICK += ["e2urec_core/secret_key.py", "e2urec_core/release/verdict.py"]
QUICK += ["e2urec_core/ledger/request_records.py"]
# Where the core handles tables of users; what trains and scores runs without Polars.
TABLES = (
    "data/deletions.py",
    "data/files.py",
    "data/forget.py",
    "data/ingest.py",
    "data/appending.py",
    "data/interaction_rows.py",
    "data/moments.py",
    "data/quarantine.py",
    "data/request_files.py",
    "data/suppressing.py",
    "data/unreadable.py",
    "datasets/base.py",
    "datasets/goodreads.py",
    "datasets/interactions.py",
    "datasets/ml_1m.py",
    "datasets/sample.py",
)


def imports(path: Path, *, top_only: bool = False) -> Iterator[tuple[str, int]]:
    """Names of imported modules with their lines; `if TYPE_CHECKING` blocks are left out."""
    tree = ast.parse((ROOT / path).read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


def test_the_table_sees_every_package() -> None:
    assert {path.parts[0] for path in FILES} == set(OURS)
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_rooms_below_its_own(path: Path) -> None:
    allowed = BELOW[path.parts[0]]
    wrong = [f"{path}:{line} imports {name}" for name, line in imports(path) if (top := name.split(".")[0]) in OURS and top not in allowed]
    assert not wrong, f"{path.parts[0]} may import {sorted(allowed)}: {wrong}"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_imported_only_where_the_house_says(engine: str) -> None:
    users = {str(path) for path in FILES for name, _ in imports(path) if name.split(".")[0] == engine}
    assert users == set(ENGINES[engine]), f"{engine} is imported by {sorted(users)}, the house says {ENGINES[engine]}"


def test_what_trains_and_scores_imports_no_polars() -> None:
    users = {str(path) for path in FILES if path.parts[0] == "e2urec_core" for name, _ in imports(path) if name.split(".")[0] == "polars"}
    assert users == {f"e2urec_core/{name}" for name in TABLES}


@pytest.mark.parametrize("path", [path for path in FILES if str(path).startswith("e2urec_core/ops/")], ids=str)
def test_tensor_functions_import_torch_alone(path: Path) -> None:
    assert {name.split(".")[0] for name, _ in imports(path)} <= {"__future__", "torch", "jaxtyping", "math", "typing"}


def test_a_method_never_imports_another_method() -> None:
    methods = [path for path in FILES if path.parts[:2] == ("e2urec_core", "methods") and path.stem not in ("base", "__init__")]
    assert methods
    for path in methods:
        others = [name for name, _ in imports(path) if name.startswith("e2urec_core.methods.") and not name.endswith(".base")]
        assert not others, f"{path} imports {others}"


def test_nothing_names_a_plugin_but_presets() -> None:
    folders = ("datasets", "backbones", "methods")
    members = {f"e2urec_core.{folder}.{path.stem}" for folder in folders for path in (ROOT / "e2urec_core" / folder).glob("*.py")}
    members -= {f"e2urec_core.{folder}.{name}" for folder in folders for name in ("base", "__init__")}
    assert len(members) >= 5
    wrong = [f"{path}:{line}" for path in FILES for name, line in imports(path) if name in members]
    assert not wrong, f"plugins are found by their folder, never imported by name: {wrong}"


@pytest.mark.parametrize("path", QUICK)
def test_what_the_help_needs_imports_nothing_slow(path: str) -> None:
    wrong = [f"{path}:{line} {name}" for name, line in imports(Path(path), top_only=True) if name.split(".")[0] in SLOW]
    assert not wrong, f"import it inside the function that needs it: {wrong}"
