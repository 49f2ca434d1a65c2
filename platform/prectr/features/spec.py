"""The fitted feature specification: vocabularies, price edges and scalers, stored as JSON with samples and bundles.

Index 0 of every vocabulary means unknown. Vocabularies are fitted on the catalogue and the user profiles, scalers on
the training days.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from pydantic import Field

from prectr.contracts.model_config import LEVELS, FeatureSizes, Flag, RelevanceNumbers, Standardised
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, shorten
from prectr.core.text import stable_hash
from prectr.features.config import IdColumn
from prectr.features.derive import MATCH_LEVELS, RELEVANCE, TOLERANCE_SLOPE
from prectr.features.ids import IdSpace
from prectr.preferences.behaviours import ACTIVITY_GROUPS
from prectr.preferences.shown import floored_prices, log_prices
from prectr.preferences.tolerance import ClickParameters

SPEC_FILE = "feature_spec.json"
"""File name of the specification in samples and in bundles."""
ITEM_FIELDS = ("top_category", "category", "brand", "price")
RECENCY_BUCKETS = 24
SCALE_LIMIT = 6.0
"""Largest size of a standardised number. Clipping keeps one absurd price from moving a score without bound."""

FITTED_TOLERANCE = 1e-6
"""Largest relative difference (absolute, below one) of fitted numbers that count as the same. On another processor they
differ in their last digits, which moves no standardised feature by more than that."""


class Scaler(FrozenConfig):
    """Mean and deviation of the columns of one group, in the order of `names`."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Standardise and clip values [n, width]; float32."""
        scaled = (values - np.array(self.mean)) / np.array(self.deviation)
        return np.clip(scaled, -SCALE_LIMIT, SCALE_LIMIT).astype(np.float32)


