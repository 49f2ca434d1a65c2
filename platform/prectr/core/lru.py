"""A cache of the most recently used entries."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Keeps the most recently used entries. Not safe for several threads.

    Args:
        capacity: largest number of entries; 0 keeps none.

    Attributes:
        hits: calls of `get` that returned an entry.
        misses: calls of `get` that returned None.

    Example:
        >>> cache = LruCache[str, int](2)
        >>> for number, key in enumerate("abc"):
        ...     cache.put(key, number)
        >>> cache.get("a"), cache.get("c"), cache.hits, cache.misses
        (None, 2, 1, 1)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self.hits = self.misses = 0

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
        """Store an entry as the most recently used one; the least recently used entries beyond the capacity go."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self.capacity:
            self.pop_oldest()

    def pop_oldest(self) -> Value:
        """Remove the least recently used entry and return it."""
        return self._entries.popitem(last=False)[1]

    def clear(self) -> None:
        """Remove all entries; `hits` and `misses` stay."""
        self._entries.clear()
