"""The normal form of queries and hashes that never change."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from prectr.core.text import hash_fraction, normalise_queries, normalise_query, stable_hash


def test_compatibility_forms_case_and_space_are_folded() -> None:
    assert normalise_query("  NOKIA　3310 ") == "nokia 3310"
    assert normalise_query("ＩＰｈｏｎｅ\t①\nSTRASSE straße") == "iphone 1 strasse strasse"


@given(st.text())
def test_normal_form_is_its_own_normal_form(query: str) -> None:
    once = normalise_query(query)
    assert normalise_query(once) == once


def test_every_character_has_a_normal_form_of_its_own() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    joined = [f"{character} ΐ{character}" for character in characters]
    once = [normalise_query(text) for text in joined]
    assert [text for text in once if normalise_query(text) != text] == []


def test_queries_are_mapped_once_each() -> None:
    assert normalise_queries(["A", "a", "A"]) == {"A": "a", "a": "a"}


def test_hashes_are_the_same_everywhere() -> None:
    """Literals: splits, buckets and stores written by an earlier version must stay readable."""
    assert stable_hash("nokia 3310") == 11734050176328228372
    assert stable_hash("nokia", "3310") != stable_hash("nokia3310", "")
    assert hash_fraction("nokia 3310") == stable_hash("nokia 3310") / 2**64


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_fractions_lie_in_the_unit_interval(text: str) -> None:
    assert 0.0 <= hash_fraction(text) < 1.0
