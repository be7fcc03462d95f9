"""What a Prefect server is told before a worker comes: a pool with two queues, limits, automations, and every deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

from e2urec_core.artifacts import digest_of
from e2urec_core.errors import ServiceFailed
from tasks._gpus import GPU_TAG, num_gpus

POOL = "e2urec-process"
HEARTBEAT_S = 30
SILENCE_S = 75.0
PAUSE_S = 20.0
# A cluster may have to fetch an image and a machine first.
BEGUN_WITHIN_S = 1800.0
MOST_STARTS = 5
ENDS = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
HEARTBEAT = "prefect.flow-run.heartbeat"
RESOURCE = "prefect.resource.id"
FLOW_RUNS = {RESOURCE: "prefect.flow-run.*"}
DEPLOYED = {"prefect.resource.role": "deployment"}
"""Runs of deployments alone: a command that was killed is started again by whoever started it."""


def set_up(checkout: Path, environment: Mapping[str, str], num_at_once: int) -> None:
    """Make pool, queues, limits and automations, and deploy everything; what is there already is brought up to date.

    Args:
        checkout: Folder of `prefect.yaml`.
        environment: Of the commands of Prefect.
        num_at_once: Most stages on a CPU that run side by side.

    Raises:
        ServiceFailed: A deployment is refused.
    """
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
        for queue, limit in (("cpu", num_at_once), ("gpu", num_gpus())):
            _queue(client, queue, limit)
        client.upsert_global_concurrency_limit_by_name(f"tag:{GPU_TAG}", num_gpus())
        keep_automations(client)
    deploy_all(checkout, environment)


def deploy_all(checkout: Path, environment: Mapping[str, str], file: Path = Path("prefect.yaml")) -> None:
    """Deploy what a file declares; flow runs read the code in the folder that the environment's `PWD` names, else in the checkout.

    Args:
        checkout: Folder of the code, in which entry points are looked for.
        environment: Of the command of Prefect.
        file: Absolute, or below the checkout.

    Raises:
        ServiceFailed: A deployment is refused.
    """
    line = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    environment = {**os.environ, "PWD": str(checkout), **environment}
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [each for each in (done.stdout + done.stderr).splitlines() if each.strip()]
        raise ServiceFailed(
            f"`prefect deploy --all` ended with exit code {done.returncode}",
            facts={"it said": " / ".join(said[-3:]) or "nothing"},
            hint=f"run it in {checkout} with PREFECT_API_URL set, and look at what it says",
        )


def keep_automations(client: SyncPrefectClient) -> None:
    """Make the automations of a server, or bring them up to date. One that is as it should be is left: else it forgets what it heard."""
    for automation in automations():
        # Sets come in another order in every process.
        plain = automation.model_dump(mode="json", exclude={"trigger": {"id", "after", "expect"}})
        named = [sorted(getattr(automation.trigger, name)) for name in ("after", "expect")]
        mark = f"[{digest_of([plain, named])[:12]}]"
        wanted = automation.model_copy(update={"description": f"{automation.description} {mark}"})
        known = client.read_automations_by_name(automation.name)
        if not known:
            client.create_automation(wanted)
        elif not known[0].description.endswith(mark):
            client.update_automation(known[0].id, wanted)


def automations() -> list[AutomationCore]:
    """What the server does by itself with runs whose worker was killed: they are called crashed, and are started again.

    A run that was killed stays `Running` for ever in Prefect by itself. One that was never begun, as its code could not be loaded, is not
    started again.
    """
    silent = EventTrigger(
        match=FLOW_RUNS,
        match_related=DEPLOYED,
        after={HEARTBEAT, "prefect.flow-run.Running"},
        expect={HEARTBEAT, *ENDS},
        for_each={RESOURCE},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_S),
    )
    # Not at once: a worker holds the place of a run for a moment after it has called it crashed, and ends if it is given the run again.
    crashed = EventTrigger(
        match={**FLOW_RUNS, "prefect.run-count": [str(number) for number in range(1, MOST_STARTS)]},
        match_related=DEPLOYED,
        after={"prefect.flow-run.Crashed"},
        expect={f"prefect.flow-run.{name}" for name in ("AwaitingRetry", "Scheduled", "Pending", "Running")},
        for_each={RESOURCE},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=PAUSE_S),
    )
    # One that a killed worker had taken and not begun.
    taken = EventTrigger(
        match=FLOW_RUNS,
        match_related=DEPLOYED,
        after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
        expect={"prefect.flow-run.Running", "prefect.flow-run.AwaitingConcurrencySlot", "prefect.flow-run.AwaitingRetry", *ENDS},
        for_each={RESOURCE},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=BEGUN_WITHIN_S),
    )
    told = f"nothing was heard of its process for {SILENCE_S:.0f} s"
    again = ChangeFlowRunState(name="AwaitingRetry", state=StateType.SCHEDULED, message="it goes on from what is stored")
    return [
        AutomationCore(
            name="e2urec: runs whose worker was killed are crashed",
            description=f"A run whose process says nothing for {SILENCE_S:.0f} s was killed with it.",
            trigger=silent,
            actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=told)],
        ),
        AutomationCore(
            name="e2urec: crashed runs go on",
            description=f"A deployment's run that crashed is scheduled again, {MOST_STARTS - 1} times at most.",
            trigger=crashed,
            actions=[again],
        ),
        AutomationCore(
            name="e2urec: runs that were taken and not begun are given to another worker",
            description=f"A run that a worker took and did not begin within {BEGUN_WITHIN_S:.0f} s is scheduled again.",
            trigger=taken,
            actions=[again.model_copy(update={"message": "the worker that took it did not begin it"})],
        ),
    ]


def _queue(client: SyncPrefectClient, name: str, limit: int) -> None:
    try:
        client.create_work_queue(name, work_pool_name=POOL, concurrency_limit=limit)
    except ObjectAlreadyExists:
        client.update_work_queue(client.read_work_queue_by_name(name, work_pool_name=POOL).id, concurrency_limit=limit)
