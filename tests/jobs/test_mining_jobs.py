"""mine-preferences and build-samples as Ray jobs, end to end on a tiny marketplace with known truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.stats import spearmanr

from jobs import build_samples, mine_preferences, simulate
from prectr.core.artifacts import StageResult, run_stage
from prectr.core.errors import PrectrError
from prectr.core.ray_session import RayConfig
from prectr.data.marketplace import MarketplaceConfig
from prectr.data.tables import Tables
from prectr.features.config import SamplesConfig
from prectr.features.load import Samples, split_days
from prectr.features.spec import same_fitted
from prectr.features.store import OnlineStore, pair_name
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.mined import Preferences
from prectr.preferences.sums import COUNT_NAMES, LEVEL_NAMES, USER_NAMES, LevelSums, matrix
from prectr.preferences.tolerance import GRID_SIZE
from prectr.relevance.config import ScoreConfig
from prectr.relevance.match_features import MATCH_FEATURES, MatchTable
from prectr.relevance.sources import level_weights

MINE = PreferencesConfig(holdout_days=1, half_life_days=None)
SAMPLE = SamplesConfig()


@dataclass(frozen=True)
class World:
    """A workspace after both jobs."""

    tables: Path
    relevance: Path
    preferences: StageResult
    samples: StageResult

    def log(self) -> pl.DataFrame:
        """The log with its levels, read without the stages' reader."""
        pairs = pl.read_parquet(self.relevance / "pairs" / "*.parquet")
        level = pl.concat_list("level_0", "level_1", "level_2", "level_3").list.arg_max()
        return (
            Tables(self.tables)
            .impressions()
            .join(pairs.select("query", "item_id", "pair", level=level), on=["query", "item_id"], how="left")
        )

    def totals(self, kind: str) -> pl.DataFrame:
        """Totals of all days, by key."""
        return Preferences.open(self.preferences.path).snapshot(kind)


def _relevance(tables: Path, out: Path) -> None:
    """A relevance artifact whose levels are the true grades."""

    def build(staging: Path) -> dict[str, Any]:
        known = []
        for table in ("impressions", "candidates"):
            rows = Tables(tables)._dated(table, None, ["request_id", "item_id", "query"])
            truth = pl.read_parquet(tables / "truth" / table / "*" / "*.parquet")
            known.append(rows.join(truth, on=["request_id", "item_id"]).select("query", "item_id", "grade"))
        pairs = pl.concat(known).unique(["query", "item_id"]).sort("query", "item_id")
        pairs = pairs.join(Tables(tables).items().select("item_id", "title"), on="item_id", maintain_order="left")
        levels = np.where(np.arange(4) == pairs["grade"].to_numpy()[:, None], 0.97, 0.01).astype(np.float32)
        expected = levels @ np.arange(4, dtype=np.float32) / 3
        overlaps = MatchTable.fit(Tables(tables).items()).features(pairs["query"].to_list(), pairs["title"].to_list())
        made = pairs.select(
            pl.int_range(pl.len(), dtype=pl.Int32).alias("pair"),
            "query",
            "item_id",
            *(pl.Series(f"level_{level}", levels[:, level]) for level in range(4)),
            pl.Series("expected", expected),
            pl.lit("teacher").alias("source"),
            pl.Series("encoder_expected", expected),
            pl.lit([2, 7, 3, 8, 3], pl.List(pl.Int32)).alias("input_ids"),
            pl.lit(3, pl.Int16).alias("query_tokens"),
            *(pl.Series(name, overlaps[:, column]) for column, name in enumerate(MATCH_FEATURES)),
        )
        (staging / "pairs").mkdir()
        half = made.height // 2
        made.head(half).write_parquet(staging / "pairs" / "part-0.parquet")
        made.slice(half).write_parquet(staging / "pairs" / "part-1.parquet")
        return {"rows": {"pairs": made.height}, "level_weights": level_weights({})}

    run_stage("score-relevance", out, config=ScoreConfig(), inputs={"tables": tables}, build=build)


def _mine(tables: Path, relevance: Path, out: Path) -> StageResult:
    return mine_preferences.run(tables=tables, relevance=relevance, out=out, config=MINE)


