"""The state at the end of the log, for serving: the same sums that samples are made from, after all rows.

What a request at a later moment reads here is what `build-samples` would find for it, so online features equal offline
ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.arrow import from_arrow, to_arrow
from prectr.features.store import pair_name, write_store
from prectr.preferences.aggregates import matrix
from prectr.preferences.grouping import sum_by
from prectr.relevance.pairs import read_pairs
from prectr.samples import history
from prectr.samples.build import SampleContext
from prectr.samples.history import UserBlock
from prectr.samples.pair_table import pair_table
from prectr.tables import Tables

Entry = tuple[str, str, dict[str, Any]]


def write_online_state(
    by_user: Any, source: Tables, relevance: Path, context: SampleContext, out: Path
) -> dict[str, int]:
    """Write the store.

    Args:
        by_user: Ray dataset of shown rows, each block the whole log of some users.
        source: the tables.
        relevance: the relevance artifact.
        context: what samples were made with.
        out: directory of the store.

    Returns:
        entries by kind.
    """

    def states(block: pa.Table) -> pa.Table:
        return to_arrow(user_states(from_arrow(block), context))

    dataset = by_user.map_batches(states, batch_size=None, batch_format="pyarrow", num_cpus=1)
    users = pl.concat([from_arrow(batch) for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow")])
    return write_store(out, _entries(users, source, relevance, context))


def user_states(rows: pl.DataFrame, context: SampleContext) -> pl.DataFrame:
    """One row a user of a block: sums, price taste, sums by brand, category, query and pair, and recent clicks."""
    block = UserBlock.of(rows)
    model, ordered = context.preferences.model, block.rows
    query_sums, pair_sums = history.query_sums(block, model), history.pair_sums(block)
    users = ordered["user_id"].unique().sort()
    clicks = history.last_clicks(block, context.spec.user_behaviours)
    made = pl.DataFrame(
        {
            "user_id": users,
            "sums": _rows(block.after_all(history.user_sums(block, model))),
            "price": _rows(block.after_all(history.price_sums(block))),
            "click_pairs": clicks.to_series(ordered["pair"]),
            "click_ts": clicks.to_series(ordered["ts"].dt.epoch("us")),
        }
    )
    for name, column, sums in (
        ("brands", "brand", history.click_sums(block)),
        ("categories", "category", history.click_sums(block)),
        ("queries", "query", query_sums),
        ("pairs", "pair", pair_sums),
    ):
        made = made.join(
            _sums_within(ordered, column, sums).rename({"keys": name, "sums": f"{name}_sums"}), on="user_id"
        )
    return made


def _rows(array: np.ndarray) -> pl.Series:
    return pl.Series(np.ascontiguousarray(array)).arr.to_list()


def _sums_within(rows: pl.DataFrame, column: str, sums: np.ndarray) -> pl.DataFrame:
    """user_id, the list of the user's values of `column`, and the list of their sums (as lists)."""
    keyed = rows.select("user_id", pl.col(column).cast(pl.String).fill_null("").alias("keys"))
    cells = keyed.unique().sort("user_id", "keys").with_row_index("cell")
    codes = keyed.join(cells, on=["user_id", "keys"], how="left", maintain_order="left")["cell"].to_numpy()
    totals = cells.with_columns(_rows(sum_by(codes.astype(np.int64), sums)).alias("sums"))
    return totals.group_by("user_id", maintain_order=True).agg("keys", "sums")


def _entries(users: pl.DataFrame, source: Tables, relevance: Path, context: SampleContext) -> Iterator[Entry]:
    mined, spec = context.preferences, context.spec
    items = source.items()
    item_of = {row["item_id"]: row for row in items.iter_rows(named=True)}
    pairs = read_pairs(relevance)
    fields = _pair_fields(pairs, items, context)
    profiles = dict(zip(context.users["user_id"], context.users.select(pl.exclude("user_id")).iter_rows(named=True)))
    names = list(zip(pairs["query"], pairs["item_id"]))

    known = dict(zip(users["user_id"], users.iter_rows(named=True)))
    for user_id in known.keys() | profiles.keys():
        value: dict[str, Any] = {"profile": {key: profiles.get(user_id, {}).get(key) for key in spec.profile}}
        state = known.get(user_id)
        if state is not None:
            value |= {
                "sums": state["sums"],
                "price": state["price"],
                "clicks": [[*fields[pair], ts / 1e6] for pair, ts in zip(state["click_pairs"], state["click_ts"])],
                "brands": dict(zip(state["brands"], state["brands_sums"])),
                "categories": dict(zip(state["categories"], state["categories_sums"])),
                "queries": dict(zip(state["queries"], state["queries_sums"])),
                "pairs": {pair_name(*names[int(p)]): sums for p, sums in zip(state["pairs"], state["pairs_sums"])},
            }
        yield "user", user_id, value

    last = {kind: _last(totals) for kind, totals in mined.totals.items()}
    behaviours = {
        row["query"]: row for row in mined.behaviours.sort("date").unique("query", keep="last").iter_rows(named=True)
    }
    category_of = dict(mined.query_category.iter_rows())
    for query, sums in last["query"].items():
        listed = behaviours[query]
        yield (
            "query",
            query,
            {
                "sums": sums,
                "category": category_of.get(query),
                "behaviours": [
                    [user, *fields[pair], int(clicked), ts.timestamp(), group]
                    for user, pair, clicked, ts, group in zip(
                        listed["user_id"], listed["pair"], listed["clicked"], listed["ts"], listed["user_group"]
                    )
                ],
            },
        )
    for category, sums in last["category"].items():
        yield "category", category, {"sums": sums}
    yield "total", "", {"sums": last["total"][""]}
    for item_id, item in item_of.items():
        yield (
            "item",
            item_id,
            {key: item[key] for key in ("title", "category", "brand", "price")} | {"sums": last["item"].get(item_id)},
        )
    match = sorted(name for name in pairs.columns if name.startswith("match_"))
    for row in pairs.iter_rows(named=True):
        yield (
            "pair",
            pair_name(row["query"], row["item_id"]),
            {
                "levels": [row[f"level_{level}"] for level in range(4)],
                "encoder_expected": row["encoder_expected"],
                "source": row["source"],
                "match": [row[name] for name in match],
                "input_ids": row["input_ids"],
                "query_tokens": row["query_tokens"],
                "sums": last["pair"].get(str(row["pair"])),
            },
        )


def _last(totals: pl.DataFrame) -> dict[str, list[float]]:
    final = totals.sort("key", "date").unique("key", keep="last", maintain_order=True)
    return dict(zip(final["key"], matrix(final["sums"]).tolist()))


def _pair_fields(pairs: pl.DataFrame, items: pl.DataFrame, context: SampleContext) -> list[list[int]]:
    """Behaviour fields of each pair: query, category, brand and price ids, and level + 1."""
    return (
        pair_table(pairs, items, context.spec)
        .select("query_bucket", "category_id", "brand_id", "price_bucket", "level")
        .to_numpy()
        .tolist()
    )
