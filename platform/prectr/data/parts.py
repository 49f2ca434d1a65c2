"""How a log is cut into tasks: by bytes and a memory budget, so that nothing is tuned by hand.

The cut depends on the files and the budget only, never on how many machines there are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from prectr.core.ray_session import Budget
from prectr.data.tables import Tables, read_footer

ROW_BYTES = 300
"""What a task holds for a row it reads, beside its text: codes, cells, sort keys and their copies (measured)."""
TEXT_COPIES = 3
"""How often a task may hold the bytes that it read."""


@dataclass(frozen=True)
class Slice:
    """Some rows of one file."""

    file: Path
    start: int
    rows: int


@dataclass(frozen=True)
class Part:
    """A part of a day that one task reads. Parts are numbered within their day."""

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
    """Cut a table's rows of some days into parts that a task can hold.

    Small files of a day are read together; a large one is cut at its row groups, or inside of them.

    Raises:
        PrectrError: a file is not Parquet.
    """
    made: list[Part] = []
    for day in days:
        slices: list[Slice] = []
        used = 0.0
        parts = 0
        for file in tables.day_files(table, day):
            for piece, cost in _pieces(file, budget.of_task):
                if slices and used + cost > budget.of_task:
                    made.append(Part(day, parts, _joined(slices)))
                    slices, used, parts = [], 0.0, parts + 1
                slices.append(piece)
                used += cost
        if slices:
            made.append(Part(day, parts, _joined(slices)))
    return made


def _pieces(file: Path, limit: int) -> Iterable[tuple[Slice, float]]:
    """The row groups of a file, cut further where one is above the limit, with the bytes that reading them takes."""
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
    """Neighbouring slices of a file as one."""
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
    """Keys from `low` up to but not including `high`; None is no bound."""

    low: str | None
    high: str | None
    number: int


def plan_ranges(keys: Sequence[str], rows_a_sample: int, rows_a_range: int) -> list[KeyRange]:
    """Cut a key space into ranges of about `rows_a_range` rows.

    Args:
        keys: every `rows_a_sample`-th key of the frames that lie in the key space, sorted.
        rows_a_sample: rows that one of `keys` stands for.
        rows_a_range: rows wanted.
    """
    step = max(1, rows_a_range // rows_a_sample)
    bounds = sorted(set(keys[step::step]) - set(keys[:1]))  # nothing lies below the first
    edges = [None, *bounds, None]
    return [KeyRange(low, high, number) for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True))]
