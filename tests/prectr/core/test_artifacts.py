"""Artifacts: published as a whole, rebuilt if and only if something changed."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prectr.core.artifacts import (
    TABLE_STAGES,
    StageResult,
    fingerprint,
    read_manifest,
    require_artifact,
    run_stage,
    write_json,
)
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError
from prectr.core.mirror import MANIFEST
from prectr.core.schema_versions import SCHEMA_VERSIONS
from prectr.core.text import NORMAL_FORM
from prectr.data.tables import Tables

Build = Callable[[Path], dict[str, Any]]


class Config(FrozenConfig):
    size: int = 1


def _build(text: str) -> Build:
    def build(staging: Path) -> dict[str, Any]:
        (staging / "data.txt").write_text(text)
        return {"rows": len(text)}

    return build


def _never(staging: Path) -> dict[str, Any]:
    raise AssertionError("built although up to date")


def _run(out: Path, build: Build, inputs: dict[str, Path | str] | None = None, **options: Any) -> StageResult:
    return run_stage(
        "distill", out, config=options.pop("config", Config()), inputs=inputs or {}, build=build, **options
    )


def _hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_published_whole_with_its_manifest(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = _run(out, _build("abc"), {"word": "x"})
    assert not result.skipped and result.manifest["rows"] == 3
    assert (out / "data.txt").read_text() == "abc"
    manifest = json.loads((out / MANIFEST).read_text())
    assert (manifest["stage"], manifest["config"], manifest["inputs"]) == ("distill", {"size": 1}, {"word": "x"})
    assert _hidden(out.parent) == []


def test_skipped_while_nothing_changed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.csv").write_text("1")
    _run(tmp_path / "out", _build("abc"), {"source": source})
    (source / ".hidden").write_text("no")
    (source / "truth").mkdir()
    (source / "truth" / "t").write_text("evaluation only")
    assert _run(tmp_path / "out", _never, {"source": source}).skipped


@pytest.mark.parametrize("change", ["config", "bytes", "new file", "rename", "force", "stage"])
def test_rebuilt_when_something_changed(tmp_path: Path, change: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "a.csv").write_text("1")
    _run(out, _build("old"), {"source": source})
    config = Config(size=2) if change == "config" else Config()
    if change == "bytes":
        (source / "a.csv").write_text("2")
    if change == "new file":
        (source / "b.csv").write_text("1")
    if change == "rename":
        (source / "a.csv").rename(source / "c.csv")
    stage = "label" if change == "stage" else "distill"
    inputs: dict[str, Path | str] = {"source": source}
    result = run_stage(stage, out, config=config, inputs=inputs, build=_build("new"), force=change == "force")
    assert not result.skipped
    assert (out / "data.txt").read_text() == "new"
    assert _hidden(tmp_path) == []


@pytest.mark.parametrize("stage", ["simulate", "validate", "import"])
def test_tables_count_by_their_bytes_even_under_a_manifest(tmp_path: Path, stage: str) -> None:
    """Tables are the user's: an edited file must not pass for the one the manifest was written for."""
    tables = tmp_path / "tables"
    run_stage(stage, tables, config=Config(), inputs={}, build=_build("1"))
    before = fingerprint(tables)
    (tables / "data.txt").write_text("2")
    assert fingerprint(tables) != before


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or directory"):
        _run(tmp_path / "out", _never, {"source": tmp_path / "nowhere"})


