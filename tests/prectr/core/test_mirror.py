"""Artifacts at URIs, on a real S3-compatible server; "another machine" is a process with another mirror."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel

from jobs.pipeline.lease import LEASE, lease
from prectr.core import mirror
from prectr.core.artifacts import StageResult, fingerprint, read_manifest, run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import UsageError
from prectr.core.mirror import LocalOrUri, local_path, named, uri_of
from prectr.core.object_storage import Storage
from prectr.labelling import ledger_upkeep
from prectr.labelling.ledger import LABELS, Context, LabelLedger
from tests.object_store import ObjectStore, google_store, object_store
from tests.processes import with_code


class _Config(FrozenConfig):
    size: int = 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def bucket(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and an empty mirror."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mirror"))
    monkeypatch.setattr(mirror, "_fetched", set())
    return store.bucket()


def _another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "other-mirror"))
    monkeypatch.setattr(mirror, "_fetched", set())


def _build(out: Path, config: _Config | None = None, inputs: dict[str, Path | str] | None = None) -> StageResult:
    config = config or _Config()

    def build(staging: Path) -> dict[str, Any]:
        (staging / "part").mkdir()
        (staging / "part" / "data.txt").write_text("x" * config.size)
        return {"rows": config.size}

    return run_stage("distill", out, config=config, inputs=inputs or {}, build=build)


@pytest.mark.parametrize(
    ("given", "uri"),
    [("s3://b/ws/tables", "s3://b/ws/tables"), ("gs://b//ws/", "gs://b/ws"), ("ws/tables", None), ("/ws", None)],
)
def test_a_uri_and_its_path_name_each_other(given: str, uri: str | None) -> None:
    path = local_path(given)
    assert uri_of(path) == uri
    assert named(path) == (uri or given)
    assert uri is None or mirror.with_uris(f"{path}/x: broken") == f"{uri}/x: broken"


def test_a_file_uri_is_a_path() -> None:
    assert local_path("file:///data/ws") == Path("/data/ws")


@pytest.mark.parametrize("given", ["s3:///", "s3://b/../c", "s3://b/x?endpoint_override=y"])
def test_a_malformed_uri_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="write a URI as s3://BUCKET/FOLDER"):
        local_path(given)


def test_a_configuration_takes_uris_and_prints_them() -> None:
    class Config(BaseModel):
        where: LocalOrUri = Path("workspace")

    read = Config.model_validate({"where": "s3://b/ws"})
    assert uri_of(read.where) == "s3://b/ws"
    assert json.loads(read.model_dump_json()) == {"where": "s3://b/ws"}
    assert Config.model_validate_json(read.model_dump_json()) == read
    assert json.loads(Config().model_dump_json()) == {"where": "workspace"}


def test_an_artifact_is_sent_and_another_machine_skips_it_and_reads_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _build(local_path(f"{bucket}/ws/a")).skipped
    stored = [file.name for file in Storage(f"{bucket}/ws/a").files()]
    assert stored == ["manifest.json", "part/data.txt"]

    _another_machine(monkeypatch, tmp_path)
    path = local_path(f"{bucket}/ws/a")
    again = _build(path)
    assert again.skipped and not path.exists(), "skipping needs the manifest alone"
    assert read_manifest(path) is not None and (path / "part" / "data.txt").read_text() == "x"


def test_a_new_version_replaces_the_old_one_whole(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local_path(f"{bucket}/a")
    _build(path)
    Storage(f"{bucket}/a").write("stale.txt", b"of an older layout")
    first = fingerprint(path)
    _another_machine(monkeypatch, tmp_path)
    assert not _build(local_path(f"{bucket}/a"), _Config(size=3)).skipped
    assert [file.name for file in Storage(f"{bucket}/a").files()] == ["manifest.json", "part/data.txt"]

    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mirror"))
    monkeypatch.setattr(mirror, "_fetched", set())
    assert fingerprint(path) != first and (path / "part" / "data.txt").read_text() == "xxx"


def test_what_is_deleted_from_the_bucket_is_not_read_from_the_mirror(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = local_path(f"{bucket}/a")
    _build(path)
    for name in ("manifest.json", "part/data.txt"):
        Storage(f"{bucket}/a").delete(name)
    monkeypatch.setattr(mirror, "_fetched", set())
    assert read_manifest(path) is None and not path.exists()


def test_a_killed_sending_leaves_no_artifact_and_is_gone_on_with(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = local_path(f"{bucket}/a")
    upload = Storage.upload

    def killed(self: Storage, files: dict[str, Path], *rest: Any) -> None:
        if "manifest.json" in files:
            raise KeyboardInterrupt
        upload(self, files, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            _build(path)
    assert mirror.stored_manifest(path) is None, "nobody takes half of it for an artifact"
    assert mirror.is_unsent(path)
    assert _build(path).skipped, "what was built is sent, not built again"
    _another_machine(monkeypatch, tmp_path)
    assert read_manifest(local_path(f"{bucket}/a")) is not None


def test_files_that_no_stage_wrote_are_not_overwritten(bucket: str) -> None:
    Storage(bucket).write("mine/data.csv", b"1")
    with pytest.raises(UsageError, match=r"holds files but no manifest\.json; give an empty or new place"):
        _build(local_path(f"{bucket}/mine"))
    assert Storage(f"{bucket}/mine").read("data.csv") == b"1"


def test_plain_files_are_fetched_and_fetched_again_when_they_change(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = local_path(f"{bucket}/raw")
    Storage(f"{bucket}/raw").write("day=1/a.csv", b"old")
    mirror.fetch(raw)
    assert (raw / "day=1" / "a.csv").read_bytes() == b"old"
    Storage(f"{bucket}/raw").write("day=1/a.csv", b"newer")
    monkeypatch.setattr(mirror, "_fetched", set())
    one = local_path(f"{bucket}/raw/day=1/a.csv")
    mirror.fetch(one)
    assert one.read_bytes() == b"newer"


def test_missing_rights_and_buckets_are_told_before_work_starts(
    store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(_: Path) -> dict[str, Any]:
        raise AssertionError("work began")

    with store.without_rights(), pytest.raises(UsageError, match=r"s3://.*cannot be read .*check the bucket's name"):
        run_stage("distill", local_path(f"{bucket}/a"), config=_Config(), inputs={}, build=no_work)
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/a: cannot be written .*[Bb]ucket"):
        run_stage("distill", local_path("s3://no-such-bucket/a"), config=_Config(), inputs={}, build=no_work)
    with pytest.raises(UsageError, match="no file system for it"):
        run_stage("distill", local_path("quux://b/a"), config=_Config(), inputs={}, build=no_work)


def test_every_shard_of_a_ledger_is_in_the_bucket_when_it_is_committed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context("teacher", "prompt", "text", {"max_tokens": 1})
    rows = pl.DataFrame({"key": ["k1", "k2"], "p0": 0.1, "p1": 0.2, "p2": 0.3, "p3": 0.4})
    rows = rows.with_columns(pl.lit(None).cast(kind).alias(name) for name, kind in LABELS.items() if name not in rows)
    ledger = LabelLedger(local_path(f"{bucket}/label-ledger")).context(context)
    for part in rows.iter_slices(1):
        ledger.append("labels", part)
    ledger.record_run("run", {"asked": 2})

    _another_machine(monkeypatch, tmp_path)
    directory = local_path(f"{bucket}/label-ledger")
    there = LabelLedger(directory).context(context)
    assert there.answered_keys(rows["key"]).to_list() == ["k1", "k2"]
    assert there.runs() == [{"run": "run", "asked": 2}]
    assert ledger_upkeep.tidy(there).merged_shards == 2
    shards = [file.name for file in Storage(f"{bucket}/label-ledger").files() if "labels-" in file.name]
    assert len(shards) == 1, "merged shards are merged in the bucket, too"
    ledger_upkeep.drop(there)
    assert Storage(f"{bucket}/label-ledger").files() == []


def test_google_storage_keeps_artifacts_too_and_a_bucket_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with google_store(tmp_path) as (environment, bucket):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(mirror, "_fetched", set())
        monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mirror"))
        _build(local_path(f"{bucket}/ws/made"))
        _another_machine(monkeypatch, tmp_path)
        there = local_path(f"{bucket}/ws/made")
        assert read_manifest(there) is not None and (there / "part" / "data.txt").read_text() == "x"
        assert _build(there).skipped
        with pytest.raises(UsageError, match=r"^gs://anonymous@none/ws/made: cannot be written .*NOT_FOUND.*bucket's"):
            _build(local_path("gs://anonymous@none/ws/made"))


def test_of_two_pipelines_that_come_at_once_one_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, other = Storage(f"{bucket}/ws"), {"holder": "process 1 on another", "refreshed": time.time()}

    def the_other_writes(_: float) -> None:
        assert storage.read(LEASE) is not None
        storage.write(LEASE, json.dumps(other).encode())

    monkeypatch.setattr("jobs.pipeline.lease.time.sleep", the_other_writes)
    with pytest.raises(UsageError, match="another pipeline works there"), lease(local_path(f"{bucket}/ws")):
        raise AssertionError("work began")
    assert json.loads(storage.read(LEASE) or b"{}") == other


def test_one_pipeline_holds_a_workspace_until_it_ends_or_dies(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = local_path(f"{bucket}/ws")
    monkeypatch.setattr("jobs.pipeline.lease.SETTLE_SECONDS", 0.01)
    with lease(workspace):
        pass
    assert Storage(f"{bucket}/ws").read(LEASE) is None
    now = time.time()
    held = {"holder": "process 1 on another", "refreshed": now - 5}
    Storage(f"{bucket}/ws").write(LEASE, json.dumps(held).encode())
    told = r"another pipeline works there \(process 1 on another, last heard"
    with pytest.raises(UsageError, match=told), lease(workspace):
        raise AssertionError("work began")
    Storage(f"{bucket}/ws").write(LEASE, json.dumps(held | {"refreshed": now - 1000}).encode())
    monkeypatch.setattr("jobs.pipeline.lease.REFRESH_SECONDS", 0.05)
    with lease(workspace):
        first = json.loads(Storage(f"{bucket}/ws").read(LEASE) or b"{}")
        deadline = time.monotonic() + 30
        while json.loads(Storage(f"{bucket}/ws").read(LEASE) or b"{}")["refreshed"] == first["refreshed"]:
            assert time.monotonic() < deadline, "it is not refreshed"
            time.sleep(0.05)


def test_commands_take_uris(bucket: str, store: ObjectStore, tmp_path: Path) -> None:
    def prectr(machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = with_code() | store.environment | {mirror.VARIABLE: str(tmp_path / machine)}
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    tiny = [f"--set=simulate.{one}" for one in ("users=20", "items=300", "queries=20", "requests=60", "days=3")]
    made = prectr("one", "simulate", "--out", f"{bucket}/raw", *tiny)
    assert made.returncode == 0 and f"({bucket}/raw)" in made.stderr, made.stderr
    checked = prectr("two", "validate", f"{bucket}/raw", "--out", f"{bucket}/ws/tables", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["path"] == f"{bucket}/ws/tables"
    selected = ("select-pairs", "--tables", f"{bucket}/ws/tables", "--out", f"{bucket}/ws/selection")
    assert prectr("three", *selected).returncode == 0
    again = prectr("four", *selected)
    assert again.returncode == 0 and f"up to date, skipped ({bucket}/ws/selection)" in again.stderr
    lost = prectr("four", "select-pairs", "--tables", f"{bucket}/nothing", "--out", f"{bucket}/ws/selection")
    assert lost.returncode == 2 and f"prectr: {bucket}/nothing: no such file or directory" in lost.stderr
