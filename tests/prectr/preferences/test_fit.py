"""Priors and strengths of back-off: recovered from whole users, queries and items, which the fit pass draws."""

from datetime import date
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from prectr.data.parts import Part, Slice
from prectr.preferences import fit, passes
from prectr.preferences.examination import Examination
from prectr.preferences.fit import FitSample, draw_keys, fit_preference_model, fit_rates
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.passes import Pass
from prectr.preferences.shown import ShownReader
from prectr.preferences.smoothing import LEAST_PRIOR_CLICKS, MOST_PRIOR_CLICKS, PRIOR_CLICKS
from prectr.preferences.tolerance import ClickParameters, moments

CLICK = ClickParameters(a=0.45, s=0.12, eps=0.01)
KNOWN = Examination(0.0, "known", 0)
CATEGORIES = pl.DataFrame(schema={"query": pl.String, "category": pl.String})


def _log(users: int, queries: int, rows: int, spread_users: float, spread_queries: float) -> pl.DataFrame:
    """Rows whose threshold is that of the user plus the query's difference from their mean."""
    rng = np.random.default_rng(1)
    of_user, of_query = rng.normal(0.5, spread_users, users), rng.normal(0.0, spread_queries, queries)
    user, query, relevance = rng.integers(0, users, rows), rng.integers(0, queries, rows), rng.random(rows).round(2)
    distance = relevance - of_user[user] - of_query[query]
    probability = CLICK.eps + CLICK.a / (1 + np.exp(-distance / CLICK.s))
    return pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "query": [f"q{number}" for number in query],
            "item_id": [f"i{number}" for number in rng.integers(0, 50, rows)],
            "brand": "b",
            "category": "c",
            "position": np.ones(rows, np.int32),
            "clicked": rng.random(rows) < probability,
            "expected": relevance,
            "rows": 1,
        }
    )


def _whole(log: pl.DataFrame, key: str, share: float) -> pl.DataFrame:
    drawn = log[key].unique().sort()
    return log.filter(pl.col(key).is_in(drawn.filter(pl.Series(draw_keys(drawn, share, key))).implode()))


def test_priors_of_queries_and_users_have_their_own_spread() -> None:
    """A sample of users holds few rows of each query: on it, the prior of queries is as wide as that of users."""
    log = _log(users=4_000, queries=2_000, rows=400_000, spread_users=0.25, spread_queries=0.05)
    users, queries = _whole(log, "user_id", 0.15), _whole(log, "query", 0.15)
    fitted = fit_preference_model(FitSample(users, queries, queries), KNOWN, CATEGORIES)
    on_users = fit_preference_model(FitSample(users, users, users), KNOWN, CATEGORIES)
    of_users, of_queries = (moments(prior[None, :])[1][0] for prior in (fitted.user_prior, fitted.query_prior))
    assert of_users == pytest.approx(0.25, abs=0.05)
    assert of_queries < 0.12
    assert moments(on_users.query_prior[None, :])[1][0] > of_queries + 0.03


def test_strengths_of_back_off_are_recovered() -> None:
    """Rates are drawn from Gamma(shape, mean = parent rate): strongly alike users, weakly alike pairs and items."""
    rng = np.random.default_rng(2)
    shapes = {"user": 20.0, "user_brand": 3.0, "query": 8.0, "pair": 1.0, "item": 2.0}

    def rates(shape: float, above: np.ndarray | float, count: int | tuple[int, int]) -> np.ndarray:
        return np.asarray(rng.gamma(shape, above / shape, count))

    def rows(key: list[str], rate: np.ndarray, each: int, **other: list[str]) -> pl.DataFrame:
        clicked = rng.random(len(rate) * each) < np.repeat(rate, each).clip(max=1.0)
        columns = {"key": key, **other}
        repeated = {name: np.repeat(np.array(values, dtype=object), each).tolist() for name, values in columns.items()}
        return pl.DataFrame(repeated | {"position": np.ones(len(clicked), np.int32), "clicked": clicked, "rows": 1})

    of_user = rates(shapes["user"], 0.1, 400)
    of_brand = rates(shapes["user_brand"], of_user[:, None], (400, 15))
    names = [f"u{user}" for user in range(400) for _ in range(15)]
    users = rows(names, of_brand.ravel(), 60, brand=[f"b{brand}" for _ in range(400) for brand in range(15)])
    of_query = rates(shapes["query"], 0.1, 600)
    of_pair = rates(shapes["pair"], of_query[:, None], (600, 10))
    names = [f"q{query}" for query in range(600) for _ in range(10)]
    queries = rows(names, of_pair.ravel(), 60, item_id=[f"i{item}" for _ in range(600) for item in range(10)])
    items = rows([f"i{item}" for item in range(1_000)], rates(shapes["item"], 0.1, 1_000), 100)
    sample = FitSample(
        users.rename({"key": "user_id"}).with_columns(category=pl.lit("c")),
        queries.rename({"key": "query"}),
        items.rename({"key": "item_id"}),
    )
    fitted = fit_rates(sample, KNOWN)
    for kind in ("user_brand", "pair", "item"):
        assert fitted[kind] == pytest.approx(shapes[kind], rel=0.25), kind
    # The children's own differences add to those between users and queries.
    assert 4 < fitted["user"] < 20 and 3 < fitted["query"] < 9
    assert fitted["user_category"] == PRIOR_CLICKS, "one category a user: nothing tells of it"


