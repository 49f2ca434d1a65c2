"""The tutorial's commands work in the order of the page, and the examples work on what they leave."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import free_port, with_code

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder that has `examples/`, and an environment in which `prectr` and `python` are those of this checkout."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    python = shlex.quote(sys.executable)
    for name, command in (("python", python), ("prectr", f"{python} -m jobs.cli")):
        script = folder / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    environment = {name: value for name, value in with_code().items() if name != "RAY_ADDRESS"}
    return folder, environment | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run(command: str, shell: tuple[Path, dict[str, str]], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    folder, environment = shell
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def tutorial(shell: tuple[Path, dict[str, str]]) -> Iterator[Path]:
    """The folder `tutorial/` after all commands of the page."""
    for block in blocks("bash"):
        run(block, shell)
    yield shell[0] / "tutorial"


def test_the_log_and_the_settings_are_those_of_the_page(tutorial: Path) -> None:
    assert blocks("yaml") == [(ROOT / "examples" / "small_log.yaml").read_text(encoding="utf-8")]
    tables = ("items", "impressions", "judgments")
    for name, shown in zip(tables, blocks("csv"), strict=True):
        written = (tutorial / "log" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        assert written[:2] == shown.splitlines(), name
    rows = (tutorial / "log" / "impressions.csv").read_text(encoding="utf-8").count("\n") - 1
    assert f"a log of {rows:,} rows" in PAGE


def test_the_request_is_scored_as_the_page_says(tutorial: Path) -> None:
    answer = json.loads((tutorial / "response.json").read_text(encoding="utf-8"))
    named = {name for cell in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert named and named <= answer.keys() | answer["results"][0].keys()
    scored = {entry["item_id"]: entry for entry in answer["results"]}
    assert scored.keys() == {"i1", "i4", "i16", "new"}
    clicks = [entry["click_probability"] for entry in answer["results"]]
    assert clicks == sorted(clicks, reverse=True) and len(set(clicks)) > 1
    assert answer["user_known"] and answer["query_known"]
    assert scored["i1"]["relevance_source"] == "judgment" and scored["new"]["relevance_source"] == "encoder"
    assert scored["i1"]["expected_level"] > scored["i16"]["expected_level"]


def test_the_training_example_skips_finished_stages_and_scores(
    tutorial: Path, shell: tuple[Path, dict[str, str]]
) -> None:
    done = run("python examples/train_and_score.py tutorial", shell)
    assert done.stderr.count("up to date, skipped") >= 8
    ranked = [line.split()[1] for line in done.stdout.splitlines() if re.match(r"\d  ", line)]
    answer = json.loads((tutorial / "response.json").read_text(encoding="utf-8"))
    assert ranked == [entry["item_id"] for entry in answer["results"]]


def test_the_client_example_sees_its_own_click(tutorial: Path, shell: tuple[Path, dict[str, str]]) -> None:
    folder, environment = shell
    port = free_port()
    command = ["prectr", "serve", "tutorial/ws/rankers/prectr-v2", "--plain", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        said = run(f"python examples/call_server.py http://127.0.0.1:{port}", shell).stdout
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
    before, after = said.split("after the click")
    assert "user known: False" in before and "user known: True" in after
    assert re.findall(r"0\.\d+", before) != re.findall(r"0\.\d+", after)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
