"""The normal form of queries and hashes that never change."""

import sys
import unicodedata

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from prectr.core.text import BLANK, hash_fraction, is_blank, normalise_queries, normalise_query, stable_hash


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


def test_greek_accents_of_both_cases_are_one_query() -> None:
    assert normalise_query("ταΐστρα") == normalise_query("ΤΑΪ́ΣΤΡΑ")


def test_invisible_characters_are_removed_but_those_of_emoji_are_kept() -> None:
    hidden = "\u200b\ufeff\u00ad\u2060\u200c\u200d\u200e\u202e\u2066\U000e0041"
    assert normalise_query(f"{hidden}no{hidden}kia {hidden} 3310") == "nokia 3310"
    family, flag = "👩\u200d👩\u200d👧", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    on_fire = "❤\ufe0f\u200d🔥"
    for emoji in (family, flag, on_fire):
        assert normalise_query(f"{emoji} Mug") == f"{emoji} mug"
        assert normalise_query(f"\u200d{emoji}\u200d x") == f"{emoji} x"


_HIDDEN = "".join(chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf")


@given(st.text(st.sampled_from(_HIDDEN + " \x1f\u3000\x85aΐ\u0301\ufe0f👩🏽🔥❤™①ﷺ\U0001f3f4")))
def test_normal_form_of_hidden_characters_and_emoji_is_stable(query: str) -> None:
    once = normalise_query(query)
    assert normalise_query(once) == once
    assert is_blank(query) == (once == "") == pl.select(pl.lit(query).str.contains(BLANK)).item()


def test_every_blank_character_is_blank_for_polars() -> None:
    """Of the characters that Python knows: polars knows a later version of Unicode."""
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    characters = [one for one in characters if unicodedata.category(one) not in ("Cn", "Cs")]
    blank = pl.Series(characters).str.contains(BLANK).to_list()
    assert [one for one, seen in zip(characters, blank, strict=True) if is_blank(one) != seen] == []


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
