"""The simulator's rules by hand-computed values and brute-force oracles: grades, relevance, propensities, noise."""

import json
import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from prectr.data.marketplace import constants
from prectr.data.marketplace.catalogue import make_catalogue, taxonomy
from prectr.data.marketplace.log import place_propensities
from prectr.data.marketplace.queries import make_queries
from prectr.data.marketplace.randomness import draw, pair_uniform, stream
from prectr.data.marketplace.relevance import grade_pairs
from prectr.data.marketplace.vocabulary import COLOURS, CONDITIONS, FOR_PARTS


def _code(name: str) -> int:
    return next(code for code, names in enumerate(taxonomy().type_names) if names[0] == name)


def _model(brand: str, place: int) -> tuple[int, int]:
    tables = taxonomy()
    brand_code = tables.brand_names.index(brand)
    return brand_code, int(tables.brand_models[_code("phone"), brand_code][place])


NOKIA, NOKIA_3310 = _model("nokia", 0)
_, NOKIA_105 = _model("nokia", 1)
SAMSUNG, GALAXY = _model("samsung", 0)
PHONE, BATTERY, CASE, LAPTOP, TABLET = (_code(name) for name in ("phone", "battery", "case", "laptop", "tablet"))
BLACK, BLUE = 0, 2

# asked (type, brand, model, colour, spec), item (the same, condition), grade
GRADES = [
    ("broad", (PHONE, -1, -1, -1, -1), (PHONE, SAMSUNG, GALAXY, BLACK, 1, 2), 3),
    ("broken", (PHONE, -1, -1, -1, -1), (PHONE, SAMSUNG, GALAXY, BLACK, 1, FOR_PARTS), 2),
    ("brand", (PHONE, NOKIA, -1, -1, -1), (PHONE, NOKIA, NOKIA_3310, -1, -1, 2), 3),
    ("other brand", (PHONE, NOKIA, -1, -1, -1), (PHONE, SAMSUNG, GALAXY, -1, -1, 2), 1),
    ("exact", (PHONE, NOKIA, NOKIA_3310, BLUE, -1), (PHONE, NOKIA, NOKIA_3310, BLUE, 0, 2), 3),
    ("other colour", (PHONE, NOKIA, NOKIA_3310, BLUE, -1), (PHONE, NOKIA, NOKIA_3310, BLACK, 0, 2), 2),
    ("colour not stated", (PHONE, NOKIA, NOKIA_3310, BLUE, -1), (PHONE, NOKIA, NOKIA_3310, -1, 0, 2), 2),
    ("colour and spec missed", (PHONE, NOKIA, NOKIA_3310, BLUE, 1), (PHONE, NOKIA, NOKIA_3310, -1, 0, 2), 1),
    ("other model of the series", (PHONE, NOKIA, NOKIA_3310, -1, -1), (PHONE, NOKIA, NOKIA_105, -1, -1, 2), 2),
    ("model not stated", (PHONE, NOKIA, NOKIA_3310, -1, -1), (PHONE, NOKIA, -1, -1, -1, 2), 1),
    ("other brand, model asked", (PHONE, NOKIA, NOKIA_3310, -1, -1), (PHONE, SAMSUNG, GALAXY, -1, -1, 2), 0),
    ("accessory of the asked model", (PHONE, NOKIA, NOKIA_3310, -1, -1), (BATTERY, NOKIA, NOKIA_3310, -1, -1, 2), 1),
    ("accessory, nothing asked but the type", (PHONE, -1, -1, -1, -1), (BATTERY, NOKIA, NOKIA_3310, -1, -1, 2), 0),
    ("main product for its accessory", (BATTERY, NOKIA, NOKIA_3310, -1, -1), (PHONE, NOKIA, NOKIA_3310, -1, -1, 2), 1),
    ("other accessory of the same model", (BATTERY, NOKIA, NOKIA_3310, -1, -1), (CASE, NOKIA, NOKIA_3310, 1, -1, 2), 0),
    ("sibling type", (LAPTOP, -1, -1, -1, -1), (TABLET, SAMSUNG, -1, -1, -1, 2), 1),
    ("broken sibling", (LAPTOP, -1, -1, -1, -1), (TABLET, SAMSUNG, -1, -1, -1, FOR_PARTS), 0),
    ("unrelated", (PHONE, -1, -1, -1, -1), (LAPTOP, -1, -1, -1, -1, 2), 0),
]


