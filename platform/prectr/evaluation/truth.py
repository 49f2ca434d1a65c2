"""Truth of a simulated log: true click probabilities, tolerances and the click curve.

No other module opens `truth/`. A real log has none: the functions then return None, and `Truth.open` refuses.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.core.parquet import read_table
from prectr.data.tables import Tables, read_parquet


def true_clicks(tables: Tables, day: date, rows: pl.DataFrame, kind: str = "impressions") -> pl.DataFrame | None:
    """Read the true click model of rows, in the order of the rows.

    Args:
        tables: canonical tables.
        day: day of the rows.
        rows: columns request_id and item_id.
        kind: `impressions` or `candidates`.

    Returns:
        Columns grade, r, threshold (T_uq; impressions only), p_exam, p_click_given_exam; None on a real log.

    Raises:
        PrectrError: `truth/` does not hold all of the rows.
    """
    folder = tables.path / "truth" / kind / f"date={day}"
    if not folder.is_dir():
        return None
    truth = pl.read_parquet(folder / "*.parquet", hive_partitioning=False)
    columns = [name for name in ("grade", "r", "threshold", "p_exam", "p_click_given_exam") if name in truth.columns]
    joined = rows.select("request_id", "item_id").join(
        truth.select("request_id", "item_id", *columns), on=["request_id", "item_id"], how="left", maintain_order="left"
    )
    if missing := joined["p_click_given_exam"].null_count():
        raise PrectrError(f"{folder}: lacks {missing} of the test day's {kind}; simulate the log again.")
    return joined.select(columns)


def tolerance_against_truth(tables: Tables, preferences: Path) -> list[dict[str, Any]] | None:
    """Spearman correlation of mined and true user tolerances, by number of requests; None on a real log."""
    file = tables.path / "truth" / "users.parquet"
    if not file.is_file():
        return None
    truth = pl.read_parquet(file)
    if "t_u" not in truth.columns:
        return None
    require_artifact(preferences, "mine-preferences")
    users = read_table(preferences / "snapshot" / "user")
    mined = users.select("user_id", pl.col("tolerance").alias("mined"), "requests")
    joined = mined.join(truth.select("user_id", "t_u"), on="user_id")
    rows = []
    for low, high in ((1, 3), (4, 9), (10, 29), (30, 10**9)):
        part = joined.filter(pl.col("requests").is_between(low, high))
        if part.height >= 10 and part["mined"].n_unique() > 1 and part["t_u"].n_unique() > 1:
            rows.append(
                {
                    "requests": f"{low}-{high}" if high < 10**9 else f"{low}+",
                    "users": part.height,
                    "spearman": float(spearmanr(part["mined"], part["t_u"]).statistic),
                }
            )
    return rows


def incentive_by_threshold(incentive: np.ndarray, true: pl.DataFrame, parts: int = 10) -> dict[str, Any]:
    """Mean tau of shown rows by the true threshold T_uq of user and query, separately for weak and good items.

    A model that has learnt tolerance gives weak items (grades 0 and 1) a higher tau for users with a low threshold.

    Args:
        incentive: [n] tau.
        true: n rows of `true_clicks`.
        parts: number of equal parts of the rows by threshold.

    Returns:
        Means by part: `threshold`, `weak`, `good` [parts]; and `spearman` of -T_uq and tau over the weak rows.
    """
    threshold, weak = true["threshold"].to_numpy(), (true["grade"] <= 1).to_numpy()
    edges = np.quantile(threshold, np.linspace(0, 1, parts + 1)[1:-1])
    part = np.searchsorted(edges, threshold, side="right")

    def means(values: np.ndarray, rows: np.ndarray) -> list[float]:
        count = np.bincount(part[rows], minlength=parts)
        total = np.bincount(part[rows], weights=values[rows], minlength=parts)
        return [float(mean) for mean in np.divide(total, count, out=np.full(parts, np.nan), where=count > 0)]

    is_defined = weak.sum() > 2 and np.ptp(incentive[weak]) > 0 and np.ptp(threshold[weak]) > 0
    return {
        "threshold": means(threshold, np.ones(len(threshold), bool)),
        "weak": means(incentive, weak),
        "good": means(incentive, ~weak),
        "spearman": float(spearmanr(-threshold[weak], incentive[weak]).statistic) if is_defined else float("nan"),
    }


SHOWN = ("r", "p_exam", "attraction")
"""Columns of `Truth.of_shown`: true relevance, examination probability, attraction."""
_CONSTANTS = ("TOLERANCE_BASE", "ACCEPTANCE_SLOPE", "ACCEPTANCE_FLOOR", "THRESHOLD_RANGE")


@dataclass(frozen=True)
class TrueCurve:
    """P(click | examined) = (floor + (1 - floor) sigmoid((r - T) / slope)) attraction, T = clip(base + t_u + d_q)."""

    base: float
    slope: float
    floor: float
    least: float
    """Least threshold."""
    most: float
    """Largest threshold."""


@dataclass(frozen=True)
class Truth:
    """The truth of a simulated log.

    Attributes:
        folder: `truth/` of the tables.
        users: user_id and tolerance t_u.
        queries: query (normalised) and tolerance d_q.
        curve: the true click curve; None if the log comes from another simulator.
    """

    folder: Path
    users: pl.DataFrame
    queries: pl.DataFrame
    curve: TrueCurve | None

    @classmethod
    def open(cls, tables: Tables) -> "Truth":
        """Read tolerances and click curve, not the impressions.

        Raises:
            UsageError: the log has no `truth/`.
            PrectrError: `truth/` does not hold the tolerances.
        """
        folder = tables.path / "truth"
        if not folder.is_dir():
            raise UsageError(
                f"{tables.path}: has no truth/ to check against; only simulated logs have one. "
                "Make one with `prectr simulate --out DIR`."
            )
        try:
            users = pl.read_parquet(folder / "users.parquet", columns=["user_id", "t_u"])
            queries = pl.read_parquet(folder / "queries.parquet", columns=["query", "d_q"])
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise PrectrError(
                f"{folder}: does not hold the tolerances t_u of users.parquet and d_q of queries.parquet ({reason}). "
                "`prectr simulate` writes them."
            ) from None
        users, queries = users.rename({"t_u": "tolerance"}), queries.rename({"d_q": "tolerance"})
        return cls(folder, users, queries, _read_curve(folder / "params.json"))

    def of_shown(self, day: date, shown: pl.DataFrame) -> pl.DataFrame:
        """Read the columns SHOWN of shown rows, in the order of the rows.

        Args:
            day: the day of all rows.
            shown: columns request_id and item_id.

        Raises:
            PrectrError: `truth/` lacks a row, or one of its files is damaged.
        """
        keys = ["request_id", "item_id"]
        files = sorted((self.folder / "impressions" / f"date={day}").glob("*.parquet"))
        schema = dict.fromkeys(keys, pl.String) | dict.fromkeys(SHOWN, pl.Float64)
        truth = pl.concat([pl.DataFrame(schema=schema), *(read_parquet(file, list(schema), schema) for file in files)])
        joined = shown.select(keys).join(truth, on=keys, how="left", maintain_order="left")
        missing = joined["r"].null_count()
        if missing:
            raise PrectrError(
                f"{self.folder / 'impressions' / f'date={day}'}: lacks {missing:,} of the day's {shown.height:,} "
                "impressions, so it belongs to another log."
            )
        return joined.select(SHOWN)


def _read_curve(file: Path) -> TrueCurve | None:
    """Read the click curve that `prectr simulate` wrote; None if the file is missing or has another form."""
    try:
        constants = json.loads(file.read_text(encoding="utf-8"))["constants"]
        base, slope, floor, (least, most) = (constants[name] for name in _CONSTANTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TrueCurve(base, slope, floor, least, most)
