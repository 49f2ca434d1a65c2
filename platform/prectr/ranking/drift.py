"""Drift of served scores and levels from the validation day, by the population stability index (PSI).

    PSI = sum_b (s_b - t_b) ln(s_b / t_b)

    symbol  variable  meaning
    t_b     shares    share of the validation day's rows in bin b; bins are cut at its deciles
    s_b     served    share of the recently served rows in bin b

By convention, an index below 0.1 means no drift, and one above 0.25 clear drift.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError, shorten
from prectr.features.load import Samples, split_days
from prectr.ranking.bundle import REFERENCE_FILE, Bundle
from prectr.ranking.scoring import Scorer

BINS = 10
REFERENCE_ROWS = 20_000
_LEAST_SHARE = 1e-4
"""Share of a bin without rows, so that its logarithm exists."""
_HALF_LIFE_ROWS = 100_000
"""Served rows after which earlier rows count half."""


def write_reference(bundle: Path, samples: Path) -> None:
    """Write the distribution of position-free click logits and expected levels on the validation day."""
    opened = Samples.open(samples)
    _, day, _ = split_days(opened.days())
    frame = opened.frame([day]).head(REFERENCE_ROWS)
    scores = Scorer(Bundle.read(bundle, "unpublished")).score(opened.rows(frame), opened.pairs, opened.tokens)
    values = {"score": scores.click_logit, "level": scores.expected_level}
    write_json(bundle / REFERENCE_FILE, {name: _spread(array) for name, array in values.items()} | {"day": str(day)})


def _spread(values: np.ndarray) -> dict[str, Any]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (counts / counts.sum()).tolist()}


class Drift:
    """Population stability indices of served rows, by quantity (score, level).

    Raises:
        PrectrError: the bundle's reference cannot be read.
    """

    def __init__(self, bundle: Path) -> None:
        try:
            content = json.loads((bundle / REFERENCE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(
                f"{bundle / REFERENCE_FILE}: cannot be read ({shorten(error)}); train the bundle again."
            ) from None
        self._edges = {name: np.array(content[name]["edges"]) for name in ("score", "level")}
        self._shares = {name: np.array(content[name]["shares"]) for name in ("score", "level")}
        self._served = {name: np.zeros(len(shares)) for name, shares in self._shares.items()}

    def add(self, **values: Sequence[float] | np.ndarray) -> None:
        """Add served rows: `score` [n] click logits, `level` [n] expected levels."""
        for name, array in values.items():
            served = self._served[name]
            served *= 0.5 ** (len(array) / _HALF_LIFE_ROWS)
            served += np.bincount(np.searchsorted(self._edges[name], array), minlength=len(served))

    def index(self, name: str) -> float:
        """Compute the index of a quantity; 0 before the first served row."""
        total = self._served[name].sum()
        if not total:
            return 0.0
        served = np.maximum(self._served[name] / total, _LEAST_SHARE)
        trained = np.maximum(self._shares[name], _LEAST_SHARE)
        return float(((served - trained) * np.log(served / trained)).sum())
