"""Made-up clicks on categorical fields: ids by Zipf's law, labels from a hidden factorisation machine.

Read by both sides of the DeepFM comparison, one of which has this project's code not at hand: numpy only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIELDS, CARDINALITY = 26, 20_000
EXPONENT = 1.1
"""Of Zipf's law: the most frequent id of a field has about a tenth of its rows."""
FACTORS = 4
SEED = 5
LINEAR, PAIRS, BIAS = 0.3, 0.025, -1.8
"""Scales of the hidden model's terms, and where its logits lie: single ids say most, as in a click log (the sum over
fields spreads by 1.5, that over pairs by 0.9), and about a fifth to a quarter of the rows are clicks."""


@dataclass(frozen=True)
class Clicks:
    """Rows as arrays: ids int32 [n, F], clicked float32 [n]."""

    ids: np.ndarray
    clicked: np.ndarray

    def __len__(self) -> int:
        return len(self.clicked)

    @classmethod
    def load(cls, file: Path) -> "Clicks":
        """Read what `make_clicks` wrote."""
        arrays = np.load(file)
        return cls(arrays["ids"], arrays["clicked"])


def make_clicks(folder: Path, rows: int, test_rows: int) -> None:
    """Write `train.npz` and `test.npz` into `folder`."""
    generator = np.random.default_rng(SEED)
    share = 1.0 / np.arange(1, CARDINALITY) ** EXPONENT
    edges = np.cumsum(share / share.sum())
    weights = generator.normal(0, LINEAR, (FIELDS, CARDINALITY))
    vectors = generator.normal(0, 1, (FIELDS, CARDINALITY, FACTORS)).astype(np.float32)
    for name, count in (("train", rows), ("test", test_rows)):
        # Id 0 is "unknown" to rankers and never drawn; which id is frequent differs by field.
        ids = 1 + np.searchsorted(edges, generator.random((count, FIELDS))).clip(max=CARDINALITY - 2)
        linear, total, squares = np.zeros(count), np.zeros((count, FACTORS)), np.zeros(count)
        for field in range(FIELDS):
            found = vectors[field, ids[:, field]]
            linear += weights[field, ids[:, field]]
            total += found
            squares += np.square(found).sum(1)
        logit = BIAS + linear + PAIRS * 0.5 * (np.square(total).sum(1) - squares)
        clicked = generator.random(count) < 1 / (1 + np.exp(-logit))
        np.savez(folder / f"{name}.npz", ids=ids.astype(np.int32), clicked=clicked.astype(np.float32))


def batches(rows: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """The rows of each step of an epoch, the same for both sides; the last, shorter batch is left out."""
    order = np.random.default_rng(seed).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, rows - batch_size + 1, batch_size)]
