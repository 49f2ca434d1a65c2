"""The caches of serving count about as many bytes as the process grows by."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from prectr.preferences.sums import LEVEL_WIDTH
from prectr.ranking.candidates import CacheBytes, CandidateReader
from prectr.ranking.ranking import Ranking
from prectr.relevance.match_features import MATCH_FEATURES
from prectr.relevance.pair_encoder import OutputCache

MIB = 2**20
FACTOR = 1.5


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def test_text_vectors() -> None:
    """In a process of its own: memory that other tests have freed would hide the growth."""
    with get_context("spawn").Pool(1) as pool:
        used, grown = pool.apply(_fill_text_vectors)
    assert 20 * MIB < used <= 40 * MIB
    assert used / FACTOR < grown < used * FACTOR


def _fill_text_vectors() -> tuple[int, int]:
    """Bytes that a filled cache counts, and bytes that the process has grown by."""
    rng = np.random.default_rng(0)
    cache = OutputCache(40 * MIB, [64, 4])
    before = _resident()
    for _ in range(300):
        keys = [rng.integers(0, 30_000, rng.integers(12, 40), np.int32).tobytes() for _ in range(200)]
        cache.write(keys, [np.ones((200, width), np.float32) for width in (64, 4)])
    return cache.used, _resident() - before


class _Store:
    """A catalogue and queries of a realistic size; no pair was logged."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        if kind != "query":
            return None
        behaviours = [[f"user-{self.rng.integers(10**6)}", 5, 7, 9, 3, 2, 1, 1.7e9 + number, 1] for number in range(20)]
        sums = self.rng.random(LEVEL_WIDTH).tolist()
        return {"sums": sums, "users": 12.0, "category": "phones > old", "behaviours": behaviours}

    def get_many(self, kind: str, keys: Any) -> list[dict[str, Any] | None]:
        made = {"category": self._category, "item": self._item, "pair": self._pair}
        return [made[kind]() for _ in keys]

    def _category(self) -> dict[str, Any]:
        return {"sums": self.rng.random(LEVEL_WIDTH).tolist()}

    def _item(self) -> dict[str, Any]:
        words = " ".join(f"word{number}" for number in self.rng.integers(0, 10**5, 8))
        tokens = self.rng.integers(0, 30_000, 20, np.int32).tobytes()
        category = f"phones > {self.rng.integers(50)}"
        facts = {"category": category, "brand": f"brand-{self.rng.integers(50)}", "price": float(self.rng.random())}
        return {"title": words, "tokens": tokens, "sums": self.rng.random(2).tolist(), **facts}

    def _pair(self) -> dict[str, Any]:
        numbers = self.rng.random(4 + len(MATCH_FEATURES)).tolist()
        return {
            "levels": numbers[:4],
            "encoder_expected": 0.5,
            "source": "teacher",
            "match": numbers[4:],
            "sums": numbers[:2],
        }


@pytest.fixture
def reader(world: Any) -> CandidateReader:
    ranking = Ranking(Path(world.bundle))
    store = _Store()
    reader = CandidateReader(
        ranking.scorer.bundle,
        ranking.scorer.relevance,
        store,  # type: ignore[arg-type]
        CacheBytes(400 * MIB, 400 * MIB),
    )
    reader._spec = SimpleNamespace(  # type: ignore[assignment]
        query_bucket=reader._spec.query_bucket,
        price_bucket=reader._spec.price_bucket,
        category_prices=reader._spec.category_prices,
        item_code=lambda *_: tuple(store.rng.integers(1_000, 10**6, 3).tolist()),
    )
    ranking.close()
    return reader


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Count what Python and numpy allocate: in one process, the resident size also has what earlier tests freed."""
    gc.collect()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_pools(reader: CandidateReader) -> None:
    with _traced() as allocated:
        for number in range(100):
            reader.pool(f"a query of {number}", [f"item-{number}-{place}" for place in range(100)])
        reader.items.clear()  # each item is in one pool, which counts it
        gc.collect()
        grown = allocated()
    assert len(reader.pools) == 100
    assert reader.pools.used / FACTOR < grown < reader.pools.used * FACTOR, f"{reader.pools.used=} {grown=}"


def test_items(reader: CandidateReader) -> None:
    with _traced() as allocated:
        for number in range(100):
            reader._read_items([f"item-{number}-{place}" for place in range(100)])
        grown = allocated()
    assert len(reader.items) == 10_000
    assert reader.items.used / FACTOR < grown < reader.items.used * FACTOR, f"{reader.items.used=} {grown=}"
