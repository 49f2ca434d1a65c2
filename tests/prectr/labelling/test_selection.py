import shutil

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given

from prectr.core.errors import UsageError
from prectr.data.judgments import read_judged, split_of
from prectr.data.tables import Tables, distinct_pairs
from prectr.labelling import selection as selections
from prectr.labelling.bands import lexical_bands
from prectr.labelling.config import SelectionConfig
from prectr.labelling.selection import choose_pairs, read_selection, select_pairs, share_out, traffic_strata
from prectr.relevance.batch_scoring import pairs_to_score
from prectr.relevance.config import ScoreConfig
from prectr.relevance.distillation import distillation_pairs
from tests.manifests import write_manifest


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Forty queries over ten items: each query shown with items 0-5, candidates 6-8, some judged."""
    path = tmp_path_factory.mktemp("tables")
    queries, items = [f"query {number}" for number in range(40)], [f"i{number}" for number in range(10)]
    shown = [(query.upper() if place % 2 else query, item) for query in queries for place, item in enumerate(items[:6])]
    shown += [("query 0", "i0")] * 500
    unexposed = [(query, item) for query in queries for item in items[5:9]]
    for table, rows in (("impressions", shown), ("candidates", unexposed)):
        day = path / table / "date=2026-01-01"
        day.mkdir(parents=True)
        pl.DataFrame(rows, schema=["query", "item_id"], orient="row").write_parquet(day / "part-0000.parquet")
    judged = [(query, item, (int(item[1]) + place) % 4) for place, query in enumerate(queries) for item in items[4:7]]
    frame = pl.DataFrame(judged, schema={"query": pl.String, "item_id": pl.String, "grade": pl.Int8}, orient="row")
    frame.with_columns(source=pl.lit("human")).write_parquet(path / "judgments.parquet")
    pl.DataFrame({"item_id": items, "title": [f"title {i}" for i in items], "category": ["c"] * 10}).write_parquet(
        path / "items.parquet"
    )
    write_manifest(path, "simulate")
    return path


def test_spellings_of_a_query_are_one_pair_and_exposure_wins(tables):
    pairs = distinct_pairs(Tables(tables))
    assert len(pairs) == 40 * 9
    assert pairs.filter(pl.col("exposed"))["item_id"].unique().sort().to_list() == [f"i{n}" for n in range(6)]
    assert pairs.filter((pl.col("query") == "query 0") & (pl.col("item_id") == "i0"))["impressions"].item() == 501


def test_the_query_with_most_traffic_is_head(tables):
    strata = dict(traffic_strata(distinct_pairs(Tables(tables))).iter_rows())
    assert strata["query 0"] == "head"
    assert set(strata.values()) >= {"head", "tail"}


def test_budget_shares_and_measured_pairs(tables):
    chosen = select_pairs(Tables(tables), SelectionConfig(budget=150, unexposed_share=0.4))
    assert len(chosen) == 150 == len(chosen.unique(["query", "item_id"]))
    measured = read_judged(Tables(tables)).filter(pl.col("split") != "train")
    assert len(chosen.filter(pl.col("origin") == "judged")) == len(measured)
    rest = chosen.filter(pl.col("origin") != "judged")
    assert rest.join(read_judged(Tables(tables)), on=["query", "item_id"], how="semi").is_empty()
    assert abs((rest["origin"] == "unexposed").mean() - 0.4) < 0.1
    assert chosen.equals(select_pairs(Tables(tables), SelectionConfig(budget=150, unexposed_share=0.4)))


def test_a_budget_above_what_there_is_takes_all(tables):
    everything = select_pairs(Tables(tables), SelectionConfig(budget=10_000))
    training_gold = read_judged(Tables(tables)).filter(pl.col("split") == "train")
    made = everything["origin"].is_in(["random", "category"])
    assert len(everything.filter(~made)) == 40 * 9 - len(training_gold)
    assert set(everything.filter(made)["item_id"]) == {"i9"}, "the log holds all other items with each query"
    assert all(split_of(query) != "held-back" for query in everything.filter(made)["query"].to_list())


def test_a_share_of_the_questions_is_made_from_the_catalogue(tables, tmp_path):
    """The log's queries show items of category c only."""
    larger = tmp_path / "larger"
    shutil.copytree(tables, larger)
    others = [{"item_id": f"x{n}", "title": f"thing {n}", "category": "cd"[n % 2]} for n in range(40)]
    items = pl.concat([Tables(tables).items(), pl.DataFrame(others)], how="diagonal_relaxed")
    items.write_parquet(larger / "items.parquet")
    chosen = select_pairs(Tables(larger), SelectionConfig(budget=250, catalogue_share=0.4))
    made = {origin: chosen.filter(pl.col("origin") == origin) for origin in ("random", "category")}
    assert [10 <= len(rows) <= 50 for rows in made.values()] == [True, True], {
        name: len(rows) for name, rows in made.items()
    }
    assert set(made["random"]["category"]) == {"c", "d"} and set(made["category"]["category"]) == {"c"}
    logged = distinct_pairs(Tables(larger))
    assert not any(len(rows.join(logged, on=["query", "item_id"], how="semi")) for rows in made.values())
    none = select_pairs(Tables(larger), SelectionConfig(budget=250, catalogue_share=0))
    assert not {"random", "category"} & set(none["origin"])


