"""A/A tests: re-assign the users of an experiment at random many times and count the differences a test finds.

A re-assignment has no effect, so a test at level 1 - alpha should find a difference in a share alpha of them. A larger
share means that its standard error is too small for these users, as is that of a test which treats rows as independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from prectr.evaluation.experiments.cuped import UserSums
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio

CELLS = 8_000_000
"""Most users times re-assignments in memory at once."""


@dataclass(frozen=True)
class FalsePositives:
    """Shares of re-assignments in which a test finds a difference."""

    by_users: float
    """Test with users as units."""
    by_rows: float | None
    """Test that treats rows as independent; None for measures whose `below` is not rows."""


def false_positives(
    sums: Mapping[str, UserSums], rows: frozenset[str], share: float, splits: int, level: float, seed: int
) -> dict[str, FalsePositives]:
    """Re-assign users at random and count the differences that the tests find.

    Args:
        sums: sums of the same n users, by measure.
        rows: names of the measures that are shares of rows.
        share: share of users in the treatment.
        splits: number of re-assignments.
        level: confidence level of the tests.
        seed: seed of the assignments.
    """
    users = len(next(iter(sums.values())).above)
    columns = {name: _moment_columns(user_sums) for name, user_sums in sums.items()}
    random = np.random.default_rng(seed)
    by_users, by_rows = dict.fromkeys(sums, 0), dict.fromkeys(rows, 0)
    step = max(1, CELLS // max(users, 1))
    for start in range(0, splits, step):
        treated = (random.random((min(step, splits - start), users)) < share).astype(np.float64)
        for name, column in columns.items():
            treatment_sums = treated @ column
            pair = [Moments(*part.T) for part in (column.sum(axis=0) - treatment_sums, treatment_sums)]
            control, treatment = map(Ratio.of, pair)
            by_users[name] += int((Difference.of(control, treatment).p_value < 1 - level).sum())
            if name in rows:
                by_rows[name] += int((row_level_p_value(*pair) < 1 - level).sum())
    return {
        name: FalsePositives(by_users[name] / splits, by_rows[name] / splits if name in rows else None) for name in sums
    }


def row_level_p_value(control: Moments, treatment: Moments) -> np.ndarray:
    """P-value of the two-proportion test, which wrongly treats all rows as independent."""
    shares = [part.above / part.below for part in (control, treatment)]
    variance = sum(share * (1 - share) / part.below for share, part in zip(shares, (control, treatment)))
    return 2.0 * ndtr(-np.abs(shares[1] - shares[0]) / np.sqrt(variance))


def _moment_columns(sums: UserSums) -> np.ndarray:
    """Moments of each user, [n, 6], in the order of the fields of `Moments`."""
    above, below = sums.above.astype(np.float64), sums.below.astype(np.float64)
    return np.stack([np.ones(len(above)), above, below, above**2, above * below, below**2], axis=1)
