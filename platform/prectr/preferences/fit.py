"""The fitted preference model, and its fit on samples of shown rows [ours].

The fit maximises the users' marginal likelihood over the click curve, then estimates the user prior by
expectation-maximisation (EM). It does both twice. The query priors follow from the fitted curve. What is fitted over
users, queries or items reads whole ones: parts of them say less of how they differ.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import minimize
from scipy.sparse import coo_array, csr_array
from scipy.special import expit, logit, logsumexp

from prectr.contracts.model_config import LEVELS
from prectr.core.text import hash_fraction
from prectr.preferences.counting import sum_by
from prectr.preferences.examination import Examination
from prectr.preferences.smoothing import PRIOR_CLICKS, RATES, fit_strength, fit_strength_below
from prectr.preferences.tolerance import GRID, GRID_SIZE, ClickParameters, log_likelihood, posterior

EM_STEPS = 8
LEAST_KEYS = 50
"""Users, queries and items that a sample holds at least, if the log has as many."""
CATEGORY_PRIOR_QUERIES = 10.0
"""Queries at which a category's own average and the global prior weigh the same in the category's prior."""
_START = ClickParameters(a=0.3, s=0.15, eps=0.01)


@dataclass(frozen=True)
class PreferenceModel:
    """Parameters that turn shown rows into posteriors; stored as `parameters.json` of the preferences artifact."""

    click: ClickParameters
    examination: Examination
    user_prior: np.ndarray
    query_prior: np.ndarray
    category_query_prior: dict[str, np.ndarray]
    """Prior of the queries whose results mostly belong to a category, by category."""
    rate_prior_clicks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(RATES, PRIOR_CLICKS))
    """Prior clicks of the back-off of each of `RATES`."""
    level_prior_clicks: np.ndarray = field(default_factory=lambda: np.full(LEVELS, PRIOR_CLICKS))
    """[k] prior clicks of the back-off of rates by relevance level (`prectr.preferences.smoothing`)."""

    @property
    def user_centre(self) -> float:
        """Mean of the user prior: the tolerance of a user without history."""
        return float(self.user_prior @ GRID)

    @property
    def query_centre(self) -> float:
        """Mean of the global query prior."""
        return float(self.query_prior @ GRID)

    def query_priors(self, categories: list[str | None]) -> np.ndarray:
        """Select the prior of each query by its category, [m, G]; the global prior if the category is unknown."""
        by_category, default = self.category_query_prior, self.query_prior
        priors = [default if name is None else by_category.get(name, default) for name in categories]
        return np.array(priors, dtype=np.float64).reshape(len(categories), GRID_SIZE)

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object, which `load` reads."""
        return {
            "click": self.click.to_json(),
            "examination": {
                "exponent": self.examination.exponent,
                "source": self.examination.source,
                "clicks": self.examination.clicks,
            },
            "grid": GRID.tolist(),
            "user_prior": self.user_prior.tolist(),
            "query_prior": self.query_prior.tolist(),
            "rate_prior_clicks": self.rate_prior_clicks,
            "level_prior_clicks": self.level_prior_clicks.tolist(),
            "category_query_prior": {name: prior.tolist() for name, prior in self.category_query_prior.items()},
        }

    @classmethod
    def load(cls, file: Path) -> "PreferenceModel":
        """Read `parameters.json`."""
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            ClickParameters(**content["click"]),
            Examination(**content["examination"]),
            np.array(content["user_prior"]),
            np.array(content["query_prior"]),
            {name: np.array(prior) for name, prior in content["category_query_prior"].items()},
            content["rate_prior_clicks"],
            np.array(content["level_prior_clicks"]),
        )


@dataclass(frozen=True)
class FitSample:
    """Shown rows of the training days, of whole users, whole queries and whole items.

    Equal rows are one row; `rows` says how many they are.
    """

    users: pl.DataFrame
    """user_id, brand (null if unknown), category, expected (0..1), position, clicked, rows."""
    queries: pl.DataFrame
    """query, item_id, expected, position, clicked, rows."""
    items: pl.DataFrame
    """item_id, position, clicked, rows."""


def fit_preference_model(sample: FitSample, examination: Examination, categories: pl.DataFrame) -> PreferenceModel:
    """Fit the click curve, the priors and the prior clicks of rates.

    Args:
        sample: rows of the training days.
        examination: the fitted curve.
        categories: columns query and category; a query's prior is smoothed towards its category's.
    """
    clicked, relevance, exam, by_user, _ = _kinds(sample.users, "user_id", examination)
    click, user_prior = _START, _normal_prior()
    for _ in range(2):
        click = _fit_click_curve(clicked, relevance, exam, by_user, user_prior, click)
        user_prior = _expectation_maximisation(by_user @ log_likelihood(clicked, relevance, exam, click), user_prior)
    clicked, relevance, exam, by_query, queries = _kinds(sample.queries, "query", examination)
    query_sums = by_query @ log_likelihood(clicked, relevance, exam, click)
    query_prior = _expectation_maximisation(query_sums, _normal_prior())
    by_category = _category_priors(categories, queries, query_sums, query_prior)
    strengths = fit_rates(sample, examination)
    return PreferenceModel(click, examination, user_prior, query_prior, by_category, strengths)


