"""Artifacts at a URI, worked on through a mirror on disk.

Stages read and write files. `s3://bucket/ws/tables` is therefore a path below the mirror, `MIRROR/s3/bucket/ws/tables`,
and the path alone tells the URI. What is read there is fetched first, once a process, if what is stored has changed;
what is published there is sent, manifest last, so that a reader finds the old artifact, none, or the whole new one.
Where several machines work on a stage, the mirror must be a directory that all of them share (`check_shared`): the
bucket keeps, the mirror works.
"""

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from prectr.core import progress
from prectr.core.errors import UsageError, listed, shorten
from prectr.core.object_storage import Storage, StoredFile

VARIABLE = "PRECTR_MIRROR"
MANIFEST = "manifest.json"
SENDING = ".prectr-sending"
"""Lies in an artifact's folder while it is being sent: files without a manifest there are ours, not the user's."""
_URI = re.compile(r"^([a-z][a-z0-9+.-]*)://(.+)$", re.IGNORECASE)

_fetched: set[Path] = set()
_used = False


def mirror_root() -> Path:
    """Where the mirror lies: PRECTR_MIRROR, or a folder of the user's cache."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prectr" / "mirror"


def local_path(given: str | Path) -> Path:
    """The path that stages use for what a user named: itself, or its place in the mirror for a URI.

    Raises:
        UsageError: a URI without a bucket, one that leaves its bucket, or one with a password, which would become
            the name of a directory.
    """
    match = _URI.match(str(given))
    if match is None:
        return Path(given)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return Path("/" + rest.lstrip("/"))
    parts = [part for part in rest.split("/") if part]
    if not parts or ".." in parts or "?" in rest:
        raise UsageError(f"{given}: write a URI as {scheme}://BUCKET/FOLDER.")
    if ":" in parts[0].rpartition("@")[0]:  # `gs://anonymous@bucket` is pyarrow's word for no credentials
        raise UsageError(f"{given}: a URI must hold no password; give them by the storage's environment variables.")
    global _used
    _used = True
    return mirror_root() / scheme / Path(*parts)


def uri_of(path: Path) -> str | None:
    """The URI of a path in the mirror; None of all others."""
    try:
        scheme, *parts = path.relative_to(mirror_root()).parts
    except ValueError:
        return None
    return f"{scheme}://{'/'.join(parts)}" if parts else None


def named(path: Path) -> str:
    """A path as the user knows it."""
    return uri_of(path) or str(path)


def with_uris(text: str) -> str:
    """A message with paths in the mirror written as their URIs."""
    root = re.escape(str(mirror_root()))
    return re.sub(rf"{root}/([a-z][a-z0-9+.-]*)/", r"\1://", text)


def _local_text(given: str | Path) -> str:
    return str(local_path(given))


LocalOrUri = Annotated[Path, BeforeValidator(_local_text), PlainSerializer(named, return_type=str, when_used="json")]
"""A path in a configuration that may be given as a URI."""


def fetch(path: Path) -> None:
    """Bring what is stored at a path's URI into the mirror, unless it is there; nothing for a path on a disk.

    An artifact is complete or not there at all. Other files are compared by size and time, one by one. What was stored
    once and is no more goes away here, too, unless it has yet to be sent.

    Raises:
        UsageError: the storage cannot be read.
    """
    uri = uri_of(path)
    if uri is None or path in _fetched or _unsent(path).exists():
        return
    storage = Storage(uri)
    kind = storage.kind()
    manifest = storage.read(MANIFEST) if kind == "directory" else None
    here = (path / MANIFEST).read_bytes() if (path / MANIFEST).is_file() else None
    if manifest is not None:
        if here != manifest:
            _fetch_artifact(storage, path)
        _fetched.add(path)
        return
    if here is not None:
        shutil.rmtree(path)  # the artifact was deleted there
    if kind == "file":
        _fetch_files(storage, {path: storage.stored()})
    elif kind == "directory":
        _fetch_files(storage, {path / file.name: file for file in storage.files() if file.name != SENDING})
    _fetched.add(path)


def stored_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the artifact stored at a path's URI; None where there is none.

    Raises:
        UsageError: files lie there that no stage wrote, or the storage cannot be read.
    """
    storage = Storage(named(path))
    manifest = storage.read(MANIFEST)
    if manifest is None:
        if storage.kind() is not None and storage.read(SENDING) is None and storage.files():
            raise UsageError(f"{storage.uri}: holds files but no {MANIFEST}; give an empty or new place as --out.")
        return None
    try:
        content: dict[str, Any] = json.loads(manifest)
    except ValueError as error:
        raise UsageError(
            f"{storage.uri}/{MANIFEST}: cannot be read ({shorten(error)}); delete what lies there."
        ) from None
    return content


def require_writable(path: Path) -> None:
    """Refuse a URI that cannot be written and deleted, before work starts.

    Raises:
        UsageError: it cannot be.
    """
    uri = uri_of(path)
    if uri is not None:
        storage = Storage(uri)
        name = f".prectr-write-test-{socket.gethostname()}-{os.getpid()}"
        storage.write(name, b"")
        storage.delete(name)


