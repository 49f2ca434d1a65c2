"""Off-policy values against brute force over all orders, against the marketplace's truth, and against themselves."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.data.marketplace import MarketplaceConfig, prepare
from prectr.data.marketplace.log import draw_requests, logging_order, show
from prectr.evaluation.experiments.off_policy import RandomisedRows, paired_difference, uniform_placement

PROBABILITIES = st.floats(0.01, 0.99)
ITEMS = 3


def listed(order: tuple[int, ...], clicks: tuple[float, ...], depth: int | None = None) -> RandomisedRows:
    """One request whose item i stands at place order[i]; `clicks` of each item."""
    count = len(order)
    return RandomisedRows(
        np.zeros(count, int),
        np.zeros(count, int),
        np.array(order) + 1,
        np.array(clicks),
        np.full(count, 1 / count),
        depth,
    )


@given(
    table=st.lists(st.lists(PROBABILITIES, min_size=ITEMS, max_size=ITEMS), min_size=ITEMS, max_size=ITEMS),
    scores=st.lists(st.integers(0, 2), min_size=ITEMS, max_size=ITEMS),
    model=st.lists(st.lists(PROBABILITIES, min_size=ITEMS, max_size=ITEMS), min_size=ITEMS, max_size=ITEMS),
    depth=st.integers(1, ITEMS),
)
def test_ips_and_dr_are_unbiased_over_all_orders_and_clicks(table, scores, model, depth) -> None:
    """table[i][k]: click probability of item i at place k. Ties of the ranker are broken at random."""
    orders = list(itertools.permutations(range(ITEMS)))
    chosen = [order for order in orders if sorted_by(order, scores)]
    truth = np.mean([sum(table[i][order[i]] for i in range(ITEMS) if order[i] < depth) for order in chosen])
    for method in ("ips", "dr"):
        expected = 0.0
        for order in orders:
            for clicks in itertools.product((0.0, 1.0), repeat=ITEMS):
                chances = (table[i][order[i]] if clicks[i] else 1 - table[i][order[i]] for i in range(ITEMS))
                found = listed(order, clicks, depth).value(method, np.array(scores), np.array(model))
                expected += np.prod(list(chances)) / len(orders) * found.value
        assert expected == pytest.approx(truth, rel=1e-9)


def sorted_by(order: tuple[int, ...], scores: list[int]) -> bool:
    """Whether a better item stands before a worse one."""
    return all(order[i] < order[j] for i, j in itertools.permutations(range(ITEMS), 2) if scores[i] > scores[j])


@pytest.fixture(scope="module")
def shown():
    """Randomised requests of the marketplace with their true click probabilities."""
    world = prepare(MarketplaceConfig(users=400, items=800, queries=60, requests=10, days=1, seed=3)).world
    requests = draw_requests(world, 0, 6000)
    requests = type(requests)(**{**vars(requests), "explore": np.ones(len(requests), bool)})
    rng = np.random.default_rng(1)
    order, propensity = logging_order(world, requests, rng)
    made = show(world, requests, order)
    clicked, _ = made.draw(rng)
    logged = propensity[made.row, made.position - 1]
    return requests.user[made.row], made, clicked, logged


@pytest.fixture(scope="module")
def rows(shown) -> RandomisedRows:
    user, made, clicked, logged = shown
    return RandomisedRows(made.row, user, made.position, clicked, uniform_placement(made.row, made.position, logged))


def truth(made, score: np.ndarray, depth: int = 10) -> float:
    """Expected clicks a request if lists are ordered by score, by the click model and a plain sort."""
    order = np.lexsort((-score, made.row))
    place = np.arange(len(order)) % 10 + 1  # every list has ten items
    p = made.met.p_click_given_exam[order] / place
    return float(p[place <= depth].sum() / (made.row.max() + 1))


@pytest.mark.parametrize("depth", [1, 10])
@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_values_are_the_marketplace_s_truth(shown, method, depth) -> None:
    user, made, clicked, logged = shown
    placed = uniform_placement(made.row, made.position, logged)
    rows = RandomisedRows(made.row, user, made.position, clicked, placed, depth)
    score = made.met.r  # a sensible ranker
    model = np.outer(0.7 * made.met.attraction, 1 / np.arange(1, 11))  # a poor one that knows the position's decay
    found = rows.value(method, score, model)
    expected = truth(made, score, depth)
    assert abs(found.value - expected) < 4 * found.standard_error
    assert found.standard_error < 0.2 * expected
    assert expected > 1.15 * truth(made, made.position.astype(float), depth), "or any estimate would do"
    assert found.interval.low < found.value < found.interval.high
    assert found.effective_rows == pytest.approx(rows.requests * depth / 10, rel=0.1)


def test_less_noise_by_weighting_positions_and_by_a_good_model(shown, rows) -> None:
    _, made, _, _ = shown
    perfect = made.met.p_click_given_exam[:, None] / np.arange(1, 11)
    errors = {method: rows.value(method, made.met.r, perfect).standard_error for method in ("ips", "snips", "dr")}
    # By little: clicks are rare, so most of the noise is in the click itself, which no model takes out.
    assert max(errors["dr"], errors["snips"]) < errors["ips"]


def test_a_model_of_certain_clicks_leaves_no_noise_of_the_order() -> None:
    """Items that are always or never clicked, in many random orders: IPS scatters, DR with the right model does not."""
    random = np.random.default_rng(4)
    request = np.repeat(np.arange(500), 4)
    position = random.permuted(np.tile(np.arange(1, 5), (500, 1)), axis=1).ravel()
    certain = np.tile([1.0, 0.0, 1.0, 0.0], 500)
    rows = RandomisedRows(request, request, position, certain, np.full(2000, 0.25), depth=1)
    model = np.tile(certain[:, None], (1, 4))
    found = rows.value("dr", certain - 0.1 * np.tile(np.arange(4), 500), model)
    assert found.value == pytest.approx(1.0, rel=1e-12)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)
    assert rows.value("ips", certain - 0.1 * np.tile(np.arange(4), 500)).standard_error > 0.05


def test_standard_errors_are_the_spread_over_logs(shown) -> None:
    """Draw the log again and again: the estimates scatter as one log said they would."""
    user, made, _, _ = shown
    random = np.random.default_rng(2)
    first = made.row < 1500
    request, owner, free = made.row[first], user[first], made.met.p_click_given_exam[first]
    model = np.outer(0.8 * free, 1 / np.arange(1, 11))
    found: dict[str, list[tuple[float, float]]] = {"ips": [], "snips": [], "dr": []}
    for _ in range(120):
        position = random.permuted(np.tile(np.arange(1, 11), (1500, 1)), axis=1).ravel()
        rows = RandomisedRows(request, owner, position, random.random(15_000) < free / position, np.full(15_000, 0.1))
        for method, values in found.items():
            estimate = rows.value(method, free, model)  # type: ignore[arg-type]
            values.append((estimate.value, estimate.standard_error))
    for method, values in found.items():
        estimates, errors = np.array(values).T
        # Users and requests are fixed here, so the spread may be a little less than the error, which counts them too.
        assert 0.75 < estimates.std() / errors.mean() < 1.15, method
        assert abs(estimates.mean() - expected_of(free)) < 4 * estimates.std() / 120**0.5


def expected_of(free: np.ndarray) -> float:
    return float((-np.sort(-free.reshape(-1, 10), axis=1) / np.arange(1, 11)).sum(axis=1).mean())


def test_snips_of_the_logging_order_itself_is_what_was_logged(shown, rows) -> None:
    """A ranker that ties everything is the random order."""
    _, _, clicked, _ = shown
    constant = np.zeros(len(clicked))
    logged = rows.logged()
    assert logged.value == pytest.approx(clicked.sum() / rows.requests)
    for method in ("ips", "snips"):
        found = rows.value(method, constant)
        assert found.value == pytest.approx(logged.value)
        assert found.standard_error == pytest.approx(logged.standard_error)
        assert found.effective_rows == pytest.approx(len(clicked))


def test_a_pair_on_the_same_rows_is_surer_than_two_values(shown, rows) -> None:
    _, made, _, _ = shown
    good, nearly = rows.value("snips", made.met.r), rows.value("snips", made.met.r + 0.1 * made.met.attraction)
    value, error, interval = paired_difference(good, nearly)
    assert value == pytest.approx(nearly.value - good.value)
    assert error < 0.7 * np.hypot(good.standard_error, nearly.standard_error)
    assert interval.low < value < interval.high
    assert paired_difference(good, good)[:2] == (0.0, 0.0)


def test_rows_may_come_in_any_order_and_lists_may_differ_in_length() -> None:
    request = np.array([7, 7, 7, 3, 3, 5])
    position = np.array([1, 2, 3, 2, 1, 1])
    clicked = np.array([1, 0, 1, 0, 1, 1])
    score = np.array([0.1, 0.9, 0.5, 0.3, 0.2, 0.0])
    propensity = np.array([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5, 1.0])
    # Matches: none of request 7 (its order is 3, 1, 2); none of request 3 (its order is swapped); request 5.
    found = RandomisedRows(request, request, position, clicked, propensity).value("ips", score)
    assert found.value == pytest.approx((0 + 0 + 1) / 3)
    score = -position.astype(float)
    order = np.array([4, 0, 5, 2, 1, 3])
    shuffled = (column[order] for column in (request, request, position, clicked, propensity))
    again = RandomisedRows(*shuffled).value("ips", score[order])
    assert again.value == pytest.approx((2 * 3 + 1 * 2 + 1) / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": [0.5, float("nan")]}, "1 are missing and 0 are outside"),
        ({"propensity": [0.5, 0.0]}, "0 are missing and 1 are outside"),
        ({"propensity": [0.5, 1.2]}, r"1 are outside \(0, 1\]"),
        ({"position": [1, 3]}, "1 of 1 requests do not have the positions"),
        ({"position": [1, 1]}, "1 of 1 requests do not have the positions"),
        ({"user": [1, 2]}, "1 rows have another user"),
        ({"clicked": [1]}, r"lengths are \[1, 2\]"),
        ({"request": [], "user": [], "position": [], "clicked": [], "propensity": []}, "No randomised rows"),
    ],
)
def test_rows_that_no_value_can_be_had_of_are_refused(change, message) -> None:
    columns = {"request": [1, 1], "user": [1, 1], "position": [1, 2], "clicked": [0, 1], "propensity": [0.5, 0.5]}
    with pytest.raises(ValueError, match=message):
        RandomisedRows(**{name: np.array(values) for name, values in (columns | change).items()})


def test_scores_and_models_are_checked() -> None:
    rows = listed((0, 1, 2), (0.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="1 are NaN"):
        rows.value("ips", np.array([1.0, np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"as \[3, 3\]; got None"):
        rows.value("dr", np.arange(3.0))
    with pytest.raises(ValueError, match="1 missing values"):
        rows.value("dr", np.arange(3.0), np.array([[0.1] * 3, [0.1] * 3, [0.1, np.nan, 0.1]]))


def test_placement_comes_from_logged_propensities_of_a_uniform_order_only(shown) -> None:
    _, made, _, logged = shown
    assert uniform_placement(made.row, made.position, logged) == pytest.approx(np.full(len(logged), 0.1))
    for pool in (10, 30):
        constant = np.full(len(logged), 1 / pool)
        assert uniform_placement(made.row, made.position, constant) == pytest.approx(np.full(len(logged), 0.1))
        both = np.where(made.row % 2 == 0, logged, constant).astype(np.float32)
        assert uniform_placement(made.row, made.position, both) == pytest.approx(np.full(len(logged), 0.1))
    with pytest.raises(ValueError, match="6000 of 6000 requests have propensities of an order that is not uniform"):
        uniform_placement(made.row, made.position, np.full(len(logged), 0.11))  # ten items, nine to choose from
    sequential = logged.copy()
    sequential[:3] *= 0.5  # of one request
    with pytest.raises(ValueError, match="1 of 6000 requests have propensities of an order that is not uniform"):
        uniform_placement(made.row, made.position, sequential)
    with pytest.raises(ValueError, match="2 are missing or outside"):
        uniform_placement(np.zeros(2), np.array([1, 2]), np.array([np.nan, 0.0]))
