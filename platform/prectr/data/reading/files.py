"""Files of a table: their format by name, and the files of a directory that belong to no table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prectr.contracts.schema import Table

Format = Literal["csv", "jsonl", "parquet", "delta"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Ending of a file's name, in any case -> its format. `COMPRESSIONS` may follow the endings of texts."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Last ending of a compressed text -> name of the compression."""
ENDINGS = ".csv, .tsv, .jsonl, .ndjson, .json (each also .gz or .zst), .parquet or .pq"
"""The accepted endings, for messages."""
DELTA_LOG = "_delta_log"
"""Directory that makes the directory above it a Delta Lake table."""
_OWN = ("truth", "quarantine", "manifest.json")


@dataclass(frozen=True)
class Layout:
    """How a file is written. All but `format` and `compression` is about CSV."""

    format: Format = "csv"
    compression: str | None = None
    separator: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)
    version: int | None = None
    """Version of a Delta Lake table. None: the newest."""

    def __str__(self) -> str:
        """The layout in words, for messages."""
        if self.format != "csv":
            return {"jsonl": "JSON lines", "parquet": "Parquet", "delta": "Delta Lake"}[self.format]
        return f"CSV with separator {self.separator!r} and encoding {self.encoding}"


def layout_of(file: Path) -> Layout | None:
    """The layout that a file's name says; None if it says none.

    >>> layout_of(Path("day.TSV.gz"))
    Layout(format='csv', compression='gzip', separator='\\t', quote='"', encoding='utf-8', nulls=('',), version=None)
    >>> layout_of(Path("day.csv.bak"))
    """
    if (file / DELTA_LOG).is_dir():
        return Layout("delta")
    endings = [ending.lower() for ending in file.suffixes]
    compression = COMPRESSIONS.get(endings[-1]) if endings else None
    ending = (endings[-2] if len(endings) > 1 else "") if compression else (endings[-1] if endings else "")
    known = FORMATS.get(ending)
    if known is None or (compression and known == "parquet"):
        return None
    return Layout(known, compression, "\t" if ending == ".tsv" else ",")


def _without_endings(entry: Path) -> str:
    """Name of a file, or of a directory that is named like one as Spark does, without the endings of its format."""
    name = entry.name
    for known in (COMPRESSIONS, FORMATS):
        stem, dot, ending = name.rpartition(".")
        name = stem if f"{dot}{ending}".lower() in known else name
    return name


def compression_of(file: Path) -> str | None:
    """The compression that the last ending of a file's name says."""
    return COMPRESSIONS.get(file.suffix.lower())


def _visible(folder: Path) -> Iterator[Path]:
    """Files and Delta Lake tables below a folder, in order, without hidden ones (`.` or `_` before any part)."""
    for entry in sorted(folder.iterdir()):
        if entry.name[0] in "._":
            continue
        if entry.is_dir() and not (entry / DELTA_LOG).is_dir():
            yield from _visible(entry)
        else:
            yield entry


@dataclass(frozen=True)
class Found:
    """Files of tables below a directory, each with its layout, and the files that are not read."""

    tables: dict[str, list[tuple[Path, Layout]]]
    not_read: list[Path]


def find_tables(source: Path, tables: Iterable[Table]) -> Found:
    """Find the files of each table: `NAME.*` in `source`, and all files below `NAME/`, which may be a Delta Lake table.

    Files that no table reads are listed in `not_read`, except hidden ones and those that the project itself wrote.
    """
    by_name: dict[str, list[tuple[Path, Layout]]] = {}
    not_read: list[Path] = []
    names = {table.name for table in tables}
    for entry in sorted(source.iterdir()):
        if entry.name[0] in "._" or entry.name in _OWN:
            continue
        name = _without_endings(entry)
        files = [entry] if entry.is_file() or (entry / DELTA_LOG).is_dir() else list(_visible(entry))
        for file in files:
            layout = layout_of(file)
            if name.lower() in names and layout is not None:
                by_name.setdefault(name.lower(), []).append((file, layout))
            else:
                not_read.append(file)
    return Found(by_name, not_read)


def find_files(path: Path) -> Found:
    """The files of one table, under the name "": the file `path`, or all files below the directory `path`."""
    files = [path] if path.is_file() or (path / DELTA_LOG).is_dir() else list(_visible(path))
    read = [(file, layout) for file in files if (layout := layout_of(file)) is not None]
    return Found({"": read} if read else {}, [file for file in files if layout_of(file) is None])
