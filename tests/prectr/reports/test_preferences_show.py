"""Figures and page of mined preferences: hand-computed values of a small artifact, and a self-contained page."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prectr.core.errors import PrectrError
from prectr.preferences.mined import Preferences
from prectr.preferences.tolerance import GRID
from prectr.reports.preferences import coverage_by_source, overview
from prectr.reports.preferences_page import render_overview, section
from prectr.reports.preferences_query import mined_query, nearest_queries
from prectr.reports.preferences_terminal import BAR, bar, print_check, print_query
from tests.mined_preferences import behaviour, query_row, write_preferences, write_relevance

HOSTILE = "<script>alert(1)</script> $x$"
NOKIA = query_row(
    "nokia 3310",
    "phones",
    users=40.0,
    tolerance=0.65,
    impressions_2=100.0,
    examined_2=30.0,
    clicks_2=5.0,
    debiased_clicks_2=9.0,
    impressions_3=60.0,
    examined_3=10.0,
    clicks_3=3.0,
    debiased_clicks_3=4.0,
    rate_2=0.15,
    click_share_2=0.6,
    price_p10=5.0,
    price_p50=10.0,
    price_p90=20.0,
)
QUERIES = (
    NOKIA,
    query_row("nokia battery", "phones", users=1.0, tolerance=0.55, impressions_0=5.0, examined_0=4.0),
    query_row("sofa", None, users=3.0, tolerance=0.35, impressions_1=20.0, examined_1=16.0, clicks_1=2.0),
    query_row(HOSTILE, "<b>phones", tolerance=0.45, impressions_0=1.0),
)
BEHAVIOURS = (
    behaviour("nokia 3310", "u1", "i2", False, 50),
    behaviour("nokia 3310", "u2", "i1", True, 10),
    behaviour("nokia 3310", "u3", "i9", True, 20),
    behaviour("sofa", "u4", "i3", True, 30),
)
STRENGTHS = (2 / (1 / 24), 2 / (3 / 36), 2 / (6 / 50), 2 / (4 / 30))
"""Two prior clicks over the log's rate of each level: 0, 2, 5, 3 clicks of 4, 16, 30, 10 examined; 1 and 20 added."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    users = pl.DataFrame(
        {
            "user_id": ["u1", "u2", "u3", "u4"],
            "requests": [0.5, 2.0, 2.9, 40.0],
            "tolerance": [0.5, 0.4, 0.6, 0.8],
            "tolerance_sd": [0.2, 0.2, 0.1, 0.05],
        }
    )
    pairs = pl.DataFrame({"query": ["nokia 3310", "nokia 3310", "sofa"], "item_id": ["i1", "i2", "i3"]})
    return write_preferences(
        tmp_path_factory.mktemp("mined") / "preferences",
        inputs={"tables": "simulate:a:b", "relevance": "score-relevance:a:b"},
        queries=QUERIES,
        users=users,
        pairs=pairs.with_columns(impressions=pl.Series([6.0, 1.0, 3.0])),
        behaviours=BEHAVIOURS,
        sources={"encoder": 3, "teacher": 1},
    )


@pytest.fixture(scope="module")
def preferences(artifact: Path) -> Preferences:
    return Preferences.open(artifact)


@pytest.fixture(scope="module")
def relevance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = pl.DataFrame(
        {
            "query": ["nokia 3310", "nokia 3310", "sofa", "sofa"],
            "item_id": ["i1", "i2", "i3", "i4"],
            "level": [3, 2, 1, 0],
            "source": ["teacher", "encoder", "encoder", "judgment"],
        }
    )
    return write_relevance(tmp_path_factory.mktemp("scored") / "relevance", "tables", pairs)


def test_levels_of_a_query(preferences: Preferences) -> None:
    mined = mined_query(preferences, "  NOKIA　3310 ")
    assert (mined["query"], mined["category"], mined["users"]) == ("nokia 3310", "phones", 40.0)
    assert (mined["impressions"], mined["clicks"]) == (160.0, 8.0)
    assert (mined["last_day"], mined["half_life_days"]) == ("2026-03-02", 30.0)
    unseen, _, relevant, _ = mined["levels"]
    assert unseen["ctr"] is None and unseen["own_weight"] == 0.0
    assert relevant["ctr"] == pytest.approx(0.05)
    assert (relevant["examined"], relevant["debiased_clicks"]) == (30.0, 9.0)
    assert (relevant["rate"], relevant["click_share"]) == (0.15, 0.6)
    assert relevant["own_weight"] == pytest.approx(30.0 / (30.0 + STRENGTHS[2]))
    assert mined["prices"]["query"] == {"price_p10": 5.0, "price_p50": 10.0, "price_p90": 20.0}


