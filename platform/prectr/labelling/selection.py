"""Selection of the pairs to label: judged pairs for measurement, then others by exposure, traffic and words.

Teacher labels must cover head, torso and tail queries, and low-ranked, unexposed candidates besides exposures. Some
pairs are made from the catalogue, because a log holds few that are clearly irrelevant [ours].
Pairs with the same query and item texts in normal form are one **question**. The budget counts questions, and every
pair of a chosen question is listed, because it gets the label at no cost.

Questions are ordered by a hash of their texts [ours]. So the selection is the same on every machine, a larger budget
adds to the questions of a smaller one, and most of yesterday's questions are selected again when the log has grown by a
day, so that the ledger already holds their answers. Nothing here asks a teacher.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import Column, Table
from prectr.core.artifacts import fingerprint, read_manifest, require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.core.text import normalise_queries, stable_hash
from prectr.data.config import ValidateConfig
from prectr.data.judgments import read_judged, split_of
from prectr.data.made_pairs import random_pairs, same_category_pairs
from prectr.data.reading.reader import read_table
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
PAIRS = Table("pairs", (Column("query", "string"), Column("item_id", "string")), key=("query", "item_id"))
"""A user's file of pairs."""
ORIGINS = ("judged", "exposed", "unexposed", "random", "category")
"""Judged for measurement; shown; candidates never shown; and pairs that the log does not hold: a query with a random
item, and with one of the category that it shows."""
STRATA = ("head", "torso", "tail")
CELL = ("origin", "stratum", "band")
LOOKED_AT_PER_BUDGET = 20
"""Questions per question of the budget, in each origin and stratum, whose bands are computed. Computing them for all
questions would take too long."""


@dataclass(frozen=True)
class Selection:
    """The selected pairs, with counts of the questions they were selected from.

    Attributes:
        pairs: columns `COLUMNS`, one row per pair, sorted by query and item_id. `question` int64 numbers the distinct
            questions from 0; `query` is in normal form; `title`, `category` and `brand` are as in the catalogue ("" for
            none); `origin` is the question's: judged if any of its pairs was judged for measurement, else exposed if
            any was shown, else unexposed if any was a candidate, else random or category; `stratum` is the traffic of
            the query; `band` is defined in `bands`; `impressions` int64 are the pair's.
        cells: columns origin, stratum, band, available, chosen: numbers of questions in each cell. `available` counts
            questions whose band was computed.
        pool: columns origin, stratum, questions, looked_at: numbers of questions, and of those whose band was computed.
    """

    pairs: pl.DataFrame
    cells: pl.DataFrame
    pool: pl.DataFrame


def select_pairs(tables: Tables, config: SelectionConfig) -> pl.DataFrame:
    """Select the pairs to label; the `pairs` of `choose_pairs`."""
    return choose_pairs(tables, config).pairs


