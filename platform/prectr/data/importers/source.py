"""What an adapter says about its source. Nothing here reads a row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from prectr.core import progress
from prectr.core.errors import UsageError

Rows = Callable[[], Iterator[pl.DataFrame]]
"""Reads a table a chunk at a time, as `rows.conform` makes it."""


@dataclass
class Tally:
    """Rows that an adapter leaves out on purpose, by reason: counted, printed, in the manifest."""

    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int) -> None:
        """Count rows that are left out for a reason."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def keep(self, frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        """The rows for which `condition` is true; the others are counted under `reason`."""
        kept = frame.filter(condition)
        self.leave_out(reason, frame.height - kept.height)
        return kept

    def say(self) -> None:
        """Print the counts."""
        for reason, count in self.left_out.items():
            progress.say(f"  left out: {count:,} x {reason}")


@dataclass(frozen=True)
class Source:
    """A source that was found, ready to be read."""

    name: str
    files: Mapping[str, Path]
    """All files that are read; their content decides whether an import is up to date."""
    tables: Mapping[str, Rows]
    """Canonical table -> its reader."""
    tally: Tally
    grades: Mapping[str, int] = field(default_factory=dict)
    """The source's judgment -> our grade."""
    lacks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def say(self) -> None:
        """Print the grade mapping, what is lacking and what was assumed."""
        if self.grades:
            progress.say("  grades: " + ", ".join(f"{judged} -> {grade}" for judged, grade in self.grades.items()))
        for lack in self.lacks:
            progress.say(f"  {self.name} lacks {lack}")
        for assumption in self.assumed:
            progress.say(f"  assumed: {assumption}")


def find_file(folder: Path, *names: str) -> Path:
    """The first of `names` that lies in `folder`.

    Raises:
        UsageError: none does.
    """
    file = find_optional(folder, *names)
    if file is None:
        raise UsageError(f"{folder}: no {' or '.join(names)} here. Give the directory that holds the published files.")
    return file


def find_optional(folder: Path, *names: str) -> Path | None:
    """The first of `names` that lies in `folder`, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
