"""Importers of published logs: they import shown items and clicks, and invent nothing."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from jobs import import_log
from prectr.core.artifacts import StageResult
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import DigineticaConfig, ImportConfig, KuaiSearchConfig
from prectr.data.tables import Tables


def _run(source: str, path: Path, config: ImportConfig | None = None) -> StageResult:
    return import_log.run(
        source=source,
        path=path,
        out=path.parent / "tables",
        config=config or ImportConfig(),
        validation=ValidateConfig(max_bad_share=0),
    )


@pytest.fixture
def diginetica(tmp_path: Path) -> Path:
    folder = tmp_path / "diginetica"
    folder.mkdir()
    (folder / "train-queries.csv").write_text(
        "queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test\n"
        "1;10;55;16327074;311;2016-05-09;123,456;0;7001,7002,7003;FALSE\n"
        "2;10;55;86400000;10;2016-05-09;123;0;7002;FALSE\n"
        "3;11;NA;5;10;2016-05-10;99;0;7003,7001;FALSE\n"
        "4;11;NA;6;10;2016-05-10;NA;88;7003;FALSE\n"
        "5;12;56;7;10;2016-05-11;99;0;7003;TRUE\n"
    )
    (folder / "train-clicks.csv").write_text(
        "queryId;timeframe;itemId\n1;16330000;7002\n1;16340000;7002\n1;16350000;9999\n3;10;7001\n5;10;7003\n"
    )
    (folder / "products.csv").write_text(
        "itemId;pricelog2;product.name.tokens\n7001;10.0;4875,776\n7002;0.0;56689\n7003;1.0;1,2,3\n"
    )
    (folder / "product-categories.csv").write_text("itemId;categoryId\n7001;1096\n7001;5\n7003;89\n")
    return folder


def test_diginetica_keeps_requests_of_known_users(diginetica: Path) -> None:
    manifest = _run("diginetica", diginetica).manifest
    tables = Tables(diginetica.parent / "tables")
    shown = tables.impressions(columns=["request_id", "user_id", "ts", "query", "item_id", "position", "clicked"])
    day = datetime(2016, 5, 9, tzinfo=UTC)
    at = datetime(2016, 5, 9, 4, 32, 7, 74000, tzinfo=UTC)  # 16,327.074 s after midnight
    assert shown.drop("date").rows() == [
        ("1", "55", at, "123 456", "7001", 1, False),
        ("1", "55", at, "123 456", "7002", 2, True),
        ("1", "55", at, "123 456", "7003", 3, False),
        ("2", "55", day.replace(day=10), "123", "7002", 1, False),
    ]
    assert [str(found) for found in tables.days()] == ["2016-05-09", "2016-05-10"]
    assert tables.items().select("item_id", "title", "category", "price").rows() == [
        ("7001", "4875 776", "1096", 1023.0),
        ("7002", "56689", "", None),
        ("7003", "1 2 3", "89", 1.0),
    ]
    assert manifest["left_out"] == {
        "further categories of a product that has one": 1,
        "test requests: their clicks are not published": 1,
        "requests without a query (category pages)": 1,
        "requests without a user (importing.diginetica.sessions_as_users)": 1,
        "clicks on an item that the request did not show": 1,
    }
    assert manifest["assumed"] == []


def test_diginetica_sessions_become_users_only_when_asked_for(diginetica: Path) -> None:
    config = ImportConfig(diginetica=DigineticaConfig(sessions_as_users=True))
    manifest = _run("diginetica", diginetica, config).manifest
    shown = Tables(diginetica.parent / "tables").impressions()
    of_session = shown.filter(pl.col("request_id") == "3").select("user_id", "item_id", "position", "clicked")
    assert of_session.rows() == [("session-11", "7003", 1, False), ("session-11", "7001", 2, True)]
    assert set(shown["user_id"]) == {"55", "session-11"}
    assert manifest["assumed"] == ["a session without a user is a user of its own, session-ID"]


def _lines(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _shown(item: int, clicked: int, session: int = 1) -> dict[str, Any]:
    return {
        "user_id": 9,
        "session_id": session,
        "time_index": 86400 * session,
        "recently_clicked_item_ids": [1, 2],
        "query": "运动鞋",
        "target_item_id": item,
        "target_item_price": 5990.0,
        "is_clicked": clicked,
        "is_purchased": 0,
        "user_statistical_features": {"user_show_cnt_30d_hist": 0.0},
        "split": "train",
    }


@pytest.fixture
def kuaisearch(tmp_path: Path) -> Path:
    folder = tmp_path / "kuaisearch"
    folder.mkdir()
    levels = ("category_level1_name", "category_level2_name", "category_level3_name")
    _lines(
        folder / "items.jsonl",
        [
            {"item_id": 1, "item_title": "鞋", "brand_name": "雅鹿", "seller_name": "s", **dict(zip(levels, "abc"))},
            {"item_id": 2, "item_title": "袜", "brand_name": "无品牌", "seller_name": "s", levels[0]: "a"},
            {"item_id": 3, "item_title": "裙", "brand_name": "", "seller_name": "s", levels[0]: ""},
        ],
    )
    _lines(folder / "users.jsonl", [{"user_id": 9, "gender": "F", "age": 30}])
    product = {"item_title": "红鞋", "brand": "雅鹿", "seller_name": "t", "attr_value": "红"}
    _lines(
        folder / "relevance.jsonl",
        [
            {"query": "鞋", **product, "label": 3},
            {"query": "红鞋", **product, "label": 2},
            {"query": "鞋", **product, "attr_value": "蓝", "label": 0},
        ],
    )
    _lines(folder / "rank.jsonl", [_shown(1, 1), _shown(2, 0), _shown(3, 1, session=2)])
    return folder


def test_kuaisearch_invents_no_positions_or_times(kuaisearch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = _run("kuaisearch", kuaisearch).manifest
    tables = Tables(kuaisearch.parent / "tables")
    assert not tables.has("impressions")
    assert "lacks positions and times, so no impressions are made" in capsys.readouterr().err
    assert tables.items().select("item_id", "title", "category", "brand").rows() == [
        ("1", "鞋", "a > b > c", "雅鹿"),
        ("2", "袜", "a", None),
        ("3", "裙", "", None),
        ("relevance-0", "红鞋", "", "雅鹿"),
        ("relevance-2", "红鞋", "", "雅鹿"),
    ]
    judged = pl.read_parquet(kuaisearch.parent / "tables" / "judgments.parquet")
    assert judged.select("query", "item_id", "grade").rows() == [
        ("红鞋", "relevance-0", 2),
        ("鞋", "relevance-0", 3),
        ("鞋", "relevance-2", 0),
    ]
    assert tables.users().rows(named=True) == [{"user_id": "9", "gender": "F", "age": 30}]
    assert manifest["rows"] == {"items": 5, "users": 1, "judgments": 3}


def test_kuaisearch_impressions_on_the_users_assumptions(kuaisearch: Path) -> None:
    config = ImportConfig(kuaisearch=KuaiSearchConfig(position=1, time_unit="s"))
    manifest = _run("kuaisearch", kuaisearch, config).manifest
    shown = Tables(kuaisearch.parent / "tables").impressions()
    columns = ("request_id", "user_id", "ts", "item_id", "position", "clicked", "purchased", "price")
    assert shown.select(columns).rows() == [
        ("1-86400", "9", datetime(1970, 1, 2, tzinfo=UTC), "1", 1, True, False, 5990.0),
        ("1-86400", "9", datetime(1970, 1, 2, tzinfo=UTC), "2", 1, False, False, 5990.0),
        ("2-172800", "9", datetime(1970, 1, 3, tzinfo=UTC), "3", 1, True, False, 5990.0),
    ]
    assert {"every shown item is at position 1", "time_index counts s from 1970"} <= set(manifest["assumed"])


def test_kuaisearch_assumes_both_or_nothing() -> None:
    with pytest.raises(ValidationError, match="set position and time_unit together"):
        KuaiSearchConfig(position=1)


def test_kuaisearch_judgments_without_a_label(kuaisearch: Path) -> None:
    _lines(kuaisearch / "relevance.jsonl", [{"query": "鞋", "item_title": "鞋", "grade": 1}])
    with pytest.raises(PrectrError, match=r"relevance\.jsonl: column 'label' or 'score' is missing"):
        _run("kuaisearch", kuaisearch)
