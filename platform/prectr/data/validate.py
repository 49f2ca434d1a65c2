"""Validation of a user's log: it writes canonical tables and puts bad rows into quarantine. No row is dropped silently.

A table is `NAME.ENDING` in one of the formats of `reading.files`, or a directory of such files, with or without
`date=YYYY-MM-DD/` folders, or a Delta Lake table. A structural fault (a missing column, a wrong type, an unreadable
file) stops the command. A row with a fault goes to quarantine with its file, its place and the reason; too many bad
rows stop the command.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from prectr.contracts.schema import IMPRESSIONS, JUDGMENTS, TABLES, WANTED_TYPE, Table
from prectr.core.artifacts import StageResult
from prectr.core.errors import PrectrError, UsageError
from prectr.data.config import ValidateConfig
from prectr.data.profile import Profile
from prectr.data.publish import publish_source
from prectr.data.reading import columnar
from prectr.data.reading.files import Layout, find_tables
from prectr.data.reading.reader import Reader, expected_rows
from prectr.data.reading.values import conform
from prectr.data.source import Rows, Source, Tally

PARTITION = "date="
"""Beginning of the name of a folder of one day."""


def validate_tables(
    source: Path,
    out: Path,
    config: ValidateConfig,
    force: bool = False,
    quarantine: Path | None = None,
    profile: Profile | None = None,
) -> StageResult:
    """Validate the log below `source` and publish it as canonical tables at `out`.

    Bad rows go to the directory `quarantine` (default: `quarantine/` beside `out`), even if there are too many of them
    and nothing is published. `profile` collects what the report shows.

    Raises:
        UsageError: no such directory.
        PrectrError: a structural fault, an empty table, or more bad rows in a table than `config.max_bad_share` allows.
    """
    if not source.is_dir():
        raise UsageError(f"{source}: no such directory; name the one that holds the tables of the log.")
    truth = source / "truth"
    return publish_source(
        "validate",
        open_tables(source),
        source,
        out,
        config=config,
        validation=config,
        force=force,
        quarantine=quarantine,
        truth=truth if truth.is_dir() else None,
        profile=profile,
    )


def open_tables(source: Path) -> Source:
    """Find the files of the tables below a directory.

    Raises:
        PrectrError: a required table has no file.
    """
    found = find_tables(source, TABLES)
    pinned = {name: [_pinned(file, layout) for file, layout in files] for name, files in found.tables.items()}
    lacks: tuple[str, ...] = ()
    for table in TABLES:
        if table.name in pinned or table.optional:
            continue
        if table == IMPRESSIONS and JUDGMENTS.name in pinned:
            lacks = ("impressions: it serves train-teacher, select-pairs, label and distill, and simulate --catalogue",)
            continue
        raise PrectrError(
            f"{source}: the table '{table.name}' is missing. Put it there as {table.name}.parquet, {table.name}.csv "
            f"or {table.name}/*.parquet with the columns {_describe_columns(table)}."
        )
    versions = {
        str(file.relative_to(source)): layout.version
        for files in pinned.values()
        for file, layout in files
        if layout.version is not None
    }
    return Source(
        "the log",
        {"tables": source},
        {table.name: _reader_of(source, table, pinned[table.name]) for table in TABLES if table.name in pinned},
        Tally(),
        lacks=lacks,
        versions=versions,
        not_read=tuple(found.not_read),
        expected={table: rows for table, files in pinned.items() if (rows := expected_rows(files)) is not None},
    )


def _pinned(file: Path, layout: Layout) -> tuple[Path, Layout]:
    """A Delta Lake table with the version that is read, so that its files do not change meanwhile."""
    if layout.format != "delta" or layout.version is not None:
        return file, layout
    return file, Layout("delta", version=columnar.open_delta(file, None).version())


def _describe_columns(table: Table) -> str:
    return ", ".join(f"{column.name} {WANTED_TYPE[column.kind]}" for column in table.columns if column.required)


def _reader_of(source: Path, table: Table, files: Sequence[tuple[Path, Layout]]) -> Rows:
    required = table.required_names
    canonical = [column.name for column in table.columns]

    def rows(reader: Reader) -> Iterator[pl.DataFrame]:
        others = reader.types_of(files, without=canonical)
        for file, layout in files:
            for frame in reader.chunks(file, required, layout, optional=canonical, others=others):
                folders = _folders(file.relative_to(source))
                frame = frame.with_columns(
                    pl.lit(value).alias(name) for name, value in folders.items() if name not in frame.columns
                )
                present = [name for name in canonical if name in frame.columns]
                keep = [name for name in {**others, **folders} if name in frame.columns and name not in present]
                yield conform(
                    frame,
                    table,
                    dict(zip(present, present, strict=True)),
                    reader.config,
                    elsewhere=_partition(table, file.relative_to(source)),
                    keep=keep,
                )

    return rows


def _partition(table: Table, file: Path) -> str | None:
    """The day that a folder of a file, below the log's own, names."""
    days = [part.removeprefix(PARTITION) for part in file.parts[:-1] if part.startswith(PARTITION)]
    return days[-1] if table.dated and days else None


def _folders(file: Path) -> dict[str, str]:
    """Columns that the folders of a file, below the log's own, name, such as `country=us/`, without the day."""
    parts = (part.partition("=") for part in file.parts[:-1] if "=" in part and not part.startswith(PARTITION))
    return {name: value for name, _, value in parts}