def fit_rates(sample: FitSample, examination: Examination) -> dict[str, float]:
    """Fit the prior clicks of each of `RATES`."""
    examined = (pl.col("rows") * pl.col("position").cast(pl.Float64) ** -examination.exponent).sum().alias("examined")
    clicks = (pl.col("rows") * pl.col("clicked")).sum().cast(pl.Float64).alias("clicks")
    total = sample.users.select(examined, clicks)
    log = (total["clicks"][0] + 1.0) / (total["examined"][0] + 20.0)
    rows = {
        "user": (sample.users, ["user_id"]),
        "user_brand": (sample.users, ["user_id", "brand"]),
        "user_category": (sample.users, ["user_id", "category"]),
        "query": (sample.queries, ["query"]),
        "item": (sample.items, ["item_id"]),
        "pair": (sample.queries, ["query", "item_id"]),
    }
    strengths: dict[str, float] = {}
    for kind, parent in RATES.items():
        frame, keys = rows[kind]
        sums = frame.drop_nulls(keys).group_by(keys).agg(examined, clicks).sort(keys)
        of_keys = sums["clicks"].to_numpy(), sums["examined"].to_numpy()
        if parent == "log":
            strengths[kind] = fit_strength(of_keys[0], of_keys[1] * log)
        else:
            strengths[kind] = fit_strength_below(*of_keys, sums[keys[0]].rle_id().to_numpy(), log, strengths[parent])
    return strengths


def draw_keys(keys: pl.Series, share: float, of: str) -> np.ndarray:
    """Select a share of distinct keys, those of the lowest hashes, but at least LEAST_KEYS of them; bool [m].

    A key that is drawn from all keys is drawn from every part of them too, so each part of the log can draw by itself.

    Args:
        keys: [m] distinct keys.
        share: share to draw.
        of: kind of the keys; the kinds are drawn independently.
    """
    fractions = np.array([hash_fraction(key, f"fit-{of}") for key in keys])
    least = min(LEAST_KEYS, len(keys))
    bound = np.partition(fractions, least - 1)[least - 1] if least else 0.0
    return (fractions < share) | (fractions <= bound)


def _kinds(
    rows: pl.DataFrame, key: str, examination: Examination
) -> tuple[np.ndarray, np.ndarray, np.ndarray, csr_array, list[str]]:
    """Count rows by key and kind: rows with equal click, position and relevance have the same likelihood.

    Returns:
        clicked [kinds], relevance [kinds], exam(pos) [kinds], counts [keys, kinds], and the keys.
    """
    kind = ["clicked", "position", "expected"]
    kinds = rows.select(kind).unique().sort(kind)
    codes = rows.join(kinds.with_row_index("kind"), on=kind, how="left", maintain_order="left")["kind"].to_numpy()
    names, key_codes = np.unique(rows[key].to_numpy(), return_inverse=True)
    shape = (len(names), len(kinds))
    counts = coo_array((rows["rows"].to_numpy().astype(np.float64), (key_codes, codes)), shape=shape).tocsr()
    relevance = kinds["expected"].to_numpy().astype(np.float64)
    return kinds["clicked"].to_numpy(), relevance, examination(kinds["position"].to_numpy()), counts, names.tolist()


def _normal_prior() -> np.ndarray:
    weight = np.exp(-0.5 * ((GRID - 0.55) / 0.25) ** 2)
    return weight / weight.sum()


def _fit_click_curve(
    clicked: np.ndarray,
    relevance: np.ndarray,
    exam: np.ndarray,
    by_user: csr_array,
    prior: np.ndarray,
    start: ClickParameters,
) -> ClickParameters:
    """Maximise the users' marginal likelihood over (a, s, eps) with a fixed prior."""
    log_prior = np.log(np.maximum(prior, 1e-12))

    def unpack(point: np.ndarray) -> ClickParameters:
        return ClickParameters(
            a=float(expit(point[0])), s=float(np.clip(np.exp(point[1]), 0.02, 1.0)), eps=float(0.2 * expit(point[2]))
        )

    def negative_marginal(point: np.ndarray) -> float:
        sums = by_user @ log_likelihood(clicked, relevance, exam, unpack(point))
        return -float(logsumexp(sums + log_prior, axis=1).sum())

    origin = np.array([logit(start.a), np.log(start.s), logit(min(max(start.eps / 0.2, 1e-3), 0.999))])
    best = minimize(
        negative_marginal, origin, method="Nelder-Mead", options={"maxfev": 90, "fatol": 0.5, "xatol": 0.02}
    )
    return unpack(best.x)


def _expectation_maximisation(sums: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit a prior over the grid to the keys' sums. A share of the start keeps every threshold possible."""
    prior = start
    for _ in range(EM_STEPS):
        prior = 0.98 * posterior(sums, prior).mean(axis=0) + 0.02 * start
    return prior / prior.sum()


def _category_priors(
    categories: pl.DataFrame, query_names: list[str], query_sums: np.ndarray, query_prior: np.ndarray
) -> dict[str, np.ndarray]:
    """Average the queries' posteriors by category, smoothed towards the global query prior; [G] by category."""
    category_of = dict(categories.iter_rows())
    posteriors = posterior(query_sums, query_prior)
    names, codes = np.unique([category_of.get(name, "") for name in query_names], return_inverse=True)
    sums = sum_by(codes, posteriors)
    queries = np.bincount(codes)[:, None]
    priors = (sums + CATEGORY_PRIOR_QUERIES * query_prior) / (queries + CATEGORY_PRIOR_QUERIES)
    assert priors.shape == (len(names), GRID_SIZE)
    return dict(zip(names.tolist(), priors, strict=True))
