"""Online features of a request equal the features in the samples of the same request, array by array.

The store holds the log up to the day before the last; the requests are their users' first of the last day, because a
store that is written once a day cannot know the same day's earlier requests.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from prectr.contracts.model_config import ModelConfig
from prectr.features.build import FEATURE_GROUPS, sample_rows
from prectr.features.config import SamplesConfig
from prectr.features.end_state import online_entries, user_states
from prectr.features.inputs import INPUT_NAMES, PairArrays, ranker_inputs
from prectr.features.load import match_columns, pair_arrays, row_arrays
from prectr.features.pair_table import pair_table
from prectr.features.store import OnlineStore, pair_name, store_key, write_store
from prectr.ranking.bundle import Bundle
from prectr.ranking.features import OnlineFeatures, RequestFeatures
from prectr.relevance.match_features import MATCH_FEATURES, MatchTable
from prectr.relevance.tokenisation import PairTokens


class StubEncoder:
    """Replaces the distilled encoder: one token for each text, and fixed levels for pairs that the log never showed."""

    def __init__(self) -> None:
        self.scored: list[tuple[str, str]] = []
        self._texts: list[str] = []
        self.tokeniser = SimpleNamespace(ids=self._ids, join=self._join)
        self.matches = MatchTable.fit(pl.DataFrame({"title": ["phone cover"], "category": None, "brand": None}))

    def _ids(self, texts: list[str]) -> list[np.ndarray]:
        self._texts += texts
        return [np.array([len(self._texts) - len(texts) + place], np.int32) for place in range(len(texts))]

    def _join(self, query: np.ndarray, titles: list[np.ndarray]) -> PairTokens:
        count = len(titles)
        values = np.concatenate([part for title in titles for part in (query, title)])
        return PairTokens(values, np.arange(count + 1) * 2, np.full(count, 1, np.int16))

    def score_tokens(self, tokens: PairTokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        texts = [self._texts[place] for place in tokens.values]
        self.scored += [(texts[2 * row], texts[2 * row + 1]) for row in rows]
        return np.log(np.tile([0.1, 0.2, 0.3, 0.4], (len(rows), 1))), np.zeros((len(rows), 2))


class Both:
    """Offline samples of the last day, and an online store of the days before it."""

    def __init__(
        self,
        laboratory: SimpleNamespace,
        seed: int,
        folder: Path,
        half_life: float | None = 1.5,
        unshown: tuple[str, ...] | None = None,
        query_buckets: int = 64,
    ) -> None:
        """Mine and sample a log; with `unshown`, the last day shows none of these items but has candidates."""
        shown, items, pairs = laboratory.draw_log(seed)
        last = laboratory.days[-1]
        if unshown is not None:
            shown = shown.filter((pl.col("date") < last) | ~pl.col("item_id").is_in(list(unshown)))
        whole = laboratory.mine(shown, items, pairs, half_life=half_life)
        known = laboratory.mine(shown, items, pairs, known=laboratory.days[:-1], half_life=half_life)
        rows = [whole.rows] if unshown is None else [whole.rows, laboratory.read_unexposed(whole, last)]
        samples = sample_rows(pl.concat(rows), whole.context)
        earlier = samples.filter(pl.col("date") < last)
        groups = {
            group: {
                name.removeprefix(f"{group}."): earlier[name].to_numpy()
                for name in samples.columns
                if name.startswith(f"{group}.")
            }
            for group in FEATURE_GROUPS
        }
        spec = whole.context.spec.model_copy(update={"query_buckets": query_buckets})
        table = pair_table(pairs, items, spec)
        self.spec = spec.fit_scalers(groups | {"match": match_columns(table)})
        self.samples = samples.filter(pl.col("date") == last)
        self.pairs: PairArrays = pair_arrays(table, self.spec)
        self.encoder = StubEncoder()
        context = replace(known.context, spec=self.spec)
        rows = known.rows.filter(pl.col("date") < last)
        users = [user_states(context.block(rows.filter(part)), context) for part in _halves(rows)]
        entries = online_entries(users, context.tables, context)
        self.counts = write_store(folder / "bundle" / "online", entries)
        self.features = OnlineFeatures(self._bundle(folder / "bundle", known), self.encoder)  # type: ignore[arg-type]

    def _bundle(self, path: Path, log: Any) -> Bundle:
        return Bundle(
            path=path,
            name="prectr-v2",
            version="test",
            model=ModelConfig(),
            sizes=self.spec.sizes(8),
            spec=self.spec,
            preferences=log.context.preferences.model,
            position_form="additive",
            position_logits=(0.0,),
        )

    def first_requests(self) -> list[pl.DataFrame]:
        """The sample rows of each request that is its user's first moment of the day."""
        first = self.samples.filter(pl.col("ts") == pl.col("ts").min().over("user_id"))
        return [rows.sort("position") for rows in first.partition_by("request_id")]

    def online(self, request: pl.DataFrame) -> RequestFeatures:
        """Compute the features of the request's rows as serving does; candidates carry the price at exposure."""
        row = request.row(0, named=True)
        candidates = [
            item if price is None else {"item_id": item, "price": price}
            for item, price in request.select("item_id", "price").iter_rows()
        ]
        return self.features.request(row["user_id"], f" {row['query'].upper()} ", candidates, row["ts"].timestamp())


