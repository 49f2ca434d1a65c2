"""Comparing nested answers and reports whose numbers were computed in two ways."""

from typing import Any

import pytest


def assert_close(found: Any, expected: Any, rel: float, absolute: float = 1e-12, at: str = "") -> None:
    """Assert that two JSON values are equal, numbers with a fraction within a tolerance.

    Args:
        found: dictionaries, lists, numbers, text.
        expected: likewise.
        rel: largest relative difference of two numbers.
        absolute: largest difference that passes in any case.
        at: where the values stand, for the message.
    """
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), at
        for name, value in expected.items():
            assert_close(found[name], value, rel, absolute, f"{at}.{name}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), at
        for place, (one, other) in enumerate(zip(found, expected)):
            assert_close(one, other, rel, absolute, f"{at}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=absolute, nan_ok=True), at
    else:
        assert found == expected, at
