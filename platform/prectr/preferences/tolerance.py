"""Tolerance posteriors over a grid of thresholds [ours]; docs/model.md, Tolerance posterior.

    P(click | pos, rel, th) = exam(pos) * (eps + a * sigmoid((rel - th) / s))

    symbol   variable          shape
    th       GRID              [G]     thresholds on the relevance scale 0..1
    rel      relevance         [n]     expected relevance level / (k - 1), corrected for the other side's tolerance
    exam     examination       [n]
    log L    log_likelihood    [n, G]  one row's log-likelihood of every threshold

The log-likelihood of a user, query or category is the sum over all shown rows, clicked or not. So partial sums can be
merged, and one user's share can be subtracted from a query's sum exactly.

Mining sums hundreds of millions of rows on any number of machines. It reads a row's log-likelihood from a table of
whole numbers (`LogLikelihoodTable`): relevance is rounded to a lattice of 1/200 (a fortieth of a level's width in `s`,
far below the error of any relevance model), a log-likelihood to 2^-20. Sums of whole numbers do not depend on their
order, so the same log gives the same sums for any split into parts; to the byte on one machine, build and thread count.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import coo_array

GRID = np.linspace(0.0, 1.1, 23)
GRID_SIZE = len(GRID)
LATTICE = 200
"""Lattice steps of relevance from 0 to 1."""
UNIT = 2**20
"""The number one in the unit of whole-number sums of log-likelihoods and examinations, 2^-20."""
MAX_POSITION = 64
"""Positions beyond this one have its examination probability."""
_REACH = round(GRID[-1] * LATTICE)
"""Largest distance of a tolerance from its prior's centre, in lattice steps."""
_TINY = 1e-9


@dataclass(frozen=True)
class ClickParameters:
    """Parameters of the click curve: ceiling `a`, softness `s` (includes the relevance model's error), floor `eps`."""

    a: float
    s: float
    eps: float

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object."""
        return asdict(self)


def acceptance(relevance: np.ndarray, parameters: ClickParameters) -> np.ndarray:
    """Compute the click probability given examination for every grid threshold, shape [n, G]."""
    # At most 2.2 / 0.02 (the smallest softness that the fit allows) in size, so exp does not overflow.
    distance = (relevance[:, None] - GRID[None, :]) / parameters.s
    return parameters.eps + parameters.a / (1.0 + np.exp(-distance))


def log_likelihood(
    clicked: np.ndarray, relevance: np.ndarray, examination: np.ndarray, parameters: ClickParameters
) -> np.ndarray:
    """Compute the log-likelihood of every threshold for every shown row.

    Args:
        clicked: [n] bool.
        relevance: [n] on 0..1.
        examination: [n] exam(pos) in (0, 1].
        parameters: the click curve.

    Returns:
        [n, G].
    """
    probability = np.clip(examination[:, None] * acceptance(relevance, parameters), _TINY, 1 - _TINY)
    return np.where(clicked[:, None], np.log(probability), np.log1p(-probability))


def posterior(log_likelihood_sum: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Posterior over the grid.

    Args:
        log_likelihood_sum: [m, G] sums over rows; zeros mean nothing was seen.
        prior: [G], or [m, G] for a prior of each key.

    Returns:
        [m, G], rows sum to 1.
    """
    logits = log_likelihood_sum + np.log(np.maximum(prior, _TINY))
    logits = logits - logits.max(axis=1, keepdims=True)
    weight = np.exp(logits)
    return weight / weight.sum(axis=1, keepdims=True)


def moments(distribution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of distributions over the grid, each [m]."""
    mean = distribution @ GRID
    variance = distribution @ GRID**2 - mean**2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def predictive(distribution: np.ndarray, relevance: np.ndarray, parameters: ClickParameters) -> np.ndarray:
    """Compute the posterior-predictive click probability at position 1, `sum_th post(th) P(click | rel, th)`, [n].

    Args:
        distribution: [n, G] posterior of each row's user.
        relevance: [n], corrected for the query's tolerance.
        parameters: the click curve.
    """
    return (distribution * acceptance(relevance, parameters)).sum(axis=1)


def on_lattice(relevance: np.ndarray) -> np.ndarray:
    """Convert relevance on 0..1, or a shift of it, to lattice steps; int16 of any shape."""
    return np.rint(np.asarray(relevance, dtype=np.float64) * LATTICE).astype(np.int16)


def bounded_position(position: np.ndarray) -> np.ndarray:
    """Cap 1-based positions at MAX_POSITION; int32 [n]."""
    return np.minimum(position, MAX_POSITION).astype(np.int32)


class LogLikelihoodTable:
    """Log-likelihoods of every threshold in units of 2^-20, for every click, position and relevance on the lattice.

    A *cell* is the number of a combination (clicked, position, relevance). Relevance may be corrected for the other
    side's tolerance.
    """

    def __init__(self, click: ClickParameters, exponent: float) -> None:
        """Compute the table for exam(pos) = pos^-exponent."""
        relevance = np.arange(-_REACH, LATTICE + _REACH + 1) / LATTICE
        accepted = acceptance(relevance, click)
        examined = np.arange(1, MAX_POSITION + 1, dtype=np.float64) ** -exponent
        probability = np.clip(examined[:, None, None] * accepted[None], _TINY, 1 - _TINY)
        both = np.stack([np.log1p(-probability), np.log(probability)])
        self._relevances = len(relevance)
        self.values = np.rint(both * UNIT).astype(np.int64).reshape(-1, GRID_SIZE)
        """[cells, G]"""
        self.examined = np.rint(np.r_[0.0, examined] * UNIT).astype(np.int64)
        """[MAX_POSITION + 1] exam(pos) in the same units, by position."""

    def cells(self, clicked: np.ndarray, position: np.ndarray, relevance: np.ndarray) -> np.ndarray:
        """Compute the cells of rows, int32 [n].

        Args:
            clicked: [n] bool.
            position: [n] from `bounded_position`.
            relevance: [n] lattice steps, shifted by at most 1.1 in either direction.
        """
        row = clicked.astype(np.int32) * MAX_POSITION + (position.astype(np.int32) - 1)
        return row * np.int32(self._relevances) + (relevance.astype(np.int32) + _REACH)

    def sums(self, codes: np.ndarray, count: int, cells: np.ndarray) -> np.ndarray:
        """Sum the rows' log-likelihoods by key: int64 [count, G].

        The function counts rows by (key, cell) in a sparse matrix and multiplies it with the table, so that the
        [n, G] log-likelihoods of single rows need no memory.

        Args:
            codes: [n] key of each row, 0..count-1.
            count: number of keys.
            cells: [n] results of `cells`.
        """
        ones = np.ones(len(cells), dtype=np.int64)
        counted = coo_array((ones, (codes, cells)), shape=(count, len(self.values)))
        # The matrix is not in canonical format, but the product does not need it, and sorting takes half the time.
        counted.has_canonical_format = True
        return np.asarray(counted.tocsr() @ self.values)


@lru_cache(maxsize=4)
def log_likelihood_table(click: ClickParameters, exponent: float) -> LogLikelihoodTable:
    """Return the table of a fitted curve; each process computes it once."""
    return LogLikelihoodTable(click, exponent)
