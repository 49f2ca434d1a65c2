"""A tiny random log with everything that mining and sampling need, built without Ray."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from prectr.data.parts import KeyRange, Part, Slice
from prectr.data.tables import Tables
from prectr.features.build import SampleContext
from prectr.features.ids import IdSpace
from prectr.features.read import Reading, read_rows
from prectr.features.spec import fit_vocabularies
from prectr.preferences import passes, snapshots
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.examination import Examination
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.mined import Preferences
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.passes import Pass
from prectr.preferences.shown import ShownReader
from prectr.preferences.snapshots import Folding
from prectr.preferences.tolerance import GRID, ClickParameters
from prectr.relevance.match_features import MATCH_FEATURES
from tests.manifests import write_manifest

DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(4)]
QUERIES = ("nokia 3310", "phone", "sofa")
IDS = {
    "user_id": IdSpace(kind="vocabulary", size=2, values={"u1": 1, "u3": 2}),
    "item_id": IdSpace(kind="hash", size=3),
}
LIMIT = 2  # behaviours of S_q and S_u, few enough that lists are cut


def _prior(centre: float) -> np.ndarray:
    weight = np.exp(-0.5 * ((GRID - centre) / 0.25) ** 2)
    return weight / weight.sum()


MODEL = PreferenceModel(
    click=ClickParameters(a=0.4, s=0.15, eps=0.02),
    examination=Examination(0.8, "test", 0),
    user_prior=_prior(0.5),
    query_prior=_prior(0.6),
    category_query_prior={"phones > old": _prior(0.4), "": _prior(0.9)},
)


@dataclass(frozen=True)
class MinedLog:
    """The shown rows of a log, as drawn and as sampling reads them, and what was mined from `known` days of it."""

    shown: pl.DataFrame
    rows: pl.DataFrame
    items: pl.DataFrame
    pairs: pl.DataFrame
    context: SampleContext


def draw_log(seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Shown rows in no order, items and pairs. Few users, queries and moments, so that all of them collide."""
    rng = np.random.default_rng(seed)
    brands = ["nokia", None, "ikea", "nokia", None]
    items = pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(5)],
            "title": [f"item {number} nokia 3310" for number in range(5)],
            "category": ["phones > old", "phones > old", "sofas", "phones > new", "sofas"],
            "brand": brands,
            "price": [10.0, 20.0, 300.0, None, 150.0],
        }
    )
    levels = rng.dirichlet(np.ones(4), 15).astype(np.float32)
    overlaps = np.random.default_rng([seed, 1]).random((len(MATCH_FEATURES), 15)).astype(np.float32)
    pairs = pl.DataFrame(
        {
            "pair": np.arange(15, dtype=np.int32),
            "query": np.repeat(QUERIES, 5),
            "item_id": [f"i{number}" for number in range(5)] * 3,
            **{f"level_{level}": levels[:, level] for level in range(4)},
            "expected": levels @ np.arange(4, dtype=np.float32) / 3,
            "source": rng.choice(["judgment", "teacher", "encoder"], 15),
            "encoder_expected": rng.random(45).astype(np.float32)[:15],  # more would draw another log
            **dict(zip(MATCH_FEATURES, overlaps, strict=True)),
            "query_tokens": np.full(15, 3, np.int16),
            "input_ids": [[2, 9, 3, 10 + number % 5, 3] for number in range(15)],
        }
    )
    rows = []
    for number in range(26):
        user, query, day = rng.integers(0, 4), rng.integers(0, 3), int(rng.integers(0, 4))
        ts = datetime(2026, 3, 1 + day, 8 + int(rng.integers(0, 3)), tzinfo=UTC)
        for position, item in enumerate(rng.permutation(5)[: rng.integers(1, 5)], start=1):
            rows.append(
                {
                    "request_id": f"r{number * 7 % 26:02d}",  # not in the order of time
                    "user_id": f"u{user}",
                    "ts": ts,
                    "query": QUERIES[query],
                    "item_id": f"i{item}",
                    "position": position,
                    "clicked": bool(rng.random() < 0.35),
                    "date": DAYS[day],
                    "file": f"part-{number % 2:04d}.parquet",
                    "pair": int(query * 5 + item),
                    "exposure_price": float(rng.integers(5, 400)) if rng.random() < 0.3 else None,
                }
            )
    kinds = {"position": pl.Int32, "pair": pl.Int32, "ts": pl.Datetime("us", "UTC"), "exposure_price": pl.Float64}
    shown = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    joined = (
        shown.join(items.select("item_id", "category", "brand", list_price="price"), on="item_id", how="left")
        .join(pairs.select("pair", pl.col("expected").cast(pl.Float64)), on="pair", how="left")
        .with_columns(
            price=pl.coalesce("exposure_price", "list_price"),
            purchased=pl.lit(None, pl.Boolean),
            policy=pl.lit(None, pl.String),
            level=pl.Series(levels.argmax(axis=1))[shown["pair"].to_list()].cast(pl.Int32),
        )
        .with_columns(log_price=pl.col("price").log())
    )
    return joined.drop("exposure_price", "list_price").sample(fraction=1, shuffle=True, seed=seed), items, pairs