def choose_pairs(tables: Tables, config: SelectionConfig, seen: pl.DataFrame | None = None) -> Selection:
    """Select the pairs to label.

    Judged questions of validation and held-back queries come first, because calibration and measurement need them.
    Judged training pairs are left out, because their grades are known. The rest of the budget is split between exposed,
    unexposed and made questions, and each part equally over the cells of stratum and band. Budget that a cell or an
    origin cannot use goes to the others.

    Args:
        tables: canonical tables.
        config: budget, shares of unexposed and made questions, and seed.
        seen: columns query and item_id: pairs whose questions are left out.

    Raises:
        UsageError: the budget is 0, or the tables hold no item or no pair to select.
    """
    if config.budget == 0:
        raise UsageError("selection.budget is 0, so nothing would be asked; set it to the number of questions.")
    logged = distinct_pairs(tables)
    judged = read_judged(tables)
    found, made = _with_judged(logged, judged), _made(tables, logged, judged, config)
    pairs = pl.concat([found, made])
    items = _item_texts(tables, pairs["item_id"])
    if found.join(items, on="item_id", how="semi").is_empty():
        raise UsageError(
            f"{tables}: no pair to label; impressions, candidates and the judgments of validation and held-back "
            "queries hold no pair of a known item. Check that their item_id values are in items.parquet."
        )
    pairs = _with_question(pairs.join(items.select("item_id", "normal_title", "text"), on="item_id", how="inner"))
    questions = pairs.group_by("question").agg(
        pl.col("origin").min(), pl.col("query").first(), pl.col("normal_title").first()
    )
    if seen is not None:
        seen_questions = pairs.join(seen, on=["query", "item_id"], how="semi").select("question")
        questions = questions.join(seen_questions, on="question", how="anti")
    questions = (
        questions.join(traffic_strata(logged), on="query", how="left")
        .with_columns(
            pl.col("stratum").fill_null("tail"),
            origin=pl.col("origin").replace_strict(dict(enumerate(ORIGINS)), return_dtype=pl.String),
            order=_shuffled_bits(questions["question"].to_numpy(), config.seed),
        )
        .sort("order")
    )
    sampled = questions.filter(pl.int_range(pl.len()).over("origin", "stratum") < LOOKED_AT_PER_BUDGET * config.budget)
    sampled = sampled.with_columns(band=lexical_bands(sampled["query"], sampled["normal_title"]))
    cells = _cells(sampled, config)
    chosen = sampled.join(cells, on=CELL, how="left", maintain_order="left").filter(
        pl.int_range(pl.len()).over(CELL) < pl.col("chosen")
    )
    selected_pairs = pairs.select("question", "query", "item_id", "impressions").join(
        chosen.select("question", *CELL), on="question", how="inner"
    )
    counts = questions.group_by("origin", "stratum").agg(questions=pl.len())
    pool = counts.join(sampled.group_by("origin", "stratum").agg(looked_at=pl.len()), on=["origin", "stratum"])
    return Selection(
        _with_item_texts(selected_pairs, items), cells, pool.sort(_rank("origin", ORIGINS), _rank("stratum", STRATA))
    )


def read_selection(path: Path, tables: Tables) -> pl.DataFrame:
    """Read the pairs to label from an artifact of `select-pairs` or from a user's file.

    Args:
        path: the artifact's directory, or a user's file with columns query and item_id.
        tables: canonical tables, which give the titles for a user's file.

    Returns:
        Pairs with the columns of `Selection.pairs`.

    Raises:
        UsageError: the path is neither, the artifact was made from other tables, or a row is invalid.
    """
    if path.is_dir() and (read_manifest(path) is not None or not any(path.iterdir())):
        manifest = require_artifact(path, "select-pairs")
        if manifest["inputs"]["tables"] != fingerprint(tables.path):
            raise UsageError(f"{path}: was selected from other tables than {tables}; run `prectr select-pairs` again.")
        return pl.read_parquet(path / SELECTION)
    try:
        user_pairs = read_table(path, PAIRS, ValidateConfig(), limit=0)
    except PrectrError as error:
        raise UsageError(f"{error} It is no artifact of select-pairs either.") from None
    return complete_selection(user_pairs, tables, path)


def complete_selection(user_pairs: pl.DataFrame, tables: Tables, source: Path) -> pl.DataFrame:
    """Complete a user's pairs with all columns that labelling and its page need. Their origin is "given".

    Args:
        user_pairs: columns query and item_id; a pair may occur twice.
        tables: canonical tables.
        source: path of the user's file, for error messages.

    Returns:
        Pairs with the columns of `Selection.pairs`.

    Raises:
        UsageError: a column is missing, there is no row, or a row has no query or an item that is not in the tables.
    """
    absent = [name for name in ("query", "item_id") if name not in user_pairs.columns]
    if absent:
        raise UsageError(
            f"{source}: no column {' and no column '.join(absent)}; it has {', '.join(user_pairs.columns)}. "
            "Name the columns query and item_id."
        )
    if user_pairs.is_empty():
        raise UsageError(f"{source}: no rows; give at least one pair of query and item_id.")
    rows = user_pairs.select(pl.col("query", "item_id").cast(pl.String)).with_row_index("row", offset=1)
    items = _item_texts(tables, rows["item_id"])
    keyed_rows = with_normal_query(rows).join(
        items.select("item_id", "normal_title", "text"), on="item_id", how="left", maintain_order="left"
    )
    for fault, is_faulty in (
        ("has no query", pl.col("query").fill_null("") == ""),
        ("names no item_id", pl.col("item_id").is_null()),
        (f"names an item that is not in {tables.path / 'items.parquet'}", pl.col("text").is_null()),
    ):
        faulty_rows = keyed_rows.filter(is_faulty).head(1).to_dicts()
        if faulty_rows:
            row, query, item_id = (faulty_rows[0][name] for name in ("row", "query", "item_id"))
            raise UsageError(f"{source}: row {row} {fault} (query {query!r}, item_id {item_id!r}); fix or remove it.")
    logged = distinct_pairs(tables)
    pairs = _with_question(keyed_rows.unique(["query", "item_id"])).join(
        logged.select("query", "item_id", "impressions"), on=["query", "item_id"], how="left", maintain_order="left"
    )
    pairs = pairs.join(traffic_strata(logged), on="query", how="left", maintain_order="left").with_columns(
        pl.col("impressions").fill_null(0),
        pl.col("stratum").fill_null("tail"),
        origin=pl.lit("given"),
        band=lexical_bands(pairs["query"], pairs["normal_title"]),
    )
    return _with_item_texts(pairs.select("question", "query", "item_id", "impressions", *CELL), items)


