"""Mined preferences of one query, as the API answers them: clicks by relevance level, back-off rates, tolerance."""

from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from prectr.contracts.model_config import LEVELS
from prectr.contracts.protocol import Tolerance
from prectr.core.text import normalise_query
from prectr.features.store import FeatureStore
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.smoothing import level_rates, smoothed_rates, total_rates
from prectr.preferences.sums import LEVEL_WIDTH, LevelSums
from prectr.preferences.tolerance import moments, posterior


class LevelPreference(BaseModel):
    """Preference for one relevance level. Counts decay with the half-life of mining, so they are not whole numbers."""

    level: int
    rate: float = Field(description="clicks per examined impression, smoothed")
    rate_above: float = Field(description="rate that `rate` backs off to: the category's or the whole log's")
    click_share: float = Field(description="share of the query's clicks on the level, smoothed")
    impressions: float
    clicks: float


class QueryPreference(BaseModel):
    """Preferences of all users under a query."""

    query: str = Field(description="query in normal form")
    known: bool = Field(description="false: no user typed it on the mined days")
    backed_off: bool = Field(description="true: the query has no clicks, so every rate equals the rate it backs off to")
    category: str | None = Field(description="category that the query backs off to; null: the whole log")
    users: float
    levels: list[LevelPreference]
    tolerance: Tolerance
    usual_tolerance: Tolerance = Field(description="tolerance assumed for an unknown query")


def query_preference(store: FeatureStore, model: PreferenceModel, query: str) -> QueryPreference:
    """Preferences of a query as ranking reads them, before the requesting user's clicks are subtracted.

    In ranking, a candidate of another category than the query's backs off to its own category (`derive`).

    Args:
        store: the state.
        model: preferences of the state's bundle.
        query: query as typed.
    """
    query = normalise_query(query)
    query_entry = store.get("query", query)
    category = (query_entry or {}).get("category")
    category_entry = None if category is None else store.get("category", category)
    sums, above, total = (_split(entry) for entry in (query_entry, category_entry, store.get("total", "")))
    rate_above = smoothed_rates(above, total_rates(total), model.level_prior_clicks)
    smoothed = level_rates(sums, rate_above, model.level_prior_clicks)
    return QueryPreference(
        query=query,
        known=query_entry is not None,
        backed_off=not sums.clicks.sum(),
        category=category,
        users=(query_entry or {}).get("users", 0.0),
        levels=[
            LevelPreference(
                level=level,
                rate=smoothed.rate[0, level],
                rate_above=rate_above[0, level],
                click_share=smoothed.click_share[0, level],
                impressions=sums.impressions[0, level],
                clicks=sums.clicks[0, level],
            )
            for level in range(LEVELS)
        ],
        tolerance=_tolerance(posterior(sums.grid, model.query_priors([category]))),
        usual_tolerance=_tolerance(model.query_prior[None]),
    )


def _split(entry: dict[str, Any] | None) -> LevelSums:
    return LevelSums.split(np.zeros((1, LEVEL_WIDTH)) if entry is None else np.array([entry["sums"]]))


def _tolerance(distribution: np.ndarray) -> Tolerance:
    mean, deviation = moments(distribution)
    return Tolerance(mean=float(mean[0]), deviation=float(deviation[0]))
