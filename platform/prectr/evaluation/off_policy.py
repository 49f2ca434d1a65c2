"""Off-policy value of each ranker on the randomised requests of the test day.

The estimators are those of `prectr.evaluation.experiments.off_policy`. The reward model of the doubly robust estimate
is the base model's click probability at each position; the base was trained on earlier days. Only the first seed of
each model is used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from prectr.evaluation.day import TestDay
from prectr.evaluation.experiments.off_policy import (
    Method,
    PolicyValue,
    RandomisedRows,
    paired_difference,
    uniform_placement,
)
from prectr.evaluation.scores import DayScores

METHODS: tuple[Method, ...] = ("ips", "snips", "dr")
WHAT = (
    "Expected clicks a request if the ranker reordered the items shown, from requests in randomised order: inverse "
    "propensity (IPS), self-normalised (SNIPS) and doubly robust (DR) under an item-position model; intervals by user."
)


def off_policy_values(
    day: TestDay,
    models: Mapping[str, Sequence[DayScores]],
    *,
    base: str,
    reward: Callable[[np.ndarray, int], np.ndarray] | None,
    level: float,
) -> dict[str, Any] | None:
    """Estimate the value of each model, or say why that is not possible.

    Args:
        day: the test day.
        models: scores by model name; the first seed is used.
        base: model that the differences compare with.
        reward: (row numbers [n], position from 1) -> click probabilities [n]; None: no DR.
        level: confidence level of the intervals.

    Returns:
        None without randomised rows. Else `what`, `requests`, and either `models` (for each: `ips`, `snips`, `dr` and
        `against_base`, each with value, low, high, effective_rows; `truth` on simulated logs) or `refused`, the reason.
    """
    randomised = np.flatnonzero(day.slices.get("randomised", np.zeros(0, bool)))
    if not len(randomised):
        return None
    shown = day.shown.with_row_index("row").gather(randomised)
    report: dict[str, Any] = {"what": WHAT, "base": base, "requests": shown["request_id"].n_unique()}
    logged = day.tables.impressions(columns=["request_id", "item_id", "propensity"], days=[day.day])
    joined = shown.join(logged, on=["request_id", "item_id"], how="left", maintain_order="left")
    request, position = shown["request_id"].to_numpy(), shown["position"].to_numpy()
    try:
        placement = uniform_placement(
            request, position, joined["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        )
        rows = RandomisedRows(request, shown["user_id"].to_numpy(), position, shown["clicked"].to_numpy(), placement)
    except ValueError as error:
        return report | {"refused": str(error)}
    longest = int(rows.length.max())
    expected = None
    if reward is not None:
        expected = np.stack([reward(randomised, position) for position in range(1, longest + 1)], axis=1)
    methods = METHODS if expected is not None else METHODS[:2]
    values = {
        name: {method: rows.value(method, seeds[0].free[randomised], expected, level) for method in methods}
        for name, seeds in models.items()
    }
    last = methods[-1]
    figures: dict[str, Any] = {"random order": {"logged": _figure(rows.logged(level))}}
    for name, model_values in values.items():
        figures[name] = {method: _figure(value) for method, value in model_values.items()}
        if name != base and base in values:
            value, _, interval = paired_difference(values[base][last], model_values[last], level)
            figures[name]["against_base"] = {"value": value, "low": interval.low, "high": interval.high}
        if day.truth is not None:
            figures[name]["truth"] = _true_value(day, randomised, models[name][0].free[randomised])
    return report | {"models": figures}


def _figure(value: PolicyValue) -> dict[str, float]:
    return {
        "value": value.value,
        "low": value.interval.low,
        "high": value.interval.high,
        "effective_rows": value.effective_rows,
    }


def _true_value(day: TestDay, rows: np.ndarray, score: np.ndarray) -> float:
    """True expected clicks a request if each list were ordered by `score`; ties in random order."""
    assert day.truth is not None
    frame = pl.DataFrame(
        {
            "request": day.shown["request_id"].gather(rows),
            "free": day.truth["p_click_given_exam"].gather(rows),
            "position": day.shown["position"].gather(rows),
            "exam": day.truth["p_exam"].gather(rows),
            "score": score,
        }
    )
    examined = frame.group_by("position").agg(pl.col("exam").mean()).sort("position")["exam"].to_numpy()
    ordered = frame.sort("request", "score", descending=[False, True])
    order_in_request = ordered.select(pl.int_range(pl.len()).over("request")).to_series().to_numpy()
    ordered = ordered.with_columns(at=pl.Series(examined[order_in_request]))
    shared = ordered.with_columns(at=pl.col("at").mean().over("request", "score"))
    return float((shared["free"] * shared["at"]).sum()) / frame["request"].n_unique()
