"""Manifests of `cluster/`, checked without a cluster: Kubernetes' own schemas, the fields that KubeRay knows, Ray's
schema of Serve files, Ray's own check of `ray up` files, and commands that the command line takes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import ValidationError
from pydantic import BaseModel, ConfigDict
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from jobs.cli import command_table
from jobs.cluster.submit import absolute_arguments
from jobs.settings import Settings
from prectr.core.config import load_config
from serve_apps.ranker import AppArguments

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "cluster" / "kuberay"
ORCHESTRATION = ROOT / "cluster" / "orchestration"
RAY_UP = (ROOT / "cluster" / "ray-up.yaml", ROOT / "cluster" / "ray-up-local.yaml")
KUBERNETES = "1.37"
OF_KUBERNETES = {"NetworkPolicy", "PersistentVolumeClaim", "Deployment", "Service", "CronJob"}
FILES = sorted(file for file in KUBERAY.rglob("*.yaml") if file.name not in ("kustomization.yaml", "teacher.yaml"))
DAILY = KUBERAY / "jobs" / "daily.yaml"
STAGES = {file.stem for file in (KUBERAY / "jobs").glob("*.yaml")} - {DAILY.stem}


class Strict(BaseModel):
    """The fields that KubeRay knows, of those that we use: a misspelt one is an error here, as it is not there."""

    model_config = ConfigDict(extra="forbid")


class Autoscaler(Strict):
    """autoscalerOptions."""

    version: str
    idleTimeoutSeconds: int


class Auth(Strict):
    """authOptions."""

    mode: str


class FaultTolerance(Strict):
    """gcsFaultToleranceOptions."""

    redisAddress: str
    redisPassword: dict[str, Any]


class HeadGroup(Strict):
    """headGroupSpec."""

    rayStartParams: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(Strict):
    """workerGroupSpecs."""

    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class ClusterSpec(Strict):
    """RayCluster.spec."""

    rayVersion: str
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: Autoscaler | None = None
    authOptions: Auth
    gcsFaultToleranceOptions: FaultTolerance
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    """RayJob.spec."""

    clusterSelector: dict[str, str]
    submissionMode: str
    backoffLimit: int
    entrypoint: str


class UpgradeOptions(Strict):
    """clusterUpgradeOptions."""

    gatewayClassName: str
    stepSizePercent: int
    intervalSeconds: int
    maxSurgePercent: int


class Upgrade(Strict):
    """upgradeStrategy."""

    type: str
    clusterUpgradeOptions: UpgradeOptions


class ServiceSpec(Strict):
    """RayService.spec."""

    upgradeStrategy: Upgrade
    excludeHeadPodFromServeSvc: bool
    serveConfigV2: str
    rayClusterConfig: ClusterSpec


class Backoff(Strict):
    """backoff of a retryStrategy of Argo."""

    duration: str
    factor: str


class RetryStrategy(Strict):
    """retryStrategy."""

    limit: str
    retryPolicy: str
    expression: str
    backoff: Backoff


class Parameter(Strict):
    """Of arguments or inputs."""

    name: str
    value: str | None = None


class Parameters(Strict):
    """arguments, inputs."""

    parameters: list[Parameter]


class Task(Strict):
    """Of a dag."""

    name: str
    template: str
    dependencies: list[str] = []
    arguments: Parameters


class Dag(Strict):
    """dag."""

    tasks: list[Task]


class Template(Strict):
    """templates."""

    name: str
    dag: Dag | None = None
    inputs: Parameters | None = None
    retryStrategy: RetryStrategy | None = None
    container: dict[str, Any] | None = None


class PodMetadata(Strict):
    """podMetadata."""

    labels: dict[str, str]


class WorkflowSpec(Strict):
    """Workflow.spec."""

    entrypoint: str
    podMetadata: PodMetadata
    templates: list[Template]


class CronWorkflowSpec(Strict):
    """CronWorkflow.spec."""

    schedules: list[str]
    timezone: str
    concurrencyPolicy: str
    startingDeadlineSeconds: int
    workflowSpec: WorkflowSpec


SPECS: dict[str, type[Strict]] = {"RayCluster": ClusterSpec, "RayJob": JobSpec, "RayService": ServiceSpec}


def _documents(file: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one is not None]


def _cluster() -> ClusterSpec:
    (document,) = _documents(KUBERAY / "base" / "cluster.yaml")
    return ClusterSpec.model_validate(document["spec"])


def _with_teacher() -> ClusterSpec:
    """The gpu overlay, as kustomize makes it: its patch only adds to a list."""
    (patch,) = yaml.safe_load((KUBERAY / "overlays" / "gpu" / "teacher.yaml").read_text(encoding="utf-8"))
    assert (patch["op"], patch["path"]) == ("add", "/spec/workerGroupSpecs/-")
    group = WorkerGroup.model_validate(patch["value"])
    cluster = _cluster()
    return cluster.model_copy(update={"workerGroupSpecs": [*cluster.workerGroupSpecs, group]})


def _require_pods(spec: ClusterSpec) -> None:
    for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
        labels = group.template.get("metadata", {}).get("labels", {})
        metadata = {"name": "x", "labels": labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": group.template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(KUBERAY)))
def test_every_manifest_fits_its_schema(file: Path) -> None:
    for document in _documents(file):
        if document["kind"] in OF_KUBERNETES:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        elif document["kind"] in SPECS:
            assert document["apiVersion"] == "ray.io/v1" and document["metadata"]["name"].startswith("prectr")
            spec = SPECS[document["kind"]].model_validate(document["spec"])
            for cluster in (spec, getattr(spec, "rayClusterConfig", None)):
                if isinstance(cluster, ClusterSpec):
                    _require_pods(cluster)
        else:
            raise AssertionError(f"{document['kind']}: no schema")


def test_the_check_can_fail() -> None:
    (document,) = _documents(KUBERAY / "base" / "cluster.yaml")
    container = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["imagee"] = container.pop("image")
    with pytest.raises(kubernetes_validate.ValidationError):
        _require_pods(ClusterSpec.model_validate(document["spec"]))


def test_kustomizations_name_files_that_are_there() -> None:
    for file in KUBERAY.rglob("kustomization.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        named = [*content["resources"], *(patch["path"] for patch in content.get("patches", ()))]
        assert all((file.parent / name).exists() for name in named), file
    listed = yaml.safe_load((KUBERAY / "base" / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert set(listed) == {file.name for file in (KUBERAY / "base").glob("*.yaml")} - {"kustomization.yaml"}


def test_the_head_does_no_work_and_clusters_ask_for_tokens() -> None:
    (service,) = _documents(KUBERAY / "service.yaml")
    for spec in (_cluster(), ServiceSpec.model_validate(service["spec"]).rayClusterConfig):
        assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
        assert spec.authOptions.mode == "token" and spec.rayVersion == "2.60.0"


def test_the_teacher_group_starts_from_zero_on_gpus() -> None:
    spec = _with_teacher()
    _require_pods(spec)
    teacher = spec.workerGroupSpecs[-1]
    assert (teacher.groupName, teacher.replicas, teacher.minReplicas) == ("teacher", 0, 0) and teacher.maxReplicas > 0
    (container,) = teacher.template["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert teacher.template["spec"]["tolerations"] and teacher.template["spec"]["nodeSelector"]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stages_job_is_a_command_that_exists(stage: str) -> None:
    (document,) = _documents(KUBERAY / "jobs" / f"{stage}.yaml")
    spec = JobSpec.model_validate(document["spec"])
    assert spec.clusterSelector == {"ray.io/cluster": "prectr"}
    words = shlex.split(spec.entrypoint)
    assert words[:3] == ["python", "-m", "jobs.cli"] and words[3] == stage
    found, _ = absolute_arguments(words[3:], command_table())
    assert set(word for word in words if word.startswith("--")) == set(word for word in found if word.startswith("--"))


def test_every_stage_has_a_job() -> None:
    assert {
        *("validate", "train-teacher", "label", "distill", "score-relevance", "mine-preferences", "build-samples"),
        *("train", "evaluate", "publish", "select-pairs", "sweep", "report", "pipeline"),
    } == STAGES


def test_the_service_deploys_what_exists() -> None:
    (document,) = _documents(KUBERAY / "service.yaml")
    content = yaml.safe_load(document["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(content)
    assert set(content) <= set(ServeDeploySchema.model_fields)
    (application,) = content["applications"]
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    AppArguments.model_validate(application["args"])


def test_images_copy_what_is_there() -> None:
    for file in (ROOT / "cluster" / "images").glob("*.Dockerfile"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("COPY"):
                *sources, _ = line.split()[1:]
                assert all((ROOT / source).exists() for source in sources), f"{file}: {line}"


def _submitted(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """The id and the command of a line `prectr submit ...`, as the command line reads it."""
    monkeypatch.setenv("PRECTR_ADDRESS", "http://head:8265")
    words = shlex.split(line)
    assert words[:2] == ["prectr", "submit"]
    given = command_table().command_of("submit").make_context("submit", words[2:]).params
    assert given["follow"], "the exit code is the job's"
    command, _ = absolute_arguments(given["words"], command_table())
    named = {word for word in given["words"] if word.startswith("--")}
    assert named == {word for word in command if word.startswith("--")}
    return given["job_id"], command


def _require_may_submit(pod: dict[str, Any], labels: dict[str, str]) -> None:
    """A pod that the network policy lets through, and that knows address and token."""
    assert labels == {"prectr/submits": "true"}
    environment = {one["name"]: one for one in pod["containers"][0]["env"]}
    assert environment["PRECTR_ADDRESS"]["value"] == "http://prectr-head-svc:8265"
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "prectr", "KubeRay names it so"


def test_the_daily_job_submits_the_pipeline_under_an_id_of_the_night(monkeypatch: pytest.MonkeyPatch) -> None:
    (document,) = _documents(DAILY)
    spec = document["spec"]["jobTemplate"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    _require_may_submit(spec["template"]["spec"], spec["template"]["metadata"]["labels"])
    (line,) = container["args"]
    name, command = _submitted(line, monkeypatch)
    assert (name, command[0]) == ("$JOB", "pipeline") and "--daily" in command
    (job,) = (one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"] if one["name"] == "JOB")
    assert job == "metadata.labels['batch.kubernetes.io/job-name']", "the same for every pod of a night"
    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    refused = spec["podFailurePolicy"]["rules"][0]
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailJob", [2]), "bad usage is not tried again"


def test_airflow_submits_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    file = ORCHESTRATION / "airflow_dag.py"
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    lines = [text for text in texts if text.lstrip().startswith("prectr submit")]
    assert all("{{ run_id" in line for line in lines), "a try that comes later finds the job of the first"
    submitted = [_submitted(re.sub(r"\{\{.*?\}\}", "RUN", line), monkeypatch) for line in lines]
    ((name, command),) = submitted
    assert (name, command[0]) == ("daily-RUN", "pipeline") and "--daily" in command


def _lines_of_argo(spec: WorkflowSpec) -> Iterator[str]:
    """What each task runs, its parameters put in."""
    templates = {template.name: template for template in spec.templates}
    dag = templates[spec.entrypoint].dag
    assert dag is not None
    for task in dag.tasks:
        container = templates[task.template].container
        assert container is not None and set(task.dependencies) <= {other.name for other in dag.tasks}
        (line,) = container["args"]
        for parameter in task.arguments.parameters:
            line = line.replace(f"{{{{inputs.parameters.{parameter.name}}}}}", parameter.value)
        yield line.replace("{{workflow.name}}", "RUN")


def test_argo_submits_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    (document,) = _documents(ORCHESTRATION / "argo.yaml")
    assert (document["apiVersion"], document["kind"]) == ("argoproj.io/v1alpha1", "CronWorkflow")
    spec = CronWorkflowSpec.model_validate(document["spec"]).workflowSpec
    (template,) = [one for one in spec.templates if one.container is not None]
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", **(template.container or {})}]}
    content = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes_validate.validate(content, KUBERNETES, strict=True)
    _require_may_submit(pod, spec.podMetadata.labels)
    assert template.retryStrategy is not None and template.retryStrategy.expression.endswith("!= 2")
    submitted = [_submitted(line, monkeypatch) for line in _lines_of_argo(spec)]
    ((name, command),) = submitted
    assert (name, command[0]) == ("RUN-pipeline", "pipeline") and "--daily" in command


@pytest.mark.parametrize("file", RAY_UP, ids=lambda file: file.stem)
def test_ray_up_takes_its_files(file: Path) -> None:
    """As `ray up` itself does before it asks a cloud for anything."""
    prepared = prepare_config(yaml.safe_load(file.read_text(encoding="utf-8")))
    validate_config(prepared)
    assert all("pip install" not in command for command in prepared["setup_commands"]), "Ray's default installs Ray"
    (head,) = (command for command in prepared["head_start_ray_commands"] if "ray start" in command)
    (worker,) = (command for command in prepared["worker_start_ray_commands"] if "ray start" in command)
    assert "--num-cpus=0" in head and "--dashboard-host=127.0.0.1" in head and "--autoscaling-config" in head
    assert all("RAY_AUTH_MODE=token" in command and "PATH=/opt/venv/bin:" in command for command in (head, worker))
    assert prepared["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    mounts = [*prepared.get("initialization_commands", []), *prepared["setup_commands"]]
    assert any("mount -t nfs" in command and "/workspace" in command for command in mounts)


def test_the_check_of_ray_up_can_fail() -> None:
    content = yaml.safe_load(RAY_UP[0].read_text(encoding="utf-8"))
    content["available_node_types"]["cpu"]["min_worker"] = content["available_node_types"]["cpu"].pop("min_workers")
    with pytest.raises(ValidationError, match="min_worker"):
        validate_config(prepare_config(content))


def test_ray_up_starts_both_groups_from_zero_and_is_not_reached_from_outside() -> None:
    content = yaml.safe_load(RAY_UP[0].read_text(encoding="utf-8"))
    groups = content["available_node_types"]
    assert content["head_node_type"] == "head" and groups["head"]["resources"] == {"CPU": 0}
    assert {name: group["min_workers"] for name, group in groups.items() if name != "head"} == {"cpu": 0, "teacher": 0}
    assert groups["teacher"]["resources"]["GPU"] == 1 and groups["teacher"]["docker"]["worker_image"].endswith(":gpu")
    assert content["provider"]["use_internal_ips"]
    assert {entry["FromPort"] for entry in content["provider"]["security_group"]["IpPermissions"]} == {22}


def _gib(text: str) -> float:
    assert text.endswith("Gi")
    return float(text.removesuffix("Gi"))


def _nodes(group: str) -> Iterator[tuple[float, float, float]]:
    """CPUs, GPUs and GiB that Ray may give away on a worker of a group, on KubeRay and with `ray up`."""
    (found,) = (one for one in _with_teacher().workerGroupSpecs if one.groupName == group)
    limits = found.template["spec"]["containers"][0]["resources"]["limits"]
    yield float(limits["cpu"]), float(limits.get("nvidia.com/gpu", 0)), _gib(limits["memory"])
    resources = yaml.safe_load(RAY_UP[0].read_text(encoding="utf-8"))["available_node_types"][group]["resources"]
    yield resources["CPU"], resources.get("GPU", 0), resources["memory"] / 2**30


@pytest.mark.parametrize("preset", ["cpu-cluster", "gpu-cluster"])
def test_what_a_preset_asks_for_fits_a_node(preset: str) -> None:
    settings = load_config(Settings, None, [f"preset={preset}"])
    for asked in (settings.teacher, settings.label.replicas, settings.distill, settings.train, settings.relevance):
        gpus = getattr(asked, "gpus", 0) or 0
        for cpus, there, memory in _nodes("teacher" if gpus else "cpu"):
            assert asked.cpus <= cpus and gpus <= there and (asked.memory_gib or 0) <= memory, asked
    assert all((settings.ray.memory_gib or 0) < memory for _, _, memory in _nodes("cpu"))
