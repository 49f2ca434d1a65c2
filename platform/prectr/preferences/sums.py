"""Names and order of the sums over shown rows: columns of partial aggregates, snapshots and point-in-time states.

    kind         columns
    user         tolerance grid [G], requests, examined, clicks
    query,       tolerance grid [G], then by level [k]: impressions, examined, clicks, debiased clicks;
    category,    then log-price of clicks, priced clicks
    total
    item, pair   impressions, examined, clicks

`examined` is the sum of exam(pos): impressions, corrected for position. `debiased_clicks` is the sum of 1 / exam(pos)
over clicks (inverse examination). Partials hold whole numbers; columns that are not counts are in units of 2^-20
(`prectr.preferences.tolerance`). Snapshots hold decayed numbers in natural units.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.preferences.tolerance import GRID_SIZE, UNIT

_GRID_NAMES = tuple(f"grid_{column:02d}" for column in range(GRID_SIZE))
_BY_LEVEL = ("impressions", "examined", "clicks", "debiased_clicks")
USER_NAMES = (*_GRID_NAMES, "requests", "examined", "clicks")
LEVEL_NAMES = (
    *_GRID_NAMES,
    *(f"{name}_{level}" for name in _BY_LEVEL for level in range(LEVELS)),
    "log_price",
    "priced_clicks",
)
COUNT_NAMES = ("impressions", "examined", "clicks")
USER_WIDTH, LEVEL_WIDTH = len(USER_NAMES), len(LEVEL_NAMES)
NAMES = {
    "user": USER_NAMES,
    "query": LEVEL_NAMES,
    "category": LEVEL_NAMES,
    "total": LEVEL_NAMES,
    "item": COUNT_NAMES,
    "pair": COUNT_NAMES,
}
_COUNTS = ("impressions", "clicks", "priced_clicks", "requests")


@dataclass(frozen=True)
class LevelSums:
    """The sums of m queries or categories by name. `grid` is [m, G], prices are [m], the others [m, k]."""

    grid: np.ndarray
    impressions: np.ndarray
    examined: np.ndarray
    clicks: np.ndarray
    debiased_clicks: np.ndarray
    log_price: np.ndarray
    priced_clicks: np.ndarray

    @classmethod
    def split(cls, sums: np.ndarray) -> "LevelSums":
        """Split a [m, LEVEL_WIDTH] array into its named columns."""
        grid, rest = sums[:, :GRID_SIZE], sums[:, GRID_SIZE:]
        impressions, examined, clicks, debiased = (
            rest[:, part * LEVELS : (part + 1) * LEVELS] for part in range(len(_BY_LEVEL))
        )
        log_price, priced = sums[:, LEVEL_WIDTH - 2], sums[:, LEVEL_WIDTH - 1]
        return cls(grid, impressions, examined, clicks, debiased, log_price, priced)

    def rows(self, places: np.ndarray) -> "LevelSums":
        """Select the keys at n places, without the grid, which is wide and not needed by row."""
        parts = (self.impressions, self.examined, self.clicks, self.debiased_clicks, self.log_price, self.priced_clicks)
        return LevelSums(np.zeros((len(places), 0)), *(part[places] for part in parts))


def scale(names: tuple[str, ...]) -> np.ndarray:
    """Factors that convert the columns' whole numbers to natural units, [w]."""
    return np.array([1.0 if name.startswith(_COUNTS) else 1.0 / UNIT for name in names])


def fades(names: tuple[str, ...]) -> np.ndarray:
    """Whether each column decays with time, bool [w]: all but `requests`, which separates new users from known ones."""
    return np.array([name != "requests" for name in names])


def matrix(frame: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Convert columns of a frame to an array [n, w]."""
    return np.ascontiguousarray(frame.select(names).to_numpy())


def columns(sums: np.ndarray, names: tuple[str, ...]) -> list[pl.Series]:
    """Convert an array [n, w] to named columns; the reverse of `matrix`."""
    return [pl.Series(name, np.ascontiguousarray(sums[:, column])) for column, name in enumerate(names)]
