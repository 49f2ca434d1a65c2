"""Overlapping work: the next element of an iterator is made while one is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Element = TypeVar("Element")


def ahead(elements: Iterator[Element]) -> Iterator[Element]:
    """The same elements, each made in a thread while the one before it is worked on; one at a time is held so.

    >>> list(ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, elements, end)
        while (element := following.result()) is not end:
            following = pool.submit(next, elements, end)
            yield element  # type: ignore[misc]
