"""A/A on one's own users: assign them again at random, many times, and count how often a test finds a difference.

No re-assignment has an effect, so a test at level 1 - alpha may find one in a share alpha of them. More says that its
standard error is too small for these users, as that of a test which counts rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from prectr.evaluation.experiments.cuped import UserSums
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio

CELLS = 8_000_000
"""Users times re-assignments held at once: bounds memory."""


@dataclass(frozen=True)
class FalsePositives:
    """Shares of re-assignments in which a difference was found."""

    by_users: float
    by_rows: float | None
    """As if rows were independent; None for measures whose `below` is not rows."""


def false_positives(
    sums: Mapping[str, UserSums], rows: frozenset[str], share: float, splits: int, level: float, seed: int
) -> dict[str, FalsePositives]:
    """Re-assign users.

    Args:
        sums: of the same n users, by measure.
        rows: measures that are shares of rows.
        share: of the users that are treated.
        splits: how many re-assignments.
        level: of the tests.
        seed: of the assignments.
    """
    users = len(next(iter(sums.values())).above)
    columns = {name: _moment_columns(found) for name, found in sums.items()}
    random = np.random.default_rng(seed)
    by_users, by_rows = dict.fromkeys(sums, 0), dict.fromkeys(rows, 0)
    step = max(1, CELLS // max(users, 1))
    for start in range(0, splits, step):
        treated = (random.random((min(step, splits - start), users)) < share).astype(np.float64)
        for name, column in columns.items():
            inside = treated @ column
            pair = [Moments(*part.T) for part in (column.sum(axis=0) - inside, inside)]
            control, treatment = map(Ratio.of, pair)
            by_users[name] += int((Difference.of(control, treatment).p_value < 1 - level).sum())
            if name in rows:
                by_rows[name] += int((row_level_p_value(*pair) < 1 - level).sum())
    return {
        name: FalsePositives(by_users[name] / splits, by_rows[name] / splits if name in rows else None) for name in sums
    }


def row_level_p_value(control: Moments, treatment: Moments) -> np.ndarray:
    """The test of two proportions that takes every row for independent: what not to do."""
    shares = [part.above / part.below for part in (control, treatment)]
    variance = sum(share * (1 - share) / part.below for share, part in zip(shares, (control, treatment)))
    return 2.0 * ndtr(-np.abs(shares[1] - shares[0]) / np.sqrt(variance))


def _moment_columns(sums: UserSums) -> np.ndarray:
    """[n, 6] in the order of the fields of `Moments`."""
    above, below = sums.above.astype(np.float64), sums.below.astype(np.float64)
    return np.stack([np.ones(len(above)), above, below, above**2, above * below, below**2], axis=1)
