"""Kubernetes jobs filled in by Prefect's own worker class, and what `deploy/kubernetes` declares, checked without a cluster."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError
from prefect.utilities.templating import apply_values

from e2urec_core.errors import BadSetting
from flows.services.kubernetes import CHECKOUT, GPU_RESOURCE, IN_IMAGE, QUEUES, TEMPLATES, deployments, pool_of, template

REASON = "install it with: pip install --constraint constraints.txt '.[k8s]'"
worker = pytest.importorskip("prefect_kubernetes.worker", reason=REASON)
from kubernetes_schema import faults  # noqa: E402

BASE = {queue: template(queue, image="e2urec:test", namespace="e2urec") for queue in QUEUES}
DECLARED = list(yaml.safe_load_all((TEMPLATES / "worker.yaml").read_text()))
NO_SERVER = SimpleNamespace()
FILLED: list[dict[str, Any]] = [
    {},
    # As `--job-variable cpu=4` says it.
    {"cpu": 4},
    {"cpu": "500m", "memory": "512Mi", "namespace": "shop", "image": "registry.example.org/e2urec:7", "image_pull_policy": "Always"},
    {"node_selector": {"pool": "night"}, "tolerations": [], "labels": {"team": "Recommendations & Co"}, "annotations": {"why": "a night"}},
    {
        "env": {"HF_HOME": "/workspace/hub"},
        "command": "e2urec doctor",
        "finished_job_ttl": 0,
        "workspace_claim": "data",
        "secret_name": "keys",
    },
]


def job(queue: str, values: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The job that Prefect's worker would send to a cluster for a flow run."""
    base = base or BASE[queue]
    validate(values, base["variables"], raise_on_error=True, preprocess=False)
    # A client is for blocks and variables of a server, which the templates name none of.
    filled_in = worker.KubernetesWorkerJobConfiguration.from_template_and_values(copy.deepcopy(base), values, client=NO_SERVER)
    made = asyncio.run(filled_in)
    flow = Flow(id=uuid4(), name="scheduled night")
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=flow.id, name="clever-fox"), flow=flow)
    return dict(made.job_manifest)


