"""Off-policy value of each ranker, from the randomised requests of the test day (`prectr.evaluation.experiments`).

The reward model of the doubly robust estimate is the base model's click probability at each position; it was trained on
earlier days. Each model's first seed speaks.
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
    """Values by model, or why there are none.

    Args:
        day: the test day.
        models: scores by the model's name; the first seed is taken.
        base: what DR's differences are against.
        reward: click probability [n] of rows (their numbers, [n]) at a position from 1; None: no DR.
        level: of intervals.

    Returns:
        None without randomised rows. Else `what`, `requests`, and either `models` (for each: `ips`, `snips`, `dr` and
        `against_base`, each with value, low, high, effective_rows; `truth` on simulated logs) or `refused`, a sentence.
    """
    chosen = np.flatnonzero(day.slices.get("randomised", np.zeros(0, bool)))
    if not len(chosen):
        return None
    some = day.shown.with_row_index("row").gather(chosen)
    made: dict[str, Any] = {"what": WHAT, "base": base, "requests": some["request_id"].n_unique()}
    logged = day.tables.impressions(columns=["request_id", "item_id", "propensity"], days=[day.day])
    joined = some.join(logged, on=["request_id", "item_id"], how="left", maintain_order="left")
    request, position = some["request_id"].to_numpy(), some["position"].to_numpy()
    try:
        placed = uniform_placement(
            request, position, joined["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        )
        rows = RandomisedRows(request, some["user_id"].to_numpy(), position, some["clicked"].to_numpy(), placed)
    except ValueError as error:
        return made | {"refused": str(error)}
    longest = int(rows.length.max())
    expected = None
    if reward is not None:
        expected = np.stack([reward(chosen, place) for place in range(1, longest + 1)], axis=1)
    methods = METHODS if expected is not None else METHODS[:2]
    values = {
        name: {method: rows.value(method, of_seeds[0].free[chosen], expected, level) for method in methods}
        for name, of_seeds in models.items()
    }
    last = methods[-1]
    told: dict[str, Any] = {"random order": {"logged": _told(rows.logged(level))}}
    for name, of_model in values.items():
        told[name] = {method: _told(value) for method, value in of_model.items()}
        if name != base and base in values:
            value, _, interval = paired_difference(values[base][last], of_model[last], level)
            told[name]["against_base"] = {"value": value, "low": interval.low, "high": interval.high}
        if day.truth is not None:
            told[name]["truth"] = _true_value(day, chosen, models[name][0].free[chosen])
    return made | {"models": told}


def _told(value: PolicyValue) -> dict[str, float]:
    return {
        "value": value.value,
        "low": value.interval.low,
        "high": value.interval.high,
        "effective_rows": value.effective_rows,
    }


def _true_value(day: TestDay, chosen: np.ndarray, score: np.ndarray) -> float:
    """Clicks a request in the simulator's own probabilities, were each list ordered by the score; ties at random."""
    assert day.truth is not None
    frame = pl.DataFrame(
        {
            "request": day.shown["request_id"].gather(chosen),
            "free": day.truth["p_click_given_exam"].gather(chosen),
            "position": day.shown["position"].gather(chosen),
            "exam": day.truth["p_exam"].gather(chosen),
            "score": score,
        }
    )
    examined = frame.group_by("position").agg(pl.col("exam").mean()).sort("position")["exam"].to_numpy()
    ordered = frame.sort("request", "score", descending=[False, True])
    place = ordered.select(pl.int_range(pl.len()).over("request")).to_series().to_numpy()
    ordered = ordered.with_columns(at=pl.Series(examined[place]))
    shared = ordered.with_columns(at=pl.col("at").mean().over("request", "score"))
    return float((shared["free"] * shared["at"]).sum()) / frame["request"].n_unique()