def test_tolerance_stands_beside_category_and_prior(preferences: Preferences) -> None:
    mined = mined_query(preferences, "nokia 3310")
    # No log-likelihood was added up, so the posterior is the category's prior: all at 0.7.
    assert GRID[int(np.argmax(mined["tolerance"]["posterior"]))] == pytest.approx(0.7)
    assert sum(mined["tolerance"]["posterior"]) == pytest.approx(1.0)
    assert (mined["tolerance"]["mean"], mined["tolerance"]["sd"]) == (0.65, 0.1)
    means = {name: beside["mean"] for name, beside in mined["beside"].items()}
    assert means["all shown rows of the category"] == 0.65  # the helper takes the category's first query
    assert means["prior: queries of the category"] == pytest.approx(0.7)
    assert means["prior: all queries"] == pytest.approx(0.5)
    assert mined_query(preferences, "sofa")["beside"]["all shown rows of the category"] is None


def test_behaviours_are_clicks_first_with_levels_where_asked(preferences: Preferences, relevance: Path) -> None:
    plain = mined_query(preferences, "nokia 3310")["behaviours"]
    assert [behaviour["item_id"] for behaviour in plain] == ["i9", "i1", "i2"]
    assert set(plain[0]) == {"item_id", "clicked", "ts", "user_id", "user_group"}
    assert plain[0]["ts"] == "2026-03-02T12:20:00Z"
    levelled = mined_query(preferences, "nokia 3310", relevance=relevance)["behaviours"]
    assert [behaviour["level"] for behaviour in levelled] == [None, 3, 2]


def test_unknown_query_names_the_nearest_and_what_is_assumed(preferences: Preferences) -> None:
    with pytest.raises(PrectrError) as refused:
        mined_query(preferences, "Nokia 3301")
    message = str(refused.value)
    assert "no user typed 'nokia 3301' up to 2026-03-02" in message
    assert "Nearest known queries: 'nokia 3310', 'nokia battery'" in message
    # Global: (5 + 1) / (30 + 20) clicks per examined impression of level 2; then the category of the nearest.
    assert "tolerance 0.50 ± 0.00" in message and "rel. 0.120" in message
    assert "'phones', the category of the nearest query: 0.70 ± 0.00, clicks irr. 0.250" in message


def test_nearest_queries_are_by_spelling() -> None:
    queries = pl.Series(["backpack", "sofa", "osprey backpack", "black sofa"])
    assert nearest_queries(queries, "bakpack", 2) == ["backpack", "osprey backpack"]
    assert nearest_queries(queries, "xyz") == []
    assert nearest_queries(queries, "") == []


def test_overview_counts_by_hand(preferences: Preferences) -> None:
    facts = overview(preferences)
    assert facts["simulated"] and facts["days"] == ["2026-03-01", "2026-03-02"]
    categories = {row["category"]: row for row in facts["categories"]["rows"]}
    assert facts["categories"]["known"] == 2 and set(categories) == {"phones", "<b>phones"}
    assert categories["phones"]["mean"] == pytest.approx(0.6)
    assert categories["phones"]["spread"] == pytest.approx(0.1 / np.sqrt(2))
    assert [row["query"] for row in facts["head_queries"][:2]] == ["nokia 3310", "sofa"]
    by_length = {row["words"]: (row["queries"], row["mean"]) for row in facts["by_length"]}
    assert by_length[1] == (1, 0.35)
    assert by_length[2][0] == 3 and by_length[2][1] == pytest.approx(0.55)
    shares = {row["range"]: (row["queries"], row["impressions"]) for row in facts["queries_by_impressions"]}
    assert shares["< 10"] == (0.5, pytest.approx(6 / 186))
    assert shares["10 to 100"] == (0.25, pytest.approx(20 / 186))
    assert shares["100 to 1,000"] == (0.25, pytest.approx(160 / 186))
    # 4, 16 and 0 examined impressions are fewer than the mean strength of 20.4; 40 are not.
    assert facts["back_off"]["strength"] == pytest.approx(np.dot(STRENGTHS, [4, 16, 30, 10]) / 60)
    assert facts["back_off"]["queries"] == 0.75
    assert facts["back_off"]["impressions"] == pytest.approx(26 / 186)


