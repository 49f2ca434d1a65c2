"""Rows by units of keys: none is lost, all rows of a key come together, and the cut depends on the number of rows."""

from pathlib import Path

import polars as pl
import pytest

from prectr.data import spill
from prectr.data.spill import Spill, units_of


def _rows(start: int, stop: int) -> pl.DataFrame:
    return pl.DataFrame({"key": [f"k{number % 40}" for number in range(start, stop)], "n": range(start, stop)})


@pytest.mark.parametrize("unit", [1, 7, 100, 10**6])
@pytest.mark.parametrize("chunk", [1, 13, 500])
def test_every_row_comes_back_once_with_all_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: int, chunk: int
) -> None:
    monkeypatch.setattr(spill, "UNIT_ROWS", unit)
    whole = Spill(tmp_path / "x", "key")
    for start in range(0, 500, chunk):
        whole.add(_rows(start, min(500, start + chunk)))
    units = units_of(whole.rows)
    assert whole.rows == 500 and units == (1 if unit >= 500 else min(1024, 2 ** (-(-500 // unit) - 1).bit_length()))
    parts = [rows for number in range(units) if (rows := whole.unit(number, units)) is not None]
    assert pl.concat(parts)["n"].sort().to_list() == list(range(500))
    keys = [key for part in parts for key in part["key"].unique()]
    assert len(keys) == len(set(keys)) == 40
    whole.close()
    assert not (tmp_path / "x").exists()


def test_the_cut_does_not_depend_on_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "UNIT_ROWS", 60)
    found = []
    for chunk in (7, 500):
        one = Spill(tmp_path / str(chunk), "key")
        for start in range(0, 500, chunk):
            one.add(_rows(start, min(500, start + chunk)))
        units = units_of(one.rows)
        parts = [one.unit(number, units) for number in range(units)]
        found.append([None if part is None else sorted(part["n"]) for part in parts])
    assert found[0] == found[1]


def test_columns_that_come_later_are_null_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "UNIT_ROWS", 3)
    one = Spill(tmp_path / "x", "key")
    one.add(_rows(0, 5))
    one.add(_rows(5, 10).with_columns(late=pl.lit("x")))
    one.add(_rows(0, 0))
    parts = [rows for number in range(4) if (rows := one.unit(number, 4)) is not None]
    rows = pl.concat(parts, how="diagonal_relaxed").sort("n")
    assert rows["late"].to_list() == [None] * 5 + ["x"] * 5


def test_nothing_added_is_nothing(tmp_path: Path) -> None:
    assert Spill(tmp_path / "x", "key").unit(0, 1) is None


@pytest.mark.parametrize("expected", [None, 40])
def test_ids_that_were_told_apart_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: int | None
) -> None:
    monkeypatch.setattr(spill, "UNIT_ROWS", 2)
    one = Spill(tmp_path / "x", "key", expected)
    keys = [f"{name}{number}" for name in "abcdefghij" for number in ("", "~2", "~2~13", "x~3")]
    one.add(pl.DataFrame({"key": keys}))
    units = units_of(one.rows)
    parts = [rows["key"].to_list() for number in range(units) if (rows := one.unit(number, units)) is not None]
    assert sorted(key for part in parts for key in part) == sorted(keys)
    for name in "abcdefghij":
        assert any({name, f"{name}~2", f"{name}~2~13"} <= set(part) for part in parts)
