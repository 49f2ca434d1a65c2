"""Partial aggregates of parts: equal to plain group-bys, and the same for any cut of a day into parts."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.core.coding import code_column, find_codes
from prectr.preferences import counting, partials
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.partials import Centres
from prectr.preferences.shown import ShownReader, log_price, log_prices
from prectr.preferences.sums import COUNT_NAMES, LEVEL_NAMES, NAMES, USER_NAMES, LevelSums, matrix, scale
from prectr.preferences.tolerance import (
    GRID_SIZE,
    LATTICE,
    MAX_POSITION,
    UNIT,
    ClickParameters,
    LogLikelihoodTable,
    log_likelihood,
    on_lattice,
)

CLICK = ClickParameters(a=0.4, s=0.1, eps=0.01)
TABLE = LogLikelihoodTable(CLICK, 0.7)
DAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def reader() -> ShownReader:
    rng = np.random.default_rng(0)
    levels = rng.dirichlet(np.ones(4), 24).astype(np.float32)
    pairs = pl.DataFrame(
        {
            "pair": np.arange(24, dtype=np.int32),
            "query": [f"q{number // 6}" for number in range(24)],
            "item_id": [f"i{number % 6}" for number in range(24)],
            "expected": levels @ np.arange(4, dtype=np.float32) / 3,
            "source": "encoder",
            **{f"level_{level}": levels[:, level] for level in range(4)},
        }
    )
    items = pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(6)],
            "title": [f"item {number}" for number in range(6)],
            "category": ["a", "b", "a", "c", "", "b"],
            "brand": [None, "x", "y", None, "x", "x"],
            "price": [1.0, 20.0, None, 300.0, 4.0, 55.0],
        }
    )
    return ShownReader.of(items, PairIndex.of(pairs))


def _shown(requests: int, seed: int) -> pl.DataFrame:
    """Requests of a few users with queries typed in two ways, up to six items each."""
    rng = np.random.default_rng(seed)
    rows = []
    for request in range(requests):
        user, query = f"u{rng.integers(0, 5)}", f"{rng.choice(['q', ' Q'])}{rng.integers(0, 4)}"
        ts = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 999)))
        for position, item in enumerate(rng.permutation(6)[: rng.integers(1, 7)], start=1):
            price = float(rng.integers(1, 99)) if rng.random() < 0.3 else None
            row = (f"r{request}", user, ts, query, f"i{item}", position, bool(rng.random() < 0.3), price)
            rows.append(row)
    names = ("request_id", "user_id", "ts", "query", "item_id", "position", "clicked", "price")
    kinds = {"ts": pl.Datetime("us", "UTC"), "position": pl.Int32, "price": pl.Float64}
    return pl.DataFrame(rows, names, schema_overrides=kinds, orient="row")


def _partials(reader: ShownReader, rows: pl.DataFrame) -> partials.Frames:
    coded = reader.code(rows, "test")
    plain = partials.plain_partials(coded, reader, TABLE)
    return plain | partials.partials(coded, reader, TABLE, Centres.none(coded), 3)


def _joined(reader: ShownReader, rows: pl.DataFrame) -> pl.DataFrame:
    """Join the rows with everything that partials sum, without coded keys."""
    index, catalogue = reader.index, reader.catalogue
    coded = reader.code(rows, "test")
    price = reader.price(coded)
    exam = TABLE.examined[np.minimum(rows["position"].to_numpy(), MAX_POSITION)] / UNIT
    return rows.with_columns(
        query=coded.query.decoded(),
        category=catalogue.categories.gather(catalogue.category[coded.item_place]),
        level=pl.Series(index.level[coded.place]),
        exam=pl.Series(exam),
        debiased=pl.Series(np.rint(UNIT * coded.clicked / exam) / UNIT),
        log_price=price.log(),
        relevance=pl.Series(index.expected[coded.place] / LATTICE),
    )


def test_sums_equal_a_group_by(reader: ShownReader) -> None:
    rows = _shown(60, 1)
    frames, joined = _partials(reader, rows), _joined(reader, rows)
    for kind, key in (("query", "query"), ("category", "category")):
        assert frames[kind][key].to_list() == sorted(joined[key].unique())
        for place, (name, *_) in enumerate(frames[kind].iter_rows()):
            key_rows = joined.filter(pl.col(key) == name)
            sums = matrix(frames[kind], LEVEL_NAMES)[place : place + 1] * scale(LEVEL_NAMES)
            named = LevelSums.split(sums)
            for level in range(4):
                of_level = key_rows.filter(pl.col("level") == level)
                assert named.impressions[0, level] == of_level.height
                assert named.clicks[0, level] == of_level["clicked"].sum()
                assert named.examined[0, level] == pytest.approx(of_level["exam"].sum())
                assert named.debiased_clicks[0, level] == pytest.approx(of_level["debiased"].sum())
            grid = log_likelihood(*(key_rows[name].to_numpy() for name in ("clicked", "relevance", "exam")), CLICK)
            np.testing.assert_allclose(named.grid[0], grid.sum(axis=0), atol=key_rows.height / UNIT * 4)
            clicked = key_rows.filter("clicked").drop_nulls("log_price")
            assert named.priced_clicks[0] == clicked.height
            assert named.log_price[0] == pytest.approx(clicked["log_price"].sum(), abs=1e-4)


def test_user_item_and_pair_sums_equal_a_group_by(reader: ShownReader) -> None:
    rows = _shown(60, 2)
    frames, joined = _partials(reader, rows), _joined(reader, rows)
    for kind, keys in (("user", ["user_id"]), ("item", ["item_id"]), ("pair", ["query", "item_id"])):
        expected = joined.group_by(keys).agg(
            pl.len(), pl.col("request_id").n_unique(), pl.col("exam").sum(), pl.col("clicked").sum()
        ).sort(keys)  # fmt: skip
        first = "request_id" if kind == "user" else "len"
        assert frames[kind].select(keys).equals(expected.select(keys))
        sums = matrix(frames[kind], NAMES[kind]) * scale(NAMES[kind])
        np.testing.assert_allclose(sums[:, -3:], expected.select(first, "exam", "clicked").to_numpy(), atol=1e-5)
    assert frames["user"].equals(frames["plain_user"]), "without centres the second pass corrects nothing"


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_any_cut_between_requests_gives_the_same_sums_to_the_last_bit(
    reader: ShownReader, seed: int, cut: list[int]
) -> None:
    rows = _shown(40, seed)
    number = rows["request_id"].str.slice(1).cast(pl.Int32).to_numpy()
    whole = _partials(reader, rows)
    parts = [_partials(reader, part) for k in range(3) if (part := rows.filter(np.array(cut)[number] == k)).height]
    for kind, names in {**NAMES, "plain_user": USER_NAMES, "plain_query": LEVEL_NAMES[:GRID_SIZE]}.items():
        if kind == "total":
            continue
        keys = [name for name in whole[kind].columns if name not in names]
        together = pl.concat([part[kind] for part in parts]).group_by(keys).agg(pl.col(names).sum()).sort(keys)
        assert together.select(whole[kind].columns).equals(whole[kind]), kind


def test_the_order_of_rows_changes_nothing(reader: ShownReader) -> None:
    rows = _shown(30, 3)
    mixed = rows.sample(fraction=1, shuffle=True, seed=1)
    for kind, frame in _partials(reader, rows).items():
        assert frame.equals(_partials(reader, mixed)[kind]), kind


def test_shifts_move_the_relevance_that_the_other_side_sees(reader: ShownReader) -> None:
    rows = reader.code(_shown(20, 4), "test")
    centres = Centres.none(rows)
    centres.user[:] = on_lattice(np.array(0.1))
    frames = partials.partials(rows, reader, TABLE, centres, 3)
    moved = TABLE.cells(rows.clicked, rows.position, reader.index.expected[rows.place] - 20)
    expected = TABLE.sums(rows.query.codes, len(rows.query), moved)
    order = rows.query.keys.arg_sort().to_numpy()
    np.testing.assert_array_equal(matrix(frames["query"], LEVEL_NAMES[:GRID_SIZE]), expected[order])
    plain = partials.plain_partials(rows, reader, TABLE)["plain_user"]
    assert frames["user"].equals(plain), "users are corrected for queries, whose centres are 0"


def test_the_table_holds_the_rounded_log_likelihoods() -> None:
    rng = np.random.default_rng(5)
    clicked, position = rng.random(200) < 0.5, rng.integers(1, MAX_POSITION + 1, 200)
    relevance = rng.integers(-220, 421, 200)
    frames = TABLE.values[TABLE.cells(clicked, position, relevance)]
    expected = log_likelihood(clicked, relevance / LATTICE, position**-0.7, CLICK)
    np.testing.assert_array_equal(frames, np.rint(expected * UNIT).astype(np.int64))


def test_price_quantiles_are_within_a_bin() -> None:
    rng = np.random.default_rng(6)
    price = np.exp(rng.normal(3, 1, 5000))
    bins = np.floor(np.log(price) / counting.BIN).astype(np.int32)
    histogram = pl.DataFrame({"key": "q", "bin": bins}).group_by("key", "bin").len("clicks")
    frames = counting.quantiles(histogram).row(0)[1:]
    np.testing.assert_allclose(frames, np.quantile(price, counting.QUANTILES), rtol=0.06)


@given(st.lists(st.none() | st.floats(0, 1e9), max_size=20))
def test_one_log_price_equals_that_of_a_column(prices: list[float | None]) -> None:
    np.testing.assert_array_equal(
        [log_price(price) for price in prices], log_prices(pl.Series(prices, dtype=pl.Float64))
    )


@given(st.lists(st.text(max_size=3), max_size=30), st.lists(st.text(max_size=3), max_size=10, unique=True))
def test_codes_decode_and_are_found(values: list[str], keys: list[str]) -> None:
    column = pl.Series("text", values, pl.String)
    coded = code_column(column)
    assert coded.decoded().to_list() == values and coded.keys.n_unique() == len(coded)
    places = find_codes(column, pl.Series("key", keys, pl.String))
    assert places.tolist() == [keys.index(value) if value in keys else -1 for value in values]


def test_a_pair_that_was_not_scored_is_an_error(reader: ShownReader) -> None:
    rows = _shown(2, 7).with_columns(item_id=pl.lit("i9"))
    with pytest.raises(
        Exception, match=r"log\.parquet: \d+ of \d+ rows are pairs that the relevance artifact does not"
    ):
        reader.code(rows, "log.parquet")


def test_count_names_have_the_order_that_samples_read() -> None:
    assert COUNT_NAMES == ("impressions", "examined", "clicks")
