"""`true_when` compares values, not their spelling in YAML, and says what it did not meet or name."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from prectr.core.errors import PrectrError
from prectr.data.importers.flags import FlagRule
from prectr.data.importers.mapping_config import Flag

LOG = Path("log.csv")


def _rule(written: str, **settings: Any) -> FlagRule:
    """A rule as YAML reads it."""
    return FlagRule("columns.impressions.clicked", Flag.model_validate({"column": "c", **yaml.safe_load(written)}))


def _yes(rule: FlagRule, *values: Any, dtype: Any = pl.String) -> list[bool]:
    return rule.read(LOG, pl.DataFrame({"c": values}, schema={"c": dtype})).to_list()


@pytest.mark.parametrize("written", ["[yes]", "[on]", "[true]", "[True]", "['yes']", "yes", "[YES]", "['Yes', 'on']"])
def test_yes_on_and_true_are_one(written: str) -> None:
    rule = _rule(f"true_when: {written}")
    assert _yes(rule, "yes", "no", None, " Yes ")[:3] == [True, False, False]


@pytest.mark.parametrize("written", ["[yes]", "[on]", "[true]"])
def test_yaml_booleans_meet_every_spelling_of_true(written: str) -> None:
    rule = _rule(f"true_when: {written}")
    assert _yes(rule, "yes", "on", "True", "t", "1", "1.0", "0", "no", "off", "false", "maybe", "", None) == [
        True, True, True, True, True, True, *[False] * 7,
    ]  # fmt: skip


def test_no_means_no_and_false_can_be_named() -> None:
    rule = _rule("true_when: [no]")
    assert _yes(rule, "no", "NO", "off", "0", "false", "yes", "1") == [True] * 5 + [False] * 2


@pytest.mark.parametrize("written", ["[1]", "[1.0]", "['1']", "['1.0']", "1"])
def test_one_is_one(written: str) -> None:
    rule = _rule(f"true_when: {written}")
    assert _yes(rule, "1", "1.0", " 1 ", "1e0", "01", "0", "2", "10") == [True] * 5 + [False] * 3
    assert _yes(rule, 1, 0, 2, None, dtype=pl.Int64) == [True, False, False, False]
    assert _yes(rule, 1.0, 0.5, 0.0, None, dtype=pl.Float64) == [True, False, False, False]
    assert _yes(rule, True, False, None, dtype=pl.Boolean) == [True, False, False]


def test_case_and_blanks_do_not_matter_and_words_are_whole() -> None:
    rule = _rule("true_when: [Add to cart, click]")
    assert _yes(rule, "add to cart", "CLICK ", "clicked", "add", "click;click") == [True, True, False, False, False]


def test_what_is_not_met_and_what_is_not_named_are_said_with_counts() -> None:
    rule = _rule("true_when: [click, tap, 2]")
    _yes(rule, "click", "hover", "hover", None, "view")
    _yes(rule, "Tap", "hover")
    first, second = rule.notes()
    assert first == "columns.impressions.clicked: no row has 2"
    assert second == "columns.impressions.clicked: these mean no: 3 x 'hover', 1 x 'view'"


def test_many_values_and_long_ones_are_bounded() -> None:
    rule = _rule("true_when: [click]")
    _yes(rule, *(f"value {number} " + "x" * 500 for number in range(3000)))
    assert len(rule.notes()[1]) < 1500 and "more values" in rule.notes()[1] and len(rule.unnamed) <= 1000


def test_present_takes_any_value_but_refuses_a_denial() -> None:
    rule = _rule("true_when: present")
    assert _yes(rule, "2026-03-02", None, "x") == [True, False, True] and rule.notes() == []
    for denial in ("0", "No", "false", "0.0"):
        with pytest.raises(PrectrError, match=r"log\.csv: columns\.impressions\.clicked: `present` takes every value"):
            _yes(rule, "1", denial)
    with pytest.raises(PrectrError, match="holds '0'"):
        _yes(rule, 1, 0, dtype=pl.Int64)