def test_a_larger_budget_asks_the_smaller_ones_questions_too(tables):
    small, large = (select_pairs(Tables(tables), SelectionConfig(budget=budget)) for budget in (120, 180))
    assert small.join(large, on=["query", "item_id"], how="anti").is_empty()
    other = select_pairs(Tables(tables), SelectionConfig(budget=120, seed=18))
    assert len(other.join(small, on=["query", "item_id"], how="anti")) > 10


def test_chosen_questions_stay_chosen_when_the_log_grows(tables, tmp_path):
    before = select_pairs(Tables(tables), SelectionConfig(budget=120))
    grown = tmp_path / "grown"
    shutil.copytree(tables, grown)
    day = grown / "impressions" / "date=2026-01-02"
    day.mkdir()
    pl.DataFrame({"query": ["new"] * 9, "item_id": [f"i{n}" for n in range(9)]}).write_parquet(day / "p.parquet")
    after = select_pairs(Tables(grown), SelectionConfig(budget=120))
    assert len(before.join(after, on=["query", "item_id"], how="anti")) <= 9


def test_a_small_budget_measures_both_splits(tables):
    chosen = select_pairs(Tables(tables), SelectionConfig(budget=15))
    assert set(chosen["origin"]) == {"judged"} and len(chosen) == 15
    assert {split_of(query) for query in chosen["query"].to_list()} == {"validation", "held-back"}


@pytest.fixture
def twins(tmp_path):
    """Items a and b have the same texts but for spelling, c another brand; one query in two spellings."""
    log = {"query": ["red shoe", "RED  shoe", "red shoe"], "item_id": ["a", "b", "c"]}
    for table, rows in (("impressions", [0]), ("candidates", [1, 2])):
        day = tmp_path / table / "date=2026-01-01"
        day.mkdir(parents=True)
        pl.DataFrame(log)[rows].write_parquet(day / "part-0000.parquet")
    items = {"item_id": ["a", "b", "c"], "title": ["Red boot", "red  BOOT", "red boot"], "brand": [None, "", "x"]}
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    write_manifest(tmp_path, "simulate")
    return tmp_path


def test_duplicates_are_one_question_and_all_listed(twins):
    chosen = choose_pairs(Tables(twins), SelectionConfig(budget=2))
    assert chosen.pairs.columns == list(selections.COLUMNS)
    rows = {row["item_id"]: row for row in chosen.pairs.to_dicts()}
    assert rows["a"]["question"] == rows["b"]["question"] != rows["c"]["question"]
    assert {row["question"] for row in rows.values()} == {0, 1}
    # The question of a was shown; its twin was not, but is the same question.
    assert [rows[item]["origin"] for item in "abc"] == ["exposed", "exposed", "unexposed"]
    assert [rows[item]["impressions"] for item in "abc"] == [1, 0, 0]
    assert rows["b"]["title"] == "red  BOOT" and rows["a"]["brand"] == rows["a"]["category"] == ""
    assert {row["band"] for row in rows.values()} == {"some"} and rows["a"]["query"] == "red shoe"
    assert chosen.pool["questions"].to_list() == [1, 1]


def test_a_budget_of_one_takes_both_twins(twins):
    chosen = select_pairs(Tables(twins), SelectionConfig(budget=1, unexposed_share=0))
    assert chosen["item_id"].to_list() == ["a", "b"]


