"""Description of a log that is read: files, readers of its tables, missing and assumed parts. It reads no rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from prectr.core import progress
from prectr.core.errors import UsageError, listed
from prectr.data.reading.reader import Reader

Rows = Callable[[Reader], Iterator[pl.DataFrame]]
"""Reads a table in chunks that `values.conform` returned."""


@dataclass
class Tally:
    """Counts, by reason, of rows that an adapter leaves out on purpose. They are printed and stored in the manifest."""

    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int) -> None:
        """Add `count` rows to a reason."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def keep(self, frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        """Return the rows for which `condition` is true and count the others under `reason`."""
        kept = frame.filter(condition)
        self.leave_out(reason, frame.height - kept.height)
        return kept

    def say(self) -> None:
        """Print the counts."""
        for reason, count in self.left_out.items():
            progress.say(f"  left out: {count:,} x {reason}")


@dataclass(frozen=True)
class Source:
    """A source that is ready to be read."""

    name: str
    files: Mapping[str, Path]
    """Name -> file that is read. Their content decides whether an import is up to date."""
    tables: Mapping[str, Rows]
    """Canonical table -> reader."""
    tally: Tally
    grades: Mapping[str, int] = field(default_factory=dict)
    """Judgment of the source -> grade 0..3."""
    lacks: tuple[str, ...] = ()
    """Parts of a log that the source does not hold."""
    assumed: tuple[str, ...] = ()
    """Assumptions that the settings asked for."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Path of a Delta Lake table -> the version that is read."""
    not_read: tuple[Path, ...] = ()
    """Files beside the log that no table reads."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """Canonical table -> its rows, where the files say how many there are."""
    notes: Callable[[], list[str]] = list
    """Further lines to print after reading, such as values that no rule of the mapping names."""

    def say(self) -> None:
        """Print the mapping of grades, the missing parts and the assumptions."""
        if self.grades:
            progress.say("  grades: " + ", ".join(f"{judged} -> {grade}" for judged, grade in self.grades.items()))
        for missing in self.lacks:
            progress.say(f"  {self.name} lacks {missing}")
        for assumption in self.assumed:
            progress.say(f"  assumed: {assumption}")
        for path, version in self.versions.items():
            progress.say(f"  {path}: version {version} of the Delta Lake table")
        if self.not_read:
            names = listed([file.name for file in self.not_read])
            progress.say(f"  not read: {len(self.not_read):,} files that belong to no table: {names}")


def find_file(folder: Path, *names: str) -> Path:
    """The first of `names` that is a file in `folder`.

    Raises:
        UsageError: none is.
    """
    file = find_optional(folder, *names)
    if file is None:
        raise UsageError(f"{folder}: no {' or '.join(names)} here. Give the directory that holds the published files.")
    return file


def find_optional(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a file in `folder`, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
