"""How far what is served has moved from the day the model was validated on: population stability index.

    PSI = sum_b (s_b - t_b) ln(s_b / t_b)

    symbol  variable  meaning
    t_b     shares    share of the validation day's rows in bin b, bins cut at its deciles
    s_b     served    share of the rows served of late

Below 0.1 nothing moved to speak of, above 0.25 something did: the usual reading.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError
from prectr.features.load import Samples, split_days
from prectr.ranking.bundle import REFERENCE_FILE, Bundle
from prectr.ranking.scoring import Scorer

BINS = 10
REFERENCE_ROWS = 20_000
_LEAST_SHARE = 1e-4
"""Of a bin without rows, whose logarithm would not exist."""
_HALF_LIFE_ROWS = 100_000
"""Rows after which what was served counts half."""


def write_reference(bundle: Path, samples: Path) -> None:
    """Keep how click logits (position-free) and expected levels of the validation day were spread."""
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
    """Population stability indices of what is served, by what is looked at (score, level).

    Raises:
        PrectrError: the bundle has no reference.
    """

    def __init__(self, bundle: Path) -> None:
        try:
            content = json.loads((bundle / REFERENCE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(f"{bundle / REFERENCE_FILE}: cannot be read ({error}); train the bundle again.") from None
        self._edges = {name: np.array(content[name]["edges"]) for name in ("score", "level")}
        self._shares = {name: np.array(content[name]["shares"]) for name in ("score", "level")}
        self._served = {name: np.zeros(len(shares)) for name, shares in self._shares.items()}

    def add(self, **values: Sequence[float] | np.ndarray) -> None:
        """Rows that were served: `score` [n] click logits, `level` [n] expected levels."""
        for name, array in values.items():
            served = self._served[name]
            served *= 0.5 ** (len(array) / _HALF_LIFE_ROWS)
            served += np.bincount(np.searchsorted(self._edges[name], array), minlength=len(served))

    def index(self, name: str) -> float:
        """The index; 0 before anything was served."""
        total = self._served[name].sum()
        if not total:
            return 0.0
        served = np.maximum(self._served[name] / total, _LEAST_SHARE)
        trained = np.maximum(self._shares[name], _LEAST_SHARE)
        return float(((served - trained) * np.log(served / trained)).sum())
