"""Mined tolerances against a simulator's truth: brute-force oracles on a tiny marketplace."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from jobs import simulate
from prectr.core.errors import PrectrError, UsageError
from prectr.data.marketplace.config import MarketplaceConfig
from prectr.data.tables import Tables
from prectr.evaluation import ceiling as ceiling_module
from prectr.evaluation.ceiling import Ceiling
from prectr.evaluation.tolerance_check import agreement, check_against_truth
from prectr.evaluation.truth import TrueCurve
from tests.mined_preferences import write_artifacts_of

CURVE = TrueCurve(base=0.58, slope=0.08, floor=0.03, least=0.0, most=1.1)


@dataclass(frozen=True)
class World:
    """A tiny log, its relevance, and preferences whose users are the truth and whose queries its opposite."""

    tables: Path
    relevance: Path
    preferences: Path

    def check(self) -> dict[str, Any]:
        return check_against_truth(self.preferences, self.relevance, Tables(self.tables))


def _make(root: Path, tables: Path) -> World:
    return World(tables, *write_artifacts_of(tables, root))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("truth")
    config = MarketplaceConfig(users=60, items=400, queries=30, requests=600, days=3, requests_per_file=90)
    return _make(root, simulate.run(out=root / "tables", config=config).path)


def _copy(world: World, root: Path) -> World:
    """The world again with tables that may be spoilt."""
    shutil.copytree(world.tables, root / "tables")
    return _make(root, root / "tables")


def test_agreement_is_spearman_with_a_fisher_interval() -> None:
    true = np.arange(12.0)
    swapped = true.reshape(6, 2)[:, ::-1].ravel()  # twelve ranks off by one
    rho = 1 - 6 * 12 / (12 * (12**2 - 1))
    reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / 9)
    figure = agreement(swapped, true)
    assert figure["spearman"] == pytest.approx(rho)
    assert figure["low"] == pytest.approx(math.tanh(math.atanh(rho) - reach))
    assert figure["high"] == pytest.approx(math.tanh(math.atanh(rho) + reach))


@pytest.mark.parametrize(
    ("estimate", "true"),
    [(np.arange(9.0), np.arange(9.0)), (np.zeros(20), np.arange(20.0)), (np.arange(20.0), np.zeros(20))],
    ids=["too few", "equal estimates", "placebo"],
)
def test_agreement_is_undefined(estimate: np.ndarray, true: np.ndarray) -> None:
    assert set(agreement(estimate, true).values()) == {None}


def _rows(rng: np.random.Generator, keys: int, count: int) -> dict[str, np.ndarray]:
    return {
        "key": rng.integers(0, keys, count),
        "clicked": rng.random(count) < 0.4,
        "relevance": rng.random(count),
        "other": rng.normal(0, 0.3, count),
        "chance": rng.uniform(0.1, 0.9, count),
    }


def test_ceiling_equals_a_posterior_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    true = np.array([-0.3, 0.0, 0.3])
    rows = _rows(rng, 3, 40)
    monkeypatch.setattr(ceiling_module, "ROWS_AT_ONCE", 7)
    ceiling = Ceiling(true, CURVE)
    ceiling.add(**rows)

    logs = {key: [0.0] * len(ceiling.grid) for key in range(3)}
    for key, clicked, relevance, other, chance in zip(*(values.tolist() for values in rows.values()), strict=True):
        for place, threshold in enumerate(ceiling.grid):
            total = min(max(0.58 + threshold + other, 0.0), 1.1)
            accepted = 1 / (1 + math.exp(-(relevance - total) / 0.08))
            click = chance * (0.03 + 0.97 * accepted)
            logs[key][place] += math.log(click if clicked else 1 - click)
    for key, mean in enumerate(ceiling.means()):
        # Three equal users: the prior is a third at each of their tolerances and 1e-9 elsewhere.
        weight = [
            math.exp(log) * (1 / 3 if np.isclose(threshold, true).any() else 1e-9)
            for log, threshold in zip(logs[key], ceiling.grid, strict=True)
        ]
        expected = sum(w * t for w, t in zip(weight, ceiling.grid, strict=True)) / sum(weight)
        assert mean == pytest.approx(expected, abs=1e-9)


def test_ceiling_finds_planted_tolerances() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0, 0.18, 30)
    rows = _rows(rng, 30, 12_000)
    rows["chance"] = np.full(12_000, 0.9)
    threshold = np.clip(CURVE.base + true[rows["key"]] + rows["other"], 0, 1.1)
    accepted = 1 / (1 + np.exp(-(rows["relevance"] - threshold) / CURVE.slope))
    rows["clicked"] = rng.random(12_000) < 0.9 * (0.03 + 0.97 * accepted)
    ceiling = Ceiling(true, CURVE)
    ceiling.add(**rows)
    assert spearmanr(ceiling.means(), true).statistic > 0.95


def test_counts_naive_and_posterior_equal_a_direct_group_by(world: World) -> None:
    check = world.check()
    assert check["simulated"]
    pairs = pl.read_parquet(world.relevance / "pairs" / "*.parquet")
    log = Tables(world.tables).impressions().join(pairs, on=["query", "item_id"])
    relevance = pl.col("expected")
    users = (
        log.group_by("user_id")
        .agg(
            pl.col("request_id").n_unique().alias("requests"),
            pl.col("clicked").sum().alias("clicks"),
            (relevance.filter("clicked").mean() - relevance.mean()).fill_null(0.0).alias("naive"),
        )
        .join(pl.read_parquet(world.tables / "truth" / "users.parquet"), on="user_id")
    )
    everyone = check["users"]["all"]
    assert [row["requests"] for row in everyone] == ["1-3", "4-9", "10-29", "30+", "all"]
    for row, (low, high) in zip(everyone, [(1, 3), (4, 9), (10, 29), (30, 10**9), (1, 10**9)], strict=True):
        group = users.filter(pl.col("requests").is_between(low, high))
        assert row["keys"] == group.height
        assert row["without_click"] == group.filter(pl.col("clicks") == 0).height
        if group.height >= 10:
            assert row["posterior"]["spearman"] == pytest.approx(1.0)  # the artifact holds the truth
            # Relevance is rounded to a lattice of 1/200, which may break a tie between two users.
            assert row["naive"]["spearman"] == pytest.approx(spearmanr(group["naive"], group["t_u"])[0], abs=0.02)
    assert check["users"]["with_a_click"][-1]["keys"] == users.filter(pl.col("clicks") > 0).height
    all_queries = check["queries"]["all"][-1]
    assert all_queries["keys"] == log["query"].n_unique()
    assert all_queries["posterior"]["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize(("side", "key", "other"), [("users", "t_u", "d_q"), ("queries", "d_q", "t_u")])
def test_ceiling_is_given_the_truth_of_each_row(world: World, side: str, key: str, other: str) -> None:
    truth = world.tables / "truth"
    log = (
        Tables(world.tables)
        .impressions()
        .join(pl.read_parquet(truth / "users.parquet"), on="user_id")
        .join(pl.read_parquet(truth / "queries.parquet"), on="query")
        .join(pl.read_parquet(truth / "impressions" / "*" / "*.parquet"), on=["request_id", "item_id"])
    )
    tolerances = pl.read_parquet(truth / f"{side}.parquet")
    name = tolerances.columns[0]
    shown = log.select(name).join(tolerances.with_row_index("place"), on=name, how="left", maintain_order="left")
    ceiling = Ceiling(tolerances[key].to_numpy(), CURVE)
    ceiling.add(
        shown["place"].to_numpy(),
        log["clicked"].to_numpy(),
        log["r"].to_numpy(),
        log[other].to_numpy(),
        (log["p_click"] / (0.03 + 0.97 / (1 + ((log["threshold"] - log["r"]) / 0.08).exp()))).to_numpy(),
    )
    seen = shown["place"].unique().to_numpy()
    expected = spearmanr(ceiling.means()[seen], tolerances[key].to_numpy()[seen])[0]
    assert world.check()[side]["all"][-1]["ceiling"]["spearman"] == pytest.approx(expected, abs=1e-6)


def test_a_log_without_truth_is_refused(world: World, tmp_path: Path) -> None:
    copy = _copy(world, tmp_path)
    shutil.rmtree(copy.tables / "truth")
    with pytest.raises(UsageError, match=r"has no truth/ to check against; only simulated logs have one"):
        copy.check()


def test_other_tables_than_those_mined_are_refused(world: World, tmp_path: Path) -> None:
    copy = _copy(world, tmp_path)
    other = World(copy.tables, world.relevance, copy.preferences)
    with pytest.raises(UsageError, match=r"mined from other relevance"):
        other.check()
    next((copy.tables / "impressions").glob("*/*.parquet")).unlink()
    with pytest.raises(UsageError, match=r"mined from other tables"):
        copy.check()


def test_truth_of_another_log_is_refused(world: World, tmp_path: Path) -> None:
    copy = _copy(world, tmp_path)
    file = next((copy.tables / "truth" / "impressions").glob("*/*.parquet"))
    pl.read_parquet(file, hive_partitioning=False).tail(-4).write_parquet(file)
    with pytest.raises(PrectrError, match=rf"{file.parent.name}: lacks 4 of the day's"):
        copy.check()
    shutil.rmtree(file.parent)
    with pytest.raises(PrectrError, match=rf"{file.parent.name}: lacks 2,000 of the day's 2,000"):
        copy.check()


def test_another_simulators_log_has_no_ceiling(world: World, tmp_path: Path) -> None:
    copy = _copy(world, tmp_path)
    (copy.tables / "truth" / "params.json").write_text(json.dumps({"t0": 0.5}))
    last = copy.check()["users"]["all"][-1]
    assert last["ceiling"]["spearman"] is None
    assert last["posterior"]["spearman"] == pytest.approx(1.0)


def test_truth_without_tolerances_is_named(world: World, tmp_path: Path) -> None:
    copy = _copy(world, tmp_path)
    (copy.tables / "truth" / "queries.parquet").unlink()
    with pytest.raises(PrectrError, match=r"does not hold the tolerances"):
        copy.check()
