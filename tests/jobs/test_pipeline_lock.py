"""One pipeline a workspace, and no other code in the middle of an unfinished one; told before any work."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline import pipeline
from jobs.pipeline.config import PipelineConfig
from jobs.settings import Settings
from prectr.core.errors import UsageError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Workspaces in which work began; the work itself is left out."""
    seen: list[Path] = []

    def work(config: PipelineConfig, _: Settings) -> pipeline.Pipeline:
        seen.append(config.workspace)
        return pipeline.Pipeline(config.workspace)

    monkeypatch.setattr(pipeline, "_run", work)
    return seen


def _run(workspace: Path, **options: Any) -> None:
    pipeline.run(PipelineConfig(workspace=workspace), Settings(), **options)


def test_two_pipelines_do_not_share_a_workspace(ran: list[Path], tmp_path: Path) -> None:
    with (tmp_path / pipeline.LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another pipeline works there"):
            _run(tmp_path)
    assert ran == []
    _run(tmp_path)
    assert ran == [tmp_path]
    assert json.loads((tmp_path / pipeline.STATE).read_text())["finished"] is True


def _failing(*_: Any) -> pipeline.Pipeline:
    raise KeyboardInterrupt


def test_an_unfinished_run_does_not_go_on_with_other_code(
    ran: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: Callable[..., Any] = pipeline._run
    monkeypatch.setattr(pipeline, "_run", _failing)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    monkeypatch.setattr(pipeline, "_run", work)
    monkeypatch.setattr(pipeline, "_code_digest", lambda: "other")
    with pytest.raises(UsageError, match="started with other code; finish it with that code, or give --restart"):
        _run(tmp_path)
    assert ran == []
    _run(tmp_path, restart=True)
    _run(tmp_path)  # a finished run is no obstacle to new code
    assert len(ran) == 2
