"""The key of a stage: the digest of everything that decides what it gives, and nothing else.

The parts are kept in the store's record of the key, so that `e2urec explain` can say which of them differ between two keys.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from e2urec_core.artifacts import Artifact, digest_of, file_digest
from e2urec_core.data.suppressed import Suppressed
from e2urec_core.settings import Settings

PACKAGES = ("torch", "accelerate", "transformers", "tokenizers", "peft", "safetensors", "polars", "pyarrow", "numpy", "scikit-learn")
# What only draws and words the report does not change what other stages give.
REPORT_STAGES = ("evaluate", "report", "compare", "verdict", "diff")
# What only shows a source to people: no stage uses it.
PAGES_OF_DATA = "data_page"
FINGERPRINT = "fingerprint"
"""Part of settings that name files: the digest of the files' bytes."""


def key_parts(name: str, writes: type[Artifact], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the key of a stage is the digest of, as a plain JSON value: inputs, rules, code, versions.

    Args:
        name: Of the stage.
        writes: Kind of the artifact it gives.
        given: Its arguments, without those that change nothing in what it gives.
    """
    return {
        "stage": name,
        "writes": writes.kind,
        "given": {argument: _plain(value) for argument, value in given.items()},
        "code": _code_digest(name in REPORT_STAGES),
        "versions": {package: version(package) for package in PACKAGES},
        "python": list(sys.version_info[:2]),
    }


def code_files(name: str) -> Mapping[str, str]:
    """The files of the code that counts in the keys of a stage, each with its digest."""
    return _code_files(name in REPORT_STAGES)


def _plain(value: Any) -> Any:
    if isinstance(value, Artifact | Suppressed):
        return value.digest
    if isinstance(value, Settings):
        keyed = getattr(value, "keyed", value.canonical)
        told = keyed()
        fingerprint = getattr(value, "fingerprint", None)
        return {**told, FINGERPRINT: fingerprint()} if fingerprint else told
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@lru_cache
def _code_digest(with_report: bool) -> str:
    return digest_of(_code_files(with_report))


@lru_cache
def _code_files(with_report: bool) -> dict[str, str]:
    import data_contracts
    import e2urec_core

    roots = [Path(str(package.__file__)).parent for package in (e2urec_core, data_contracts)]
    left_out = {PAGES_OF_DATA} if with_report else {PAGES_OF_DATA, "report"}
    return {
        path.relative_to(root.parent).as_posix(): file_digest(path)
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.suffix in (".py", ".html") and left_out.isdisjoint(path.relative_to(root).parts)
    }
