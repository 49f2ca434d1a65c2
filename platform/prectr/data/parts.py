"""Parts of a log that tasks read, cut by bytes and a memory budget, so that users need not set their size.

The parts depend on the files and the budget only, not on the number of machines.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from prectr.core.ray_session import Budget
from prectr.data.tables import Tables, read_footer

ROW_BYTES = 300
"""Bytes that a task holds for each row besides its text: codes, cells, sort keys and their copies (measured)."""
TEXT_COPIES = 3
"""Copies that a task may hold of the bytes that it read."""


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a file."""

    file: Path
    start: int
    rows: int


@dataclass(frozen=True)
class Part:
    """A part of a day, read by one task. Parts are numbered within their day."""

    day: date
    number: int
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """Rows of all slices."""
        return sum(piece.rows for piece in self.slices)


def plan_parts(
    tables: Tables, days: Sequence[date], budget: Budget, table: Literal["impressions", "candidates"] = "impressions"
) -> list[Part]:
    """Cut the rows of a table on some days into parts that fit into a task.

    Small files of a day share a part. A large file is cut at its row groups, or inside them.

    Raises:
        PrectrError: a file is damaged or not Parquet.
    """
    planned: list[Part] = []
    for day in days:
        slices: list[Slice] = []
        used = 0.0  # bytes of `slices`
        number = 0
        for file in tables.day_files(table, day):
            for piece, cost in _pieces(file, budget.of_task):
                if slices and used + cost > budget.of_task:
                    planned.append(Part(day, number, _joined(slices)))
                    slices, used, number = [], 0.0, number + 1
                slices.append(piece)
                used += cost
        if slices:
            planned.append(Part(day, number, _joined(slices)))
    return planned


def _pieces(file: Path, limit: int) -> Iterable[tuple[Slice, float]]:
    """Slices of a file and the bytes that a task needs for each: row groups, cut further if they exceed the limit."""
    metadata = read_footer(file)
    start = 0
    for group in range(metadata.num_row_groups):
        rows, size = metadata.row_group(group).num_rows, metadata.row_group(group).total_byte_size
        cost = rows * ROW_BYTES + size * TEXT_COPIES
        cuts = max(1, -(-cost // limit))
        step = -(-rows // cuts)
        for low in range(0, rows, max(step, 1)):
            high = min(low + step, rows)
            yield Slice(file, start + low, high - low), cost * (high - low) / rows
        start += rows


def _joined(slices: list[Slice]) -> tuple[Slice, ...]:
    """Join slices that follow each other in a file."""
    joined: list[Slice] = []
    for piece in slices:
        last = joined[-1] if joined else None
        if last is not None and last.file == piece.file and last.start + last.rows == piece.start:
            joined[-1] = Slice(last.file, last.start, last.rows + piece.rows)
        else:
            joined.append(piece)
    return tuple(joined)


@dataclass(frozen=True)
class KeyRange:
    """Keys from `low` (included) to `high` (excluded). None means no bound."""

    low: str | None
    high: str | None
    number: int


def plan_ranges(keys: Sequence[str], rows_a_sample: int, rows_a_range: int) -> list[KeyRange]:
    """Cut a key space into ranges of about `rows_a_range` rows.

    Args:
        keys: every `rows_a_sample`-th key of the frames in the key space, sorted.
        rows_a_sample: rows that each of `keys` represents.
        rows_a_range: rows of a range; the result is about this size.
    """
    step = max(1, rows_a_range // rows_a_sample)
    bounds = sorted(set(keys[step::step]) - set(keys[:1]))  # no key lies below the first
    edges = [None, *bounds, None]
    return [KeyRange(low, high, number) for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True))]
