"""Sums by key and sums of earlier rows, against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prectr.preferences.counting import before_each, fading, sum_by

CODES = st.lists(st.integers(0, 4), max_size=25)


@given(CODES, st.randoms(use_true_random=False))
def test_sum_by_equals_a_loop(codes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    dense = np.unique(codes, return_inverse=True)[1] if codes else np.zeros(0, np.int64)
    values = np.array([[random.random(), random.random()] for _ in codes]).reshape(-1, 2)
    expected = [sum((v for c, v in zip(dense, values) if c == k), np.zeros(2)) for k in range(len(set(codes)))]
    np.testing.assert_allclose(sum_by(dense, values), np.array(expected).reshape(-1, 2))


@given(CODES, st.sampled_from([None, 2.0]), st.randoms(use_true_random=False))
def test_sums_of_earlier_rows_equal_a_loop(codes: list[int], half_life: float | None, random) -> None:  # type: ignore[no-untyped-def]
    ordered = np.array(sorted(codes), dtype=np.int64)
    day = np.zeros(len(codes), np.int64)
    for row in range(1, len(codes)):
        day[row] = day[row - 1] + random.randint(0, 3) if ordered[row] == ordered[row - 1] else random.randint(0, 3)
    values = np.array([[random.random()] for _ in codes]).reshape(-1, 1)
    expected = [
        sum(
            values[j, 0] * (1.0 if half_life is None else 2.0 ** (-(day[i] - day[j]) / half_life))
            for j in range(i)
            if ordered[j] == ordered[i]
        )
        for i in range(len(codes))
    ]
    np.testing.assert_allclose(before_each(ordered, values, fading(ordered, day, half_life))[:, 0], expected)


def test_sums_of_earlier_rows_do_not_depend_on_the_rest_of_the_block() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((30, 2)) * 10.0 ** rng.integers(-8, 8, (30, 1))
    codes = np.repeat([0, 1, 2], 10)
    np.testing.assert_array_equal(before_each(codes, values)[10:20], before_each(codes[10:20], values[10:20]))
