"""A thousand logged rows get the same score offline and online.

Offline they are scored from samples. Online they are scored as requests, with the state of the morning and the day's
earlier lists sent as events.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from prectr.contracts.protocol import CandidateItem, Context, ScoreRequest
from prectr.features.build import FEATURE_GROUPS, sample_rows
from prectr.features.end_state import online_entries, user_states
from prectr.features.load import match_columns, match_names, pair_arrays, row_arrays
from prectr.features.pair_table import pair_table
from prectr.features.store import write_store
from prectr.ranking.bundle import Bundle
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.tokenisation import PairTokens
from prectr.serving.delta_stores import LmdbDeltas
from prectr.serving.user_delta import EventReader, add_list, merged
from tests.prectr.bundle_world import World, record_files
from tests.prectr.conftest import MODEL
from tests.prectr.serving.test_user_delta import logged_event

LOGS = 70
ROWS = 1_000


@pytest.fixture
def log(laboratory: SimpleNamespace, world: World) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Many tiny logs with distinct users as one log, over one catalogue tokenised by the bundle's tokenizer."""
    _, items, pairs = laboratory.draw_log(3)
    shown = pl.concat(
        laboratory.draw_log(seed)[0].with_columns(
            pl.format("{}-{}", pl.lit(seed), "user_id").alias("user_id"),
            pl.format("{}-{}", pl.lit(seed), "request_id").alias("request_id"),
        )
        for seed in range(LOGS)
    )
    titles = pairs.join(items.select("item_id", "title"), on="item_id", maintain_order="left")["title"].to_list()
    tokens = RelevanceEncoder(world.bundle / "relevance").tokeniser.encode(pairs["query"].to_list(), titles)
    pairs = pairs.with_columns(
        pl.Series("input_ids", np.split(tokens.values, tokens.offsets[1:-1])),
        pl.Series("query_tokens", tokens.query_tokens),
    )
    return shown, items, pairs


def test_a_thousand_rows_score_online_as_offline(
    log: tuple[pl.DataFrame, ...], laboratory: SimpleNamespace, world: World, tmp_path: Path
) -> None:
    shown, items, pairs = log
    last = laboratory.days[-1]
    whole = laboratory.mine(shown, items, pairs, half_life=1.5)
    known = laboratory.mine(shown, items, pairs, known=laboratory.days[:-1], half_life=1.5)
    samples = sample_rows(whole.rows, whole.context)
    earlier = samples.filter(pl.col("date") < last)
    groups = {
        group: {name.partition(".")[2]: earlier[name].to_numpy() for name in samples.columns if _is_of(name, group)}
        for group in FEATURE_GROUPS
    }
    table = pair_table(pairs, items, whole.context.spec)
    spec = whole.context.spec.fit_scalers(groups | {"match": match_columns(table)})

    bundle = tmp_path / "bundle"
    shutil.copytree(world.bundle, bundle)
    shutil.rmtree(bundle / "online")
    context = replace(known.context, spec=spec)
    rows = known.rows.filter(pl.col("date") < last)
    entries = online_entries([user_states(context.block(rows), context)], context.tables, context)
    write_store(bundle / "online", entries)
    spec.save(bundle / "feature_spec.json")
    (bundle / "preferences.json").write_text(json.dumps(MODEL.to_json()))
    record_files(bundle)

    today = samples.filter(pl.col("date") == last).sort("ts", "request_id", "position")
    assert today.height >= ROWS
    tokens = _tokens(pairs)
    offline = Scorer(bundle).score(row_arrays(today, spec, pair_arrays(table, spec)), pair_arrays(table, spec), tokens)
    online = pl.concat(_ask(bundle, today, tmp_path / "events"))
    online_logits = today.select("request_id", "item_id").join(
        online, on=["request_id", "item_id"], how="left", maintain_order="left"
    )["logit"]  # fmt: skip
    assert np.std(offline.click_logit) > 0.01, "constant scores would make the comparison meaningless"
    np.testing.assert_allclose(online_logits.to_numpy(), offline.click_logit, atol=1e-5)


def _is_of(name: str, group: str) -> bool:
    return name.startswith(f"{group}.")


def _tokens(pairs: pl.DataFrame) -> PairTokens:
    lengths = pairs["input_ids"].list.len().to_numpy()
    return PairTokens(
        pairs["input_ids"].explode().to_numpy().astype(np.int32),
        np.r_[0, np.cumsum(lengths)].astype(np.int64),
        pairs["query_tokens"].to_numpy(),
        pairs.select(match_names(pairs)).to_numpy(),
    )


def _ask(bundle: Path, today: pl.DataFrame, events: Path) -> Iterator[pl.DataFrame]:
    """Score the day's requests in order, and send each request's list as an event after it."""
    deltas, opened = LmdbDeltas(events), Bundle.open(bundle)
    plain = Ranking(opened)
    store, morning = plain.features._store, today["date"][0]
    as_of = (morning - pl.Series([0]).cast(pl.Date)[0]).days * 86_400.0
    ranking = Ranking(
        plain.scorer,
        store=store,
        users=lambda user: merged(store.get("user", user), deltas.read(user), opened.state_identity, as_of),
    )
    reader = EventReader(opened, ranking.features)
    for _, moment in today.group_by("user_id", "ts", maintain_order=True):
        requests = [rows.sort("position") for rows in moment.partition_by("request_id", maintain_order=True)]
        for request in requests:
            row = request.row(0, named=True)
            score_request = ScoreRequest(
                user_id=row["user_id"],
                query=row["query"],
                candidates=[_candidate(*pair) for pair in request.select("item_id", "price").iter_rows()],
                context=Context(ts=row["ts"].timestamp()),
            )
            yield request.select("request_id", "item_id").with_columns(
                pl.Series("logit", ranking.click_logits(score_request).astype(np.float64))
            )
        for request in requests:
            event = logged_event(request)
            seen = reader.read(event, 0.0)
            add = partial(add_list, seen=seen, table=reader.table, identity=opened.state_identity, now=0.0)
            deltas.change(event.user_id, event.request_id, add)
    plain.close()
    deltas.close()


def _candidate(item_id: str, price: float | None) -> str | CandidateItem:
    return item_id if price is None else CandidateItem(item_id=item_id, price=price)
