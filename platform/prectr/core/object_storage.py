"""Files under a URI (s3://, gs://, hdfs:// through pyarrow, others through fsspec), with errors a person can act on.

Credentials, region and endpoint are the environment's, as pyarrow reads them (AWS_*, GOOGLE_APPLICATION_CREDENTIALS);
AWS_ENDPOINT_URL names an S3-compatible server.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from prectr.core.errors import UsageError, shorten

PARALLEL = 8
"""Files that travel at a time."""
_BUFFER = 8 * 2**20
_GOOGLE_PATIENCE = 60
"""Seconds after which Google's client gives up; without credentials it would try for a quarter of an hour."""


@dataclass(frozen=True)
class StoredFile:
    """A file below a URI: its name relative to that, bytes, and time of writing in nanoseconds."""

    name: str
    size: int
    mtime_ns: int


class Storage:
    """The files below one URI, or the one file at it.

    Raises:
        UsageError: no file system for the URI's scheme; and, of all methods, that the storage cannot be reached, does
            not know the bucket, or refuses the right.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        with self._told("opened"):
            self._files, self._root = _file_system(self.uri)

    def kind(self) -> str | None:
        """`file`, `directory`, or None where nothing is."""
        from pyarrow.fs import FileType

        with self._told("read"):
            kind = self._files.get_file_info(self._root).type
        return {FileType.File: "file", FileType.Directory: "directory"}.get(kind)

    def files(self) -> list[StoredFile]:
        """All files, by name."""
        return sorted(self._list(recursive=True)[0], key=lambda file: file.name)

    def folders(self) -> list[str]:
        """Names of the folders of the first level."""
        return sorted(self._list(recursive=False)[1])

    def _list(self, recursive: bool) -> tuple[list[StoredFile], list[str]]:
        from pyarrow.fs import FileSelector, FileType

        with self._told("listed"):
            found = self._files.get_file_info(FileSelector(self._root, allow_not_found=True, recursive=recursive))
        root = PurePosixPath(self._root)
        files = [
            StoredFile(str(PurePosixPath(one.path).relative_to(root)), one.size, one.mtime_ns or 0)
            for one in found
            if one.type == FileType.File
        ]
        return files, [PurePosixPath(one.path).name for one in found if one.type == FileType.Directory]

    def stored(self) -> StoredFile:
        """The one file at the URI."""
        with self._told("read"):
            one = self._files.get_file_info(self._root)
        return StoredFile("", one.size, one.mtime_ns or 0)

    def read(self, name: str) -> bytes | None:
        """Content of a file; None where there is none."""
        from pyarrow.fs import FileType

        path = self._at(name)
        with self._told("read"):
            if self._files.get_file_info(path).type != FileType.File:
                return None
            with self._files.open_input_stream(path) as stream:
                content: bytes = stream.read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._told("written"), self._files.open_output_stream(self._at(name)) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._told("deleted"), suppress(FileNotFoundError):
            self._files.delete_file(self._at(name))

    def download(self, files: Mapping[str, Path], on_file: Callable[[int], None] = lambda _: None) -> None:
        """Copy files to paths, whose folders are made; `on_file` hears each one's bytes."""

        def copy(name: str) -> int:
            target = files[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._files.open_input_stream(self._at(name)) as source, target.open("wb") as sink:
                return _copy(source, sink)

        with self._told("read"):
            self._in_parallel(copy, list(files), on_file)

    def upload(self, files: Mapping[str, Path], on_file: Callable[[int], None] = lambda _: None) -> None:
        """Copy files from paths; one appears when it is complete."""

        def copy(name: str) -> int:
            with files[name].open("rb") as source, self._files.open_output_stream(self._at(name)) as sink:
                return _copy(source, sink)

        with self._told("written"):
            self._in_parallel(copy, list(files), on_file)

    @staticmethod
    def _in_parallel(work: Callable[[str], int], names: list[str], on_file: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            for size in pool.map(work, names):
                on_file(size)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if _of_disk(error):
                raise
            said = shorten(str(error).split(" (Request ID")[0].split(" error_info=")[0])
            raise UsageError(
                f"{self.uri}: cannot be {done} ({said}); check the bucket's name, your rights to it, the credentials "
                "(AWS_*, GOOGLE_APPLICATION_CREDENTIALS) and, for an S3-compatible server, AWS_ENDPOINT_URL."
            ) from None


def _of_disk(error: OSError) -> bool:
    """Whether an error is of this machine's disk: it has a number, and Python names the file that it misses."""
    if isinstance(error, FileNotFoundError):
        return error.filename is not None
    return error.errno is not None and not isinstance(error, ConnectionError | PermissionError | TimeoutError)


def _copy(source: Any, sink: Any) -> int:
    copied = 0
    while block := source.read(_BUFFER):
        sink.write(block)
        copied += len(block)
    return copied


def _file_system(uri: str) -> tuple[Any, str]:
    """pyarrow's file system of a URI, else fsspec's, and the path in it."""
    import pyarrow as pa
    from pyarrow import fs

    patience = f"?retry_limit_seconds={_GOOGLE_PATIENCE}" if uri.startswith(("gs://", "gcs://")) else ""
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(uri + patience)
        return found
    except pa.ArrowInvalid as error:
        scheme, _, path = uri.partition("://")
        try:
            import fsspec  # type: ignore[import-untyped]

            return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), path.strip("/")
        except (ImportError, ValueError):
            said = shorten(error)
            raise UsageError(
                f"{uri}: no file system for it ({said}). s3://, gs:// and hdfs:// work by themselves; for another "
                "scheme install its fsspec package."
            ) from None
