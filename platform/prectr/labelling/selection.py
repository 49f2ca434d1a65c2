"""Which pairs the teacher is asked about: judged ones for measurement, then logged ones by exposure, traffic and words.

Teacher labels must cover head, torso and tail queries and low-ranked, unexposed candidates, not exposures only
(MODEL.md 5). Pairs whose query and item texts are the same in normal form are one **question**: the budget counts
questions, and every pair of a chosen question is listed, because it gets the label for nothing.

A question's place in the random order is a hash of its texts: the choice is the same on every machine, a larger budget
adds to a smaller one's questions, and most of yesterday's questions are chosen again when the log has grown by a day,
so that the ledger knows them [ours]. Nothing here asks a teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from prectr.core.artifacts import fingerprint, require_artifact
from prectr.core.errors import UsageError
from prectr.core.text import normalise_queries, stable_hash
from prectr.data.judgments import read_judged
from prectr.data.tables import Tables, distinct_pairs, with_normal_query
from prectr.labelling.bands import BANDS, lexical_bands
from prectr.labelling.config import SelectionConfig

SELECTION = "selection.parquet"
COLUMNS = (
    "question",
    "query",
    "item_id",
    "title",
    "category",
    "brand",
    "origin",
    "stratum",
    "band",
    "impressions",
)
ORIGINS = ("judged", "exposed", "unexposed")
STRATA = ("head", "torso", "tail")
CELL = ("origin", "stratum", "band")
LOOKED_AT_PER_BUDGET = 20
"""Bands are found for so many questions per question of the budget, in each origin and stratum, and not for all."""


@dataclass(frozen=True)
class Selection:
    """The chosen pairs and what they were chosen from.

    Attributes:
        pairs: columns `COLUMNS`, one row a pair, sorted by query and item_id. `question` int64 numbers the distinct
            questions from 0; `query` is in normal form; `title`, `category` and `brand` are as in the catalogue ("" for
            none); `origin` is the question's: judged if any of its pairs was judged for measurement, else exposed if
            any was shown, else unexposed; `stratum` of its query's traffic; `band` see `bands`; `impressions` int64 of
            the pair.
        cells: columns origin, stratum, band, available, chosen: questions of each cell. `available` counts those whose
            band was looked at.
        pool: columns origin, stratum, questions, looked_at.
    """

    pairs: pl.DataFrame
    cells: pl.DataFrame
    pool: pl.DataFrame


def select_pairs(tables: Tables, config: SelectionConfig) -> pl.DataFrame:
    """The `pairs` of `choose_pairs`."""
    return choose_pairs(tables, config).pairs


def choose_pairs(tables: Tables, config: SelectionConfig, seen: pl.DataFrame | None = None) -> Selection:
    """Choose the pairs to label.

    Judged questions of validation and held-back queries come first (calibration and measurement need them); judged
    training pairs are left out, because their gold is known. The rest of the budget is split between exposed and
    unexposed questions, and either part equally over the cells of stratum and band; what one cell, or one origin,
    cannot fill goes to the others.

    Args:
        tables: canonical tables.
        config: how many, and of what.
        seen: columns query and item_id, of pairs whose questions are not chosen.

    Raises:
        UsageError: there is no item, nothing to choose from, or the budget is 0.
    """
    if config.budget == 0:
        raise UsageError("selection.budget is 0, so nothing would be asked; give the number of questions.")
    logged = distinct_pairs(tables)
    pairs = _with_judged(logged, read_judged(tables))
    items = _item_texts(tables, pairs["item_id"])
    pairs = _with_question(pairs.join(items.select("item_id", "normal_title", "text"), on="item_id", how="inner"))
    if pairs.is_empty():
        raise UsageError(
            f"{tables}: no pair to label; impressions, candidates and the judgments of validation and held-back "
            "queries hold no pair of a known item."
        )
    questions = pairs.group_by("question").agg(
        pl.col("origin").min(), pl.col("query").first(), pl.col("normal_title").first()
    )
    if seen is not None:
        passed = pairs.join(seen, on=["query", "item_id"], how="semi").select("question")
        questions = questions.join(passed, on="question", how="anti")
    questions = (
        questions.join(traffic_strata(logged), on="query", how="left")
        .with_columns(
            pl.col("stratum").fill_null("tail"),
            origin=pl.col("origin").replace_strict(dict(enumerate(ORIGINS)), return_dtype=pl.String),
            order=_mixed(questions["question"].to_numpy(), config.seed),
        )
        .sort("order")
    )
    looked_at = questions.filter(
        pl.int_range(pl.len()).over("origin", "stratum") < LOOKED_AT_PER_BUDGET * config.budget
    )
    looked_at = looked_at.with_columns(band=lexical_bands(looked_at["query"], looked_at["normal_title"]))
    cells = _cells(looked_at, config)
    chosen = looked_at.join(cells, on=CELL, how="left", maintain_order="left").filter(
        pl.int_range(pl.len()).over(CELL) < pl.col("chosen")
    )
    listed = pairs.select("question", "query", "item_id", "impressions").join(
        chosen.select("question", *CELL), on="question", how="inner"
    )
    counted = questions.group_by("origin", "stratum").agg(questions=pl.len())
    pool = counted.join(looked_at.group_by("origin", "stratum").agg(looked_at=pl.len()), on=["origin", "stratum"])
    return Selection(_finished(listed, items), cells, pool.sort(_place("origin", ORIGINS), _place("stratum", STRATA)))


def read_selection(path: Path, tables: Tables) -> pl.DataFrame:
    """Pairs to label: the artifact of `select-pairs`, or a user's own file.

    Args:
        path: the artifact's directory, or a Parquet or CSV file with columns query and item_id.
        tables: canonical tables, from which a file's titles are taken.

    Returns:
        as `Selection.pairs`.

    Raises:
        UsageError: neither, made from other tables, or a row that cannot be used.
    """
    if path.is_dir():
        manifest = require_artifact(path, "select-pairs")
        if manifest["inputs"]["tables"] != fingerprint(tables.path):
            raise UsageError(f"{path}: was selected from other tables than {tables}; run `prectr select-pairs` again.")
        return pl.read_parquet(path / SELECTION)
    try:
        given = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(
            f"{path}: neither an artifact of select-pairs nor a Parquet or .csv file of pairs ({error})."
        ) from None
    return complete_selection(given, tables, path)


def complete_selection(given: pl.DataFrame, tables: Tables, source: Path) -> pl.DataFrame:
    """A user's own pairs with everything that labelling and its page need; their origin is "given".

    Args:
        given: columns query and item_id; a pair may come twice.
        tables: canonical tables.
        source: the file, for messages.

    Returns:
        as `Selection.pairs`.

    Raises:
        UsageError: a column is missing, there is no row, or a row has no query or an item that is not in the tables.
    """
    absent = [name for name in ("query", "item_id") if name not in given.columns]
    if absent:
        raise UsageError(f"{source}: no column {' and no column '.join(absent)}; it has {', '.join(given.columns)}.")
    if given.is_empty():
        raise UsageError(f"{source}: no rows; give at least one pair of query and item_id.")
    rows = given.select(pl.col("query", "item_id").cast(pl.String)).with_row_index("row", offset=1)
    items = _item_texts(tables, rows["item_id"])
    known = with_normal_query(rows).join(
        items.select("item_id", "normal_title", "text"), on="item_id", how="left", maintain_order="left"
    )
    for what, which in (
        ("has no query", pl.col("query").fill_null("") == ""),
        ("names no item_id", pl.col("item_id").is_null()),
        (f"names an item that is not in {tables.path / 'items.parquet'}", pl.col("text").is_null()),
    ):
        wrong = known.filter(which).head(1).to_dicts()
        if wrong:
            row, query, item_id = (wrong[0][name] for name in ("row", "query", "item_id"))
            raise UsageError(f"{source}: row {row} {what} (query {query!r}, item_id {item_id!r}); mend or remove it.")
    logged = distinct_pairs(tables)
    pairs = _with_question(known.unique(["query", "item_id"])).join(
        logged.select("query", "item_id", "impressions"), on=["query", "item_id"], how="left", maintain_order="left"
    )
    pairs = pairs.join(traffic_strata(logged), on="query", how="left", maintain_order="left").with_columns(
        pl.col("impressions").fill_null(0),
        pl.col("stratum").fill_null("tail"),
        origin=pl.lit("given"),
        band=lexical_bands(pairs["query"], pairs["normal_title"]),
    )
    return _finished(pairs.select("question", "query", "item_id", "impressions", *CELL), items)


def extend_selection(old: pl.DataFrame, until: date, tables: Tables, config: SelectionConfig) -> Selection:
    """A selection of earlier days, and as many questions more as `config` says about pairs that came after them.

    Pairs whose item has left the catalogue are dropped.

    Args:
        old: as `Selection.pairs`.
        until: the last day that `old` was chosen from.
        tables: canonical tables with later days.
        config: of the new questions.
    """
    seen = pl.concat([old.select("query", "item_id"), distinct_pairs(tables, until).select("query", "item_id")])
    new = choose_pairs(tables, config, seen)
    kept = old.join(tables.items().select("item_id"), on="item_id", how="semi")
    first = 0 if kept.is_empty() else int(kept["question"].max()) + 1  # type: ignore[arg-type]
    both = pl.concat([kept, new.pairs.with_columns(pl.col("question") + first)]).sort("query", "item_id")
    return Selection(both, new.cells, new.pool)


def traffic_strata(pairs: pl.DataFrame) -> pl.DataFrame:
    """Columns query, stratum: the most shown queries that make a third of the impressions are head, the next torso."""
    by_query = (
        pairs.group_by("query")
        .agg(pl.col("impressions").sum())
        .sort(["impressions", "query"], descending=[True, False])
    )
    total = max(1, by_query["impressions"].sum())
    before = (pl.col("impressions").cum_sum() - pl.col("impressions")) / total
    return by_query.select(
        "query",
        stratum=pl.when(before < 1 / 3)
        .then(pl.lit("head"))
        .when(before < 2 / 3)
        .then(pl.lit("torso"))
        .otherwise(pl.lit("tail")),
    )


def _with_judged(logged: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """Logged pairs and those judged for measurement, less judged training pairs; `origin` is a place in `ORIGINS`."""
    both = logged.join(
        judged.select("query", "item_id", "split"), on=["query", "item_id"], how="full", coalesce=True
    ).filter(pl.col("split").is_null() | (pl.col("split") != "train"))
    origin = pl.when(pl.col("split").is_not_null()).then(0).when(pl.col("exposed")).then(1).otherwise(2)
    return both.select("query", "item_id", pl.col("impressions").fill_null(0), origin=origin.cast(pl.UInt8))


def _item_texts(tables: Tables, wanted: pl.Series) -> pl.DataFrame:
    """Columns item_id, title, category, brand ("" for null), normal_title, and `text`: a hash of the normal forms.

    Hashes have 64 bits: the chance that any two of ten million texts share one is below 3 in a million.
    """
    items = tables.items()
    if items.is_empty():
        raise UsageError(f"{tables.path / 'items.parquet'}: no items; labelling needs their titles.")
    items = items.join(wanted.unique().to_frame("item_id"), on="item_id", how="semi").select(
        "item_id", pl.col("title", "category", "brand").fill_null("")
    )
    normal = [_normal(items[name]) for name in ("title", "category", "brand")]
    hashes = [stable_hash(*texts) for texts in zip(*(texts.to_list() for texts in normal))]
    return items.with_columns(normal[0].alias("normal_title"), pl.Series("text", hashes, dtype=pl.UInt64))


def _normal(texts: pl.Series) -> pl.Series:
    forms = normalise_queries(texts.unique())
    return texts.replace_strict(list(forms), list(forms.values()), return_dtype=pl.String)


def _with_question(pairs: pl.DataFrame) -> pl.DataFrame:
    """Replace `text`, the hash of the item's texts, by `question`, a hash of these and the query."""
    queries = pairs["query"].unique()
    hashes = pl.DataFrame(
        {"query": queries, "asked": pl.Series([stable_hash(query) for query in queries.to_list()], dtype=pl.UInt64)}
    )
    found = pairs.join(hashes, on="query", how="left", maintain_order="left")
    question = _mixed(found["text"].to_numpy() ^ _mixed(found["asked"].to_numpy(), 0), 0)
    return found.with_columns(pl.Series("question", question)).drop("text", "asked")


