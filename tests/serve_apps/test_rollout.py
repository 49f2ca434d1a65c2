"""`rollout status` and `back` with a real server whose file of models changes, is refused, and goes back."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from jobs.rollout import back, status
from prectr.core.errors import PrectrError, UsageError
from prectr.serving import models_history
from prectr.serving import service as service_module
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.models_history import earlier, folder_of, go_back, history, record_served, replace_file
from tests.jobs.run_command import run_command
from tests.prectr.bundle_world import World
from tests.serve_apps.conftest import plain_server

TOKEN = "0123456789abcdef-token"


def _write(file: Path, **content: Any) -> str:
    text = yaml.safe_dump(content)
    replace_file(file, text)
    return text


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_change_is_seen_refused_and_taken_back(
    world: World,
    tmp_path: Path,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(service_module, "WATCH_SECONDS", 0.05)
    monkeypatch.setenv("PRECTR_SERVE_TOKENS", TOKEN)
    new = tmp_path / "new"
    shutil.copytree(world.bundle, new)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps(manifest | {"identity": "of-new"}))
    file = tmp_path / "models.yaml"
    first = _write(file, bundles={"m": str(world.bundle)})
    config = ServeConfig(models=ModelsConfig(bundles={"m": world.bundle}), port=free_port)
    with plain_server(config, watch=file) as url:
        with pytest.raises(PrectrError, match="put its token into PRECTR_TOKEN"):
            status(url=url)
        monkeypatch.setenv("PRECTR_TOKEN", TOKEN)
        _until(lambda: len(history(file)) == 1)
        assert status(models=file, url=url).exit_code == 0
        with pytest.raises(UsageError, match="no earlier content is known"):
            back(models=file)

        shares = {"name": "e", "salt": "", "shares": {"n": 0.25}}
        second = _write(file, bundles={"m": str(world.bundle), "n": str(new)}, experiment=shares)
        _until(lambda: len(history(file)) == 2)
        code, output, _ = run_command(capsys, "rollout", "status", "--models", file, "--url", url, "--json")
        content = json.loads(output)
        assert code == 0 and content["differences"] == [] and content["served"]["models"]["n"] == "of-new"

        _write(file, bundles={"m": str(tmp_path / "nowhere")})
        _until(lambda: status(url=url).exit_code == 1)
        code, output, _ = run_command(capsys, "rollout", "status", "--models", file, "--url", url)
        assert code == 1 and "the last change was refused" in output and "n: served, but not in the file" in output
        assert "25.0% of the users" in output and len(history(file)) == 2, "a refused content is not kept"

        code, output, _ = run_command(capsys, "rollout", "back", "--models", file, "--url", url, "--json")
        assert (code, file.read_text()) == (0, second) and f"+  m: {world.bundle}" in json.loads(output)["changes"]
        _until(lambda: history(file)[-1].text == second)
        code, output, _ = run_command(capsys, "rollout", "back", "--models", file, "--url", url)
        assert (code, file.read_text()) == (0, first) and f"{url} serves it" in output
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert list(httpx.get(f"{url}/v1/models", headers=headers).json()["models"]) == ["m"]
    changed = _write(file, bundles={})
    with pytest.raises(PrectrError, match="does not say what it serves"):
        back(models=file, url=url)
    assert file.read_text() == changed, "nothing changes without the server"


def test_going_back_needs_the_bundles_and_never_returns_to_what_was_left(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    texts = [_write(file, bundles={"m": str(tmp_path / name)}) for name in "abc"]
    for text in texts:
        replace_file(file, text)
        record_served(file, text)
    assert folder_of(file).stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError, match="the bundle of m, which was served before, is gone"):
        back(models=file)
    for expected in (texts[1], texts[0]):
        entry = earlier(file)
        assert entry is not None and entry.text == expected
        go_back(file, entry)
        record_served(file, expected)  # as the server does
    assert earlier(file) is None


def test_the_history_is_bounded_and_replicas_write_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_history, "KEPT", 3)
    file = tmp_path / "models.yaml"
    for number in range(5):
        replace_file(file, str(number))
        record_served(file, str(number))
        record_served(file, str(number))
    assert [entry.text for entry in history(file)] == ["2", "3", "4"]
