"""The simulated tables: schema, determinism, and the documented equations, checked on the truth."""

import hashlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from prectr.core.errors import UsageError
from prectr.core.text import normalise_queries
from prectr.data.marketplace import MarketplaceConfig, constants, simulate

TINY = {"users": 60, "items": 600, "queries": 40}

STAMP = pa.timestamp("us", tz="UTC")
SCHEMAS = {
    "items.parquet": {
        "item_id": pa.string(), "title": pa.string(), "category": pa.string(), "brand": pa.string(),
        "price": pa.float64(),
    },
    "users.parquet": {"user_id": pa.string(), "age_band": pa.string(), "city_tier": pa.string(), "device": pa.string()},
    "judgments.parquet": {"query": pa.string(), "item_id": pa.string(), "grade": pa.int8(), "source": pa.string()},
    "impressions/*/*.parquet": {
        "request_id": pa.string(), "user_id": pa.string(), "ts": STAMP, "query": pa.string(), "item_id": pa.string(),
        "position": pa.int32(), "clicked": pa.bool_(), "purchased": pa.bool_(), "policy": pa.string(),
        "propensity": pa.float64(), "price": pa.float64(),
    },
    "candidates/*/*.parquet": {
        "request_id": pa.string(), "user_id": pa.string(), "ts": STAMP, "query": pa.string(), "item_id": pa.string(),
    },
    "truth/impressions/*/*.parquet": {
        "request_id": pa.string(), "item_id": pa.string(), "p_exam": pa.float64(), "r": pa.float64(),
        "grade": pa.int8(), "threshold": pa.float64(), "attraction": pa.float64(), "p_click_given_exam": pa.float64(),
        "p_click": pa.float64(),
    },
    "truth/candidates/*/*.parquet": {
        "request_id": pa.string(), "item_id": pa.string(), "r": pa.float64(), "grade": pa.int8(),
        "threshold": pa.float64(), "attraction": pa.float64(), "p_click_given_exam": pa.float64(),
    },
}  # fmt: skip


def _read(root: Path, table: str) -> pl.DataFrame:
    return pl.read_parquet(sorted(root.glob(f"{table}/*/*.parquet")), hive_partitioning=True)


