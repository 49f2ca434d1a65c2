"""A test day by hand: eight users, two requests each, with and without unexposed candidates, and scores of it."""

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from prectr.data.tables import Tables
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.day import TestDay
from prectr.evaluation.figures import describe_slices, measure
from prectr.evaluation.scores import DayScores
from tests.manifests import write_manifest

DAY = date(2026, 3, 5)
CONFIG = EvaluateConfig(resamples=60, top=2)
USERS, SHOWN, HIDDEN = 16, 4, 2


def make_day(
    tables: Path, *, candidates: bool = True, clicked: float = 0.4, judged: bool = True, given: int = 0
) -> TestDay:
    """A day of `USERS` users with two requests of `SHOWN` shown items, every second one with `HIDDEN` unexposed ones.

    Args:
        tables: where judgments are written.
        candidates: whether unexposed ones are kept.
        clicked: share of clicked rows.
        judged: whether some pairs have a grade.
        given: number of pairs, the first ones of 40, whose levels come from their judgments.
    """
    random = np.random.default_rng(5)
    requests = [f"r{number:03}" for number in range(2 * USERS)]
    levels = random.dirichlet(np.ones(4), 40).astype(np.float32)
    of_judgment = np.arange(40) < given
    samples: Any = SimpleNamespace(pairs=SimpleNamespace(levels=levels), judged_pairs=lambda: of_judgment)

    def rows(items: int, chosen: list[str], offset: int) -> pl.DataFrame:
        request = [name for name in chosen for _ in range(items)]
        number = np.array([int(name[1:]) for name in request])
        pair = (number * 7 + np.tile(np.arange(items), len(chosen)) + offset) % 40
        return pl.DataFrame(
            {
                "request_id": request,
                "user_id": [f"u{one % USERS}" for one in number],
                "query": [f"query {one % 5}" for one in pair],
                "item_id": [f"i{one}" for one in pair],
                "pair": pair,
                "position": np.tile(np.arange(1, items + 1), len(chosen)),
            }
        )

    shown = rows(SHOWN, requests, 0).with_columns(clicked=pl.Series(random.random(2 * USERS * SHOWN) < clicked))
    unexposed = rows(HIDDEN, requests[::2], SHOWN) if candidates else None
    tables.mkdir(parents=True, exist_ok=True)
    slices = {"all": np.ones(shown.height, bool), "cold": (np.arange(shown.height) // SHOWN) % 4 == 0}
    write_manifest(tables, "validate")
    day = TestDay(samples, Tables(tables), DAY, shown, unexposed, slices)
    _write_judgments(day, judged)
    return day


def _write_judgments(day: TestDay, judged: bool) -> None:
    """Grades of every pair of each query that is held back."""
    every = (
        day.shown
        if day.unexposed is None
        else pl.concat([day.shown.select("query", "item_id"), day.unexposed.select("query", "item_id")])
    )
    pairs = every.select("query", "item_id").unique().sort("query", "item_id")
    pairs.select("item_id", title=pl.col("item_id"), category=pl.lit("things")).unique().write_parquet(
        day.tables.path / "items.parquet"
    )
    grades = pairs.with_columns(grade=pl.int_range(pl.len()).mod(4).cast(pl.Int8), source=pl.lit("human"))
    (grades if judged else grades.head(0)).write_parquet(day.tables.path / "judgments.parquet")


def scores(day: TestDay, seed: int, quality: float) -> DayScores:
    """Random scores, drawn to clicks by `quality`."""
    random = np.random.default_rng(seed)
    free = random.normal(size=len(day.clicked)) + quality * day.clicked
    unexposed = None if day.unexposed is None else random.normal(size=day.unexposed.height)
    probability = 1 / (1 + np.exp(1 - free))
    return DayScores(free, free - 0.1 * day.position, probability, unexposed, 0.1 * free)


def two_models(day: TestDay) -> dict[str, list[DayScores]]:
    """A good model and a base, four seeds each."""
    return {
        "good": [scores(day, seed, 2.0) for seed in (1, 2, 3, 4)],
        "base": [scores(day, seed, 1.0) for seed in (5, 6, 7, 8)],
    }


def make_evaluation(day: TestDay, models: dict[str, list[DayScores]], base: str) -> dict[str, Any]:
    """The content of an evaluation of the day, as `jobs.evaluate` writes it."""
    figures = measure(day, models, CONFIG, base=base, improvement_base=base)
    return {
        "simulated": False,
        "test_day": str(day.day),
        "test_rows": len(day.clicked),
        "seeds": len(models[base]),
        "base": base,
        "improvement_base": base,
        "settings": CONFIG.model_dump(mode="json"),
        "slices": describe_slices(day, CONFIG),
        "models": {name: {"label": name, "kind": "bundle", "bundles": []} for name in models},
        "figures": figures,
        "calibration": {},
        "incentive": {},
        "position": {"position": [1], "models": {}, "logged": [1.0]},
        "quality": {"pairs": 0, "queries": 0},
        "tolerance": None,
        "definitions": {},
        "log": {"statistics": {}},
    }
