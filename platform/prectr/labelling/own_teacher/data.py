"""Training data of the teacher as arrays: tokenised prompts, their grades, and their role in training.

All prompts start with the same tokens (the question before the pair) and end with the same tokens (before the answer).
The start is stored once, because `logits` computes it once per batch; the end is never blanked in training. This module
uses neither torch nor Ray.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WARM, TRAINING, VALIDATION = 0, 1, 2
"""Role of a row: a generated pair of the warm start (seen once, as epoch 0), or a judged pair of either split."""


@dataclass(frozen=True)
class TeacherData:
    """n prompts `prefix + suffixes[row]`.

    Attributes:
        prefix: int64 [S], the first tokens that all prompts share, S >= 0.
        suffixes: n arrays of at least one token each, the rest of each prompt.
        lengths: int64 [n], tokens of each suffix.
        shared_end: number of last tokens that all prompts share.
        grades: int64 [n], 0..3.
        role: int64 [n], one of WARM, TRAINING, VALIDATION.
    """

    prefix: np.ndarray
    suffixes: Sequence[np.ndarray]
    lengths: np.ndarray
    shared_end: int
    grades: np.ndarray
    role: np.ndarray

    @classmethod
    def of(cls, prompts: Sequence[np.ndarray], grades: np.ndarray, role: np.ndarray) -> "TeacherData":
        """Split whole prompts into the shared prefix and the suffixes."""
        shared = common_prefix_length([prompt.tolist() for prompt in prompts])
        suffixes = [prompt[shared:].astype(np.int64) for prompt in prompts]
        return cls(
            prefix=prompts[0][:shared].astype(np.int64),
            suffixes=suffixes,
            lengths=np.array([len(suffix) for suffix in suffixes]),
            shared_end=common_prefix_length([suffix[::-1].tolist() for suffix in suffixes]),
            grades=grades.astype(np.int64),
            role=role.astype(np.int64),
        )

    @classmethod
    def load(cls, file: Path) -> "TeacherData":
        """Read a file of `save_prompts`."""
        with np.load(file) as data:
            values, offsets, grades, role = (data[name] for name in ("values", "offsets", "grades", "role"))
        return cls.of(np.split(values, offsets[1:-1]), grades, role)

    def rows(self, role: int) -> np.ndarray:
        """Row numbers of a role."""
        return np.flatnonzero(self.role == role)

    def padded(
        self, rows: np.ndarray, blank: int, dropout: float = 0.0, generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return suffixes of some rows, int64 [B, L] padded on the right with `blank`, and their lengths [B].

        With `dropout`, `generator` blanks that share of the tokens before the shared end.
        """
        lengths = self.lengths[rows]
        positions = np.arange(lengths.max())
        ids = np.full((len(rows), lengths.max()), blank, np.int64)
        ids[positions < lengths[:, None]] = np.concatenate([self.suffixes[row] for row in rows])
        if dropout and generator is not None:
            maskable = positions < lengths[:, None] - self.shared_end
            ids[maskable & (generator.random(ids.shape) < dropout)] = blank
        return ids, lengths


def save_prompts(file: Path, prompts: Sequence[Sequence[int]], grades: np.ndarray, role: np.ndarray) -> None:
    """Write prompts of different lengths to one .npz file, which `TeacherData.load` reads in a worker."""
    lengths = np.array([len(prompt) for prompt in prompts])
    np.savez(
        file,
        values=np.fromiter((token for prompt in prompts for token in prompt), np.int32, int(lengths.sum())),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        grades=grades,
        role=role,
    )


def common_prefix_length(prompts: Sequence[list[int]]) -> int:
    """Count the first tokens that all prompts share; at least one token of each prompt is left out."""
    first, last = min(prompts), max(prompts)  # in dictionary order: if these two agree, all between them do
    limit = min(map(len, prompts)) - 1
    differing = (position for position in range(limit) if first[position] != last[position])
    return max(0, next(differing, limit))


def bucketed_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Shuffle rows into batches of similar lengths. Rows are sorted by length only inside chunks of 16 batches."""
    shuffled = generator.permutation(rows)
    batches: list[np.ndarray] = []
    for start in range(0, len(shuffled), 16 * batch_size):
        chunk = shuffled[start : start + 16 * batch_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(chunk[first : first + batch_size] for first in range(0, len(chunk), batch_size))
    return [batches[index] for index in generator.permutation(len(batches))]


def micro_batches(rows: int, accumulate: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """Yield this worker's positions in a batch of `rows`, in at most `accumulate` parts; no part is empty.

    Over all workers every position occurs once, so that a step is the same for any number of workers and parts.
    """
    for part in np.array_split(np.arange(rank, rows, world), accumulate):
        if len(part):
            yield part