class FeatureSpec(FrozenConfig):
    """Fitted values that turn raw features into the arrays of `prectr.contracts.types.RankerInputs`."""

    profile: dict[str, dict[str, int]] = Field(description="Ids of the values of each profile column.")
    items: dict[str, dict[str, int]] = Field(description="Ids of top_category, category and brand.")
    ids: dict[IdColumn, IdSpace] = Field(default_factory=dict, description="Columns whose ids are features.")
    price_edges: tuple[float, ...] = Field(description="Edges of the price buckets: log-price quantiles.")
    category_prices: dict[str, float] = Field(description="Median log-price by category; '' for all items.")
    query_buckets: int
    """Buckets that queries are hashed to; 0: queries have no ids."""
    scalers: dict[str, Scaler] = Field(default_factory=dict, description="Scaler of each feature group, once fitted.")
    user_behaviours: int
    """Behaviours of S_u that rankers read, at most."""
    query_behaviours: int
    """Behaviours of S_q that rankers read, at most."""
    positions: int
    """Positions that each have a bias."""
    click_curve: tuple[float, float, float] = Field(description="Parameters a, s, eps of the mined click curve.")

    @property
    def categorical_fields(self) -> tuple[str, ...]:
        """Order of the categorical columns."""
        return (*ITEM_FIELDS, "activity", *self.profile, *self.ids)

    def sizes(self, text_width: int) -> FeatureSizes:
        """Sizes of the inputs, from which a ranker is built; `text_width` is the width of the text vectors."""
        items = {name: len(values) + 1 for name, values in self.items.items()}
        prices = len(self.price_edges) + 2
        tolerance = self.scalers["tolerance"]
        return FeatureSizes(
            categorical={
                "top_category": items["top_category"],
                "category": items["category"],
                "brand": items["brand"],
                "price": prices,
                "activity": ACTIVITY_GROUPS + 1,
                **{name: len(values) + 1 for name, values in self.profile.items()},
                **{name: space.cardinality for name, space in self.ids.items()},
            },
            numeric=len(self.scalers["numeric"].names),
            match=len(self.scalers["match"].names),
            tolerance=len(tolerance.names),
            query_preference=len(self.scalers["query_preference"].names),
            behaviour={
                "query": self.query_buckets + 1,
                "category": items["category"],
                "brand": items["brand"],
                "price": prices,
                "level": LEVELS + 1,
                "clicked": 3,
                "recency": RECENCY_BUCKETS,
            },
            user_group=ACTIVITY_GROUPS + 1,
            text=text_width,
            positions=self.positions,
            relevance=self._relevance_numbers(),
        )

    def _relevance_numbers(self) -> RelevanceNumbers:
        def standardised(group: str, name: str) -> Standardised:
            scaler = self.scalers[group]
            column = scaler.names.index(name)
            return Standardised(column=column, mean=scaler.mean[column], deviation=scaler.deviation[column])

        def flag(name: str) -> Flag:
            column = standardised("numeric", name).column
            ends = self.scalers["numeric"].scale(np.array([[0.0], [1.0]]))[:, column]  # clipped: a rare flag is large
            return Flag(column=column, middle=float(ends.mean()))

        deviations = self.scalers["tolerance"].deviation
        return RelevanceNumbers(
            judged=flag("judged"),
            taught=flag("taught"),
            numeric=tuple(self.scalers["numeric"].names.index(name) for name in RELEVANCE),
            tolerance_slope=tuple(
                slope / deviation for slope, deviation in zip(TOLERANCE_SLOPE, deviations, strict=True)
            ),
            predictive=standardised("tolerance", "predictive_click"),
            above=standardised("tolerance", "above_threshold"),
            spread=standardised("tolerance", "user_tolerance_sd"),
            curve=self.click_curve,
            query_rate=standardised("numeric", "query_rate"),
            pair_rate=standardised("numeric", "pair_rate"),
            pair_examined=standardised("numeric", "pair_examined"),
        )

    def query_bucket(self, query: str) -> int:
        """Hash a normalised query to a bucket, from 1; 0, unknown, if queries have no ids."""
        return stable_hash(query, "query-bucket") % self.query_buckets + 1 if self.query_buckets else 0

    def price_bucket(self, log_price: np.ndarray) -> np.ndarray:
        """Find the bucket of each log-price, [n]; 0 for NaN."""
        bucket = np.searchsorted(np.array(self.price_edges), np.nan_to_num(log_price)) + 1
        return np.where(np.isnan(log_price), 0, bucket).astype(np.int32)

    def relative_price(self, log_price: np.ndarray, category: pl.Series) -> np.ndarray:
        """Subtract the median of its category from each log-price, [n]; NaN stays NaN.

        The median of the whole catalogue is used if the category has no median.

        Args:
            log_price: [n] NaN where unknown.
            category: [n] strings or null.
        """
        medians = category.fill_null("").replace_strict(
            self.category_prices, default=self.category_prices[""], return_dtype=pl.Float64
        )
        return log_price - medians.to_numpy()

    def item_codes(self, items: pl.DataFrame) -> dict[str, np.ndarray]:
        """Look up the ids of items' category and brand fields.

        Args:
            items: category and brand, strings or null.
        """
        top = items["category"].str.split(">").list.first().str.strip_chars()
        columns = {"top_category": top, "category": items["category"], "brand": items["brand"]}
        return {name: _encode(column, self.items[name]) for name, column in columns.items()}

    def item_code(self, category: str, brand: str | None) -> tuple[int, int, int]:
        """Look up the ids of top category, category and brand of one item, as `item_codes` does for one row."""
        top = category.split(">", 1)[0].strip()
        return (
            self.items["top_category"].get(top, 0),
            self.items["category"].get(category, 0),
            0 if brand is None else self.items["brand"].get(brand, 0),
        )

    def profile_codes(self, users: pl.DataFrame) -> dict[str, np.ndarray]:
        """Look up the ids of users' profile columns; 0 if the column or the value is unknown."""
        return {
            name: _encode(users[name], values) if name in users.columns else np.zeros(users.height, dtype=np.int32)
            for name, values in self.profile.items()
        }

    def id_codes(self, rows: pl.DataFrame) -> dict[str, np.ndarray]:
        """Map the id columns of rows to numbers."""
        return {name: space.codes(name, rows[name]) for name, space in self.ids.items()}

    def fit_scalers(self, groups: Mapping[str, Mapping[str, np.ndarray]]) -> Self:
        """Copy the specification with scalers fitted on rows of the training days.

        Args:
            groups: group -> feature name -> [n]. The level log-probabilities of `match` are not scaled, because the
                RSL module reads them as log-probabilities.
        """
        scalers = {}
        for group, columns in groups.items():
            unscaled = {name: name in MATCH_LEVELS for name in columns}
            scalers[group] = Scaler(
                names=tuple(columns),
                mean=tuple(
                    0.0 if unscaled[name] else float(np.mean(values, dtype=np.float64))
                    for name, values in columns.items()
                ),
                deviation=tuple(
                    1.0 if unscaled[name] else float(max(np.std(values, dtype=np.float64), 1e-3))
                    for name, values in columns.items()
                ),
            )
        return self.model_copy(update={"scalers": scalers})

    def save(self, file: Path) -> None:
        """Write the specification as JSON."""
        file.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "FeatureSpec":
        """Read a specification that `save` wrote.

        Raises:
            PrectrError: the file is missing or of another version of the project.
        """
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise PrectrError(
                f"{file}: cannot be read as a feature specification of this version ({shorten(error)}); build its "
                "samples or train its bundle again."
            ) from None


