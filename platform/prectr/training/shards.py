"""Which rows a run reads, in which order: files in a random order of each epoch, cut into shards that fit in memory.

The order depends on the seed and the epoch only, never on the number of workers, so a run that is resumed, with as many
workers or others, goes on with the very rows that come next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prectr.data.tables import read_footer


@dataclass(frozen=True)
class Shard:
    """Files that are held in memory together."""

    number: int
    files: tuple[Path, ...]
    rows: int


@dataclass(frozen=True)
class ShardPlan:
    """The files of a run and how many rows each has; `most_rows` bounds a shard of more than one file."""

    files: tuple[Path, ...]
    rows: tuple[int, ...]
    most_rows: int

    @classmethod
    def of(cls, files: Sequence[Path], most_rows: int) -> "ShardPlan":
        """Plan some sample files."""
        return cls(tuple(files), tuple(read_footer(file).num_rows for file in files), most_rows)

    @property
    def total(self) -> int:
        """Rows of all files."""
        return sum(self.rows)

    def epoch(self, seed: int, epoch: int) -> list[Shard]:
        """The shards of an epoch, in order; one shard, files as given, where all rows fit."""
        if self.total <= self.most_rows:
            return [Shard(0, self.files, self.total)]
        shards: list[Shard] = []
        files: list[Path] = []
        rows = 0
        for place in np.random.default_rng([seed, epoch]).permutation(len(self.files)):
            if files and rows + self.rows[place] > self.most_rows:
                shards.append(Shard(len(shards), tuple(files), rows))
                files, rows = [], 0
            files.append(self.files[place])
            rows += self.rows[place]
        return [*shards, Shard(len(shards), tuple(files), rows)]

    def steps(self, seed: int, epochs: int, batch_size: int) -> list[int]:
        """Steps of each epoch; the last batch of a shard may be short."""
        return [sum(-(-shard.rows // batch_size) for shard in self.epoch(seed, epoch)) for epoch in range(epochs)]


def part_of(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """A worker's rows of a batch, neighbours together.

    Every worker gets some: the workers wait for each other in each step. Where a batch has fewer rows than there are
    workers, those left over repeat its first row.
    """
    part = np.array_split(batch, world)[rank]
    return part if len(part) else batch[:1]


def batches(order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[np.ndarray]:
    """Batches of a shard's row order, from row `start` on."""
    for first in range(start, len(order), batch_size):
        yield order[first : first + batch_size]
