"""Slices of rows by hand."""

import numpy as np
import polars as pl
import pytest

from prectr.metrics.slices import exposure_slices, query_slices, user_slices


def _rows(masks: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def test_users_by_what_is_known_of_them() -> None:
    actual = _rows(user_slices(pl.Series([0, 3, 4, 9, 10, 500])))
    assert actual == {"cold": [0, 1], "warm": [2, 3], "active": [4, 5]}
    with pytest.raises(ValueError, match="active must be at least 5"):
        user_slices(pl.Series([1]), cold=3, active=4)
    with pytest.raises(ValueError, match="1 of 2 rows have no number of earlier requests"):
        user_slices(pl.Series([1, None]))


def test_queries_by_their_share_of_training_impressions() -> None:
    # 12 impressions: a begins at 0, b and c together at 5 / 12, d at 11 / 12; e was never seen.
    training = pl.Series(["a"] * 5 + ["b"] * 3 + ["c"] * 3 + ["d"])
    actual = _rows(query_slices(pl.Series(["e", "d", "c", "b", "a", "a"]), training))
    assert actual == {"head": [4, 5], "torso": [2, 3], "tail": [0, 1]}
    assert _rows(query_slices(pl.Series(["a", "b"]), training, head=0.45, torso=0.1))["head"] == [0, 1]
    assert _rows(query_slices(pl.Series(["a", "b"]), training.clear()))["tail"] == [0, 1]
    with pytest.raises(ValueError, match="with a sum below 1"):
        query_slices(training, training, head=0.5, torso=0.5)


def test_rows_by_how_they_came_to_be_seen() -> None:
    exposed = pl.Series([True, True, True, False])
    policy = pl.Series(["explore", "default", None, None])
    assert _rows(exposure_slices(exposed, policy)) == {"exposed": [0, 1, 2], "unexposed": [3], "randomised": [0]}
    assert "randomised" not in exposure_slices(exposed, pl.Series([None] * 4, dtype=pl.String))
