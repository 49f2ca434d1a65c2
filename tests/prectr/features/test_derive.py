"""Features from known sums, computed by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from prectr.features.derive import RawState, derive, history_counts
from prectr.features.spec import RECENCY_BUCKETS, recency_bucket
from prectr.preferences.behaviours import ACTIVITY_GROUPS, activity_group
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.sums import LEVEL_WIDTH, USER_WIDTH
from prectr.preferences.tolerance import GRID_SIZE


@pytest.fixture
def model(laboratory: SimpleNamespace) -> PreferenceModel:
    return laboratory.model


def _levels(impressions: list[float], examined: list[float], clicks: list[float]) -> np.ndarray:
    return np.r_[np.zeros(GRID_SIZE), impressions, examined, clicks, clicks, 4.0, 2.0][None, :]


def _state(model: PreferenceModel) -> RawState:
    """One row of a known user and query: mean log-price of the query's clicks 4 / 2."""
    nothing = np.zeros((1, 2))
    return RawState(
        request=np.zeros(1, np.int64),
        expected=np.array([0.7]),
        encoder_expected=np.array([0.6]),
        levels=np.array([[0.0, 0.2, 0.3, 0.5]]),
        source=np.array([1]),
        log_price=np.array([3.0]),
        log_list_price=np.array([3.25]),
        relative_price=np.array([0.5]),
        user=np.r_[np.zeros(GRID_SIZE), 3.0, 10.0, 2.0][None, :],
        user_price=np.array([[5.0, 2.0]]),
        user_brand=np.array([[4.0, 2.0]]),
        user_category=nothing,
        query=_levels([10, 0, 0, 10], [5, 0, 0, 5], [0, 0, 0, 2]),
        query_users=np.array([3.0]),
        category=np.zeros((1, LEVEL_WIDTH)),
        category_of=np.zeros(1, np.int64),
        total=_levels([100, 100, 100, 100], [20, 20, 20, 20], [1, 1, 2, 5]),
        item=np.array([[4.0, 1.0]]),
        pair=np.zeros((1, 2)),
        query_prior=model.query_prior[None, :],
    )


def test_rates_are_smoothed_towards_the_one_above(model: PreferenceModel) -> None:
    strengths = {"user": 2.0, "user_brand": 3.0, "user_category": 4.0, "query": 5.0, "item": 6.0, "pair": 7.0}
    model = replace(model, rate_prior_clicks=strengths)
    state = replace(_state(model), user_category=np.array([[8.0, 1.0]]), pair=np.array([[2.0, 1.0]]))
    features = {name: values[0] for name, values in derive(state, model)["numeric"].items()}
    # The whole log's rate is (9 + 1) / (80 + 20) = 0.1: 2 clicks of it are 20 examined impressions.
    user, query = (2 + 2) / (10 + 20), (2 + 5) / (10 + 50)
    assert features["user_rate"] == pytest.approx(np.log(user))
    assert features["user_brand_rate"] == pytest.approx(np.log((2 + 3) / (4 + 3 / user)))
    assert features["user_category_rate"] == pytest.approx(np.log((1 + 4) / (8 + 4 / user)))
    assert features["query_rate"] == pytest.approx(np.log(query))
    assert features["item_rate"] == pytest.approx(np.log((1 + 6) / (4 + 60)))
    assert features["pair_rate"] == pytest.approx(np.log((1 + 7) / (2 + 7 / query)))
    unseen = derive(_state(model), model)["numeric"]
    assert unseen["user_category_rate"][0] == pytest.approx(np.log(user)), "no earlier rows: the user's rate"
    assert unseen["pair_rate"][0] == pytest.approx(np.log(query)), "no earlier rows: the query's rate"
    assert features["price_above_query"] == pytest.approx(3.0 - 4.0 / 2.0)
    assert features["price_above_user"] == pytest.approx(0.5 - 5.0 / 2.0)
    assert (features["discount"], features["relative_price"]) == (pytest.approx(0.25), pytest.approx(0.5))
    assert (features["judged"], features["taught"]) == (0.0, 1.0)
    assert features["user_requests"] == pytest.approx(np.log(4))


def test_levels_of_a_query_back_off_to_category_and_log(model: PreferenceModel) -> None:
    features = {name: values[0] for name, values in derive(_state(model), model)["query_preference"].items()}
    of_total = np.array([2, 2, 3, 6]) / 40  # the category has no rows: its rates are the log's
    prior = model.level_prior_clicks
    expected = (np.array([0, 0, 0, 2]) + prior) / (np.array([5, 0, 0, 5]) + prior / of_total)
    share = (np.array([0, 0, 0, 2]) + of_total / of_total.sum()) / 3
    for level in range(4):
        assert features[f"level_{level}_rate"] == pytest.approx(np.log(expected[level]))
        assert features[f"level_{level}_click_share"] == pytest.approx(share[level])
    assert features["level_0_impressions"] == pytest.approx(np.log(11))
    assert (features["query_users"], features["backed_off"]) == (pytest.approx(np.log(4)), 0.0)


def test_unknown_prices_and_zero_sums_give_finite_features(model: PreferenceModel) -> None:
    blank = {
        "log_price": np.array([np.nan]),
        "relative_price": np.array([np.nan]),
        "user": np.zeros((1, USER_WIDTH)),
        "query": np.zeros((1, LEVEL_WIDTH)),
        "total": np.zeros((1, LEVEL_WIDTH)),
    }
    groups = derive(replace(_state(model), **blank), model)
    assert all(np.isfinite(values).all() for features in groups.values() for values in features.values())
    for name in ("price_above_query", "price_above_user", "price_known", "discount", "relative_price"):
        assert groups["numeric"][name][0] == 0.0
    assert groups["query_preference"]["backed_off"][0] == 1.0
    assert groups["tolerance"]["user_tolerance"][0] == pytest.approx(model.user_centre)
    # The threshold is the user's centre plus the query's shift, which is 0.
    assert groups["tolerance"]["threshold"][0] == pytest.approx(model.user_centre)
    assert groups["tolerance"]["above_threshold"][0] == pytest.approx(0.7 - model.user_centre)


def test_buckets_by_hand() -> None:
    assert activity_group(np.array([0, 1, 2, 3, 7, 10**6])).tolist() == [1, 2, 2, 3, 4, ACTIVITY_GROUPS]
    assert recency_bucket(np.array([-5.0, 0, 59, 60, 180, 1e12])).tolist() == [1, 1, 1, 2, 3, RECENCY_BUCKETS - 1]
    np.testing.assert_allclose(history_counts(np.array([0]), np.array([3])), [[0.0, np.log(4)]], rtol=1e-6)
