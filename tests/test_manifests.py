"""All manifests of `cluster/` read together: what one names exists in another, and policies meet their pods.

`tests/test_cluster.py` checks each file alone.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private import constants

from serve_apps.ranker import AppArguments
from tests.processes import free_port

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
FEATURES = "redis://prectr-features:6379/0"
RAYS_OWN = "redis://prectr-redis:6379"
GIVEN_BY_KUBERAY = {("prectr", "auth_token")}
"""Secrets that KubeRay makes: the token of the cluster `prectr`."""


def _documents() -> dict[str, dict[str, Any]]:
    """Every document by kind and name."""
    files = [*(CLUSTER / "kuberay").rglob("*.yaml"), *(CLUSTER / "monitoring").glob("*.yaml")]
    files.append(CLUSTER / "orchestration" / "argo.yaml")
    found = [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found if "metadata" in one}


ALL = _documents()
SERVICE = ALL["RayService prectr-ranker"]["spec"]
ARGUMENTS = yaml.safe_load(SERVICE["serveConfigV2"])["applications"][0]["args"]


def _groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


RANKER = _groups(SERVICE["rayClusterConfig"])
PODS = {
    "ranker": [template["metadata"]["labels"] | {"ray.io/cluster": "prectr-ranker-x1y2z"} for template in RANKER],
    "stages": [{"ray.io/cluster": "prectr"}],
    "redis": [ALL["Deployment prectr-redis"]["spec"]["template"]["metadata"]["labels"]],
    "features": [ALL["Deployment prectr-features"]["spec"]["template"]["metadata"]["labels"]],
    "submitter": [
        ALL["CronJob prectr-daily"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"],
        ALL["CronWorkflow prectr"]["spec"]["workflowSpec"]["podMetadata"]["labels"],
    ],
    "operator": [{"app.kubernetes.io/name": "kuberay-operator"}],
    "gateway": [{"gateway.networking.k8s.io/gateway-name": "prectr-ranker-gateway"}],
    "prometheus": [{"app.kubernetes.io/name": "prometheus"}],
    "stranger": [{"app": "shop"}],
}
"""Labels of pods: ours from the manifests, with the label that KubeRay adds; the others as their makers label them."""
NAMESPACES = {"operator": "kuberay", "gateway": "istio", "prometheus": "monitoring"}


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", ()):
        if rule["operator"] == "Exists" and rule["key"] not in labels:
            return False
        if rule["operator"] == "In" and labels.get(rule["key"]) not in rule["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _admits(peer: dict[str, Any], who: str, labels: dict[str, str]) -> bool:
    namespace = NAMESPACES.get(who, "ours")
    if "namespaceSelector" in peer:
        if not _matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != "ours":
        return False
    return _matches(peer.get("podSelector", {}), labels)


def _ports(who: str, target: str) -> set[int | str]:
    """Ports of all pods of `target` that all pods of `who` reach; "all" where a rule names none."""
    opened: list[set[int | str]] = []
    for source in PODS[who]:
        for labels in PODS[target]:
            policies = [
                one["spec"]
                for name, one in ALL.items()
                if name.startswith("NetworkPolicy") and _matches(one["spec"]["podSelector"], labels)
            ]
            assert policies, f"no policy protects {target}: {labels}"
            rules = [rule for one in policies for rule in one["ingress"]]
            admitted = [rule for rule in rules if any(_admits(peer, who, source) for peer in rule["from"])]
            opened.append({port["port"] for rule in admitted for port in rule.get("ports", [{"port": "all"}])})
    assert all(one == opened[0] for one in opened), f"{who} reaches some pods of {target} only: {opened}"
    return opened[0]


@pytest.mark.parametrize(
    ("who", "target", "ports"),
    [
        ("ranker", "ranker", {"all"}),
        ("stages", "stages", {"all"}),
        ("gateway", "ranker", {8000}),
        ("operator", "ranker", {8000, 8265}),
        ("operator", "stages", {8265}),
        ("submitter", "stages", {8265}),
        ("prometheus", "ranker", {8080, constants.RAY_SERVE_HAPROXY_METRICS_PORT}),
        ("prometheus", "stages", {8080}),
        ("ranker", "features", {6379}),
        ("ranker", "redis", {6379}),
        ("stages", "features", {6379}),
        ("stages", "redis", {6379}),
        ("stages", "ranker", set()),
        ("ranker", "stages", set()),
        *(("stranger", target, set()) for target in ("ranker", "stages", "redis", "features")),
        *(("gateway", target, set()) for target in ("stages", "redis", "features")),
        *(("prometheus", target, set()) for target in ("redis", "features")),
    ],
)
def test_network_policies_open_what_is_needed_and_nothing_else(who: str, target: str, ports: set[Any]) -> None:
    assert _ports(who, target) == ports


def test_haproxys_statistics_are_open_to_nobody() -> None:
    opened = {port for who in PODS for port in _ports(who, "ranker") if who != "ranker"}
    assert constants.RAY_SERVE_HAPROXY_STATS_PORT not in opened and "all" not in opened


def test_features_have_one_address_apart_from_rays_own_redis() -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in CLUSTER.rglob("*") if file.is_file()}
    named = {url for text in texts.values() for url in re.findall(r"redis://prectr[\w.-]*:\d+(?:/\d+)?", text)}
    assert named == {FEATURES, RAYS_OWN}
    assert ARGUMENTS["serve"]["features"] == FEATURES
    for file in ("kuberay/jobs/publish.yaml", "kuberay/jobs/daily.yaml", "orchestration/argo.yaml"):
        assert FEATURES in texts[CLUSTER / file] and f"{RAYS_OWN}/" not in texts[CLUSTER / file]
    for spec in (ALL["RayCluster prectr"]["spec"], SERVICE["rayClusterConfig"]):
        assert spec["gcsFaultToleranceOptions"]["redisAddress"] == RAYS_OWN
        secret = spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
        assert secret == _password_of("prectr-redis")


def _password_of(deployment: str) -> dict[str, str]:
    (container,) = ALL[f"Deployment {deployment}"]["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    secret: dict[str, str] = variable["valueFrom"]["secretKeyRef"]
    return secret


def _environment(template: dict[str, Any]) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    return {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container.get("env", ())}


def test_who_uses_the_features_has_their_password() -> None:
    head = ALL["RayCluster prectr"]["spec"]["headGroupSpec"]["template"]  # drivers publish
    _, replicas = RANKER
    for template in (head, replicas):
        assert _environment(template)["PRECTR_REDIS_PASSWORD"] == _password_of("prectr-features")
    assert _password_of("prectr-features") != _password_of("prectr-redis")


def test_services_and_claims_lead_to_what_is_there() -> None:
    for name in ("prectr-redis", "prectr-features"):
        (port,) = ALL[f"Service {name}"]["spec"]["ports"]
        assert port["port"] == 6379
        assert (
            ALL[f"Service {name}"]["spec"]["selector"] == ALL[f"Deployment {name}"]["spec"]["selector"]["matchLabels"]
        )
    claims = set(_values(ALL, "claimName"))
    assert claims and all(f"PersistentVolumeClaim {claim}" in ALL for claim in claims)


def _values(content: Any, key: str) -> Iterator[Any]:
    if isinstance(content, dict):
        for name, value in content.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value, key)


def test_the_readme_says_how_each_secret_is_made() -> None:
    used = {(one["name"], one["key"]) for one in _values(ALL, "secretKeyRef")} - GIVEN_BY_KUBERAY
    for secret in _values(ALL, "secret"):
        if isinstance(secret, dict):
            used |= {(secret["secretName"], item["key"]) for item in secret["items"]}
    text = (CLUSTER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    made = set()
    for name, rest in re.findall(r"kubectl create secret generic (\S+) (.*)", text):
        made |= {(name, key) for key in re.findall(r"--from-(?:file|literal)=([\w.]+)=", rest)}
    assert made == used


def test_the_service_watches_its_models_on_a_volume_that_it_mounts() -> None:
    AppArguments.model_validate(ARGUMENTS)
    (application,) = yaml.safe_load(SERVICE["serveConfigV2"])["applications"]
    assert "deployments" not in application, "the watched file names the models, nothing else"
    _, replicas = RANKER
    (container,) = replicas["spec"]["containers"]
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in replicas["spec"]["volumes"]}
    secrets = volumes[mounts["/var/run/prectr"]]["secret"]
    for path in (ARGUMENTS["watch"], ARGUMENTS["serve"]["log"]):
        assert "persistentVolumeClaim" in volumes[mounts["/" + path.split("/")[1]]]
    security = ARGUMENTS["serve"]["security"]
    files = {f"/var/run/prectr/{item['path']}" for item in secrets["items"]}
    assert {security["tokens_file"], security["impression_keys_file"]} == files
    assert all("subPath" not in one for one in container["volumeMounts"]), "such a file would not follow the secret"
    (head,) = RANKER[0]["spec"]["containers"]
    assert {one["mountPath"] for one in head["volumeMounts"]} == {"/workspace"}


def test_pods_export_metrics_where_prometheus_looks() -> None:
    (endpoint,) = ALL["PodMonitor prectr"]["spec"]["podMetricsEndpoints"]
    for template in [*RANKER, *_groups(ALL["RayCluster prectr"]["spec"])]:
        (container,) = template["spec"]["containers"]
        assert {port["name"]: port["containerPort"] for port in container["ports"]}[endpoint["port"]] == 8080


def test_images_hold_no_packages_of_the_tests_and_are_all_built() -> None:
    images = {file.stem: file.read_text(encoding="utf-8") for file in (CLUSTER / "images").glob("*.Dockerfile")}
    used = {image for image in _values(ALL, "image") if image.startswith("prectr:")}
    used |= set(_values(yaml.safe_load((CLUSTER / "kuberay/overlays/gpu/teacher.yaml").read_text()), "image"))
    assert used == {f"prectr:{name}" for name in images}
    for name, text in images.items():
        assert f"-t prectr:{name} " in text and "dev.txt" not in text
        for call in re.findall(r"install\.sh (.*)", text):
            assert call.split()[1] == {"cpu": "cluster", "serve": "serve"}[name], call
    assert all(one["spec"]["containers"][0]["image"] == "prectr:serve" for one in RANKER)


@pytest.mark.parametrize("for_whom", ["cluster", "serve", "develop", ""])
def test_the_set_up_installs_what_its_reader_needs(tmp_path: Path, for_whom: str) -> None:
    """With a `python` that only notes what it is asked for."""
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "asked"
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    python.chmod(0o755)
    command = ["bash", ROOT / "requirements" / "install.sh", tmp_path, *([for_whom] if for_whom else [])]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)})
    text = asked.read_text()
    assert "runtime.txt" in text and "--editable ." in text
    assert ("dev.txt" in text) == ("dev-no-deps" in text) == (for_whom in ("develop", ""))
    if for_whom == "serve":
        assert "vllm" not in text


def test_redis_reads_its_password_from_standard_input(tmp_path: Path) -> None:
    """The manifest's own command line, run here."""
    import redis

    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    (container,) = ALL["Deployment prectr-features"]["spec"]["template"]["spec"]["containers"]
    port = free_port()
    command = container["args"][0].replace("--appendonly", f"--port {port} --bind 127.0.0.1 --appendonly")
    environment = {"PATH": "/usr/bin:/bin", "REDIS_PASSWORD": "a-password"}
    process = subprocess.Popen(
        [*container["command"], command], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(
            port=port, password="a-password", retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)
        )
        assert client.ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        assert "a-password" not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.terminate()
        process.wait(timeout=10)
