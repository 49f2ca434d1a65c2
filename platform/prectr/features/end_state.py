"""The state at the end of the log, for serving: the same sums that samples are made from, after all rows.

What a request at a later moment reads here is what `build-samples` would find for it, so online features equal offline
ones. Sums are those of the morning after the log's last day. Serving does not let them fade any further: how old the
state may become is a question of how often it is written.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from prectr.data.tables import Tables
from prectr.features.build import SampleContext
from prectr.features.history import Cells, UserBlock
from prectr.features.pair_table import pair_table
from prectr.features.store import pair_name
from prectr.preferences.behaviours import LISTED
from prectr.preferences.mined import KEYS
from prectr.preferences.sums import COUNT_NAMES, NAMES, USER_NAMES, fades, matrix
from prectr.relevance.pairs import read_pairs

Entry = tuple[str, str, dict[str, Any]]


def user_states(block: UserBlock, context: SampleContext) -> pl.DataFrame:
    """One row a user of a block: sums, price taste, sums by brand, category, query and pair, and recent clicks."""
    as_of = _number(_as_of(context))
    clicks = block.last_clicks(context.spec.user_behaviours)
    _, sums = block.moments.after(block.moment_sums(), block.half_life, as_of, fades(USER_NAMES))
    _, price = block.moments.after(block.moment_prices(), block.half_life, as_of)
    made = pl.DataFrame(
        {
            "user_id": block.users,
            "sums": _rows(sums),
            "price": _rows(price),
            "click_pairs": clicks.to_series(block.rows["pair"]),
            "click_ts": clicks.to_series(block.rows["ts"].dt.epoch("us")),
        }
    )
    for name, column in (("brands", "brand"), ("categories", "category"), ("queries", "query"), ("pairs", "pair")):
        cells, values = block.cells(column, by_day=True)
        added = block.query_sums(cells) if column == "query" else cells.sums(block.counts())
        made = made.with_columns(_by_user(block, cells, values, added, as_of, name))
    return made


def _by_user(
    block: UserBlock, cells: Cells, values: pl.Series, added: np.ndarray, as_of: int, name: str
) -> list[pl.Series]:
    """Each user's values of a column and their sums, as two list columns."""
    group, sums = cells.after(added, block.half_life, as_of)
    user = group // max(len(values), 1)
    listed = pl.DataFrame(
        {"user": user, name: values.gather(group % max(len(values), 1)), f"{name}_sums": _rows(sums)}
    ).group_by("user", maintain_order=True)
    return listed.agg(name, f"{name}_sums").drop("user").get_columns()


def _rows(array: np.ndarray) -> pl.Series:
    return pl.Series(np.ascontiguousarray(array)).arr.to_list()