def _write_log(shown: pl.DataFrame, items: pl.DataFrame, pairs: pl.DataFrame, root: Path) -> list[Part]:
    """Tables and a relevance artifact below `root`, and the log's files as parts: several a day."""
    columns = ["request_id", "user_id", "ts", "query", "item_id", "position", "clicked", "price"]
    parts = []
    for (day, file), rows in sorted(shown.partition_by("date", "file", as_dict=True).items()):
        folder = root / "tables" / "impressions" / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.select(columns).write_parquet(folder / file)
        number = sum(part.day == day for part in parts)
        parts.append(Part(day, number, (Slice(folder / file, 0, rows.height),)))
    items.write_parquet(root / "tables" / "items.parquet")
    profiles = pl.DataFrame({"user_id": ["u0", "u1", "u9"], "device": ["phone", None, "desk"]})
    profiles.write_parquet(root / "tables" / "users.parquet")
    (root / "relevance" / "pairs").mkdir(parents=True)
    pairs.write_parquet(root / "relevance" / "pairs" / "part-0.parquet")
    write_manifest(root / "tables", "validate")
    return parts


def _mine_parts(parts: list[Part], reader: ShownReader, out: Path, config: PreferencesConfig) -> None:
    """What `mine-preferences` does, a part and a range of keys at a time, in this process and with a given model."""
    days = sorted({part.day for part in parts})
    (out / "days").mkdir(parents=True)
    (out / "parameters.json").write_text(json.dumps(MODEL.to_json()))
    category = pl.DataFrame({"query": ["nokia 3310", "sofa"], "category": ["phones > old", "sofas"]})
    category.write_parquet(out / "query_category.parquet")
    shared = Pass(out, reader, MODEL, config.behaviours_per_query, config.alternate)
    folding = Folding(out, tuple(days), MODEL, category, config.half_life_days, config.behaviours_per_query)
    for part in parts:
        passes.plain_pass(part, shared)
    _over("u2", partial(snapshots.centres_of_users, folding=folding))
    _over("o", partial(snapshots.centres_of_queries, folding=folding))
    for part in parts:
        passes.main_pass(part, shared)
    snapshots.fold_categories(folding)
    _over("o", partial(snapshots.fold_queries, folding=folding))
    _over("u2", partial(snapshots.fold_users, folding=folding))
    _over("i2", partial(snapshots.fold_items, folding=folding))
    mined = {"mined": [str(day) for day in days], "kept": []}
    write_manifest(out, "mine-preferences", config=config.model_dump(mode="json"), days=mined)


def _over(cut: str, work: partial) -> None:  # type: ignore[type-arg]
    """Two ranges of keys, cut in the middle."""
    for keys in (KeyRange(None, cut, 0), KeyRange(cut, None, 1)):
        work(keys)


