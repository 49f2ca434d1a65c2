"""Candidates for a query without a search engine, and lists of what a state holds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.features.store import OnlineStore, write_store
from prectr.serving.search import CatalogueIndex, seen_candidates, words_of
from prectr.serving.states import FallbackState


def test_words_are_folded_distinct_and_of_two_neighbours_without_spaces() -> None:
    assert words_of("NOKIA 3310, nokia_blue") == ["nokia", "3310", "blue"]
    assert words_of("华为手机 x5") == ["华为", "为手", "手机", "x5"]
    assert words_of("机 ?!") == ["机"]


def _index(titles: list[str], most: int = 100) -> CatalogueIndex:
    index = CatalogueIndex(most)
    index.extend((f"i{place}", {"title": title}) for place, title in enumerate(titles))
    return index


def test_rare_words_count_more_and_short_titles_go_first() -> None:
    index = _index(["red phone case", "red helmet", "red phone", "abus lock", "red sofa"])
    assert index.search("red phone", 10) == ["i2", "i0", "i1", "i4"]
    assert index.search("abus red", 2) == ["i3", "i1"]  # one of five titles against four of five
    assert index.search("unheard of", 10) == []
    assert index.search("?", 10) == []


def test_no_more_items_than_stated_and_it_says_so() -> None:
    titles = ["red phone", "red sofa", "red case"]
    assert not _index(titles, 3).cut
    cut = _index(titles, 2)
    assert cut.cut and len(cut) == 2
    assert cut.search("case", 9) == []


Names = st.lists(st.text("ab:\x1f#", min_size=1, max_size=3), unique=True, max_size=12)


@given(names=Names, prefix=st.text("ab:\x1f#", max_size=2), most=st.integers(1, 4))
def test_a_scan_in_pieces_finds_what_is_there(
    names: list[str], prefix: str, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "state"
    entries: list[tuple[str, str, dict[str, Any]]] = [("item", name, {"title": name}) for name in names]
    write_store(path, [*entries, ("ite", "zz", {}), ("items", "a", {}), ("item", "b" * 600, {})])
    store = OnlineStore(path)
    try:
        scanned: list[str] = []
        while chunk := store.scan("item", prefix, after=scanned[-1] if scanned else "", most=most):
            assert len(chunk) <= most and all(value == {"title": name} for name, value in chunk)
            scanned += [name for name, _ in chunk]
        assert scanned == sorted(name for name in names if name.startswith(prefix))
        assert store.scan("item", "c" * 1000) == []
    finally:
        store.close()


def test_seen_candidates_are_those_of_the_very_query_the_most_looked_at_first(tmp_path: Path) -> None:
    def pair(query: str, item: str, examined: float | None) -> tuple[str, str, dict[str, Any]]:
        return "pair", f"{query}\x1f{item}", {"sums": None if examined is None else [examined, 0.0]}

    write_store(
        tmp_path / "state",
        [pair("red phone", "a", None), pair("red phone", "b", 3.0), pair("red phone", "c", 9.0), pair("red", "d", 1.0)],
    )
    store = OnlineStore(tmp_path / "state")
    assert seen_candidates(store, "  RED phone", 9) == ["c", "b", "a"]
    assert seen_candidates(store, "red phone", 1) == ["c"]
    assert seen_candidates(store, "phone", 9) == []
    store.close()


def test_redis_is_not_listed_but_the_state_in_the_bundle(tmp_path: Path) -> None:
    write_store(tmp_path / "state", [("item", "a", {"title": "x"})])
    bundle_state: Any = OnlineStore(tmp_path / "state")
    redis: Any = SimpleNamespace(info=None)
    assert FallbackState(redis, bundle_state).scan("item") == [("a", {"title": "x"})]
    bundle_state.close()
