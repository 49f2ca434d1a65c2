"""What a table of rankers holds: the same test rows for all, every figure with its definition.

`truth/` of a simulated log is opened here and nowhere else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from prectr.artifacts import require_artifact
from prectr.errors import PrectrError
from prectr.metrics import auc, group_auc, log_loss, predicted_over_actual, relative_improvement
from prectr.samples.load import Samples, split_days
from prectr.schema import EXPLORE_POLICY
from prectr.storage import read_table

BASE_MODEL = "wide-deep"
DEFINITIONS = {
    "auc": "area under the ROC curve of clicks on the test day, ties one half, score at the logged position",
    "gauc": "mean of per-user AUC weighted by impressions, one-class users dropped and counted, same score",
    "auc_free": "AUC of the position-free score, as served",
    "gauc_free": "GAUC of the position-free score, as served",
    "rela_impr": "RelaImpr in percent against Wide&Deep, from auc",
    "cold": "rows whose user had at most the stated number of earlier requests",
    "explore": "rows of randomised requests",
}


@dataclass(frozen=True)
class TestRows:
    """The rows that every model is judged on."""

    frame: pl.DataFrame
    slices: dict[str, np.ndarray]

    @classmethod
    def of(cls, samples: Samples, cold_requests: int) -> "TestRows":
        """The test day of samples."""
        _, _, test_day = split_days(samples.days())
        frame = samples.frame([test_day])
        slices = {
            "all": np.ones(frame.height, dtype=bool),
            "cold": (frame["user_requests"] <= cold_requests).to_numpy(),
        }
        if frame["policy"].null_count() < frame.height:
            slices["explore"] = (frame["policy"] == EXPLORE_POLICY).fill_null(False).to_numpy()
        return cls(frame, slices)

    @property
    def clicked(self) -> np.ndarray:
        """[n] labels."""
        return self.frame["clicked"].to_numpy()


def position_only(samples: Samples, test: TestRows) -> np.ndarray:
    """Logit of the click rate of each test row's position over the training days, [n]; smoothed by one click in 30."""
    training, _, _ = split_days(samples.days())
    rates = (
        samples.frame(training, ["position", "clicked"])
        .group_by("position")
        .agg(((pl.col("clicked").sum() + 1.0) / (pl.len() + 30.0)).alias("rate"))
    )
    joined = test.frame.select("position").join(rates, on="position", how="left", maintain_order="left")
    rate = joined["rate"].fill_null(float(rates["rate"].min() or 0.01)).to_numpy()  # type: ignore[arg-type]
    return np.log(rate / (1 - rate))


def oracle(tables: Path, test: TestRows) -> tuple[np.ndarray, np.ndarray] | None:
    """The truth's click probability of each test row, position-free and at its position; None without a truth."""
    truth = _read_truth(tables / "truth", "impressions")
    if truth is None:
        return None
    joined = test.frame.select("request_id", "item_id").join(
        truth.select("request_id", "item_id", "p_exam", "p_click_given_exam"),
        on=["request_id", "item_id"],
        how="left",
        maintain_order="left",
    )
    if joined["p_exam"].null_count():
        raise PrectrError(f"{tables / 'truth'}: lacks {joined['p_exam'].null_count()} of the test day's impressions.")
    free = joined["p_click_given_exam"].to_numpy()
    return free, free * joined["p_exam"].to_numpy()


def figures(test: TestRows, free: np.ndarray, logged: np.ndarray, probability: np.ndarray | None) -> dict[str, Any]:
    """All figures of one model over all slices.

    Args:
        test: the rows.
        free: [n] position-free scores.
        logged: [n] scores at the logged position.
        probability: [n] click probabilities at the logged position, for calibration; None for scores without one.
    """
    user = test.frame["user_id"].to_numpy()
    made: dict[str, Any] = {}
    for name, rows in test.slices.items():
        clicked = test.clicked[rows]
        grouped = group_auc(user[rows], clicked, logged[rows])
        made[name] = {
            "rows": int(rows.sum()),
            "clicks": int(clicked.sum()),
            "auc": auc(clicked, logged[rows]),
            "gauc": grouped.value,
            "users": grouped.groups,
            "users_dropped": grouped.dropped,
            "auc_free": auc(clicked, free[rows]),
            "gauc_free": group_auc(user[rows], clicked, free[rows]).value,
        }
        if probability is not None:
            made[name]["logloss"] = log_loss(clicked, probability[rows])
            made[name]["predicted_over_actual"] = predicted_over_actual(clicked, probability[rows])
    return made


def add_relative_improvement(models: dict[str, dict[str, Any]]) -> None:
    """Fill `rela_impr` of every model over all rows, where Wide&Deep is in the table and better than chance."""
    base = models.get(BASE_MODEL, {}).get("all", {}).get("auc", 0.0)
    if base > 0.5:
        for model in models.values():
            model["all"]["rela_impr"] = relative_improvement(model["all"]["auc"], base)


def tolerance_against_truth(tables: Path, preferences: Path) -> list[dict[str, Any]] | None:
    """Spearman correlation of mined and true user tolerance by number of requests; None where there is no truth."""
    truth = _read_truth(tables / "truth", "users")
    if truth is None or "t_u" not in truth.columns:
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


def _read_truth(folder: Path, name: str) -> pl.DataFrame | None:
    if (folder / f"{name}.parquet").is_file():
        return pl.read_parquet(folder / f"{name}.parquet")
    if (folder / name).is_dir():
        return pl.read_parquet(folder / name / "**" / "*.parquet", hive_partitioning=False)
    return None
