"""Tells a Prefect server of a Kubernetes cluster: two pools whose jobs ask for CPUs or GPUs, automations, and every deployment.

Run in the image: `python -m flows.services.kubernetes --image IMAGE`; see docs/kubernetes.md. Nothing here speaks with the cluster:
Prefect's worker does, by the templates of `deploy/kubernetes`.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from e2urec_core.errors import BadSetting, UserError

CHECKOUT = Path(__file__).resolve().parents[2]
TEMPLATES = CHECKOUT / "deploy" / "kubernetes"
QUEUES = ("cpu", "gpu")
IN_IMAGE = "/app"
"""Where the image has the code, and flow runs begin."""
GPU_RESOURCE = "nvidia.com/gpu"
_QUEUE = re.compile(r"name: e2urec-process, work_queue_name: (cpu|gpu)\b")
_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def pool_of(queue: str) -> str:
    """Name of the pool that stands for a work queue of `prefect.yaml`.

    >>> pool_of("gpu")
    'e2urec-gpu'
    """
    return f"e2urec-{queue}"


def deployments(declared: str) -> str:
    """The text of `prefect.yaml` with a Kubernetes pool in the place of each work queue, and all else as it was.

    >>> deployments("cpu: &cpu {name: e2urec-process, work_queue_name: cpu}")
    'cpu: &cpu {name: e2urec-cpu}'
    """
    return _QUEUE.sub(lambda found: f"name: {pool_of(found[1])}", declared)


def template(queue: str, *, image: str, namespace: str, gpu_resource: str = GPU_RESOURCE) -> dict[str, Any]:
    """The base job template of a pool.

    Args:
        queue: `cpu` or `gpu`.
        image: Of flow runs.
        namespace: Of their jobs.
        gpu_resource: What the cluster calls a GPU, as in `amd.com/gpu`. Prefect fills in values and leaves names as they are, so that this
            cannot be one of the template's variables.

    Raises:
        BadSetting: `gpu_resource` is no name of a resource.
    """
    if not _RESOURCE.fullmatch(gpu_resource):
        raise BadSetting(f"`{gpu_resource}` is no name of a resource", hint="it has a domain and a name, such as `nvidia.com/gpu`")
    text = (TEMPLATES / f"work-pool-{queue}.json").read_text()
    read: dict[str, Any] = json.loads(text.replace(json.dumps(GPU_RESOURCE), json.dumps(gpu_resource)))
    variables = read["variables"]["properties"]
    variables["image"]["default"], variables["namespace"]["default"] = image, namespace
    return read


def set_up(templates: dict[str, dict[str, Any]], limits: dict[str, int]) -> None:
    """Make pools and automations on the server of `PREFECT_API_URL`, and deploy everything; what is there is brought up to date.

    Args:
        templates: Base job templates, by queue.
        limits: Most flow runs at once, by queue.

    Raises:
        ServiceFailed: A deployment is refused.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.services.setting_up import deploy_all, keep_automations

    with get_client(sync_client=True) as client:
        for queue, each in templates.items():
            pool = WorkPoolCreate(name=pool_of(queue), type="kubernetes", base_job_template=each, concurrency_limit=limits[queue])
            client.create_work_pool(pool, overwrite=True)
        keep_automations(client)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(deployments((CHECKOUT / "prefect.yaml").read_text()))
        deploy_all(CHECKOUT, {"PWD": IN_IMAGE}, file)


def main(
    image: Annotated[str, typer.Option("--image", envvar="E2UREC_IMAGE", help="Image of flow runs.")],
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of their jobs.")] = "e2urec",
    num_gpus: Annotated[int, typer.Option("--num-gpus", min=1, help="Most flow runs at once that train or score.")] = 1,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Most other flow runs at once.")] = 4,
    gpu_resource: Annotated[str, typer.Option("--gpu-resource", help="What the cluster calls a GPU.")] = GPU_RESOURCE,
) -> None:
    """Make pools and automations on the server of PREFECT_API_URL, and deploy everything; what is there is brought up to date."""
    try:
        templates = {queue: template(queue, image=image, namespace=namespace, gpu_resource=gpu_resource) for queue in QUEUES}
        set_up(templates, {"cpu": at_once, "gpu": num_gpus})
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    typer.echo(f"pools {' and '.join(map(pool_of, QUEUES))}: up to date, for {image}")


if __name__ == "__main__":
    typer.run(main)