def test_failing_build_leaves_the_old_artifact(tmp_path: Path) -> None:
    _run(tmp_path / "out", _build("old"))

    def fail(staging: Path) -> dict[str, Any]:
        (staging / "data.txt").write_text("half")
        raise ValueError("our own bug")

    with pytest.raises(ValueError, match="our own bug"):
        _run(tmp_path / "out", fail, force=True)
    assert (tmp_path / "out" / "data.txt").read_text() == "old"
    assert _hidden(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from prectr.core.mirror import MANIFEST
from prectr.data.tables import Tables

def build(staging):
    (staging / "data.txt").write_text("half")
    print("building", flush=True)
    time.sleep(60)

class Config(FrozenConfig):
    size: int = 2

run_stage("distill", Path(sys.argv[1]), config=Config(), inputs={}, build=build)
"""


@pytest.fixture
def building(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the midst of rebuilding `out`, which holds an older artifact."""
    _run(tmp_path / "out", _build("old"))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    yield process
    process.kill()
    process.wait()


def test_killed_build_leaves_the_old_artifact_and_the_next_run_succeeds(
    tmp_path: Path, building: subprocess.Popen[str]
) -> None:
    building.send_signal(signal.SIGKILL)
    building.wait()
    assert (tmp_path / "out" / "data.txt").read_text() == "old"
    assert len(_hidden(tmp_path)) == 2, "the directory and its lock"
    assert not _run(tmp_path / "out", _build("new"), config=Config(size=2)).skipped
    assert (tmp_path / "out" / "data.txt").read_text() == "new"
    assert _hidden(tmp_path) == []


def test_two_builds_of_one_artifact_are_refused(tmp_path: Path, building: subprocess.Popen[str]) -> None:
    there = _hidden(tmp_path)
    with pytest.raises(PrectrError, match=f"process {building.pid} on .* is building this artifact; wait for it"):
        _run(tmp_path / "out", _never, config=Config(size=3))
    assert _hidden(tmp_path) == there, "the other process's work must be left alone"


def test_killed_between_the_two_renames_the_old_artifact_comes_back(tmp_path: Path) -> None:
    """The instant between moving the old artifact aside and the new one in."""
    _run(tmp_path / "out", _build("old"))
    (tmp_path / "out").rename(tmp_path / ".out.replaced-4194305")
    assert _run(tmp_path / "out", _never).skipped
    assert (tmp_path / "out" / "data.txt").read_text() == "old"
    assert _hidden(tmp_path) == []


def test_what_a_killed_publication_left_is_removed(tmp_path: Path) -> None:
    _run(tmp_path / "out", _build("new"))
    (tmp_path / ".out.replaced-4194305").mkdir()
    _run(tmp_path / "out", _build("newer"), force=True)
    assert _hidden(tmp_path) == []


def test_full_disk_is_a_message_and_publishes_nothing(tmp_path: Path) -> None:
    _run(tmp_path / "out", _build("old"))

    def fill(staging: Path) -> dict[str, Any]:
        (staging / "data.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(PrectrError, match=r"out: the disk is full, so distill was stopped and nothing was published"):
        _run(tmp_path / "out", fill, force=True)
    assert (tmp_path / "out" / "data.txt").read_text() == "old"
    assert _hidden(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "prectr-test", str(disk)], capture_output=True, text=True
    )
    if not made or made.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {made.stderr.strip() if made else 'no mount command'}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("writer", ["python", "polars", "pyarrow", "lmdb"])
def test_disk_that_fills_half_way(small_disk: Path, writer: str) -> None:
    """Each library that stages write with reports a full disk in its own way."""
    _run(small_disk / "out", _build("old"))

    def fill(staging: Path) -> dict[str, Any]:
        (staging / "first.txt").write_text("x" * 1000)
        noise = os.urandom(4_000_000)
        if writer == "python":
            (staging / "big.bin").write_bytes(noise)
        elif writer == "polars":
            import polars as pl

            pl.DataFrame({"noise": [noise]}).write_parquet(staging / "big.parquet")
        elif writer == "pyarrow":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"noise": [noise]}), staging / "big.parquet")
        else:
            from prectr.features.store import write_store

            write_store(staging / "online", [("item", str(number), {"noise": noise[:9999]}) for number in range(500)])
        return {}

    with pytest.raises(PrectrError, match=r"out: the disk is full, so distill was stopped and nothing was published"):
        _run(small_disk / "out", fill, force=True)
    assert (small_disk / "out" / "data.txt").read_text() == "old"
    assert _hidden(small_disk) == []
    assert not _run(small_disk / "out", _build("new"), force=True).skipped


def test_foreign_directory_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    with pytest.raises(
        UsageError, match=r"thesis: holds files but no manifest\.json; give distill an empty or new --out"
    ):
        _run(tmp_path / "thesis", _never, force=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "dear"


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UsageError, match=r"file: is a file"):
        _run(tmp_path / "file", _never)


def test_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert not _run(tmp_path / "out", _build("new")).skipped


@pytest.mark.parametrize("content", ["{half", "[]", "{}"])
def test_unreadable_manifest_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(PrectrError, match=r"manifest\.json: cannot be read .*delete the directory and run its stage"):
        read_manifest(tmp_path)


