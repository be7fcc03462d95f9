"""The command `e2urec doctor`: whether this machine and this workspace are fit for nights."""

from __future__ import annotations

import json
import sys
from itertools import groupby

from flows.flags import AsJson, Debug, StoreAt, Workspace

EXIT_FAULT = 1


def doctor(workspace: Workspace = None, store: StoreAt = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Say whether this machine and workspace are fit for nights; changes nothing. Exit code 0: no fault; 1: a fault."""
    from flows.health.examination import examine
    from flows.health.finding import counted
    from flows.health.subject import Subject
    from tasks._journal import place_of

    found = examine(Subject(place_of(workspace)))
    faults, warnings = (sum(each.state == state for each in found) for state in ("fault", "warning"))
    if as_json:
        checks = [each.canonical() for each in found]
        print(json.dumps({"fit": not faults, "faults": faults, "warnings": warnings, "checks": checks}, indent=2))
    else:
        width = max(len(each.name) for each in found)
        for topic, members in groupby(found, key=lambda each: each.topic):
            print(topic)
            for each in members:
                print(f"  {each.state:<8} {each.name:<{width}}  {each.said}")
                if each.hint:
                    print(f"  {'':<8} {'':<{width}}  hint: {each.hint}")
        counts = f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}"
        print(f"{'not fit' if faults else 'fit'} for nights: {len(found)} checks, {counts}")
    if faults:
        sys.stdout.flush()
        sys.exit(EXIT_FAULT)
