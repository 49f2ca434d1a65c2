"""A cache of the most recently used entries, limited by their bytes, and estimates of these bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

ENTRY_BYTES = 150
"""Bytes of an entry beside its key and value: its place in the ordered dictionary."""
_POINTER, _STRING, _CONTAINER, _DICTIONARY, _NUMBER = 8, 56, 64, 120, 32
"""Bytes of Python's objects, with those of the allocator."""


class LruCache(Generic[Key, Value]):
    """Keeps the most recently used entries. Not safe for several threads.

    Args:
        capacity: largest sum of the entries' sizes; 0 keeps none.
        size: size of an entry, which must not change; by default 1, so that `capacity` is a number of entries.

    Attributes:
        hits: calls of `get` that returned an entry.
        misses: calls of `get` that returned None.
        used: sum of the entries' sizes.

    Example:
        >>> cache = LruCache[str, int](2)
        >>> for number, key in enumerate("abc"):
        ...     cache.put(key, number)
        >>> cache.get("a"), cache.get("c"), cache.hits, cache.misses
        (None, 2, 1, 1)
        >>> by_length = LruCache[str, int](6, lambda key, _: len(key))
        >>> for number, key in enumerate(("aaa", "bb", "cc", "far too long")):
        ...     by_length.put(key, number)
        >>> len(by_length), by_length.used
        (2, 4)
    """

    def __init__(self, capacity: int, size: Callable[[Key, Value], int] = lambda _key, _value: 1) -> None:
        self.capacity = capacity
        self._size = size
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self.hits = self.misses = self.used = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return an entry, which becomes the most recently used one; None if there is none."""
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return value

    def peek(self, key: Key) -> Value | None:
        """Return an entry without counting or moving it; None if there is none."""
        return self._entries.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Store an entry as the most recently used one; the least recently used entries beyond the capacity go.

        An entry that is larger than the capacity is not stored.
        """
        before = self._entries.pop(key, None)
        if before is not None:
            self.used -= self._size(key, before)
        size = self._size(key, value)
        if size > self.capacity:
            return
        while self.used + size > self.capacity:
            self.pop_oldest()
        self._entries[key] = value
        self.used += size

    def pop_oldest(self) -> Value:
        """Remove the least recently used entry and return it."""
        key, value = self._entries.popitem(last=False)
        self.used -= self._size(key, value)
        return value

    def clear(self) -> None:
        """Remove all entries; `hits` and `misses` stay."""
        self._entries.clear()
        self.used = 0


def plain_bytes(value: Any) -> int:
    """Estimate the bytes of a value made of dictionaries, lists, tuples, texts, bytes and numbers.

    >>> 500 < plain_bytes({"clicks": [1.5, 2.5], "title": "red shoes"}) < 600
    True
    """
    if value is None or isinstance(value, bool):
        return 0
    if isinstance(value, str | bytes):
        return _STRING + len(value)
    if isinstance(value, list | tuple):
        return _CONTAINER + sum(_POINTER + plain_bytes(one) for one in value)
    if isinstance(value, dict):
        inner = sum(plain_bytes(key) + plain_bytes(one) for key, one in value.items())
        return _DICTIONARY + 4 * _POINTER * len(value) + inner
    return _NUMBER