def pod_of(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod that it describes, and its one container."""
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def declared(kind: str) -> list[dict[str, Any]]:
    """Those of a kind in `worker.yaml`."""
    return [each for each in DECLARED if each["kind"] == kind]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("values", FILLED, ids=lambda values: " ".join(values) or "defaults")
def test_a_filled_in_template_is_a_job_that_kubernetes_knows(queue: str, values: dict[str, Any]) -> None:
    manifest = job(queue, values)
    assert faults(manifest) == []
    assert "{{" not in json.dumps(manifest)


def test_the_schema_finds_what_is_wrong() -> None:
    manifest = job("gpu", {})
    pod, container = pod_of(manifest)
    pod["gpus"], pod["nodeSelector"] = 1, ["night"]
    container["resources"]["limits"]["cpu"] = None
    container["securityContext"]["runAsNonRoot"] = "yes"
    del container["name"]
    manifest["spec"]["backoffLimit"] = "none"
    at = "Job.spec.template.spec"
    assert sorted(faults(manifest)) == sorted(
        [
            "Job.spec.backoffLimit is 'none', not of type int",
            f"{at}.containers[0].resources.limits.cpu is None, not of type str",
            f"{at}.containers[0].securityContext.runAsNonRoot is 'yes', not of type bool",
            f"{at}.containers[0]: Invalid value for `name`, must not be `None`",
            f"{at}.gpus is unknown",
            f"{at}.nodeSelector is no mapping",
        ]
    )


@pytest.mark.parametrize("queue", QUEUES)
def test_every_variable_has_its_place_in_the_job_and_every_place_its_variable(queue: str) -> None:
    base = BASE[queue]
    assert set(re.findall(r"{{ (\w+) }}", json.dumps(base["job_configuration"]))) == set(base["variables"]["properties"])
    for name, variable in base["variables"]["properties"].items():
        assert variable["title"], name
        assert variable["description"].endswith("."), name
        assert "default" in variable, name


def test_a_gpu_is_asked_for_by_request_and_limit_alike() -> None:
    for num_gpus in (1, 4):
        resources = pod_of(job("gpu", {"gpus": num_gpus, "cpu": "4", "memory": "16Gi"}))[1]["resources"]
        assert resources["requests"] == resources["limits"] == {"cpu": "4", "memory": "16Gi", GPU_RESOURCE: num_gpus}
    assert pod_of(job("gpu", {}))[1]["resources"]["limits"][GPU_RESOURCE] == 1
    assert GPU_RESOURCE not in json.dumps(job("cpu", {}))


@pytest.mark.parametrize(
    "values",
    [
        *({"gpus": -1}, {"gpus": 0}, {"gpus": 1.5}, {"gpus": "two"}, {"gpus": None}, {"num_gpus": 1}),
        *({"memory": "lots"}, {"memory": "0Gi"}, {"cpu": "0"}, {"cpu": 0}, {"image": ""}, {"namespace": "Not A Name"}),
        *({"tolerations": "all"}, {"finished_job_ttl": -1}, {"workspace_claim": "../etc"}),
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_refused_before_there_is_a_job(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(values, BASE["gpu"]["variables"], raise_on_error=True, preprocess=False)


def test_the_pool_of_cpus_takes_no_gpus() -> None:
    with pytest.raises(ValidationError):
        validate({"gpus": 1}, BASE["cpu"]["variables"], raise_on_error=True, preprocess=False)


def test_the_two_pools_differ_in_gpus_and_sizes_alone() -> None:
    cpu, gpu = copy.deepcopy(BASE["cpu"]), copy.deepcopy(BASE["gpu"])
    resources = pod_of(gpu["job_configuration"]["job_manifest"])[1]["resources"]
    assert [each.pop(GPU_RESOURCE) for each in resources.values()] == ["{{ gpus }}", "{{ gpus }}"]
    del gpu["variables"]["properties"]["gpus"]
    for name in ("cpu", "memory", "tolerations"):
        for pool in (cpu, gpu):
            del pool["variables"]["properties"][name]["default"]
    assert cpu == gpu


@pytest.mark.parametrize(
    "manifest", [job("cpu", {}), job("gpu", {"gpus": 2}), *declared("Deployment")], ids=["cpu", "gpu", "cpu worker", "gpu worker", "desk"]
)
def test_a_pod_has_no_more_rights_than_it_needs(manifest: dict[str, Any]) -> None:
    # What Kubernetes' level `restricted` asks for, and a root file system that cannot be written.
    pod, container = pod_of(manifest)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(volume.keys() - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert [each["secretRef"] for each in container["envFrom"] if "secretRef" in each] == [{"name": "e2urec"}]


def test_a_job_is_started_again_by_prefect_and_never_by_kubernetes() -> None:
    manifest = job("gpu", {})
    pod, container = pod_of(manifest)
    assert manifest["spec"]["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert manifest["spec"]["ttlSecondsAfterFinished"] > 0
    assert {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "reschedule"} in container["env"]
    assert pod["automountServiceAccountToken"] is False


def test_a_job_begins_where_the_deployments_have_their_code() -> None:
    _, container = pod_of(job("cpu", {}))
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["workingDir"] == IN_IMAGE
    told = {each["name"]: each.get("valueFrom") for each in container["env"]}
    assert told["OMP_NUM_THREADS"] == told["POLARS_MAX_THREADS"] == {"resourceFieldRef": {"resource": "limits.cpu"}}


def test_a_cluster_may_call_its_gpus_otherwise() -> None:
    base = template("gpu", image="e2urec:test", namespace="shop", gpu_resource="amd.com/gpu")
    manifest = job("gpu", {"gpus": 2}, base)
    pod, container = pod_of(manifest)
    assert faults(manifest) == []
    assert container["resources"]["limits"]["amd.com/gpu"] == container["resources"]["requests"]["amd.com/gpu"] == 2
    assert pod["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (container["image"], manifest["metadata"]["namespace"]) == ("e2urec:test", "shop")
    assert GPU_RESOURCE not in json.dumps(manifest)
    # Why it is no variable: names of fields are not filled in.
    assert apply_values({"{{ name }}": "{{ name }}"}, {"name": "amd.com/gpu"}) == {"{{ name }}": "amd.com/gpu"}
    with pytest.raises(BadSetting, match="no name of a resource"):
        template("gpu", image="e2urec:test", namespace="shop", gpu_resource='x"/gpu')


def test_every_deployment_goes_to_the_pool_of_its_queue_and_stays_as_it_was() -> None:
    text = (CHECKOUT / "prefect.yaml").read_text()
    ours, theirs = yaml.safe_load(text), yaml.safe_load(deployments(text))
    for each, other in zip(ours["deployments"], theirs["deployments"], strict=True):
        assert other == {**each, "work_pool": {"name": pool_of(each["work_pool"]["work_queue_name"])}}
    assert {each["work_pool"]["name"] for each in theirs["deployments"]} == {pool_of(queue) for queue in QUEUES}
    assert {**ours, "deployments": [], "definitions": {}} == {**theirs, "deployments": [], "definitions": {}}
    assert theirs["definitions"].keys() == ours["definitions"].keys()


def test_what_the_cluster_is_given_is_known_to_kubernetes() -> None:
    assert {each["kind"] for each in DECLARED} == {
        *("Namespace", "PersistentVolumeClaim", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Deployment")
    }
    assert [fault for each in DECLARED for fault in faults(each)] == []


def test_jobs_and_workers_name_what_is_declared() -> None:
    variables = BASE["gpu"]["variables"]["properties"]
    (namespace,), (claim,), (role,), (binding,) = map(declared, ("Namespace", "PersistentVolumeClaim", "Role", "RoleBinding"))
    accounts = [each["metadata"]["name"] for each in declared("ServiceAccount")]
    assert variables["namespace"]["default"] == namespace["metadata"]["name"]
    assert variables["workspace_claim"]["default"] == claim["metadata"]["name"]
    assert variables["service_account_name"]["default"] in accounts
    assert {each["metadata"]["namespace"] for each in DECLARED if each is not namespace} == {namespace["metadata"]["name"]}
    (subject,) = binding["subjects"]
    assert (binding["roleRef"]["name"], subject["name"]) == (role["metadata"]["name"], "e2urec-worker")
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("jobs", "create"), ("jobs", "delete"), ("pods", "watch"), ("pods/log", "get")} <= granted
    assert not {resource for resource, _ in granted} & {"secrets", "*"}
    images = set()
    *workers, desk = declared("Deployment")
    for deployment in (*workers, desk):
        pod, container = pod_of(deployment)
        assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
        images |= {container["image"], *(each["value"] for each in container.get("env", []))}
    for queue, deployment in zip(QUEUES, workers, strict=True):
        pod, container = pod_of(deployment)
        assert f"--pool={pool_of(queue)}" in container["args"]
        (base,) = [each.partition("=")[2] for each in container["args"] if each.startswith("--base-job-template=")]
        assert (CHECKOUT / base) == TEMPLATES / f"work-pool-{queue}.json"
        assert pod["serviceAccountName"] == subject["name"]
        assert pod["volumes"] == [{"name": "temporary", "emptyDir": {"sizeLimit": "1Gi"}}], "who may make jobs sees no data"
    pod, container = pod_of(desk)
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (variables["service_account_name"]["default"], False)
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert [each["name"] for each in container["env"]] == ["E2UREC_IMAGE"]
    # One word to replace.
    assert images == {json.loads((TEMPLATES / "work-pool-gpu.json").read_text())["variables"]["properties"]["image"]["default"]}


def test_prefects_key_stands_in_no_job() -> None:
    from prefect_kubernetes.settings import KubernetesSettings

    (told,) = declared("ConfigMap")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in told["data"].items():
            patched.setenv(name, value)
        settings = KubernetesSettings()
    assert (settings.worker.api_key_secret_name, settings.worker.api_key_secret_key) == ("e2urec", "PREFECT_API_KEY")
    assert settings.worker.api_auth_string_secret_name == "e2urec"
    assert settings.worker.api_auth_string_secret_key == "PREFECT_API_AUTH_STRING"
    assert settings.observer.namespaces == {"e2urec"}
    assert settings.cluster_uid == "e2urec"
