"""The marketplace on a real catalogue: hand-computed relevance, brute-force retrieval, and the tables that come out."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from jobs import simulate as job
from prectr.core.errors import PrectrError, UsageError
from prectr.core.text import normalise_query
from prectr.data.config import ValidateConfig
from prectr.data.marketplace import MarketplaceConfig, constants, simulate, text_match
from prectr.data.marketplace.real_relevance import GradeCurve, Judged, fit_curve, latent_relevance, nearest_columns
from prectr.data.marketplace.text_match import TextMatch
from prectr.data.validate import validate_tables
from tests.manifests import write_manifest

CONFIG = MarketplaceConfig(users=40, requests=400, days=3, seed=5)
THINGS = ("kettle", "lamp", "shelf", "rug", "ılık çay")
COLOURS = ("red", "blue", "green")


def _items(count: int = 90) -> pl.DataFrame:
    """Titles "red kettle n"; every third item lacks brand, category and price."""
    number = range(count)
    return pl.DataFrame(
        {
            "item_id": [f"p{row}" for row in number],
            "title": [f"{COLOURS[row // 5 % 3]} {THINGS[row % 5]} n{row}" for row in number],
            "category": [None if row % 3 == 0 else f"home > {THINGS[row % 5]}" for row in number],
            "brand": [None if row % 3 == 0 else f"maker {row % 4}" for row in number],
            "price": [None if row % 3 == 0 else 5.0 + row for row in number],
            "weight": [float(row) for row in number],
        },
        schema_overrides={"price": pl.Float64},
    )


def _judgments() -> pl.DataFrame:
    """Five broad queries, oddly typed; their things are relevant, red ones most, and one other thing is not."""
    rows = [
        (f" {thing.upper()} " if thing != "ılık çay" else thing, f"p{row}", (3, 2, 1)[row // 5 % 3], "expert")
        for kind, thing in enumerate(THINGS)
        for row in (kind, kind + 5, kind + 10)
    ]
    rows += [("lamp", "p0", 0, "expert")]
    return pl.DataFrame(rows, schema=["query", "item_id", "grade", "source"], orient="row").cast({"grade": pl.Int8})


def _write_catalogue(root: Path, items: pl.DataFrame | None, judgments: pl.DataFrame | None) -> Path:
    root.mkdir(parents=True)
    if items is not None:
        items.write_parquet(root / "items.parquet")
    if judgments is not None:
        judgments.write_parquet(root / "judgments.parquet")
    write_manifest(root, "import", identity=root.name, started="today")
    return root


def _read(root: Path, table: str) -> pl.DataFrame:
    return pl.read_parquet(sorted(root.glob(f"{table}/*/*.parquet")))


def _digests(root: Path) -> dict[str, str]:
    files = sorted(file for file in root.rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("catalogue")
    catalogue = _write_catalogue(root / "source", _items(), _judgments())
    result = job.run(out=root / "tables", config=CONFIG, catalogue=catalogue)
    return SimpleNamespace(catalogue=catalogue, tables=result.path, manifest=result.manifest)


# Relevance


def test_relevance_by_hand() -> None:
    curve = SimpleNamespace(
        levels=np.array([0, 2, 3]), at_least=lambda cosine: np.tile([[0.8], [0.8], [0.3]], (1, len(cosine)))
    )
    grade, r = latent_relevance(np.zeros(3), np.array([0.5, 0.5, 0.0]), np.array([-1, 1, 3]), curve)
    # The middles of the bands are 0.1, 0.35, 0.6 and 0.775 + 0.075; 1.9 levels are expected, and 2 is next to it.
    assert grade.tolist() == [2, 1, 3]
    np.testing.assert_allclose(r, [0.1 + 0.8 * 0.25 + 0.8 * 0.25 + 0.3 * 0.25, 0.35, 0.7], rtol=1e-6)


def test_a_curve_is_the_isotonic_share_of_each_level() -> None:
    cosine = np.array([0.0, 0.0, 0.5, 0.5, 0.9])
    curve = GradeCurve(cosine, np.array([0, 1, 3, 0, 3]))
    assert curve.levels.tolist() == [0, 1, 3]
    np.testing.assert_allclose(curve.at_least(np.array([0.0, 0.5, 0.9, 1.0])), [
        [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 1.0, 1.0],
    ])  # fmt: skip


def test_unjudged_pairs_without_a_common_word_are_not_as_relevant_as_judged_ones() -> None:
    """All judged pairs are of grade 3, half of them share no word: only the cross-query pairs can tell the curve."""
    items = 400
    titles = [f"w{row}" for row in range(items)]
    queries = [f"w{row}" if row % 2 else f"other{row}" for row in range(20)]
    judged = Judged(np.arange(20), np.arange(20), np.full(20, 3, np.int8), items)
    curve = fit_curve(np.random.default_rng(0), TextMatch(queries, titles), judged)
    none, full = curve.at_least(np.array([0.0, 1.0]))[2]
    # At cosine 0 lie 10 judged and nearly all random pairs; at cosine 1 a random item is the judged one, and left out.
    assert none == pytest.approx(10 / (10 + 20 * constants.POOL), rel=0.02)
    assert full == 1.0


def test_judged_pairs_are_found() -> None:
    judged = Judged(np.array([0, 0, 2]), np.array([1, 4, 0]), np.array([3, 2, 1], np.int8), items=5)
    assert judged.find(np.array([0, 1, 4, 9, 10, 14])).tolist() == [-1, 0, 1, -1, 2, -1]


# Text


def test_shares_cosines_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, titles = ["red shoe size", "shoe", "★"], ["red shoe", "Shoe!", "blue hat", "shoe shoe size"]
    match = TextMatch(queries, titles)
    query, item = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    np.testing.assert_allclose(match.share(query, item), np.array([2, 1, 0, 2, 3, 3, 0, 3, 0, 0, 0, 0]) / 3)
    cosine = match.cosine(query, item).reshape(3, 4)
    assert cosine[1, 1] == pytest.approx(1.0) and cosine[1, 2] == 0.0 and cosine[2].max() == 0.0
    monkeypatch.setattr(text_match, "CELLS", 8)  # two queries a block
    blocks = dict(match.cosine_blocks())
    assert list(blocks) == [0, 2]
    np.testing.assert_allclose(np.concatenate([blocks[0], blocks[2]]), cosine, atol=1e-6)


def test_a_word_that_no_title_holds_lowers_the_cosine() -> None:
    match = TextMatch(["shoe", "shoe xyzzy"], ["shoe", "hat"])
    assert match.cosine(np.array([0, 1]), np.array([0, 0])).tolist() == [1.0, pytest.approx(0.6, abs=0.15)]


def test_nearest_columns_against_sorting() -> None:
    similarity = np.random.default_rng(1).integers(0, 6, (30, 12)).astype(np.float32)  # many ties, many zeros
    rows, columns = nearest_columns(similarity, 4)
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    borders = np.sort(similarity, axis=1)[:, -4]
    expected = {(row, col) for row in range(30) for col in range(12) if similarity[row, col] >= max(borders[row], 1)}
    assert found == expected


# The log


def test_items_and_judgments_are_kept(world: SimpleNamespace) -> None:
    assert pl.read_parquet(world.tables / "judgments.parquet").equals(_judgments())
    assert pl.read_parquet(world.tables / "items.parquet").equals(_items())


def test_only_real_queries_are_asked(world: SimpleNamespace) -> None:
    asked = {normalise_query(query) for query in _read(world.tables, "impressions")["query"].unique()}
    assert asked == {normalise_query(query) for query in _judgments()["query"]}  # upper case would spoil the dotless i


def test_a_pool_holds_what_shares_a_word_and_what_was_judged(world: SimpleNamespace) -> None:
    truth = pl.read_parquet(world.tables / "truth/queries.parquet")
    # 18 of the 90 items are kettles, lamps and so on; one judged lamp is a kettle.
    sizes = {"kettle": 18, "lamp": 19, "shelf": 18, "rug": 18, "ılık çay": 18}
    assert dict(truth.select("query", "pool_items").iter_rows()) == sizes


@pytest.mark.parametrize("table", ["impressions", "candidates"])
def test_truth_tells_judged_from_lexical(world: SimpleNamespace, table: str) -> None:
    truth = _read(world.tables, f"truth/{table}").drop("request_id", "item_id")
    rows = pl.concat([_read(world.tables, table), truth], how="horizontal")
    queries = pl.col("query").map_elements(normalise_query, pl.String)
    judgments = _judgments().with_columns(queries).select("query", "item_id", judged="grade")
    joined = rows.with_columns(queries).join(judgments, on=["query", "item_id"], how="left")
    assert joined["relevance_source"].unique().sort().to_list() == ["judgment", "lexical"]
    assert ((joined["relevance_source"] == "judgment") == joined["judged"].is_not_null()).all()
    known = joined.filter(pl.col("judged").is_not_null())
    assert (known["judged"] == known["grade"]).all()
    low, high = np.array(constants.BANDS)[known["grade"].to_numpy()].T
    assert ((known["r"] >= low - 1e-6) & (known["r"] <= high + 1e-6)).all()


def test_what_an_item_lacks_drops_out_of_its_attraction(world: SimpleNamespace) -> None:
    truth = _read(world.tables, "truth/impressions").drop("request_id", "item_id")
    rows = pl.concat([_read(world.tables, "impressions"), truth], how="horizontal")
    lacking = pl.col("item_id").is_in(_items().filter(pl.col("price").is_null())["item_id"].to_list())
    assert (rows["price"].is_null() == rows.select(lacking).to_series()).all()
    per_item = rows.group_by("item_id", lacking=lacking).agg(
        pl.col("attraction").n_unique(), pl.col("user_id").n_unique()
    )
    per_item = per_item.filter(pl.col("user_id") > 5)
    # Neither a taste nor a markdown: only the item's own quality is left, the same for every user and day.
    assert per_item.filter("lacking")["attraction"].unique().to_list() == [1]
    assert per_item.filter(~pl.col("lacking"))["attraction"].min() > 1


def test_the_tables_are_valid(world: SimpleNamespace, tmp_path: Path) -> None:
    result = validate_tables(world.tables, tmp_path / "valid", ValidateConfig(max_bad_share=0.0))
    assert result.manifest["rows"]["impressions"] == world.manifest["statistics"]["impressions"]
    assert result.manifest["simulated"] is True


def test_the_manifest_names_its_catalogue(world: SimpleNamespace, tmp_path: Path) -> None:
    assert world.manifest["simulated"] is True and world.manifest["inputs"].keys() == {"catalogue"}
    assert job.run(out=world.tables, config=CONFIG, catalogue=world.catalogue).skipped
    changed = _write_catalogue(tmp_path / "source", _items().with_columns(title=pl.lit("same")), _judgments())
    assert not job.run(out=tmp_path / "tables", config=CONFIG, catalogue=changed).skipped
    result = job.run(out=tmp_path / "tables", config=CONFIG, catalogue=world.catalogue)
    assert not result.skipped and result.manifest["identity"] == world.manifest["identity"]


def test_same_bytes_whatever_the_block(world: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_match, "CELLS", 100)  # one query a block
    simulate(CONFIG, tmp_path / "again", catalogue=world.catalogue)
    assert _digests(tmp_path / "again") == _digests(world.tables)
    seed = CONFIG.model_copy(update={"seed": 6})
    simulate(seed, tmp_path / "other", catalogue=world.catalogue)
    assert _read(tmp_path / "other", "impressions").height and _digests(tmp_path / "other") != _digests(world.tables)


def test_a_catalogue_of_titles_only(tmp_path: Path) -> None:
    """No category, brand or price at all, and no grade but 3."""
    judgments = _judgments().filter(pl.col("grade") == 3).select("query", "item_id", "grade")
    catalogue = _write_catalogue(tmp_path / "source", _items().select("item_id", "title"), judgments)
    statistics = simulate(CONFIG, tmp_path / "tables", catalogue=catalogue)
    assert statistics["requests"] == 400 and statistics["shown_grade_1_share"] == 0.0
    assert 0.0 < statistics["shown_judged_share"] < 1.0
    schema = pq.read_schema(tmp_path / "tables/items.parquet")
    assert schema.names == ["item_id", "title", "category", "brand", "price"]
    assert _read(tmp_path / "tables", "impressions")["price"].null_count() == statistics["impressions"]


# Mistakes


def test_judgments_of_unknown_items_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judgments = pl.concat([_judgments(), _judgments().head(2).with_columns(item_id=pl.lit("gone"))])
    simulate(CONFIG, tmp_path / "tables", catalogue=_write_catalogue(tmp_path / "source", _items(), judgments))
    assert "2 of 18 left out: item_id not in items" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "tables/judgments.parquet").equals(_judgments())


FAULTS: dict[str, tuple[Callable[[], pl.DataFrame | None], Callable[[], pl.DataFrame | None], str]] = {
    "no items": (lambda: None, _judgments, "items.parquet: is missing"),
    "few items": (lambda: _items(59), _judgments, "holds 59 items; a query's pool of candidates needs at least 60"),
    "no judgments": (_items, lambda: None, "judgments.parquet: is missing"),
    "none judged": (_items, lambda: _judgments().with_columns(item_id=pl.lit("x")), "no judgment of an item in"),
    "no rows": (_items, lambda: _judgments().head(0), "no judgment of an item in"),
    "none relevant": (_items, lambda: _judgments().with_columns(grade=pl.lit(0, pl.Int8)), "16 judgments have grade 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_catalogue_that_cannot_be_searched(tmp_path: Path, fault: str) -> None:
    items, judgments, message = FAULTS[fault]
    catalogue = _write_catalogue(tmp_path / "source", items(), judgments())
    with pytest.raises(PrectrError, match=message):
        job.run(out=tmp_path / "tables", config=CONFIG, catalogue=catalogue)
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("name", ["items", "queries"])
def test_a_catalogue_brings_its_own_sizes(world: SimpleNamespace, tmp_path: Path, name: str) -> None:
    config = CONFIG.model_copy(update={name: 300})
    with pytest.raises(UsageError, match=f"simulate.{name} is set to 300, but --catalogue brings its own {name}"):
        job.run(out=tmp_path / "tables", config=config, catalogue=world.catalogue)


def test_the_catalogue_is_never_overwritten(world: SimpleNamespace) -> None:
    for out in (world.catalogue, world.catalogue / "tables", world.catalogue.parent):
        with pytest.raises(UsageError, match="may not lie in one another"):
            job.run(out=out, config=CONFIG, catalogue=world.catalogue)


def test_only_validated_tables_are_a_catalogue(tmp_path: Path) -> None:
    _items().write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UsageError, match="not validated tables"):
        job.run(out=tmp_path / "out", config=CONFIG, catalogue=tmp_path)