def _halves(rows: pl.DataFrame) -> list[pl.Expr]:
    first = pl.col("user_id").is_in(["u0", "u2"])
    return [part for part in (first, ~first) if rows.filter(part).height]


@pytest.mark.parametrize("query_buckets", [64, 0])
def test_queries_are_ids_of_target_and_behaviours_by_a_switch(
    laboratory: SimpleNamespace, tmp_path: Path, query_buckets: int
) -> None:
    both = Both(laboratory, 0, tmp_path, query_buckets=query_buckets)
    assert SamplesConfig().query_buckets == 0
    queries = set()
    for request in both.first_requests():
        features = both.online(request)
        online = ranker_inputs(features.rows, features.pairs)
        offline = ranker_inputs(row_arrays(request, both.spec, both.pairs), both.pairs)
        for name in ("target", "user_behaviours", "query_behaviours"):
            np.testing.assert_array_equal(online[name], offline[name])
            queries |= set(online[name][..., 0].flat)
    assert queries <= set(range(both.spec.sizes(8).behaviour["query"]))
    assert len(queries) > 2 if query_buckets else queries == {0}


@pytest.mark.parametrize(("seed", "half_life"), [(0, None), *((seed, 1.5) for seed in range(6))])
def test_arrays_of_a_request_are_equal(
    laboratory: SimpleNamespace, tmp_path: Path, seed: int, half_life: float | None
) -> None:
    both = Both(laboratory, seed, tmp_path, half_life=half_life)
    requests = both.first_requests()
    assert requests
    for request in requests:
        features = both.online(request)
        expected = ranker_inputs(row_arrays(request, both.spec, both.pairs), both.pairs)
        arrays = ranker_inputs(features.rows, features.pairs)
        for name in INPUT_NAMES:
            np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
        own = features.pairs.levels[features.rows.pair]
        np.testing.assert_allclose(own, both.pairs.levels[request["pair"].to_numpy()], atol=1e-6)
        assert features.earlier_requests == request["user_requests"][0]
    assert both.encoder.scored == [], "the state holds every logged pair"


@pytest.mark.parametrize("half_life", [None, 1.5])
def test_arrays_of_unexposed_candidates_are_equal(
    laboratory: SimpleNamespace, tmp_path: Path, half_life: float | None
) -> None:
    """Also of items, pairs and categories that the day shows in no request."""
    known = 0
    for seed in range(6):
        both = Both(laboratory, seed, tmp_path / str(seed), half_life=half_life, unshown=("i3", "i4"))
        for request in both.first_requests():
            features = both.online(request)
            expected = ranker_inputs(row_arrays(request, both.spec, both.pairs), both.pairs)
            arrays = ranker_inputs(features.rows, features.pairs)
            for name in INPUT_NAMES:
                np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
            hidden = request.filter(~pl.col("exposed") & pl.col("item_id").is_in(["i3", "i4"]))
            known += int((hidden["numeric.pair_examined"] > hidden["numeric.pair_examined"].min()).sum())
    assert known, "candidates with a history, so that equality is not that of zeros"


def test_the_requests_exercise_what_they_should(laboratory: SimpleNamespace, tmp_path: Path) -> None:
    """Check that the requests have known users and queries with behaviours, so that equality is not that of zeros."""
    seen = [Both(laboratory, seed, tmp_path / str(seed)) for seed in range(6)]
    rows = pl.concat([request for both in seen for request in both.first_requests()], how="diagonal_relaxed")
    assert rows["su_pair"].list.len().max() == 2 and rows["sq_pair"].list.len().max() == 2
    assert (rows["user_requests"] > 0).any()
    assert rows["numeric.pair_examined"].max() > 0 and rows["numeric.user_brand_examined"].max() > 0
    assert "phone" in rows["query"].to_list(), "a query without a category of its own"


@pytest.fixture
def both(laboratory: SimpleNamespace, tmp_path: Path) -> Both:
    return Both(laboratory, 1, tmp_path)


def test_unknown_user_is_served_from_the_priors(both: Both) -> None:
    features = both.features.request("stranger", "phone", ["i0", "i1"], 1.8e9)
    assert (features.user_known, features.query_known, features.earlier_requests) == (False, True, 0)
    model = both.features._bundle.preferences
    assert features.user_tolerance[0] == pytest.approx(model.user_centre)
    assert features.rows.histories.user.lengths.tolist() == [0]


