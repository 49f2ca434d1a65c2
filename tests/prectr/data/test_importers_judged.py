"""Importers of published judgments: rows written in the published layouts become the tables expected by hand."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs import cli, import_log
from prectr.core.artifacts import StageResult
from prectr.core.errors import PrectrError, UsageError
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import EsciConfig, ImportConfig
from prectr.data.tables import Tables


def run(source: str, path: Path, config: ImportConfig | None = None, bad: float = 0.0) -> StageResult:
    """Import into `tables` beside `path`."""
    return import_log.run(
        source=source,
        path=path,
        out=path.parent / "out" / "tables",
        config=config or ImportConfig(),
        validation=ValidateConfig(max_bad_share=bad),
    )


def rows(path: Path, table: str, *columns: str) -> list[tuple[Any, ...]]:
    frame = pl.read_parquet(path.parent / "out" / "tables" / f"{table}.parquet")
    return frame.select(columns or frame.columns).rows()


@pytest.fixture
def wands(tmp_path: Path) -> Path:
    folder = tmp_path / "wands"
    folder.mkdir()
    (folder / "product.csv").write_text(
        "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\tproduct_features\t"
        "rating_count\taverage_rating\treview_count\n"
        '0\tsolid wood bed\tBeds\tFurniture / Bedroom / Beds\t"two\nlines, ""quoted"""\tcolour:oak\t15.0\t4.5\t15.0\n'
        "7\t12 '' lamp\t\t\t\t\t\t\t\n"
    )
    (folder / "query.csv").write_text("query_id\tquery\tquery_class\n3\twood bed\tBeds\n4\tlamp\t\n")
    (folder / "label.csv").write_text(
        "id\tquery_id\tproduct_id\tlabel\n0\t3\t0\tExact\n1\t3\t7\tIrrelevant\n2\t4\t7\tPartial\n"
    )
    return folder