def same_specification(one: Path, other: Path) -> bool:
    """Whether two files hold one specification, up to `FITTED_TOLERANCE`."""
    return same_fitted(*(json.loads(file.read_text(encoding="utf-8")) for file in (one, other)))


def same_fitted(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, numbers with a fraction up to `FITTED_TOLERANCE`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_fitted(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_fitted, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=FITTED_TOLERANCE, abs_tol=FITTED_TOLERANCE)
    return bool(one == other)


def recency_bucket(seconds: np.ndarray) -> np.ndarray:
    """Bucket the age of behaviours in seconds, from 1; buckets double from one minute; any shape."""
    age = np.log2(1.0 + np.maximum(seconds, 0.0) / 60.0)
    return np.minimum(age, RECENCY_BUCKETS - 2).astype(np.int32) + 1


def fit_vocabularies(
    items: pl.DataFrame,
    users: pl.DataFrame,
    *,
    profile_columns: tuple[str, ...],
    price_buckets: int,
    query_buckets: int,
    user_behaviours: int,
    query_behaviours: int,
    positions: int,
    click: ClickParameters,
    ids: Mapping[IdColumn, IdSpace] | None = None,
) -> FeatureSpec:
    """Fit a specification without scalers on the catalogue and the profiles; `ids` are fitted before."""
    top = items["category"].str.split(">").list.first().str.strip_chars()
    prices = items["price"].drop_nulls()
    edges: tuple[float, ...] = ()
    if prices.len():
        quantiles = np.linspace(0, 1, price_buckets + 1)[1:-1]
        edges = tuple(sorted(set(np.quantile(np.log(floored_prices(prices).to_numpy()), quantiles).tolist())))
    return FeatureSpec(
        profile={name: _vocabulary(users[name]) for name in profile_columns if name in users.columns},
        items={
            "top_category": _vocabulary(top),
            "category": _vocabulary(items["category"]),
            "brand": _vocabulary(items["brand"]),
        },
        ids=dict(ids or {}),
        price_edges=edges,
        category_prices=_category_prices(items),
        query_buckets=query_buckets,
        user_behaviours=user_behaviours,
        query_behaviours=query_behaviours,
        positions=positions,
        click_curve=(click.a, click.s, click.eps),
    )


def _category_prices(items: pl.DataFrame) -> dict[str, float]:
    """Median log-price of the items by category; the key "" holds that of all items, 0 if no price is known."""
    priced = items.select("category", price=pl.Series(log_prices(items["price"]), nan_to_null=True)).drop_nulls()
    medians = priced.group_by("category").agg(pl.col("price").median()).sort("category")
    overall = priced["price"].median()
    return {**dict(medians.iter_rows()), "": 0.0 if overall is None else float(overall)}  # type: ignore[arg-type]


def _vocabulary(column: pl.Series) -> dict[str, int]:
    values = column.cast(pl.String).drop_nulls().unique().sort()
    return {value: number for number, value in enumerate(values, start=1)}


def _encode(column: pl.Series, vocabulary: Mapping[str, int]) -> np.ndarray:
    if not vocabulary:
        return np.zeros(len(column), dtype=np.int32)
    codes = column.cast(pl.String).replace_strict(dict(vocabulary), default=0, return_dtype=pl.Int32)
    return codes.fill_null(0).to_numpy()
