"""Manifests of `cluster/`, checked without a cluster: Kubernetes' own schemas, the fields that KubeRay knows, Ray's
schema of Serve files, and commands that the command line takes."""

import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from jobs.cli import app
from jobs.submit import absolute_arguments
from prectr.online.config import ModelsConfig
from serve_apps.ranker import AppArguments

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "cluster" / "kuberay"
KUBERNETES = "1.37"
OF_KUBERNETES = {"NetworkPolicy", "PersistentVolumeClaim", "Deployment", "Service"}
FILES = sorted(file for file in KUBERAY.rglob("*.yaml") if file.name not in ("kustomization.yaml", "teacher.yaml"))
STAGES = {file.stem for file in (KUBERAY / "jobs").glob("*.yaml")}


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
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group.template["spec"]}
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
            assert document["kind"] == "PodMonitor"


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
    found, _ = absolute_arguments(words[3:], app)
    assert set(word for word in words if word.startswith("--")) == set(word for word in found if word.startswith("--"))


def test_every_stage_has_a_job() -> None:
    assert {
        *("validate", "train-teacher", "label", "distill", "score-relevance", "mine-preferences", "build-samples"),
        *("train", "evaluate", "publish"),
    } == STAGES


def test_the_service_deploys_what_exists() -> None:
    (document,) = _documents(KUBERAY / "service.yaml")
    content = yaml.safe_load(document["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(content)
    assert set(content) <= set(ServeDeploySchema.model_fields)
    (application,) = content["applications"]
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    AppArguments.model_validate(application["args"])
    (deployment,) = application["deployments"]
    assert set(deployment) <= set(DeploymentSchema.model_fields)
    ModelsConfig.model_validate(deployment["user_config"])


def test_images_copy_what_is_there() -> None:
    for file in (ROOT / "cluster" / "images").glob("*.Dockerfile"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("COPY"):
                *sources, _ = line.split()[1:]
                assert all((ROOT / source).exists() for source in sources), f"{file}: {line}"
