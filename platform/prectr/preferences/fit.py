"""The fitted preference model, and its fit on a sample of shown rows [ours].

The fit maximises the users' marginal likelihood over the click curve, then estimates the user prior by
expectation-maximisation (EM). It does both twice. The query priors follow from the fitted curve.
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
from prectr.preferences.tolerance import GRID, GRID_SIZE, ClickParameters, log_likelihood, posterior

EM_STEPS = 8
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
    smoothing_clicks: float = 2.0
    """Prior clicks of the rates of users, queries, items and pairs; set by the user, not fitted."""
    level_prior_clicks: np.ndarray = field(default_factory=lambda: np.full(LEVELS, 2.0))
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
            "smoothing_clicks": self.smoothing_clicks,
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
            content["smoothing_clicks"],
            np.array(content["level_prior_clicks"]),
        )


def fit_preference_model(sample: pl.DataFrame, examination: Examination, categories: pl.DataFrame) -> PreferenceModel:
    """Fit the click curve and the priors on shown rows of the training days.

    Args:
        sample: user_id, query, position, clicked, expected (0..1); whole users.
        examination: the fitted curve.
        categories: columns query and category; a query's prior is smoothed towards its category's.
    """
    # Rows with equal click, position and relevance have the same likelihood: compute it once for each such kind.
    kind = ["clicked", "position", "expected"]
    kinds = sample.select(kind).unique().sort(kind)
    codes = sample.join(kinds.with_row_index("kind"), on=kind, how="left", maintain_order="left")["kind"].to_numpy()
    clicked, relevance = kinds["clicked"].to_numpy(), kinds["expected"].to_numpy().astype(np.float64)
    exam = examination(kinds["position"].to_numpy())
    by_user, _ = _count_kinds(sample["user_id"], codes)
    by_query, queries = _count_kinds(sample["query"], codes)

    click, user_prior = _START, _normal_prior()
    for _ in range(2):
        click = _fit_click_curve(clicked, relevance, exam, by_user, user_prior, click)
        rows = log_likelihood(clicked, relevance, exam, click)
        user_prior = _expectation_maximisation(by_user @ rows, user_prior)
    query_sums = by_query @ rows
    query_prior = _expectation_maximisation(query_sums, user_prior)
    by_category = _category_priors(categories, queries, query_sums, query_prior)
    return PreferenceModel(click, examination, user_prior, query_prior, by_category)


def draw_users(users: pl.Series, share: float) -> np.ndarray:
    """Select a share of distinct users by a hash of their id, bool [m]; a user's result never changes."""
    return np.array([hash_fraction(user, "fit-preferences") < share for user in users], dtype=bool)


def _count_kinds(keys: pl.Series, kinds: np.ndarray) -> tuple[csr_array, list[str]]:
    """Count rows by key and kind; returns a sparse matrix [keys, kinds] and the keys."""
    names, codes = np.unique(keys.to_numpy(), return_inverse=True)
    ones = np.ones(len(codes))
    return coo_array((ones, (codes, kinds)), shape=(len(names), int(kinds.max()) + 1)).tocsr(), names.tolist()


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