def _digests(root: Path, pattern: str = "**/*") -> dict[str, str]:
    files = sorted(file for file in root.glob(pattern) if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "tables"
    days: list[tuple[date, int]] = []
    statistics = simulate(MarketplaceConfig(), root, lambda day, rows: days.append((day, rows)))
    return root, statistics, days


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny") / "tables"
    simulate(MarketplaceConfig(**TINY, requests=300, days=3, requests_per_file=60), root)
    return root


def test_small_is_the_log_that_was_promised(small):
    root, statistics, days = small
    assert statistics["impressions"] == 200_000 == sum(rows for _, rows in days)
    assert [day for day, _ in days] == [date(2025, 3, 3 + step) for step in range(10)]
    assert 0.03 <= statistics["ctr"] <= 0.05
    assert 0.25 <= statistics["last_day_cold_share"] <= 0.45
    assert statistics["queries"] == 600
    assert 10_000 <= statistics["judgments"] <= 12_000
    assert min(statistics[f"judged_grade_{grade}"] for grade in range(4)) > 0.1 * statistics["judgments"]
    assert statistics["explore_requests"] == pytest.approx(0.05 * 20_000, abs=5 * np.sqrt(0.05 * 0.95 * 20_000))
    assert statistics["shown_grade_2_share"] + statistics["shown_grade_3_share"] > 0.6
    assert json.loads((root / "truth/stats.json").read_text()) == statistics


def test_cold_share_against_a_direct_count(small):
    root, statistics, _ = small
    requests = _read(root, "impressions").unique("request_id").select("user_id", "date")
    last = requests["date"].max()
    active = requests.filter(pl.col("date") == last)["user_id"].unique()
    earlier = dict(requests.filter(pl.col("date") < last)["user_id"].value_counts().iter_rows())
    cold = [user for user in active if earlier.get(user, 0) <= 3]
    assert statistics["last_day_cold_share"] == pytest.approx(len(cold) / len(active))


@pytest.mark.parametrize("pattern", SCHEMAS)
def test_schemas(tiny, pattern):
    files = sorted(tiny.glob(pattern))
    assert files
    for file in files:
        schema = pq.read_schema(file)
        assert dict(zip(schema.names, schema.types, strict=True)) == SCHEMAS[pattern]


def test_impressions_keep_the_contract(small):
    root, _, _ = small
    log = _read(root, "impressions")
    assert (log["ts"].dt.date() == log["date"].cast(pl.Date)).all()
    assert log.equals(log.sort("ts", "request_id", "position"))
    assert log.select("request_id", "item_id").is_duplicated().sum() == 0
    per_request = log.group_by("request_id").agg(
        pl.col("position").sort().alias("positions"), pl.col("user_id", "query", "policy").n_unique()
    )
    assert (per_request["positions"].list.eval(pl.element() == pl.arange(1, pl.len() + 1)).list.all()).all()
    assert (per_request.select("user_id", "query", "policy").to_numpy() == 1).all()
    assert not (log["purchased"] & ~log["clicked"]).any()
    explore = log.filter(pl.col("policy") == "explore")
    pool = 1.0 / explore["propensity"] + explore["position"] - 1  # the docstring's formula, turned around
    assert np.allclose(pool, np.round(pool)) and pool.max() <= constants.POOL + 1e-9
    assert log["propensity"].is_between(0.0, 1.0, closed="right").all()


def test_candidates_were_not_shown(small):
    root, _, _ = small
    shown, candidates = _read(root, "impressions"), _read(root, "candidates")
    assert candidates.join(shown, on=["request_id", "item_id"]).is_empty()
    assert candidates.select("request_id", "item_id").is_duplicated().sum() == 0
    requests = candidates["request_id"].unique()
    assert len(requests) == pytest.approx(0.2 * 20_000, rel=0.1)
    context = shown.select("request_id", "user_id", "ts", "query").unique()
    joined = candidates.join(context, on=["request_id", "user_id", "ts", "query"])
    assert len(joined) == len(candidates)


def test_truth_satisfies_the_click_model(small):
    root, _, _ = small
    log = pl.concat(
        [_read(root, "impressions"), _read(root, "truth/impressions").drop("request_id", "item_id", "date")],
        how="horizontal",
    )
    users = pl.read_parquet(root / "truth/users.parquet")
    queries = pl.read_parquet(root / "truth/queries.parquet")
    forms = normalise_queries(log["query"])
    log = log.with_columns(query=pl.col("query").replace_strict(forms)).join(users, on="user_id", how="left")
    log = log.join(queries, on="query", how="left", maintain_order="left")
    threshold = np.clip(constants.TOLERANCE_BASE + log["t_u"].to_numpy() + log["d_q"].to_numpy(), 0.0, 1.1)
    np.testing.assert_allclose(log["threshold"], threshold, atol=1e-12)
    accepted = 0.03 + 0.97 * expit((log["r"].to_numpy() - threshold) / 0.08)
    np.testing.assert_allclose(log["p_click_given_exam"], accepted * log["attraction"].to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(
        log["p_click"], log["p_click_given_exam"].to_numpy() / log["position"].to_numpy(), rtol=1e-9
    )
    # The clicks are draws of these probabilities: overall, and where the threshold is exceeded and where it is not.
    p, clicked = log["p_click"].to_numpy(), log["clicked"].to_numpy()
    for rows in (np.full(len(p), True), log["r"].to_numpy() > threshold, log["r"].to_numpy() <= threshold):
        deviation = (clicked[rows].sum() - p[rows].sum()) / np.sqrt((p[rows] * (1 - p[rows])).sum())
        assert abs(deviation) < 4.5


def test_the_same_configuration_writes_the_same_bytes(tiny, tmp_path):
    simulate(MarketplaceConfig(**TINY, requests=300, days=3, requests_per_file=60), tmp_path / "again")
    assert _digests(tmp_path / "again") == _digests(tiny)
    simulate(MarketplaceConfig(**TINY, requests=300, days=3, requests_per_file=60, seed=8), tmp_path / "other")
    assert not set(_digests(tmp_path / "other", "**/*.parquet").values()) & set(_digests(tiny).values())


def test_a_day_does_not_depend_on_the_days_that_follow(tiny, tmp_path):
    simulate(MarketplaceConfig(**TINY, requests=200, days=2, requests_per_file=60), tmp_path / "short")
    short, long = _digests(tmp_path / "short", "**/date=*/*"), _digests(tiny, "**/date=*/*")
    assert len(short) == 2 * 2 * 4 and short.items() <= long.items()


def test_placebo_differs_in_tolerance_only(tiny, tmp_path):
    root = tmp_path / "placebo"
    simulate(MarketplaceConfig(**TINY, requests=300, days=3, requests_per_file=60, placebo=True), root)
    truth, real = _read(root, "truth/impressions"), _read(tiny, "truth/impressions")
    assert truth["threshold"].unique().to_list() == [constants.TOLERANCE_BASE]
    assert real["threshold"].n_unique() > 100
    same = ["request_id", "item_id", "p_exam", "r", "grade", "attraction"]
    assert truth.select(same).equals(real.select(same))
    unaffected = pl.all().exclude("clicked", "purchased")
    assert _read(root, "impressions").select(unaffected).equals(_read(tiny, "impressions").select(unaffected))


def test_judgments_are_the_truth_but_for_the_stated_noise(small):
    root, _, _ = small
    judgments = pl.read_parquet(root / "judgments.parquet")
    assert judgments.select("query", "item_id").is_duplicated().sum() == 0
    assert judgments["query"].n_unique() == 360
    forms = normalise_queries(_read(root, "impressions")["query"])
    truth = pl.concat([_read(root, "impressions"), _read(root, "truth/impressions").select("grade")], how="horizontal")
    truth = truth.with_columns(query=pl.col("query").replace_strict(forms)).select("query", "item_id", "grade").unique()
    both = judgments.join(truth, on=["query", "item_id"], suffix="_true")
    step = both["grade"].cast(int) - both["grade_true"].cast(int)
    assert len(both) > 3000 and step.abs().max() == 1
    assert (step != 0).mean() == pytest.approx(constants.JUDGMENT_NOISE, abs=0.01)


def test_refuses_a_directory_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="is not empty"):
        simulate(MarketplaceConfig(**TINY, requests=10, days=1), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_asking_for_more_queries_than_the_items_suggest(tmp_path):
    with pytest.raises(UsageError, match="lower 'queries' or raise 'items'"):
        simulate(MarketplaceConfig(users=20, items=200, queries=5_000, requests=10, days=1), tmp_path / "tables")


def test_the_package_imports_nothing_heavy():
    code = "import sys, prectr.data.marketplace; print([m for m in ('numpy', 'pyarrow', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
