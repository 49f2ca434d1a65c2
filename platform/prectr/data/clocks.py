"""Days that wrong clocks made: rows far from the bulk of a log, which must not become its first day or its test day.

The days with rows are cut into clusters at gaps of at least `validation.far_days` days without rows. The cluster with
most rows is the bulk. Another cluster comes from wrong clocks if it has at most `validation.far_share` times the rows
of the bulk, or if it is more than `validation.farthest_days` days away from it.
"""

from collections.abc import Mapping
from datetime import date

import polars as pl

from prectr.data.config import ValidateConfig
from prectr.data.reading.bad_rows import ADVICE, FAULT, BadRows

FAR = "is far from the bulk of the log"
ADVICE[FAR] = (
    "Correct these clocks; or set validation.far_days, far_share or farthest_days, if these days belong to the log."
)


def far_days(rows: Mapping[date, int], config: ValidateConfig) -> set[date]:
    """The days that wrong clocks made.

    Args:
        rows: day -> rows.
        config: the rule.

    >>> far_days({date(2026, 3, 2): 900, date(2026, 3, 3): 900, date(2038, 1, 19): 1}, ValidateConfig())
    {datetime.date(2038, 1, 19)}
    """
    clusters: list[list[date]] = []
    for day in sorted(rows):
        if clusters and (day - clusters[-1][-1]).days <= config.far_days:
            clusters[-1].append(day)
        else:
            clusters.append([day])
    if len(clusters) < 2:
        return set()
    size = [sum(rows[day] for day in cluster) for cluster in clusters]
    bulk = clusters[size.index(max(size))]
    far: set[date] = set()
    for cluster, count in zip(clusters, size, strict=True):
        away = max((cluster[0] - bulk[-1]).days, (bulk[0] - cluster[-1]).days)
        if cluster is not bulk and (count <= config.far_share * max(size) or away > config.farthest_days):
            far.update(cluster)
    return far


def without_far_days(rows: pl.DataFrame, far: set[date], table: str, bad: BadRows) -> pl.DataFrame:
    """The rows whose `ts` is not on a far day or is null; the others are put into `bad`."""
    if not far:
        return rows
    is_far = pl.col("ts").dt.date().is_in(sorted(far)).fill_null(False)
    bad.add(table, rows.filter(is_far).with_columns(pl.lit(f"ts {FAR} (a wrong clock?)").alias(FAULT)))
    return rows.filter(~is_far)
