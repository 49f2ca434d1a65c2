"""The cache of the most recently used entries, against a plain list."""

from hypothesis import given
from hypothesis import strategies as st

from prectr.core.lru import LruCache


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60), st.integers(0, 4))
def test_the_most_recently_used_entries_stay(steps: list[tuple[str, bool]], capacity: int) -> None:
    cache: LruCache[str, str] = LruCache(capacity)
    used: list[str] = []  # brute force: the most recent last
    for key, puts in steps:
        if puts:
            cache.put(key, key)
            used = ([*(other for other in used if other != key), key])[-capacity:] if capacity else []
        else:
            assert (cache.peek(key) is not None) == (key in used)
            assert (cache.get(key) is not None) == (key in used)
            if key in used:
                used = [*(other for other in used if other != key), key]
    assert len(cache) == len(used)
    assert cache.hits + cache.misses == sum(not puts for _, puts in steps)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9)), max_size=60), st.integers(0, 20))
def test_the_sizes_of_the_entries_stay_within_the_capacity(puts: list[tuple[str, int]], capacity: int) -> None:
    cache: LruCache[str, int] = LruCache(capacity, lambda _, value: value)
    used: list[tuple[str, int]] = []  # brute force: the most recent last
    for key, size in puts:
        cache.put(key, size)
        used = [entry for entry in used if entry[0] != key]
        if size <= capacity:
            used.append((key, size))
            while sum(entry[1] for entry in used) > capacity:
                used.pop(0)
    assert {key: cache.peek(key) for key in "abcdef" if cache.peek(key) is not None} == dict(used)
    assert cache.used == sum(size for _, size in used) <= capacity