@pytest.mark.parametrize(("asked", "listed", "grade"), [case[1:] for case in GRADES], ids=[case[0] for case in GRADES])
def test_grade_by_hand(asked, listed, grade):
    items = make_catalogue(seed=0, size=200)
    queries = make_queries(0, 10, items, placebo=False)

    def put(values):
        return [np.array([value], np.int32) for value in values]

    names = ("type", "brand", "model", "colour", "spec")
    queries = replace(queries, **dict(zip(names, put(asked), strict=True)))
    items = replace(items, **dict(zip((*names, "condition"), put(listed), strict=True)))
    found, r = grade_pairs(queries, items, np.array([0]), np.array([0]))
    assert found[0] == grade
    low, high = constants.BANDS[grade]
    assert low <= r[0] <= high


def test_relevance_rises_with_the_match_inside_a_grade():
    items = make_catalogue(seed=3, size=2000)
    queries = make_queries(3, 50, items, placebo=False)
    grade, r = grade_pairs(queries, items, np.arange(50)[:, None], np.arange(2000)[None, :])
    bands = np.array(constants.BANDS)
    assert set(np.unique(grade)) == {0, 1, 2, 3}
    assert (r >= bands[grade, 0] - 1e-6).all() and (r <= bands[grade, 1] + 1e-6).all()
    for level in range(4):
        assert r[grade == level].std() > 0.02


def test_titles_state_the_attributes_that_grades_are_read_from():
    items = make_catalogue(seed=5, size=1500)
    tables = taxonomy()
    for row, title in enumerate(title.lower() for title in items.titles.to_pylist()):
        words = f" {title} "
        if items.model[row] >= 0:
            assert f" {tables.model_names[items.model[row]]} " in words
        elif items.brand[row] >= 0:
            assert f" {tables.brand_names[items.brand[row]]} " in words
        if items.colour[row] >= 0:
            assert any(f" {name} " in words for name in COLOURS[items.colour[row]])
        if items.condition[row] == FOR_PARTS:
            assert any(f" {name} " in words for name in CONDITIONS[FOR_PARTS])
        if tables.type_main[items.type[row]] != items.type[row] or items.model[row] < 0:
            assert any(f" {name} " in words for name in tables.type_names[items.type[row]])


def test_model_names_are_unambiguous_within_their_type():
    tables = taxonomy()
    by_type: dict[int, list[str]] = {}
    for (main, _), models in tables.brand_models.items():
        by_type.setdefault(main, []).extend(tables.model_names[model] for model in models)
    assert by_type
    assert all(len(names) == len(set(names)) for names in by_type.values())


def test_queries_are_distinct_and_share_tolerance_within_an_intent():
    items = make_catalogue(seed=2, size=3000)
    queries = make_queries(2, 300, items, placebo=False)
    assert len(set(queries.texts)) == 300
    assert queries.popularity.sum() == pytest.approx(1.0)
    for intent in np.unique(queries.intent):
        assert np.ptp(queries.tolerance[queries.intent == intent]) == 0.0
    assert len(np.unique(queries.intent)) < 300  # paraphrases exist
    assert np.corrcoef(queries.specificity, queries.tolerance)[0, 1] > 0.2


def test_place_propensities_against_enumeration():
    weights = np.array([1.0, 2.0, 4.0, 3.0])
    total = 0.0
    for order in permutations(range(4)):
        found = place_propensities(np.log(weights[list(order)]).astype(np.float32)[None, :], shown=2)[0]
        first, second = weights[order[0]], weights[order[1]]
        expected = [first / 10.0, second / (10.0 - first)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        total += found.prod() / 2.0  # each ordered pair comes with two tails
    assert total == pytest.approx(1.0)


def test_place_propensities_ignore_padding():
    logits = np.array([[0.3, -0.2, 0.1]], np.float32)
    padded = np.concatenate([logits, np.full((1, 2), -np.inf, np.float32)], axis=1)
    np.testing.assert_allclose(place_propensities(logits, 3), place_propensities(padded, 3), rtol=1e-12)


def test_pair_noise_is_uniform_and_belongs_to_the_pair():
    noise = pair_uniform(np.arange(300)[:, None], np.arange(300)[None, :], salt=1)
    counts = np.histogram(noise, bins=20, range=(0.0, 1.0))[0]
    assert abs(counts - 4500).max() < 6 * np.sqrt(4500)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02
    assert pair_uniform(17, 4, salt=1) == noise[17, 4]
    assert pair_uniform(17, 4, salt=2) != noise[17, 4]


def test_draw_never_takes_a_weight_of_zero():
    drawn = draw(stream(0, 9), np.array([0.0, 1.0, 0.0, 3.0, 0.0]), 4000)
    assert set(drawn) == {1, 3}
    assert np.mean(drawn == 3) == pytest.approx(0.75, abs=0.04)


def test_the_data_card_lists_every_constant_as_it_is():
    card = (Path(__file__).parents[3] / "docs/marketplace.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", card, flags=re.MULTILINE))
    assert listed == {name: json.dumps(value) for name, value in constants.as_dict().items()}