def extend_selection(old: pl.DataFrame, until: date, tables: Tables, config: SelectionConfig) -> Selection:
    """Extend a selection of earlier days by questions about pairs of later days.

    Pairs whose item has left the catalogue are dropped.

    Args:
        old: pairs of the earlier selection, with the columns of `Selection.pairs`.
        until: last day that `old` was selected from.
        tables: canonical tables with later days.
        config: budget and shares of the new questions.
    """
    seen = pl.concat([old.select("query", "item_id"), distinct_pairs(tables, until).select("query", "item_id")])
    new = choose_pairs(tables, config, seen)
    kept = old.join(tables.items().select("item_id"), on="item_id", how="semi")
    next_question = 0 if kept.is_empty() else int(kept["question"].max()) + 1  # type: ignore[arg-type]
    both = pl.concat([kept, new.pairs.with_columns(pl.col("question") + next_question)]).sort("query", "item_id")
    return Selection(both, new.cells, new.pool)


def traffic_strata(pairs: pl.DataFrame) -> pl.DataFrame:
    """Assign each query to a stratum of a third of the impressions, the most shown queries first: head, torso, tail.

    Returns columns query and stratum.
    """
    by_query = (
        pairs.group_by("query")
        .agg(pl.col("impressions").sum())
        .sort(["impressions", "query"], descending=[True, False])
    )
    total = max(1, by_query["impressions"].sum())
    share_before = (pl.col("impressions").cum_sum() - pl.col("impressions")) / total
    return by_query.select(
        "query",
        stratum=pl.when(share_before < 1 / 3)
        .then(pl.lit("head"))
        .when(share_before < 2 / 3)
        .then(pl.lit("torso"))
        .otherwise(pl.lit("tail")),
    )