def test_users_are_grouped_by_what_they_did(preferences: Preferences) -> None:
    facts = overview(preferences)
    users = {row["range"]: row for row in facts["users_by_requests"]}
    assert [row["users"] for row in users.values()] == [1, 2, 0, 0, 1]
    assert users["1 to 3"]["mean"] == pytest.approx(0.5)
    assert users["1 to 3"]["posterior_sd"] == pytest.approx(0.15)
    assert users["30+"]["posterior_sd"] == 0.05
    assert facts["user_prior"]["mean"] == pytest.approx(0.5) and facts["user_prior"]["sd"] == pytest.approx(0.1)


def test_coverage_weighs_pairs_and_impressions(preferences: Preferences, relevance: Path) -> None:
    coverage = coverage_by_source(preferences, relevance)
    assert coverage == {
        "encoder": {"pairs": 0.5, "impressions": pytest.approx(0.4)},
        "judgment": {"pairs": 0.25, "impressions": 0.0},
        "teacher": {"pairs": 0.25, "impressions": pytest.approx(0.6)},
    }


def test_page_is_self_contained_and_escapes_what_users_typed(preferences: Preferences) -> None:
    page = render_overview(overview(preferences))
    assert page.count("<svg") == page.count("</svg>") == 8
    addresses = re.findall(r"https?://[^\s\"'<>]+", page)
    # Names of the SVG dialect, which nobody fetches.
    assert {address.split("/")[2] for address in addresses} <= {
        "www.w3.org",
        "purl.org",
        "creativecommons.org",
        "matplotlib.org",
    }
    assert not re.search(r"<script|<link|<img|@import|\ssrc=", page)
    assert "&lt;script&gt;" in page
    assert "simulated log" in page and "321 clicks" in page and "randomised slice" in page


def test_bars_are_exact_to_an_eighth() -> None:
    assert bar(1.0, 1.0) == "█" * BAR
    assert bar(0.0, 1.0) == ""
    assert bar(0.5, 1.0) == "█" * (BAR // 2)
    assert bar(3 / (8 * BAR), 1.0) == "▍"


def test_query_is_printed_with_its_bars(preferences: Preferences, capsys: pytest.CaptureFixture[str]) -> None:
    print_query(mined_query(preferences, "nokia 3310"))
    output = capsys.readouterr().out
    assert "nokia 3310" in output and "0.65 ± 0.10" in output and "5.00%" in output
    assert re.search(r"rel\.\s+60\.0% █{40}", output)
    assert re.search(r"0\.70 100\.0% █{40}", output)


def _check() -> dict[str, object]:
    sure, nothing = {"spearman": 0.5, "low": 0.4, "high": 0.6}, dict.fromkeys(("spearman", "low", "high"))
    row = {"keys": 1234, "without_click": 5, "posterior": sure, "naive": nothing, "ceiling": sure}
    users = {"by": "requests", "all": [{"requests": "1-3", **row}], "with_a_click": [{"requests": "all", **row}]}
    queries = {"by": "impressions", "all": [{"impressions": "all", **row}], "with_a_click": []}
    return {"interval": "95 %, by hand", "users": users, "queries": queries}


def test_check_is_printed_and_drawn_with_undefined_figures(capsys: pytest.CaptureFixture[str]) -> None:
    check = _check()
    print_check({**check, "coverage": {"teacher": {"pairs": 0.125, "impressions": 1.0}}})
    output = capsys.readouterr().out
    assert re.search(r"1-3 .*1,234 .* 5 .*0\.500 \[0\.40, 0\.60\] .*- .*0\.500", output)
    assert "95 %, by hand" in output and re.search(r"teacher .*12\.5% .*100\.0%", output)
    curve = {"click": {"a": 0.4, "s": 0.15, "eps": 0.02}, "examination": {"exponent": 1.0, "source": "x", "clicks": 1}}
    drawn = section(curve, {"teacher": 1}, check=check)["pictures"]
    assert set(drawn) == {"examination", "click", "users", "queries"}
    assert all(picture.startswith("<svg") for picture in drawn.values())