def test_needed_artifact_is_asked_for_by_its_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no distill artifact here; make it with `prectr distill"):
        require_artifact(tmp_path / "nowhere", "distill")
    _run(tmp_path / "out", _build("a"))
    with pytest.raises(UsageError, match=r"is an artifact of distill, but one of label is needed"):
        require_artifact(tmp_path / "out", "label")
    assert require_artifact(tmp_path / "out", "distill")["rows"] == 1


def test_json_is_replaced_at_once(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": 1})
    write_json(tmp_path / "a.json", {"ä": 2})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": 2}
    assert _hidden(tmp_path) == []


def test_what_was_made_from_an_artifact_is_made_again_when_it_was_built_again(tmp_path: Path) -> None:
    upstream, downstream = tmp_path / "upstream", tmp_path / "downstream"
    _run(upstream, _build("first"))
    _run(downstream, _build("from first"), {"upstream": upstream})
    assert _run(downstream, _never, {"upstream": upstream}).skipped
    _run(upstream, _build("second"), force=True)
    assert not _run(downstream, _build("from second"), {"upstream": upstream}).skipped
    assert (downstream / "data.txt").read_text() == "from second"


def test_undefined_figures_are_null_in_manifests_and_files(tmp_path: Path) -> None:
    result = _run(tmp_path / "out", lambda staging: {"metrics": {"gauc": float("nan"), "auc": [0.5, float("inf")]}})
    expected = {"gauc": None, "auc": [0.5, None]}
    assert result.manifest["metrics"] == expected
    strict = json.loads((tmp_path / "out" / MANIFEST).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict["metrics"] == expected


def test_the_version_of_the_project_makes_no_artifact_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.core.artifacts.__version__", "0.0.7")
    assert _run(tmp_path / "out", _build("old")).manifest["prectr"] == "0.0.7"
    monkeypatch.undo()
    assert require_artifact(tmp_path / "out", "distill")["prectr"] == "0.0.7"
    assert _run(tmp_path / "out", _never).skipped


@pytest.mark.parametrize(
    ("written", "named"),
    [({"schema": SCHEMA_VERSIONS["validate"] + 1}, "2"), ({}, r"0 \(written before schema versions were recorded\)")],
)
def test_an_artifact_of_another_schema_version_is_refused_and_built_again(
    tmp_path: Path, written: dict[str, int], named: str
) -> None:
    first = run_stage("validate", tmp_path / "out", config=Config(), inputs={}, build=_build("1"))
    manifest = {name: value for name, value in first.manifest.items() if name != "schema"} | written
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
    for read in (Tables, lambda path: require_artifact(path, "validate")):
        with pytest.raises(UsageError, match=rf"out: has schema version {named}, .*1 of validate; .*`prectr validate "):
            read(tmp_path / "out")


def test_a_raised_schema_version_builds_only_its_own_stage_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("distill", "label"):
        run_stage(stage, tmp_path / stage, config=Config(), inputs={}, build=_build("old"))
    monkeypatch.setitem(SCHEMA_VERSIONS, "distill", SCHEMA_VERSIONS["distill"] + 1)
    assert run_stage("label", tmp_path / "label", config=Config(), inputs={}, build=_never).skipped
    assert not run_stage("distill", tmp_path / "distill", config=Config(), inputs={}, build=_build("new")).skipped


def test_every_stage_has_a_schema_version() -> None:
    """The stages are the first arguments of `run_stage`; `prectr.data.publish` passes on those of tables."""
    root = Path(__file__).parents[3]
    code = "".join(file.read_text() for folder in ("jobs", "platform") for file in (root / folder).rglob("*.py"))
    assert len(calls := re.findall(r"\brun_stage\(\s*([^,\s]+),", code)) > 10
    assert {call.strip('"') for call in calls if call.startswith('"')} | set(TABLE_STAGES) == set(SCHEMA_VERSIONS)


def test_an_artifact_of_another_normal_form_is_refused_and_built_again(tmp_path: Path) -> None:
    out = tmp_path / "samples"
    first = run_stage("build-samples", out, config=FrozenConfig(), inputs={}, build=lambda _: {})
    assert first.manifest["normal_form"] == NORMAL_FORM
    for form in ({"normal_form": NORMAL_FORM + 1}, {}):
        manifest = {name: value for name, value in first.manifest.items() if name != "normal_form"} | form
        (out / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match=r"samples: its queries have normal form [13], .*`prectr build-samples "):
            require_artifact(out, "build-samples")


def test_the_normal_form_is_part_of_a_stage_s_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prectr.core.artifacts.NORMAL_FORM", NORMAL_FORM - 1)
    assert not _run(tmp_path / "out", _build("old")).skipped
    monkeypatch.undo()
    assert not _run(tmp_path / "out", _build("new")).skipped
    assert _run(tmp_path / "out", _build("new")).skipped
