"""Ids as features: hashed, or by a vocabulary of the frequent ids of the training days."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prectr.data.tables import Tables
from prectr.features.config import IdConfig
from prectr.features.ids import IdSpace, fit_ids
from tests.manifests import write_manifest

DAYS = [date(2026, 3, day) for day in (1, 2, 3)]
SHOWN = ({"b": 3, "a": 2, "d": 1}, {"a": 1, "c": 1, "b": 1}, {"c": 9})
"""Impressions of items by day: a 3, b 4, c 1 and d 1 on the first two."""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    for day, shown in zip(DAYS, SHOWN, strict=True):
        folder = tmp_path / "impressions" / f"date={day}"
        folder.mkdir(parents=True)
        items = pl.Series("item_id", [item for item, count in shown.items() for _ in range(count)])
        for number in range(2):  # an id's impressions lie in several files
            items.to_frame().gather_every(2, number).write_parquet(folder / f"part-{number:04d}.parquet")
    write_manifest(tmp_path, "validate")
    return Tables(tmp_path)


@pytest.mark.parametrize(
    ("size", "minimum_count", "kept"),
    [(10, 1, ["b", "a", "c", "d"]), (10, 2, ["b", "a"]), (10, 4, ["b"]), (3, 1, ["b", "a", "c"]), (10, 5, [])],
)
def test_a_vocabulary_holds_the_most_frequent_ids_of_the_training_days(
    tables: Tables, size: int, minimum_count: int, kept: list[str]
) -> None:
    config = IdConfig(kind="vocabulary", size=size, minimum_count=minimum_count)
    space = fit_ids(tables, DAYS[:2], "item_id", config)
    assert space.values == {item: number for number, item in enumerate(kept, start=1)}
    assert space.cardinality == len(kept) + 1


def test_ids_outside_the_vocabulary_are_unknown() -> None:
    space = IdSpace(kind="vocabulary", size=2, values={"b": 1, "a": 2})
    np.testing.assert_array_equal(space.codes("item_id", pl.Series(["a", "zebra", "b", "a", ""])), [2, 0, 1, 2, 0])
    assert len(space.codes("item_id", pl.Series([], dtype=pl.String))) == 0


def test_a_hash_knows_every_id_and_spreads_them(tables: Tables) -> None:
    space = fit_ids(tables, DAYS, "item_id", IdConfig(kind="hash", size=50))
    ids = pl.Series([f"item {number}" for number in range(5000)])
    codes = space.codes("item_id", ids)
    assert space.cardinality == 51
    assert set(codes) == set(range(1, 51)), "no id is unknown, every row is used"
    assert np.bincount(codes)[1:].max() < 3 * 5000 / 50
    np.testing.assert_array_equal(codes, space.codes("item_id", ids.reverse())[::-1])
    assert (codes != space.codes("user_id", ids)).mean() > 0.9, "the same text as another column's id is another id"


def test_ids_are_the_same_after_a_round_trip() -> None:
    space = IdSpace(kind="vocabulary", size=2, values={"b": 1, "a": 2})
    assert IdSpace.model_validate_json(space.model_dump_json()) == space
