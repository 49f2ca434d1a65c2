"""What was mined for one query, as served: clicks by relevance level, what they back off to, tolerance."""

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
    """Of one relevance level. Counts fade with the half-life of mining, so they are no whole numbers."""

    level: int
    rate: float = Field(description="clicks per examined impression, smoothed")
    rate_above: float = Field(description="what the rate backs off to: the category's, or the whole log's")
    click_share: float = Field(description="share of the query's clicks that fall on the level, smoothed")
    impressions: float
    clicks: float


class QueryPreference(BaseModel):
    """All users' preferences under a query."""

    query: str = Field(description="in normal form")
    known: bool = Field(description="false: nobody typed it in the days that were mined")
    backed_off: bool = Field(
        description="the query has no click of its own: every rate is the one that it backs off to"
    )
    category: str | None = Field(description="that the query backs off to; null: to the whole log")
    users: float
    levels: list[LevelPreference]
    tolerance: Tolerance
    usual_tolerance: Tolerance = Field(description="what is assumed of a query that nothing is known of")


def query_preference(store: FeatureStore, model: PreferenceModel, query: str) -> QueryPreference:
    """What ranking reads of a query, without anybody's own part taken out.

    Candidates of other categories than the query's back off to theirs when they are ranked (`derive`).

    Args:
        store: the state.
        model: the preferences that the state belongs to.
        query: as typed.
    """
    query = normalise_query(query)
    known = store.get("query", query)
    category = (known or {}).get("category")
    of_category = None if category is None else store.get("category", category)
    sums, above, total = (_split(entry) for entry in (known, of_category, store.get("total", "")))
    rate_above = smoothed_rates(above, total_rates(total), model.level_prior_clicks)
    smoothed = level_rates(sums, rate_above, model.level_prior_clicks)
    return QueryPreference(
        query=query,
        known=known is not None,
        backed_off=not sums.clicks.sum(),
        category=category,
        users=(known or {}).get("users", 0.0),
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