def test_user_with_a_profile_but_no_history_is_not_known(both: Both) -> None:
    features = both.features.request("u9", "phone", ["i0"], 1.8e9)
    assert not features.user_known
    device = both.spec.categorical_fields.index("device")
    assert features.rows.categorical[0, device] == both.spec.profile["device"]["desk"]


def test_unknown_query_backs_off(both: Both) -> None:
    features = both.features.request("u0", "garden gnome", ["i0"], 1.8e9)
    model = both.features._bundle.preferences
    assert not features.query_known and features.sources == ["encoder"]
    assert features.query_tolerance[0] == pytest.approx(model.query_centre)
    assert both.encoder.scored == [("garden gnome", "item 0 nokia 3310")]


def test_item_outside_the_catalogue_needs_a_title(both: Both) -> None:
    with pytest.raises(ValueError, match="item 'new' is not in the catalogue; send it as an object"):
        both.features.request("u0", "phone", ["i0", "new"], 1.8e9)
    item = {"item_id": "new", "title": "phone cover", "category": "never seen", "price": 3.0}
    features = both.features.request("u0", "phone", ["i0", item], 1.8e9)
    assert [item.title for item in features.items] == ["item 0 nokia 3310", "phone cover"]
    assert both.encoder.scored == [("phone", "phone cover")]
    assert np.isfinite(features.rows.numeric).all() and np.isfinite(features.pairs.match).all()
    assert features.pairs.levels[1] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    found = both.encoder.matches.features(["phone"], ["phone cover"])
    assert found[0, MATCH_FEATURES.index("match_phrase")] == 1
    expected = both.spec.scalers["match"].scale(np.concatenate([np.zeros((1, 4)), found], axis=1))[0, 4:]
    np.testing.assert_allclose(features.pairs.match[1, 4:], expected, atol=1e-6)
    assert features.tokens.match is not None, "the encoder reads the same numbers, before they are standardised"
    np.testing.assert_array_equal(features.tokens.match[1], found[0])


def test_one_candidate_does_not_change_another(both: Both) -> None:
    alone = both.features.request("u0", "nokia 3310", ["i2"], 1.8e9)
    among = both.features.request("u0", "nokia 3310", ["i0", "i1", "i2", "i3"], 1.8e9)
    np.testing.assert_array_equal(alone.rows.categorical[0], among.rows.categorical[2])
    for name in ("numeric", "tolerance", "query_preference"):  # float32 of sums whose order depends on the row count
        np.testing.assert_allclose(getattr(alone.rows, name)[0], getattr(among.rows, name)[2], rtol=1e-6, atol=1e-6)


def test_what_an_event_reads_equals_what_a_request_reads(both: Both) -> None:
    """Relevance and ids, of pairs that the log showed and of those that the encoder scores, at first and remembered."""
    items = ["i0", "i1", "i2", {"item_id": "new", "title": "a new phone", "price": 5.0}]
    for query in ("phone", "never typed"):
        pool = both.features.pool(query, items)
        for _ in range(2):
            read = both.features.levels(query, items)
            np.testing.assert_allclose(read.levels, pool.pairs.levels, rtol=1e-6)
            assert read.fields == pool.fields and read.known_query == pool.known_query
            assert [item.item_id for item in read.items] == [item.item_id for item in pool.items]


def test_unknown_query_is_not_changed_by_its_candidates(both: Both) -> None:
    """With a back-off by the candidates' categories, an item's score would depend on the other candidates."""
    alone = both.features.request("u0", "garden gnome", ["i0"], 1.8e9)
    among = both.features.request("u0", "garden gnome", ["i0", "i2", "i4"], 1.8e9)
    np.testing.assert_allclose(alone.rows.tolerance[0], among.rows.tolerance[0], rtol=1e-6, atol=1e-6)


def test_store_reads_back_and_counts(both: Both, tmp_path: Path) -> None:
    assert both.counts["item"] == 5 and both.counts["pair"] == 15 and both.counts["total"] == 1
    assert both.counts["user"] == 5  # four of the log, one with a profile only
    entries = [("pair", pair_name("q" * 900, "i1"), {"a": 0.1}), ("pair", pair_name("q" * 900, "i2"), {"a": 1 / 3})]
    assert write_store(tmp_path / "store", entries) == {"pair": 2}
    store = OnlineStore(tmp_path / "store")
    assert store.get("pair", pair_name("q" * 900, "i2")) == {"a": 1 / 3}
    assert store.get_many("pair", ["absent", pair_name("q" * 900, "i1")]) == [None, {"a": 0.1}]
    assert len(store_key("pair", "ä" * 900)) <= 511
    store.close()