def test_the_fit_pass_draws_whole_users_queries_and_items(
    laboratory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "LEAST_KEYS", 2)
    log = laboratory.mine(*laboratory.draw_log(3))
    files = sorted((log.context.preferences.path.parent / "tables" / "impressions").glob("*/*.parquet"))
    reader = ShownReader.of(log.items, PairIndex.of(log.pairs))

    def fit_passes(out: Path, parts: int) -> tuple[pl.DataFrame, pl.DataFrame, FitSample]:
        for place, file in enumerate(files):
            day = date.fromisoformat(file.parent.name.removeprefix("date="))
            cuts = np.linspace(0, len(pl.read_parquet(file)), parts + 1).astype(int).tolist()
            for number, (start, end) in enumerate(pairwise(cuts)):
                part = Part(day, place * parts + number, (Slice(file, start, end - start),))
                passes.fit_pass(part, Pass(out, reader), 0.6)
        return passes.read_fit(out, 0.6)

    counts, shown, sample = fit_passes(tmp_path, 1)
    assert counts["shown"].sum() == shown["shown"].sum() == len(log.shown)
    for frame, key in ((sample.users, "user_id"), (sample.queries, "query"), (sample.items, "item_id")):
        assert 0 < frame[key].n_unique() < log.shown[key].n_unique()
        whole = log.shown.filter(pl.col(key).is_in(frame[key].unique().implode()))
        clicks = frame.filter("clicked")["rows"].sum()
        assert (frame["rows"].sum(), clicks) == (len(whole), whole["clicked"].sum())
    assert not (tmp_path / ".fit").exists()
    _, _, in_parts = fit_passes(tmp_path, 3)
    for name, frame in vars(sample).items():
        assert frame.equals(getattr(in_parts, name)), name


def test_a_log_of_few_queries_has_whole_ones_in_its_sample() -> None:
    keys = pl.Series([f"q{number}" for number in range(200)])
    drawn = keys.filter(pl.Series(draw_keys(keys, 0.0001, "queries")))
    assert len(drawn) == fit.LEAST_KEYS
    half = keys[:100]  # a part of the log
    in_part = half.filter(pl.Series(draw_keys(half, 0.0001, "queries")))
    assert set(drawn) & set(half) <= set(in_part)
    assert draw_keys(keys[:1], 0.0001, "queries").all() and not len(draw_keys(keys[:0], 0.0001, "queries"))


@pytest.mark.parametrize("clicked", [True, False])
def test_a_single_row_is_enough(clicked: bool) -> None:
    log = _log(users=1, queries=1, rows=1, spread_users=0.0, spread_queries=0.0).with_columns(clicked=pl.lit(clicked))
    model = fit_preference_model(FitSample(log, log, log), KNOWN, CATEGORIES)
    for prior in (model.user_prior, model.query_prior):
        assert np.isfinite(prior).all() and prior.sum() == pytest.approx(1.0)
    assert all(LEAST_PRIOR_CLICKS <= strength <= MOST_PRIOR_CLICKS for strength in model.rate_prior_clicks.values())