def test_bands_are_looked_up_for_a_sample_only(tables, monkeypatch):
    monkeypatch.setattr(selections, "LOOKED_AT_PER_BUDGET", 1)
    chosen = choose_pairs(Tables(tables), SelectionConfig(budget=60, unexposed_share=1))
    exposed = chosen.pool.filter(pl.col("origin") == "exposed")
    assert (exposed["looked_at"] < exposed["questions"]).any() and chosen.pool["looked_at"].max() == 60
    assert chosen.cells["available"].sum() == chosen.pool["looked_at"].sum()


@pytest.mark.parametrize(
    ("query", "title", "band"),
    [
        ("red shoe", "a shoe, red!", "all"),
        ("red shoe", "red shoes", "some"),
        ("red shoe", "redshoe", "none"),
        ("iphone12手机壳", "手机壳 iphone12 红色", "all"),
        ("手机壳", "手机套", "some"),
        ("猫", "三毛猫の本", "all"),
        ("猫", "犬の本", "none"),
        ("a a b", "a", "some"),
        ("?!", "?!", "none"),
        ("हिन्दी", "हिन", "none"),
    ],
)
def test_bands_by_hand(query, title, band):
    assert lexical_bands(pl.Series([query]), pl.Series([title])).to_list() == [band]


def test_bands_of_many_pairs_keep_their_order():
    queries, titles = pl.Series(["b c", "", "a", "b c"]), pl.Series(["c", "a", "a", "b c"])
    assert lexical_bands(queries, titles).to_list() == ["some", "none", "all", "all"]
    assert lexical_bands(queries.clear(), titles.clear()).to_list() == []


def test_shares_by_hand():
    assert share_out(10, [100, 100], [3, 1]) == [8, 2]  # 7 and 2 by share, the last one to the heavier cell
    assert share_out(10, [2, 100, 1], [1, 1, 1]) == [2, 7, 1]
    assert share_out(10, [2, 3], [1, 1]) == [2, 3]
    assert share_out(10, [], []) == []


@given(st.integers(0, 500), st.lists(st.tuples(st.integers(0, 80), st.floats(1e-9, 1)), max_size=8))
def test_all_is_shared_out_and_no_cell_overdrawn(total, cells):
    available, weights = [size for size, _ in cells], [weight for _, weight in cells]
    taken = share_out(total, available, weights)
    assert sum(taken) == min(total, sum(available))
    assert all(0 <= one <= most for one, most in zip(taken, available, strict=True))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_users_own_pairs(tables, tmp_path, kind):
    own = pl.DataFrame({"query": ["Query 0", "title", "query 0"], "item_id": ["i0", "i9", "i0"], "note": [1, 2, 3]})
    file = tmp_path / f"own.{kind}"
    own.write_csv(file) if kind == "csv" else own.write_parquet(file)
    rows = read_selection(file, Tables(tables)).to_dicts()
    assert [(row["query"], row["item_id"], row["title"]) for row in rows] == [
        ("query 0", "i0", "title i0"),
        ("title", "i9", "title i9"),
    ]
    assert [(row["origin"], row["stratum"], row["band"], row["impressions"]) for row in rows] == [
        ("given", "head", "none", 501),
        ("given", "tail", "all", 0),
    ]


