"""Commands as jobs of a real cluster with a token: a head and a second node on this machine, driven by the command line
from another directory."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import command_table
from jobs.cluster.submit import absolute_arguments
from prectr.core.errors import UsageError
from tests.processes import free_port
from tests.ray_cluster import RayCluster, ray_cluster

TINY = ("users=20", "items=300", "queries=20", "requests=60", "days=3")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head and a node."""
    with ray_cluster(tmp_path_factory.mktemp("cluster"), head_cpus=4) as cluster:
        cluster.add_node(4)
        yield cluster


def test_a_command_runs_as_a_job_and_its_exit_code_comes_back(head: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("simulate: {users: 20, items: 300, queries: 20, requests: 60, days: 3}\n")
    submit = ("submit", "--address", head.address, "--id", "first", "--follow")
    ran = head.prectr(*submit, "simulate", "--out", "tables", "--config", "small.yaml", "--seed", "3", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "simulate: done" in ran.stdout, "what the job says is printed"
    manifest = json.loads((tmp_path / "tables" / "manifest.json").read_text())
    assert manifest["config"]["users"] == 20 and manifest["config"]["seed"] == 3
    (tmp_path / "tables" / "manifest.json").unlink()
    same = head.prectr(*submit, "simulate", "--out", "tables", "--config", "small.yaml", "--seed", "3", cwd=tmp_path)
    assert same.returncode == 0 and "first: has succeeded before" in same.stderr
    assert not (tmp_path / "tables" / "manifest.json").exists(), "nothing was run again"
    other = head.prectr(*submit, "simulate", "--out", "elsewhere", cwd=tmp_path)
    assert other.returncode == 2 and "--id first: is the id of another command there" in other.stderr
    again = head.prectr("submit", "--address", head.address, "--follow", "validate", "nowhere", cwd=tmp_path)
    assert again.returncode not in (0, None), "a job that fails fails here, too"
    assert "nowhere" in again.stdout and "Traceback" not in again.stderr

    listed = head.prectr("jobs", "list", "--address", head.address, "--json", cwd=tmp_path)
    rows = json.loads(listed.stdout)
    assert {row["command"]: row["status"] for row in rows} == {"simulate": "SUCCEEDED", "validate": "FAILED"}
    logs = head.prectr("jobs", "logs", "first", "--address", head.address, cwd=tmp_path)
    assert "simulate: done" in logs.stdout
    unknown = head.prectr("jobs", "stop", "nothing", "--address", head.address, cwd=tmp_path)
    assert unknown.returncode == 2 and "no such job" in unknown.stderr


def test_a_wrong_token_and_a_wrong_address_are_told_before_anything_is_sent(head: RayCluster, tmp_path: Path) -> None:
    wrong = head.prectr(
        "submit", "--address", head.address, "simulate", "--out", "x", cwd=tmp_path, token=secrets.token_hex(32)
    )
    assert wrong.returncode == 2 and "the token is not that cluster's" in wrong.stderr
    nobody = f"http://127.0.0.1:{free_port()}"
    lost = head.prectr("submit", "--address", nobody, "simulate", "--out", "x", cwd=tmp_path)
    assert lost.returncode == 2 and "no Ray cluster answers there" in lost.stderr
    other = head.prectr("submit", "--address", "ray://x:1", "simulate", "--out", "x", cwd=tmp_path)
    assert other.returncode == 2 and "give the URL of the job port" in other.stderr
    assert not (tmp_path / "x").exists()
    told = head.prectr("doctor", "--address", head.address, "--json", "--storage", str(tmp_path), cwd=tmp_path)
    findings = {one["check"]: one for one in json.loads(told.stdout)}
    assert findings["cluster"]["status"] == "ok" and findings["storage"]["status"] == "ok"


def test_a_driver_with_another_python_than_the_cluster_is_told(head: RayCluster, tmp_path: Path) -> None:
    code = """if True:
        import sys
        import ray
        from prectr.core.errors import UsageError
        from prectr.core.ray_session import ray_session
        sys.version_info = (3, 99, 0)
        try:
            with ray_session():
                print("joined")
        except UsageError as error:
            print(error)
    """
    environment = head.environment | {"RAY_ADDRESS": head.gcs}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=150)
    said = ran.stdout
    assert f"{head.gcs}: Version mismatch: The cluster was started with:" in said and "Python: 3.99.0" in said, (
        ran.stderr
    )
    assert "run the nodes and this job with the same Ray and Python" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "name a command"),
        (["serve", "x"], "no command for a cluster; there are"),
        (["nosuch"], "no command for a cluster"),
        (["train", "--samples", "x"], "Missing option '--encoder'"),
        (["simulate", "--out", "x", "--colour", "red"], "No such option"),
    ],
)
def test_a_wrong_command_is_told_here(command: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        absolute_arguments(command, command_table())


def test_paths_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("train: {epochs: 1}\n")
    given = ["train", "--samples", "ws/samples", "--encoder", "/shared/encoder", "--preferences", "p", "--out", "o"]
    options = [
        "--model",
        "din",
        "--set",
        "train.seed=2",
        "--set",
        "train.cpus=1",
        "--config",
        "c.yaml",
        "-vv",
        "--force",
    ]
    found, config = absolute_arguments([*given, *options], command_table())
    assert found[:7] == ["train", "--samples", f"{tmp_path}/ws/samples", "--encoder", "/shared/encoder",
                         "--preferences", f"{tmp_path}/p"]  # fmt: skip
    assert found.count("--set") == 2 and found.count("--verbose") == 2 and "--force" in found
    assert "--config" not in found and config == "train: {epochs: 1}\n"


def test_paths_in_settings_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "c.yaml").write_text("pipeline: {workspace: ws, teacher: ckpt, publish: 'redis://r:6379/0'}\n")
    found, _ = absolute_arguments(["pipeline", "--config", "c.yaml", "--set", "label.ledger=given"], command_table())
    settings = {value for option, value in zip(found, found[1:], strict=False) if option == "--set"}
    absolute = {
        f"pipeline.workspace={tmp_path}/ws",
        f"pipeline.teacher={tmp_path}/ckpt",
        f"label.ledger={tmp_path}/given",
    }
    assert settings == {"label.ledger=given"} | absolute
    assert found[-2:] != ["--set", "label.ledger=given"], "the last one counts"
    found, _ = absolute_arguments(["pipeline", "--set", "pipeline.teacher=org/model"], command_table())
    assert f"pipeline.workspace={tmp_path}/workspace" in found, "the default, too"
    assert not [value for value in found if value.startswith("pipeline.teacher=/")], "a name on the hub is none"
    found, _ = absolute_arguments(["label", "--tables", "t", "--teacher", "ckpt", "--out", "o"], command_table())
    assert found[found.index("--teacher") + 1] == f"{tmp_path}/ckpt" and "--set" not in found
    with pytest.raises(UsageError, match=r"unknown key 'pipeline\.work'"):
        absolute_arguments(["pipeline", "--set", "pipeline.work=ws"], command_table())