def test_wands(wands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run("wands", wands).manifest
    assert rows(wands, "judgments", "query", "item_id", "grade", "source") == [
        ("lamp", "7", 2, "wands"),
        ("wood bed", "0", 3, "wands"),
        ("wood bed", "7", 0, "wands"),
    ]
    assert rows(wands, "items", "item_id", "title", "category", "rating_count") == [
        ("0", "solid wood bed", "Furniture > Bedroom > Beds", 15.0),
        ("7", "12 '' lamp", None, None),
    ]
    assert manifest["grades"] == {"Exact": 3, "Partial": 2, "Irrelevant": 0}
    assert manifest["rows"] == {"items": 2, "judgments": 3}
    printed = capsys.readouterr().err
    assert "Exact -> 3, Partial -> 2, Irrelevant -> 0" in printed
    assert "wands lacks impressions" in printed


def test_tables_without_impressions_can_be_opened(wands: Path) -> None:
    run("wands", wands)
    tables = Tables(wands.parent / "out" / "tables")
    assert tables.days() == [] and not tables.simulated
    assert tables.items()["category"].to_list() == ["Furniture > Bedroom > Beds", ""]
    assert tables.judgments().height == 3


def test_a_second_run_is_skipped_until_a_file_changes(wands: Path) -> None:
    assert not run("wands", wands).skipped
    assert run("wands", wands).skipped
    with (wands / "label.csv").open("a") as labels:
        labels.write("3\t4\t0\tIrrelevant\n")
    again = run("wands", wands)
    assert not again.skipped and again.manifest["rows"]["judgments"] == 4


def test_bad_rows_go_to_quarantine_with_file_row_and_reason(wands: Path) -> None:
    with (wands / "label.csv").open("a") as labels:
        labels.write("3\t4\t0\tSplendid\n4\t99\t0\tExact\n5\t4\t555\tExact\n6\t3\t0\tPartial\n")
    with pytest.raises(PrectrError, match="4 of 7 rows of 'judgments' are bad"):
        run("wands", wands)
    assert not (wands.parent / "out" / "tables").exists()
    run("wands", wands, bad=0.9)
    quarantined = pl.read_parquet(wands.parent / "out" / "quarantine" / "rows.parquet")
    assert quarantined.select("file", "line", "row", "reason").rows() == [
        (str(wands / "label.csv"), 5, None, "label is not one of Exact, Partial, Irrelevant"),
        (str(wands / "label.csv"), 6, None, "query is null"),
        (str(wands / "label.csv"), 7, None, "item_id is not in items"),
        (str(wands / "label.csv"), 8, None, "duplicate (query, item_id) with other values"),
    ]


def test_a_missing_file_and_a_missing_column_are_named(wands: Path) -> None:
    label = wands / "label.csv"
    label.write_text(label.read_text().replace("product_id", "product"))
    with pytest.raises(PrectrError, match=r"label.csv: column 'product_id' is missing. Did you mean 'product'\?"):
        run("wands", wands)
    label.unlink()
    with pytest.raises(UsageError, match=r"no label.csv here"):
        run("wands", wands)


def test_a_source_that_there_is_not(wands: Path) -> None:
    with pytest.raises(UsageError, match=r"no source 'wand'\. Did you mean 'wands'"):
        run("wand", wands)
    with pytest.raises(UsageError, match="no such file or directory"):
        run("wands", wands / "nowhere")


def test_the_command(wands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(wands.parent / "tables")
    main_exit(["import", "wands", str(wands), "--out", out, "--json"], 0)
    assert json.loads(capsys.readouterr().out)["manifest"]["rows"] == {"items": 2, "judgments": 3}
    main_exit(["import", "esci", str(wands), "--out", out, "--set", "importing.esci.local=es"], 2)
    assert "Did you mean 'importing.esci.locale'" in capsys.readouterr().err


def main_exit(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert (stopped.value.code or 0) == code


def _esci(folder: Path) -> None:
    folder.mkdir()
    products = [
        ("B1", "us", "blue case", "Acme", "Blue"),
        ("B2", "us", "phone", None, None),
        ("B1", "es", "funda azul", "Acme", "Azul"),
    ]
    examples = [
        (0, "phone", "B2", "us", "E", "train"),
        (1, "phone", "B1", "us", "C", "train"),
        (2, "phone case", "B1", "us", "S", "test"),
        (3, "phone case", "B2", "us", "I", "test"),
        (4, "funda", "B1", "es", "E", "train"),
    ]
    texts = {"product_description": None, "product_bullet_point": "long"}
    pl.DataFrame(
        products,
        schema=["product_id", "product_locale", "product_title", "product_brand", "product_color"],
        orient="row",
    ).with_columns(**{name: pl.lit(text, pl.String) for name, text in texts.items()}).write_parquet(
        folder / "shopping_queries_dataset_products.parquet"
    )
    pl.DataFrame(
        examples,
        schema=["example_id", "query", "product_id", "product_locale", "esci_label", "split"],
        orient="row",
    ).write_parquet(folder / "shopping_queries_dataset_examples.parquet")


def test_esci(tmp_path: Path) -> None:
    folder = tmp_path / "esci"
    _esci(folder)
    manifest = run("esci", folder).manifest
    assert rows(folder, "items") == [("B1", "blue case", "Acme", "Blue"), ("B2", "phone", None, None)]
    assert rows(folder, "judgments", "query", "item_id", "grade", "split") == [
        ("phone", "B1", 1, "train"),
        ("phone", "B2", 3, "train"),
        ("phone case", "B1", 2, "test"),
        ("phone case", "B2", 0, "test"),
    ]
    assert manifest["left_out"] == {
        "products of other locales than us": 1,
        "judgments of other locales than us": 1,
    }


def test_esci_of_another_locale(tmp_path: Path) -> None:
    folder = tmp_path / "esci"
    _esci(folder)
    assert run("esci", folder, ImportConfig(esci=EsciConfig(locale="es"))).manifest["left_out"] == {
        "products of other locales than es": 2,
        "judgments of other locales than es": 4,
    }
    assert rows(folder, "items", "title") == [("funda azul",)]
    with pytest.raises(PrectrError, match=r"the table 'items' has no rows .left out: 3 x products of other"):
        run("esci", folder, ImportConfig(esci=EsciConfig(locale="jp")))


def test_esci_joined_in_one_csv_names_each_product_once(tmp_path: Path) -> None:
    file = tmp_path / "joined.csv"
    file.write_text(
        "query,product_id,product_locale,esci_label,product_title,product_brand,product_color\n"
        "phone,B1,us,Complement,blue case,Acme,Blue\n"
        "case,B1,us,Exact,blue case,Acme,Blue\n"
        "case,B2,us,Irrelevant,phone,,\n"
    )
    run("esci", file)
    assert rows(file, "items", "item_id", "brand") == [("B1", "Acme"), ("B2", None)]
    assert rows(file, "judgments", "item_id", "query", "grade") == [
        ("B1", "case", 3), ("B2", "case", 0), ("B1", "phone", 1),
    ]  # fmt: skip


def test_home_depot(tmp_path: Path) -> None:
    folder = tmp_path / "depot"
    folder.mkdir()
    averages = ["1", "1.25", "1.5", "1.67", "2", "2.5", "2.67", "3"]
    lines = [f"{number},{100 + number % 2},90° angle {number % 2},bracket {number},{average}"
             for number, average in enumerate(averages)]  # fmt: skip
    head = "id,product_uid,product_title,search_term"
    (folder / "train.csv").write_bytes(("\n".join([f"{head},relevance", *lines]) + "\n").encode("latin-1"))
    (folder / "test.csv").write_bytes(f"{head}\n9,200,only in test,saw\n".encode("latin-1"))
    (folder / "attributes.csv").write_text(
        'product_uid,name,value\n100,Material,Steel\n100,MFG Brand Name,Simpson\n,,\n200,MFG Brand Name,"Saw, Inc"\n'
    )
    run("home-depot", folder)
    assert rows(folder, "items", "item_id", "title", "brand") == [
        ("100", "90° angle 0", "Simpson"),
        ("101", "90° angle 1", None),
        ("200", "only in test", "Saw, Inc"),
    ]
    assert [grade for (grade,) in rows(folder, "judgments", "grade")] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_home_depot_refuses_a_relevance_off_the_scale(tmp_path: Path) -> None:
    folder = tmp_path / "depot"
    folder.mkdir()
    (folder / "train.csv").write_text(
        "id,product_uid,product_title,search_term,relevance\n1,5,saw,saw,3\n2,5,saw,axe,4\n3,5,saw,hoe,high\n4,5,saw,x,\n"
    )
    run("home-depot", folder, bad=0.9)
    quarantined = pl.read_parquet(tmp_path / "out" / "quarantine" / "rows.parquet")
    assert quarantined["reason"].to_list() == ["relevance is not a number from 1 to 3"] * 2 + ["grade is null"]
    assert rows(folder, "judgments", "grade") == [(3,)]
