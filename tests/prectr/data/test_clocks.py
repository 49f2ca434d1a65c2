"""Days that wrong clocks made: far from the bulk and few, or very far."""

from datetime import date, timedelta

import pytest

from prectr.data.clocks import far_days
from prectr.data.config import ValidateConfig

START = date(2026, 3, 1)


def _days(**rows: int) -> dict[date, int]:
    """`d5=10`: ten rows on the fifth day after the start; `b5`: before it."""
    return {
        START + timedelta(days=int(name[1:]) * (1 if name[0] == "d" else -1)): count for name, count in rows.items()
    }


def _far(days: dict[date, int], **settings: float) -> list[int]:
    return sorted((day - START).days for day in far_days(days, ValidateConfig.model_validate(settings)))


def test_a_log_without_gaps_has_none() -> None:
    assert far_days({}, ValidateConfig()) == set()
    assert _far(_days(d0=1)) == [] and _far(_days(d0=1000, d1=1, d2=1000)) == []


def test_single_rows_of_1970_and_2038_are_far() -> None:
    days = _days(d0=500, d1=500) | {date(1970, 1, 1): 1, date(2038, 1, 19): 2}
    assert far_days(days, ValidateConfig()) == {date(1970, 1, 1), date(2038, 1, 19)}


@pytest.mark.parametrize(("gap", "rows", "found"), [(7, 1, [7]), (7, 10, [7]), (7, 11, []), (4, 1, [4]), (3, 1, []),
                                                    (1, 1, [])])  # fmt: skip
def test_a_clock_a_week_ahead(gap: int, rows: int, found: list[int]) -> None:
    """The gap is at least `far_days` days, and the rows at most `far_share` of the bulk's."""
    assert _far(_days(d0=1000) | {START + timedelta(days=gap): rows}) == found


def test_a_pause_of_the_log_is_none() -> None:
    assert _far(_days(d0=1000, d1=1000, d20=900, d21=1100)) == []


def test_very_far_rows_are_far_however_many() -> None:
    assert _far(_days(d0=1000, d500=999)) == [500] and _far(_days(d0=1000, d360=999)) == []
    assert _far(_days(d0=999, d500=1000)) == [0]


def test_the_bulk_is_a_cluster_not_a_day() -> None:
    days = _days(**{f"d{number}": 100 for number in range(30)}, d60=120)
    assert _far(days, far_share=0.05) == [60] and _far(days, far_share=0.03) == []


def test_the_rule_can_be_set() -> None:
    days = _days(d0=1000, d10=50)
    assert _far(days) == [] and _far(days, far_share=0.05) == [10] and _far(days, far_share=0.05, far_days=10) == []
    assert _far(_days(d0=10, d40=10), farthest_days=30) == [40]


def test_far_rows_close_together_are_all_far() -> None:
    assert _far(_days(d0=1000, d30=1, d31=2, d33=3)) == [30, 31, 33]