def _with_judged(logged: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """Join logged pairs with pairs judged for measurement, without judged training pairs.

    Column `origin` is an index of `ORIGINS`.
    """
    both = logged.join(
        judged.select("query", "item_id", "split"), on=["query", "item_id"], how="full", coalesce=True
    ).filter(pl.col("split").is_null() | (pl.col("split") != "train"))
    origin = pl.when(pl.col("split").is_not_null()).then(0).when(pl.col("exposed")).then(1).otherwise(2)
    return both.select("query", "item_id", pl.col("impressions").fill_null(0), origin=origin.cast(pl.UInt8))


def _made(tables: Tables, logged: pl.DataFrame, judged: pl.DataFrame, config: SelectionConfig) -> pl.DataFrame:
    """Pairs that neither log nor judgments hold, of queries that are not held back; columns as of `_with_judged`."""
    queries = logged["query"].unique().sort()
    queries = queries.filter(
        pl.Series([split_of(query) != "held-back" for query in queries.to_list()], dtype=pl.Boolean)
    )
    items, count = tables.items(), math.ceil(config.budget * config.catalogue_share / 2)
    shown = logged.filter(pl.col("query").is_in(queries.implode()))
    drawn = [
        random_pairs(queries, items, count, config.seed, "questions"),
        same_category_pairs(shown, items, count, config.seed, "questions"),
    ]
    rows = [
        pairs.with_columns(impressions=pl.lit(0, pl.Int64), origin=pl.lit(origin, pl.UInt8))
        for origin, pairs in zip((3, 4), drawn, strict=True)
    ]
    known = pl.concat([table.select("query", "item_id") for table in (logged, judged)])
    return (
        pl.concat(rows)
        .join(known, on=["query", "item_id"], how="anti")
        .unique(["query", "item_id"], keep="first", maintain_order=True)
    )


def _item_texts(tables: Tables, item_ids: pl.Series) -> pl.DataFrame:
    """Read the texts of some items: item_id, title, category, brand ("" for null), normal_title, text.

    `text` is a 64-bit hash of the normal forms. The chance that any two of ten million texts share a hash is below 3 in
    a million.
    """
    items = tables.items()
    if items.is_empty():
        raise UsageError(
            f"{tables.path / 'items.parquet'}: no items, but labelling needs their titles; import a catalogue."
        )
    items = items.join(item_ids.unique().to_frame("item_id"), on="item_id", how="semi").select(
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
        {
            "query": queries,
            "query_hash": pl.Series([stable_hash(query) for query in queries.to_list()], dtype=pl.UInt64),
        }
    )
    hashed = pairs.join(hashes, on="query", how="left", maintain_order="left")
    question = _shuffled_bits(hashed["text"].to_numpy() ^ _shuffled_bits(hashed["query_hash"].to_numpy(), 0), 0)
    return hashed.with_columns(pl.Series("question", question)).drop("text", "query_hash")


def _shuffled_bits(values: np.ndarray, seed: int) -> np.ndarray:
    """Map 64-bit numbers by a permutation that looks random (the finaliser of SplitMix64)."""
    mixed = values + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _cells(questions: pl.DataFrame, config: SelectionConfig) -> pl.DataFrame:
    """Share the budget out over the cells: columns origin, stratum, band, available, chosen."""
    order = [_rank("origin", ORIGINS), _rank("stratum", STRATA), _rank("band", BANDS)]
    cells = questions.group_by(CELL).agg(available=pl.len().cast(pl.Int64)).sort(order)
    sizes = [cells.filter(pl.col("origin") == origin)["available"].to_list() for origin in ORIGINS]
    judged_budget = min(config.budget, sum(sizes[0]))
    # Judged questions are drawn in proportion to their cells, so that both splits and all queries are measured. A share
    # of 0 is raised a little, so that this origin still takes what the other one cannot fill.
    unexposed, made = config.unexposed_share, config.catalogue_share
    logged = 1 - made
    shares = [share + 1e-9 for share in (logged * (1 - unexposed), logged * unexposed, made / 2, made / 2)]
    budgets = share_out(config.budget - judged_budget, [sum(cells_of) for cells_of in sizes[1:]], shares)
    chosen = share_out(judged_budget, sizes[0], sizes[0])
    for cell_sizes, budget in zip(sizes[1:], budgets, strict=True):
        chosen += share_out(budget, cell_sizes, [1.0] * len(cell_sizes))
    return cells.with_columns(pl.Series("chosen", chosen, dtype=pl.Int64))


def _rank(column: str, names: tuple[str, ...]) -> pl.Expr:
    """The index of the column's value in `names`."""
    return pl.col(column).replace_strict(names, range(len(names)), return_dtype=pl.UInt8)


def _with_item_texts(pairs: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Number the questions from 0 and add the items' texts: the columns of `Selection.pairs`, in their order."""
    return (
        pairs.with_columns(pl.col("question").rank("dense").cast(pl.Int64) - 1)
        .join(items.drop("normal_title", "text"), on="item_id", how="inner")
        .select(COLUMNS)
        .sort("query", "item_id")
    )


def share_out(total: int, available: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Share an integer out over cells in proportion to their weights, at most `available` to each.

    What one cell cannot take goes to the others.

    Args:
        total: number to share out. If the cells hold less in all, everything is taken.
        available: size of each cell.
        weights: weight of each cell, above 0; only their proportions count.

    Returns:
        The number for each cell.
    """
    shares = [0] * len(available)
    remaining = min(total, sum(available))
    while remaining:
        open_cells = [cell for cell in range(len(available)) if shares[cell] < available[cell]]
        weight = sum(weights[cell] for cell in open_cells)
        grants = {
            cell: min(available[cell] - shares[cell], int(remaining * weights[cell] / weight)) for cell in open_cells
        }
        if not any(grants.values()):
            grants = dict.fromkeys(sorted(open_cells, key=lambda cell: -weights[cell])[:remaining], 1)
        for cell, grant in grants.items():
            shares[cell] += grant
        remaining -= sum(grants.values())
    return shares