def mine(
    root: Path,
    shown: pl.DataFrame,
    items: pl.DataFrame,
    pairs: pl.DataFrame,
    known: list[date] | None = None,
    half_life: float | None = None,
) -> MinedLog:
    """What `mine-preferences` and `build-samples` compute, in one process and with a model that is given.

    Args:
        root: a directory of its own.
        shown: rows of `draw_log`, flipped or cut as a test likes.
        items: the catalogue.
        pairs: the scored pairs.
        known: the days that preferences are mined from; all by default.
        half_life: in days; None: nothing fades.
    """
    parts = _write_log(shown, items, pairs, root)
    reader = ShownReader.of(items, PairIndex.of(pairs))
    config = PreferencesConfig(behaviours_per_query=LIMIT, half_life_days=half_life)
    _mine_parts([part for part in parts if known is None or part.day in known], reader, root / "preferences", config)
    mined = Preferences.open(root / "preferences")
    spec = fit_vocabularies(
        items, pl.read_parquet(root / "tables" / "users.parquet"), profile_columns=("device", "absent"),
        price_buckets=3, query_buckets=64, user_behaviours=LIMIT, query_behaviours=LIMIT, positions=8,
        click=mined.model.click, ids=IDS,
    )  # fmt: skip
    context = SampleContext(mined, spec, Tables(root / "tables"), root / "relevance")
    rows = pl.concat(read_rows(part, Reading(mined, reader)) for part in parts)
    return MinedLog(shown, rows, items, pairs, context)


CANDIDATE_KEYS = ["request_id", "user_id", "ts", "query", "item_id"]


def unexposed(log: MinedLog, day: date) -> pl.DataFrame:
    """Every item that a request of the day did not show."""
    last = log.shown.filter(pl.col("date") == day)
    requests = last.select("request_id", "user_id", "ts", "query").unique(maintain_order=True)
    every = requests.join(log.pairs.select("query", "item_id"), on="query")
    return every.join(last, on=CANDIDATE_KEYS, how="anti").sort(CANDIDATE_KEYS)


def read_unexposed(log: MinedLog, day: date) -> pl.DataFrame:
    """The rows of `unexposed` as `build-samples` reads them."""
    hidden = unexposed(log, day)
    file = log.context.preferences.path.parent / "candidates.parquet"
    hidden.write_parquet(file)
    reader = ShownReader.of(log.items, PairIndex.of(log.pairs))
    part = Part(day, 0, (Slice(file, 0, len(hidden)),))
    return read_rows(part, Reading(log.context.preferences, reader), exposed=False)


@pytest.fixture
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`draw_log(seed)`, `mine(shown, items, pairs, known, half_life)`, and the unexposed candidates of its result."""

    def mine_somewhere(*log: pl.DataFrame, **options: object) -> MinedLog:
        return mine(tmp_path_factory.mktemp("log"), *log, **options)  # type: ignore[arg-type]

    yield SimpleNamespace(
        draw_log=draw_log,
        mine=mine_somewhere,
        days=DAYS,
        model=MODEL,
        unexposed=unexposed,
        read_unexposed=read_unexposed,
    )


@pytest.fixture(scope="session")
def bundle_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle of the tiny log lies once a test has asked for it."""
    return tmp_path_factory.mktemp("bundle")


@pytest.fixture
def world(bundle_place: Path, laboratory: SimpleNamespace) -> Any:
    """Samples, encoder and bundle of the tiny log, made once: PRECTR-V2 with its encoder tuned, and int8 forms."""
    from prectr.contracts.model_config import ModelConfig
    from tests.prectr.bundle_world import World, make_world

    if not (bundle_place / "bundle").exists():
        make_world(laboratory, bundle_place, ModelConfig(), int8=True)
    return World(bundle_place / "samples", bundle_place / "encoder", bundle_place / "bundle")