def online_entries(users: Iterable[pl.DataFrame], source: Tables, context: SampleContext) -> Iterator[Entry]:
    """All entries of the online store.

    Args:
        users: what `user_states` gave for each block.
        source: the tables.
        context: what the samples were made with.
    """
    spec = context.spec
    items = source.items()
    pairs = read_pairs(context.relevance)
    fields = _pair_fields(pairs, items, context)
    pairs = pairs.with_columns(
        pl.Series("name", [pair_name(*key) for key in pairs.select("query", "item_id").iter_rows()])
    )
    names = pairs["name"].to_list()
    profiles = source.users()
    profile_of = dict(
        zip(profiles["user_id"], profiles.select(pl.exclude("user_id")).iter_rows(named=True), strict=True)
    )

    def profile(user_id: str) -> dict[str, Any]:
        return {"profile": {key: profile_of.get(user_id, {}).get(key) for key in spec.profile}}

    seen: set[str] = set()
    for block in users:
        for state in block.iter_rows(named=True):
            seen.add(state["user_id"])
            yield (
                "user",
                state["user_id"],
                profile(state["user_id"])
                | {
                    "sums": state["sums"],
                    "price": state["price"],
                    "clicks": [[*fields[pair], ts / 1e6] for pair, ts in zip(state["click_pairs"], state["click_ts"])],
                    "brands": dict(zip(state["brands"], state["brands_sums"])),
                    "categories": dict(zip(state["categories"], state["categories_sums"])),
                    "queries": dict(zip(state["queries"], state["queries_sums"])),
                    "pairs": {names[int(pair)]: sums for pair, sums in zip(state["pairs"], state["pairs_sums"])},
                },
            )
    for user_id in profile_of.keys() - seen:
        yield "user", user_id, profile(user_id)
    yield from _query_entries(context, pairs, fields)
    for row, sums in _snapshot(context, "category"):
        yield "category", row["category"], {"sums": sums}
    ((_, total),) = _snapshot(context, "total")
    yield "total", "", {"sums": total}
    yield "meta", "", {"as_of": str(_as_of(context))}
    of_item = {row["item_id"]: sums for row, sums in _snapshot(context, "item")}
    for item in items.iter_rows(named=True):
        described = {key: item[key] for key in ("title", "category", "brand", "price")}
        yield "item", item["item_id"], described | {"sums": of_item.get(item["item_id"])}
    of_pair = {pair_name(row["query"], row["item_id"]): sums for row, sums in _snapshot(context, "pair")}
    match = sorted(name for name in pairs.columns if name.startswith("match_"))
    for row in pairs.iter_rows(named=True):
        yield (
            "pair",
            row["name"],
            {
                "levels": [row[f"level_{level}"] for level in range(4)],
                "encoder_expected": row["encoder_expected"],
                "source": row["source"],
                "match": [row[name] for name in match],
                "sums": of_pair.get(row["name"]),
            },
        )


def _query_entries(context: SampleContext, pairs: pl.DataFrame, fields: list[list[int]]) -> Iterator[Entry]:
    listed = context.preferences.snapshot("behaviour").join(
        pairs.select("query", "item_id", "pair"), on=["query", "item_id"], how="left", maintain_order="left"
    )
    behaviours = {
        row["query"]: [
            [user, *fields[pair], int(clicked), ts.timestamp(), group]
            for user, pair, clicked, ts, group in zip(
                row["user_id"], row["pair"], row["clicked"], row["ts"], row["user_group"]
            )
        ]
        for row in listed.group_by("query", maintain_order=True).agg(*LISTED, "pair").iter_rows(named=True)
    }
    category_of = dict(context.preferences.query_category.iter_rows())
    shift_of = dict(context.preferences.snapshot("centre").select("query", "shift").iter_rows())
    for row, sums in _snapshot(context, "query"):
        query = row["query"]
        content = {"sums": sums, "users": row["users"], "category": category_of.get(query)}
        content["shift"] = shift_of.get(query, 0)
        yield "query", query, content | {"behaviours": behaviours[query]}


def _snapshot(context: SampleContext, kind: str) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """The keys of a snapshot's rows (of queries also their users), and what serving reads of their sums."""
    rows = context.preferences.snapshot(kind)
    names = {"item": COUNT_NAMES[1:], "pair": COUNT_NAMES[1:]}.get(kind, NAMES[kind])
    shown = [*KEYS[kind], *(["users"] if kind == "query" else [])]
    keys = rows.select(shown).iter_rows(named=True) if shown else iter([{}] * rows.height)
    yield from zip(keys, matrix(rows, names).tolist(), strict=True)


def _as_of(context: SampleContext) -> date:
    return context.preferences.days[-1] + timedelta(days=1)


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _pair_fields(pairs: pl.DataFrame, items: pl.DataFrame, context: SampleContext) -> list[list[int]]:
    """Behaviour fields of each pair: query, category, brand and price ids, and level + 1."""
    return (
        pair_table(pairs, items, context.spec)
        .select("query_bucket", "category_id", "brand_id", "price_bucket", "level")
        .to_numpy()
        .tolist()
    )