def _sample(tables: Path, relevance: Path, preferences: Path, out: Path) -> StageResult:
    return build_samples.run(tables=tables, relevance=relevance, preferences=preferences, out=out, config=SAMPLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> World:
    root = tmp_path_factory.mktemp("workspace")
    config = MarketplaceConfig(users=40, items=400, queries=30, requests=1200, days=4, requests_per_file=200)
    simulate.run(out=root / "tables", config=config)
    _relevance(root / "tables", root / "relevance")
    preferences = _mine(root / "tables", root / "relevance", root / "preferences")
    samples = _sample(root / "tables", root / "relevance", root / "preferences", root / "samples")
    return World(root / "tables", root / "relevance", preferences, samples)


def test_manifests_state_the_facts(world: World) -> None:
    log, mined, made = world.log(), world.preferences.manifest, world.samples.manifest
    assert not world.preferences.skipped and not world.samples.skipped
    for kind, column in (("user", "user_id"), ("query", "query"), ("item", "item_id"), ("pair", "pair")):
        assert mined["rows"][kind] == log[column].n_unique(), kind
    assert mined["days"]["kept"] == [] and len(mined["days"]["mined"]) == 4
    assert list(mined["relevance_sources"]) == ["teacher"]
    assert mined["parameters"]["examination"]["source"]
    assert made["rows"]["samples"] == log.height
    assert made["days"] == {str(day): count for day, count in sorted(log.group_by("date").len().iter_rows())}
    assert made["rows"]["user"] == Tables(world.tables).users().height


def test_a_second_run_is_skipped(world: World) -> None:
    assert _mine(world.tables, world.relevance, world.preferences.path).skipped
    assert _sample(world.tables, world.relevance, world.preferences.path, world.samples.path).skipped


def test_totals_equal_a_direct_group_by(world: World) -> None:
    log = world.log()
    for kind, keys in (("query", ["query"]), ("pair", ["query", "item_id"]), ("item", ["item_id"])):
        totals = world.totals(kind)
        direct = log.group_by(keys).agg(
            pl.len().alias("shown"),
            pl.col("clicked").sum().alias("clicks"),
            pl.col("user_id").n_unique().alias("users"),
            *((pl.col("level") == level).sum().alias(f"shown_{level}") for level in range(4)),
            *(pl.col("clicked").filter(pl.col("level") == level).sum().alias(f"clicks_{level}") for level in range(4)),
        ).sort(keys)  # fmt: skip
        assert totals.select(keys).equals(direct.select(keys))
        if kind == "query":
            named = LevelSums.split(matrix(totals, LEVEL_NAMES))
            np.testing.assert_array_equal(named.impressions, direct.select(f"shown_{i}" for i in range(4)).to_numpy())
            np.testing.assert_array_equal(named.clicks, direct.select(f"clicks_{i}" for i in range(4)).to_numpy())
            np.testing.assert_array_equal(totals["users"], direct["users"])
        else:
            sums = matrix(totals, COUNT_NAMES)
            np.testing.assert_array_equal(sums[:, 0], direct["shown"].to_numpy())
            np.testing.assert_array_equal(sums[:, 2], direct["clicks"].to_numpy())
    users, direct = world.totals("user"), log.group_by("user_id").agg(pl.col("request_id").n_unique()).sort("user_id")
    assert matrix(users, USER_NAMES)[:, GRID_SIZE].tolist() == direct["request_id"].to_list()


def test_snapshots_hold_what_a_person_wants_to_read(world: World) -> None:
    queries, log = world.totals("query"), world.log().filter("clicked")
    assert queries.select(pl.sum_horizontal(f"click_share_{level}" for level in range(4))).to_series().to_list() == (
        pytest.approx([1.0] * queries.height)
    )
    assert queries["tolerance"].is_between(0, 1.1).all() and (queries["tolerance_sd"] > 0).all()
    priced = log.group_by("query").agg(pl.col("price").median(), pl.len()).filter(pl.col("len") >= 15)
    both = queries.join(priced, on="query")
    assert both.height >= 3
    np.testing.assert_allclose(both["price_p50"], both["price"], rtol=0.2)


def test_what_queries_back_off_to_is_readable_too(world: World) -> None:
    items = Tables(world.tables).items().select("item_id", "category", list_price="price")
    log = world.log().join(items, on="item_id", how="left").sort("category")
    categories, total = world.totals("category"), world.totals("total")
    direct = log.group_by("category", maintain_order=True).agg(pl.col("user_id").n_unique())
    assert categories.select("category", "users").rows() == direct.rows()
    assert total["users"].to_list() == [log["user_id"].n_unique()]
    prices = log.filter("clicked").select(pl.coalesce("price", "list_price")).to_series().drop_nulls()
    assert total["price_p50"][0] == pytest.approx(prices.median(), rel=0.06)
    shares = [f"click_share_{level}" for level in range(4)]
    np.testing.assert_allclose(pl.concat([categories.select(shares), total.select(shares)]).sum_horizontal(), 1.0)


def test_tolerances_follow_the_truth(world: World) -> None:
    users = world.totals("user")
    truth = users.select("user_id").join(
        pl.read_parquet(world.tables / "truth" / "users.parquet"), on="user_id", how="left", maintain_order="left"
    )
    many = users["requests"].to_numpy() >= 15
    assert many.sum() >= 15
    assert spearmanr(users["tolerance"].to_numpy()[many], truth["t_u"].to_numpy()[many])[0] > 0.3


def test_every_impression_is_a_sample_once(world: World) -> None:
    samples = Samples.open(world.samples.path)
    frame = samples.frame(samples.days())
    log = world.log()
    keys = ["request_id", "item_id", "position", "clicked", "pair"]
    assert frame.select(keys).sort("request_id", "item_id").equals(log.select(keys).sort("request_id", "item_id"))
    _, validation, test = split_days(samples.days())
    assert (validation, test) == tuple(samples.days()[-2:])
    arrays = samples.rows(frame)
    for name in ("numeric", "tolerance", "query_preference"):
        assert np.isfinite(getattr(arrays, name)).all()
    assert len(samples.tokens) == len(samples.pairs.level) == world.samples.manifest["rows"]["pairs"]


def test_first_day_knows_nothing_of_queries(world: World) -> None:
    samples = Samples.open(world.samples.path)
    first, last = (samples.frame([day]) for day in (samples.days()[0], samples.days()[-1]))
    assert first["sq_pair"].list.len().max() == 0 and first["query_preference.query_users"].max() == 0
    assert last["sq_pair"].list.len().mean() > 3 and last["query_preference.query_users"].min() > 0


def test_online_store_holds_the_end_of_the_log(world: World) -> None:
    store = OnlineStore(world.samples.path / "online")
    log = world.log()
    user, clicks = log.filter("clicked").group_by("user_id").len().sort("len", "user_id").row(-1)
    own = log.filter(pl.col("user_id") == user)
    state = store.get("user", user)
    assert state is not None
    assert state["sums"][GRID_SIZE] == own["request_id"].n_unique()
    assert state["sums"][GRID_SIZE + 2] == clicks
    assert len(state["clicks"]) == min(clicks, SAMPLE.user_behaviours)
    query, item = own.row(0, named=True)["query"], own.row(0, named=True)["item_id"]
    pair = store.get("pair", pair_name(query, item))
    assert pair is not None
    assert (
        pair["sums"][1]
        == log.filter(pl.col("clicked") & (pl.col("query") == query) & (pl.col("item_id") == item)).height
    )
    store.close()


def test_relevance_of_other_tables_is_refused(world: World, tmp_path: Path) -> None:
    def build(staging: Path) -> dict[str, Any]:
        (staging / "pairs").mkdir()
        pl.read_parquet(world.relevance / "pairs" / "part-0.parquet").write_parquet(
            staging / "pairs" / "part-0.parquet"
        )
        return {}

    other = tmp_path / "relevance"
    run_stage("score-relevance", other, config=ScoreConfig(), inputs={"tables": world.tables}, build=build)
    with pytest.raises(PrectrError, match=r"rows are pairs that the relevance artifact does not hold"):
        _mine(world.tables, other, tmp_path / "preferences")
    assert not (tmp_path / "preferences").exists()


def test_any_number_of_parts_and_blocks_gives_the_same_samples(world: World, tmp_path: Path) -> None:
    """How work is cut into blocks is no part of the result."""
    other = build_samples.run(
        tables=world.tables,
        relevance=world.relevance,
        preferences=world.preferences.path,
        out=tmp_path / "samples",
        config=SAMPLE,
        ray_config=RayConfig(memory_gib=0.2),
    )
    one, two = (Samples.open(path) for path in (world.samples.path, other.path))
    # Tolerances are products with the grid, whose order of summation may depend on the number of rows at once.
    assert_frame_equal(one.frame(one.days()), two.frame(two.days()), rel_tol=1e-6, abs_tol=1e-6)
    assert same_fitted(one.spec.model_dump(mode="json"), two.spec.model_dump(mode="json"))
