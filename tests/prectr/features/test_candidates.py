"""Rows of unexposed candidates: their features hold the history before them, and they change no other row."""

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from prectr.data.parts import Part, Slice
from prectr.features.build import sample_rows
from prectr.features.read import Reading, read_rows
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.shown import ShownReader

KEYS = ["request_id", "user_id", "ts", "query", "item_id"]


def unexposed(shown: pl.DataFrame, day: object, pairs: pl.DataFrame) -> pl.DataFrame:
    """Every item that a request of the day did not show."""
    last = shown.filter(pl.col("date") == day)
    requests = last.select("request_id", "user_id", "ts", "query").unique(maintain_order=True)
    every = requests.join(pairs.select("query", "item_id", "pair"), on="query")
    return every.join(last, on=KEYS, how="anti").sort(KEYS)


@pytest.mark.parametrize(("seed", "half_life"), [(0, None), (1, None), (2, 1.5), (5, 1.5)])
def test_a_candidate_is_known_like_a_shown_row_and_changes_nothing(
    laboratory: SimpleNamespace, tmp_path: Path, seed: int, half_life: float | None
) -> None:
    shown, items, pairs = laboratory.draw_log(seed)
    day = shown["date"].max()
    hidden = unexposed(shown, day, pairs)
    assert len(hidden) > 3
    log = laboratory.mine(shown, items, pairs, half_life=half_life)
    hidden.select(KEYS).write_parquet(tmp_path / "candidates.parquet")
    part = Part(day, 0, (Slice(tmp_path / "candidates.parquet", 0, len(hidden)),))
    reading = Reading(log.context.preferences, ShownReader.of(items, PairIndex.of(pairs)))
    candidates = read_rows(part, reading, exposed=False)

    alone = sample_rows(log.rows, log.context)
    together = sample_rows(pl.concat([log.rows, candidates]), log.context)
    order = ["request_id", "ts", "item_id"]
    assert together.filter("exposed").sort(order).equals(alone.sort(order))

    # Had they been shown first and not clicked, the same would have been known before them, as long as nothing else
    # of the day came earlier.
    as_shown = sample_rows(pl.concat([log.rows, candidates.with_columns(exposed=pl.lit(True))]), log.context)
    moments = shown.filter(pl.col("date") == day).group_by("user_id").agg(pl.col("ts").min())
    candidate_rows, expected = (
        frame.join(hidden.select(KEYS), on=KEYS, how="semi").join(moments, on=["user_id", "ts"], how="semi").sort(order)
        for frame in (together, as_shown)
    )
    assert len(candidate_rows) and not candidate_rows["exposed"].any()
    assert candidate_rows.drop("exposed").equals(expected.drop("exposed"))