def is_unsent(path: Path) -> bool:
    """Whether an artifact in the mirror was built, but sending it failed."""
    return uri_of(path) is not None and _unsent(path).exists()


def send(path: Path) -> None:
    """Send an artifact in the mirror to its URI: the old manifest goes first, the new one comes last.

    Nothing for a path on a disk.

    Raises:
        UsageError: the storage cannot be written; `is_unsent` stays true and the same command sends it again.
    """
    uri = uri_of(path)
    if uri is None:
        return
    _unsent(path).write_bytes(b"")
    storage = Storage(uri)
    storage.write(SENDING, b"")
    storage.delete(MANIFEST)
    old = {file.name for file in storage.files()} - {SENDING}
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    body = {name: file for name, file in files.items() if name != MANIFEST}
    size = sum(file.stat().st_size for file in body.values())
    with progress.track(f"send {storage.uri}", total=size, unit="bytes") as bar:
        storage.upload(body, bar.advance)
    for name in old - files.keys():
        storage.delete(name)
    storage.upload({MANIFEST: files[MANIFEST]})
    storage.delete(SENDING)
    _unsent(path).unlink(missing_ok=True)
    _fetched.add(path)


def send_file(file: Path) -> None:
    """Send one file in the mirror, of a directory that grows file by file; nothing for a path on a disk."""
    uri = uri_of(file)
    if uri is not None:
        Storage(uri).upload({"": file})


def send_missing(folder: Path) -> None:
    """Send what `send_file` could not: the files of a folder that are not stored yet. Hidden ones stay here."""
    uri = uri_of(folder)
    if uri is None:
        return
    storage = Storage(uri)
    stored = {file.name for file in storage.files()}
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    storage.upload({name: file for name, file in files.items() if name not in stored and file.name[0] != "."})


def delete_file(file: Path) -> None:
    """Delete what `send_file` sent, if it is there; the file here stays the caller's."""
    uri = uri_of(file)
    if uri is not None:
        Storage(uri).delete("")


def folders(path: Path) -> list[Path]:
    """The folders in a path, those that are stored at its URI and those on the disk."""
    here = [one for one in path.iterdir() if one.is_dir() and one.name[0] != "."] if path.is_dir() else []
    uri = uri_of(path)
    if uri is None:
        return sorted(here)
    return sorted({*here, *(path / name for name in Storage(uri).folders() if name[0] != ".")})


def _fetch_artifact(storage: Storage, path: Path) -> None:
    staging = path.parent / f".{path.name}.fetching-{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    files = [file for file in storage.files() if file.name != SENDING]
    try:
        with progress.track(f"fetch {storage.uri}", total=sum(file.size for file in files), unit="bytes") as bar:
            storage.download({file.name: staging / file.name for file in files}, bar.advance)
        swap_in(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch_files(storage: Storage, files: dict[Path, StoredFile]) -> None:
    """Copy those files that the disk has not, or has with another size or time."""
    wanted = {file: stored for file, stored in files.items() if not _same(file, stored)}
    asides = {file: file.with_name(f".{file.name}.{os.getpid()}") for file in wanted}
    try:
        storage.download({stored.name: asides[file] for file, stored in wanted.items()})
        for file, stored in wanted.items():
            os.utime(asides[file], ns=(stored.mtime_ns, stored.mtime_ns))
            os.replace(asides[file], file)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)


def _same(file: Path, stored: StoredFile) -> bool:
    try:
        state = file.stat()
    except OSError:
        return False
    return state.st_size == stored.size and abs(state.st_mtime_ns - stored.mtime_ns) < 10**9


def swap_in(staging: Path, out: Path) -> None:
    """Put a finished directory in place; the old one is moved aside first, because a rename needs an empty target."""
    replaced = out.parent / f".{out.name}.replaced-{os.getpid()}"
    if out.exists():
        os.replace(out, replaced)
    try:
        os.replace(staging, out)
    except OSError:
        if replaced.exists():
            os.replace(replaced, out)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _unsent(path: Path) -> Path:
    return path.parent / f".{path.name}.unsent"


def check_shared() -> None:
    """Where several machines work on URIs, refuse a mirror that not all of them see; a running Ray is asked.

    Raises:
        UsageError: a machine does not see it.
    """
    if not _used:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = mirror_root() / f".shared-{socket.gethostname()}-{os.getpid()}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b"")
    try:
        looks = [
            ray.remote(num_cpus=0)(os.path.exists)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(str(probe))
            for node in nodes
        ]
        blind = [node["NodeManagerHostname"] for node, seen in zip(nodes, ray.get(looks), strict=True) if not seen]
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise UsageError(
            f"{probe.parent}: the mirror of URIs is not seen by {listed(sorted(set(blind)))}; set {VARIABLE} to a "
            "directory that all machines of the cluster share."
        )
