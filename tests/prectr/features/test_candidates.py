"""Rows of unexposed candidates: their features hold the history before them, and they change no other row."""

from types import SimpleNamespace

import polars as pl
import pytest

from prectr.features.build import sample_rows

KEYS = ["request_id", "user_id", "ts", "query", "item_id"]


@pytest.mark.parametrize(("seed", "half_life"), [(0, None), (1, None), (2, 1.5), (5, 1.5)])
def test_a_candidate_is_known_like_a_shown_row_and_changes_nothing(
    laboratory: SimpleNamespace, seed: int, half_life: float | None
) -> None:
    shown, items, pairs = laboratory.draw_log(seed)
    day = shown["date"].max()
    log = laboratory.mine(shown, items, pairs, half_life=half_life)
    hidden, candidates = laboratory.unexposed(log, day), laboratory.read_unexposed(log, day)
    assert len(hidden) > 3

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


@pytest.mark.parametrize("half_life", [None, 1.5])
def test_a_candidate_has_the_history_of_its_item_pair_and_category(
    laboratory: SimpleNamespace, half_life: float | None
) -> None:
    """Also if the day shows none of them: what was known before it is what it would be if the day showed them."""
    history = ("item_examined", "item_clicks", "pair_examined", "pair_clicks")
    of_category = pl.selectors.starts_with("numeric.category", "query_preference")
    compared = 0
    for seed in range(6):
        shown, items, pairs = laboratory.draw_log(seed)
        day = shown["date"].max()
        # The day shows neither these items nor the category of the first of them.
        shown = shown.filter((pl.col("date") < day) | ~pl.col("item_id").is_in(["i3", "i4"]))
        log = laboratory.mine(shown, items, pairs, half_life=half_life)
        candidates = laboratory.read_unexposed(log, day)
        last = shown.filter(pl.col("date") == day)
        if last.is_empty() or candidates.is_empty():
            continue
        # The same log, in which each request of the day shows its candidates too, below all others.
        rows = laboratory.unexposed(log, day).join(pairs.select("query", "item_id", "pair"), on=["query", "item_id"])
        also = rows.with_columns(
            position=pl.lit(9, pl.Int32), clicked=pl.lit(False), date=pl.lit(day), file=pl.lit(last["file"][0])
        )
        shown_too = laboratory.mine(pl.concat([shown, also], how="diagonal"), items, pairs, half_life=half_life)
        expected = candidates.select(*KEYS).join(shown_too.rows, on=KEYS, how="left", maintain_order="left")
        assert candidates.select(history).equals(expected.select(history))
        assert not expected["item_examined"].is_null().any()
        new = ~candidates["item_id"].is_in(last["item_id"].to_list())
        compared += int((new & (candidates["item_examined"] > 0)).sum())

        together = sample_rows(pl.concat([log.rows, candidates]), log.context).filter(~pl.col("exposed"))
        wanted = sample_rows(shown_too.rows, shown_too.context).join(together.select(KEYS), on=KEYS, how="semi")
        first = shown.filter(pl.col("date") == day).group_by("user_id").agg(pl.col("ts").min())
        pair = [
            frame.join(first, on=["user_id", "ts"], how="semi").sort(KEYS).select(of_category)
            for frame in (together, wanted)
        ]
        assert pair[0].equals(pair[1])
    assert compared, "no candidate whose item the day did not show, but an earlier day did"
