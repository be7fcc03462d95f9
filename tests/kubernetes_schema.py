"""What Kubernetes would say of a manifest: each field known, of its type, none missing, by the models of its client for Python."""

from __future__ import annotations

import re
from typing import Any

from kubernetes_asyncio.client import models

PLAIN = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "datetime": (str,), "object": (object,)}
QUANTITIES = ("limits", "requests")
PODS_OF_PREFECT = {"completions", "parallelism"}
"""Prefect 3.8 wants these of a job in its pod, too; a cluster passes over them, with a warning."""


def faults(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with it; nothing for one that a cluster takes."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    kind = f"{version.capitalize()}{manifest['kind']}"
    api = getattr(models, kind, None)
    if api is None or group not in ("", "batch", "apps", "rbac.authorization.k8s.io"):
        return [f"{manifest['apiVersion']} {manifest['kind']} is unknown"]
    return list(_faults(kind, manifest, manifest["kind"]))


def _faults(kind: str, value: Any, at: str) -> list[str]:
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{at} is no list"]
        return [fault for number, each in enumerate(value) for fault in _faults(found[1], each, f"{at}[{number}]")]
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{at} is no mapping"]
        # A quantity may be a number, which the models do not tell.
        of_quantities = at.endswith(QUANTITIES)
        plain = {name: str(each) if of_quantities and type(each) is int else each for name, each in value.items()}
        return [fault for name, each in plain.items() for fault in _faults(found[1], each, f"{at}.{name}")]
    if kind in PLAIN:
        right = isinstance(value, PLAIN[kind]) and (kind in ("bool", "object") or not isinstance(value, bool))
        return [] if right else [f"{at} is {value!r}, not of type {kind}"]
    return _faults_of_model(getattr(models, kind), value, at)


def _faults_of_model(model: Any, value: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at} is no mapping"]
    names = {json: name for name, json in model.attribute_map.items()}
    wrong = [f"{at}.{each} is unknown" for each in value if each not in names]
    if model is models.V1PodSpec:
        wrong = [each for each in wrong if each.split(".")[-1].split()[0] not in PODS_OF_PREFECT]
    try:
        model(**{names[each]: inner for each, inner in value.items() if each in names})
    except ValueError as error:
        wrong.append(f"{at}: {error}")
    for each, inner in value.items():
        if each in names:
            wrong += _faults(model.openapi_types[names[each]], inner, f"{at}.{each}")
    return wrong