def _mixed(values: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of 64-bit numbers that looks random (the finaliser of SplitMix64)."""
    mixed = values + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _cells(questions: pl.DataFrame, config: SelectionConfig) -> pl.DataFrame:
    """How many questions to take of each cell: columns origin, stratum, band, available, chosen."""
    order = [_place("origin", ORIGINS), _place("stratum", STRATA), _place("band", BANDS)]
    cells = questions.group_by(CELL).agg(available=pl.len().cast(pl.Int64)).sort(order)
    held = [cells.filter(pl.col("origin") == origin)["available"].to_list() for origin in ORIGINS]
    measured = min(config.budget, sum(held[0]))
    # Judged questions as they come, so that both splits and all queries are measured; a share of nought is not exactly
    # so, because it still takes what the other origin cannot fill.
    shares = (1 - config.unexposed_share + 1e-9, config.unexposed_share + 1e-9)
    taken = share_out(config.budget - measured, [sum(held[1]), sum(held[2])], shares)
    chosen = share_out(measured, held[0], held[0])
    for cell_sizes, wanted in zip(held[1:], taken, strict=True):
        chosen += share_out(wanted, cell_sizes, [1.0] * len(cell_sizes))
    return cells.with_columns(pl.Series("chosen", chosen, dtype=pl.Int64))


def _place(column: str, names: tuple[str, ...]) -> pl.Expr:
    return pl.col(column).replace_strict(names, range(len(names)), return_dtype=pl.UInt8)


def _finished(pairs: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    return (
        pairs.with_columns(pl.col("question").rank("dense").cast(pl.Int64) - 1)
        .join(items.drop("normal_title", "text"), on="item_id", how="inner")
        .select(COLUMNS)
        .sort("query", "item_id")
    )


def share_out(total: int, available: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Integers near `total` x weight, none above what its cell holds; what one cell cannot take goes to the others.

    Args:
        total: to share out; if the cells hold less in all, everything is taken.
        available: of each cell.
        weights: of each cell, above 0; only their proportions count.
    """
    taken = [0] * len(available)
    left = min(total, sum(available))
    while left:
        room = [cell for cell in range(len(available)) if taken[cell] < available[cell]]
        whole = sum(weights[cell] for cell in room)
        grants = {cell: min(available[cell] - taken[cell], int(left * weights[cell] / whole)) for cell in room}
        if not any(grants.values()):
            grants = dict.fromkeys(sorted(room, key=lambda cell: -weights[cell])[:left], 1)
        for cell, grant in grants.items():
            taken[cell] += grant
        left -= sum(grants.values())
    return taken