def test_a_users_pairs_are_refused_with_file_and_row(tables, tmp_path):
    file = tmp_path / "own.csv"
    for text, message in (
        (
            "query,item_id\na,i0\nb,nowhere\n",
            r"own.csv: row 2 names an item that is not in .*items.parquet .*'nowhere'",
        ),
        ("query,item_id\na,i0\n ,i1\n", r"own.csv: 1 of 2 rows .*: query is blank, such as line 3: "),
        ("query,item_id\na,\n", r"own.csv: 1 of 1 rows .*: item_id is null, such as line 2: "),
        ("query,item_id\n", r"own.csv: no rows"),
        ("text,item_id\na,i0\n", r"own.csv: column 'query' is missing\..* The file has: text, item_id"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_selection(file, Tables(tables))
    with pytest.raises(UsageError, match=r"absent\.parquet: no such file or directory"):
        read_selection(tmp_path / "absent.parquet", Tables(tables))
    with pytest.raises(UsageError, match="select-pairs"):
        read_selection(tables, Tables(tables))


@pytest.fixture(scope="module")
def labels(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels")
    chosen = select_pairs(Tables(tables), SelectionConfig(budget=10_000)).select("query", "item_id")
    levels = [pl.lit(value, pl.Float32).alias(f"level_{n}") for n, value in enumerate((0.1, 0.2, 0.3, 0.4))]
    chosen.with_columns(levels).write_parquet(path / "labels.parquet")
    return path


def test_nothing_of_a_held_back_query_is_distilled(tables, labels):
    pairs = distillation_pairs(Tables(tables), labels)
    assert {split_of(query) for query in pairs["query"]} == {"train", "validation"}
    assert (pairs.filter(pl.col("split") == "validation")["grade"] >= 0).all()
    assert pairs.filter((pl.col("split") == "train") & (pl.col("grade") < 0))["level_3"].null_count() == 0


def test_the_student_gets_its_random_pairs_also_if_the_teacher_was_asked_about_others(tables, tmp_path):
    """With one seed for all: the random pairs of both must not be the same, or few would be left."""
    larger = tmp_path / "larger"
    shutil.copytree(tables, larger)
    others = pl.DataFrame([{"item_id": f"x{n}", "title": f"thing {n}", "category": "d"} for n in range(400)])
    pl.concat([Tables(tables).items(), others], how="diagonal_relaxed").write_parquet(larger / "items.parquet")
    chosen = select_pairs(Tables(larger), SelectionConfig(budget=300, catalogue_share=0.5, seed=17))
    levels = [pl.lit(0.25, pl.Float32).alias(f"level_{level}") for level in range(4)]
    (tmp_path / "labels").mkdir()
    chosen.select("query", "item_id", *levels).write_parquet(tmp_path / "labels" / "labels.parquet")
    pairs = distillation_pairs(Tables(larger), tmp_path / "labels", negatives=1.0, seed=17)
    judged = pairs.filter(pl.col("grade") >= 0, ~pl.col("made"))
    made = pairs.filter("made")
    assert 0.9 * len(judged) < len(made) <= len(judged) and set(made["grade"]) == {0}
    assert made["level_0"].null_count() == len(made), "no teacher was asked about them"
    assert made.join(distinct_pairs(Tables(larger)), on=["query", "item_id"], how="semi").is_empty()


def test_judgments_of_held_back_queries_alone_give_no_pairs_and_no_error(tables, tmp_path):
    held = tmp_path / "held"
    shutil.copytree(tables, held)
    judged = pl.read_parquet(held / "judgments.parquet")
    kept = [split_of(query) == "held-back" for query in judged["query"].to_list()]
    judged.filter(pl.Series(kept)).write_parquet(held / "judgments.parquet")
    (tmp_path / "labels").mkdir()
    levels = [pl.lit(0.25, pl.Float32).alias(f"level_{level}") for level in range(4)]
    judged.select("query", "item_id", *levels).clear().write_parquet(tmp_path / "labels" / "labels.parquet")
    assert distillation_pairs(Tables(held), tmp_path / "labels", negatives=1.0).is_empty()


def test_a_judgment_outranks_a_label_and_pairs_are_dense(tables, labels):
    pairs = pairs_to_score(Tables(tables), labels, ScoreConfig(judgment_confidence=0.97))
    assert pairs["pair"].to_list() == list(range(len(pairs)))
    assert pairs.select("query", "item_id").equals(pairs.select("query", "item_id").sort("query", "item_id"))
    joined = pairs.join(
        read_judged(Tables(tables)).select("query", "item_id", "grade"), on=["query", "item_id"], how="left"
    )
    held_back = pl.col("query").is_in([query for query in pairs["query"] if split_of(query) == "held-back"])
    judged = joined.filter(pl.col("grade") == 2, ~held_back)
    assert set(judged["source"]) == {"judgment"} and set(joined.filter(held_back)["source"]) == {"teacher"}
    assert judged["level_2"].to_list() == pytest.approx([0.97] * len(judged))
    assert judged["level_0"].to_list() == pytest.approx([0.01] * len(judged))
    assert set(joined.filter(pl.col("grade").is_null())["source"]) == {"teacher"}
    assert set(pairs_to_score(Tables(tables), None, ScoreConfig())["source"].unique()) == {"judgment", None}
