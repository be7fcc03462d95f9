"""Every example in a docstring runs and tells the truth."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = [
    path.relative_to(REPOSITORY)
    for package in ("data_contracts", "e2urec_core")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


def docstrings(source: str) -> list[tuple[str, str, int]]:
    """Name, text and line of every docstring, read off the source: decorators hide functions from doctest's own search."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True)
            if text:
                found.append((getattr(node, "name", "module"), text, node.body[0].lineno))
    return found


def test_the_tensor_operations_have_examples() -> None:
    assert {Path("e2urec_core/ops/answers.py"), Path("e2urec_core/ops/distil.py")} <= set(FILES)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_examples_in_a_module_run_as_written(file: Path) -> None:
    source = (REPOSITORY / file).read_text()
    module = importlib.import_module(".".join(file.with_suffix("").parts))
    parser, runner, talk = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), []
    for name, text, line in docstrings(source):
        runner.run(parser.get_doctest(text, dict(vars(module)), name, str(file), line), out=talk.append)
    assert not runner.failures, "".join(talk)
    # Every line that opens an example was tried, so none was lost on the way.
    assert runner.tries == sum(line.lstrip().startswith(">>> ") for line in source.splitlines())
