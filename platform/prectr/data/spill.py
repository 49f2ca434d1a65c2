"""Rows by a hash of their key, in memory or, if they are many, in temporary files: all rows of a key come together.

How rows are cut depends on their number only, not on the files or the order that they came in.
"""

import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import polars as pl

UNIT_ROWS = 2_000_000
"""Most rows of a unit, up to `MOST_UNITS`; also the rows that are held in memory before some are written."""
MOST_UNITS = 1024
BUCKETS = 64
"""Buckets of the temporary files if the number of rows is not known beforehand."""
NUMBERED = r"(?:~\d+)+$"
"""End of an id that `requests` told apart by a number: `7~2` comes together with `7`."""
_BUCKET = "__bucket"


def units_of(rows: int) -> int:
    """Number of units into which rows are cut: a power of two.

    >>> units_of(0), units_of(2_000_000), units_of(5_000_000)
    (1, 1, 4)
    """
    units = 1
    while rows > units * UNIT_ROWS and units < MOST_UNITS:
        units *= 2
    return units


class Spill:
    """Rows of one table, to be read again by units of keys.

    Attributes:
        rows: rows so far.
    """

    def __init__(self, folder: Path, key: str, expected: int | None = None) -> None:
        """Make an empty spill.

        Args:
            folder: directory for temporary files, made when it is needed.
            key: column that is hashed, without the numbers of `NUMBERED`.
            expected: rows that will come, if that is known. If it is right, a unit keeps the order of its rows.
        """
        self.rows = 0
        self._folder, self._key = folder, key
        self._buckets = BUCKETS if expected is None else units_of(expected)
        self._frames: list[pl.DataFrame] = []
        self._held = 0
        self._files: list[tuple[Path, list[int]]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows."""
        if not frame.height:
            return
        self.rows += frame.height
        self._held += frame.height
        self._frames.append(frame)
        if self._held > UNIT_ROWS:
            self._flush()

    def unit(self, number: int, units: int) -> pl.DataFrame | None:
        """The rows of one of `units` (a power of two) ranges of hashes; None if there are none. Each is read once."""
        if units == 1 and not self._files:
            frames, self._frames = self._frames, []
        else:
            self._flush()
            frames = list(self._read(number, units))
        return pl.concat(frames, how="diagonal_relaxed") if frames else None

    def close(self) -> None:
        """Remove the temporary files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, frame: pl.DataFrame, parts: int) -> pl.Series:
        """Number of each row's part."""
        key = frame[self._key]
        if key.str.contains("~", literal=True).any():
            key = key.str.replace(NUMBERED, "")
        return key.hash(seed=0) % MOST_UNITS // (MOST_UNITS // parts)

    def _flush(self) -> None:
        """Write the rows that are held to one file, in the order of their buckets."""
        if not self._frames:
            return
        pieces: dict[int, list[pl.DataFrame]] = {number: [] for number in range(self._buckets)}
        for frame in self._frames:
            bucket = self._part(frame, self._buckets).cast(pl.UInt16).alias(_BUCKET)
            parts = frame.with_columns(bucket).partition_by(_BUCKET, as_dict=True, include_key=False)
            for (number,), part in parts.items():
                pieces[int(str(number))].append(part)
        self._frames, self._held = [], 0
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{len(self._files):06d}.arrow"
        ordered = [part for parts in pieces.values() for part in parts]
        pl.concat(ordered, how="diagonal_relaxed", rechunk=False).write_ipc(file, compression="lz4")
        heights = [sum(part.height for part in parts) for parts in pieces.values()]
        self._files.append((file, [0, *accumulate(heights)]))

    def _read(self, number: int, units: int) -> Iterator[pl.DataFrame]:
        """Rows of a unit: some whole buckets, or a part of one."""
        first = number * self._buckets // units
        last = first + max(1, self._buckets // units)
        for file, starts in self._files:
            rows = starts[last] - starts[first]
            if rows:
                frame = pl.scan_ipc(file).slice(starts[first], rows).collect()
                yield frame if units <= self._buckets else frame.filter(self._part(frame, units) == number)
