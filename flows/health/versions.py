"""Versions: Python, and the packages that are installed against those declared and those tested; none of them is imported."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flows.health.finding import Check, Finding, fault, listed, ok
from flows.health.subject import Subject

if TYPE_CHECKING:
    from packaging.requirements import Requirement

TOPIC, PROJECT = "versions", "e2urec"
# Beside the sources; an installed wheel has none.
TESTED = Path(__file__).parents[2] / "constraints.txt"
# What breaks without a word where the declared bound is not kept.
WHY = {
    "sqlalchemy": "with SQLAlchemy 2.1 the schedules of Prefect 3.8 never fire",
    "fastapi": "with newer ones Prefect's server cannot be imported",
}


def python(subject: Subject) -> Finding:
    """Python itself against what the project asks for."""
    from packaging.specifiers import SpecifierSet

    wanted, present = metadata.metadata(PROJECT)["Requires-Python"], platform.python_version()
    said = f"Python {present}, e2urec {metadata.version(PROJECT)}"
    if SpecifierSet(wanted).contains(present, prereleases=True):
        return ok(f"{said} on {platform.system()} {platform.release()}")
    return fault(f"{said}; the project asks for Python {wanted}", "make the environment anew with a newer Python")


def declared(subject: Subject) -> Finding:
    """The installed packages against the bounds that the project declares; those of extras only where they are installed."""
    wrong, reasons, checked = [], [], 0
    for wanted in _requirements():
        present = _installed(wanted.name)
        core = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if present is None and not core:
            continue
        checked += 1
        if present is None or not wanted.specifier.contains(present, prereleases=True):
            wrong.append(f"{wanted.name} is {present or 'missing'}, not {wanted.specifier}")
            reasons += [WHY[wanted.name.lower()]] if wanted.name.lower() in WHY else []
    if not wrong:
        return ok(f"all {checked} declared packages lie within their bounds")
    hint = "; ".join([*reasons, "install the project again with `-c constraints.txt`"])
    return fault(f"{len(wrong)} of {checked} declared packages do not fit: {listed(wrong)}", hint)


def tested(subject: Subject) -> Finding:
    """The installed packages against the exact versions the project was tested with, where that list is at hand."""
    from packaging.version import Version

    if not TESTED.is_file():
        return ok("no list of tested versions here: the project was installed without its sources")
    pins = dict(line.split("==") for line in TESTED.read_text().split() if "==" in line)
    present = {name: found for name in pins if (found := _installed(name)) is not None}
    # Without a local tag, such as that of torch's build for the CPU.
    others = [f"{name} {found} ({pins[name]})" for name, found in present.items() if Version(found).public != pins[name]]
    if not others:
        return ok(f"all {len(present)} installed packages of {len(pins)} are the tested versions")
    return ok(f"{len(others)} of {len(present)} packages differ from the tested versions: {listed(others)}")


CHECKS = (Check(TOPIC, "Python", python), Check(TOPIC, "declared", declared), Check(TOPIC, "tested", tested))


def _requirements() -> Iterator[Requirement]:
    from packaging.requirements import Requirement

    return map(Requirement, metadata.requires(PROJECT) or ())


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
