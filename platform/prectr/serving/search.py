"""Candidates of a query for the playground, which has no search engine before the ranker.

Candidates are the items that the log holds with the query, then items of the catalogue whose titles share words with
it. This is not a search engine for production: an inverted index of whole words of titles, in memory, of `MOST_ITEMS`.

    score(item) = sum over the query's words in its title of log(1 + N / n_w)

    symbol  meaning
    N       items in the index
    n_w     items with the word

Of items with equal scores, titles with fewer words come first, then earlier items.
"""

import math
import re
from array import array
from collections.abc import Iterable

import numpy as np

from prectr.core.text import neighbour_pairs, normalise_query
from prectr.features.store import FeatureStore, NamedEntry, pair_name

MOST_ITEMS = 200_000
"""Most items of the index, about 120 bytes each. Of a larger catalogue it holds the first ones by item id."""
MOST_SEEN = 1_000
"""Most stored candidates of a query to read."""
_QUERY_WORDS = 32
_WORD = re.compile(r"[^\W_]+")
_FIRST_IDEOGRAPH = "\u2e80"


def words_of(text: str) -> list[str]:
    """Distinct words of a text; a word of a script without spaces gives each two neighbouring characters.

    It differs from `core.text.lower_words`, because a query has to match titles of all scripts and spellings.

    >>> words_of("NOKIA 3310, nokia_blue"), words_of("华为手机")
    (['nokia', '3310', 'blue'], ['华为', '为手', '手机'])
    """
    words: dict[str, None] = {}
    for word in _WORD.findall(normalise_query(text)):
        pieces = [word] if word.isascii() or max(word) < _FIRST_IDEOGRAPH else neighbour_pairs(word)
        words.update(dict.fromkeys(pieces))
    return list(words)


class CatalogueIndex:
    """An inverted index of titles that can be filled in parts.

    Args:
        capacity: most items of the index.

    Attributes:
        cut: whether items were left out because the index is full.
    """

    def __init__(self, capacity: int = MOST_ITEMS) -> None:
        self._capacity = capacity
        self._names: list[str] = []
        self._lengths = array("i")
        self._postings: dict[str, array[int]] = {}
        self.cut = False

    def __len__(self) -> int:
        return len(self._names)

    def extend(self, items: Iterable[NamedEntry]) -> None:
        """Add items (id, entry); items beyond the capacity are left out."""
        for name, item in items:
            number = len(self._names)
            if number == self._capacity:
                self.cut = True
                return
            words = words_of(item["title"])
            self._names.append(name)
            self._lengths.append(len(words))
            for word in words:
                self._postings.setdefault(word, array("i")).append(number)

    def search(self, query: str, limit: int) -> list[str]:
        """Ids of the items with the best scores for a query, best first."""
        postings = [posting for word in words_of(query)[:_QUERY_WORDS] if (posting := self._postings.get(word))]
        if not postings or limit < 1:
            return []
        scores = np.zeros(len(self))
        for posting in postings:
            scores[np.frombuffer(posting, np.intc)] += math.log1p(len(self) / len(posting))
        matches = np.flatnonzero(scores)
        # One key allows a partial sort, which matters for frequent words. The terms for the title's length and the item
        # number are smaller than any relevant difference of scores.
        lengths = np.minimum(np.frombuffer(self._lengths, np.intc)[matches], 999)
        key = scores[matches] - 1e-6 * lengths - 1e-12 * matches
        best = np.argpartition(-key, limit)[:limit] if len(key) > limit else np.arange(len(key))
        return [self._names[number] for number in matches[best[np.argsort(-key[best])]]]


def seen_candidates(store: FeatureStore, query: str, limit: int) -> list[str]:
    """Ids of the items that the state holds with a query (as shown or as candidates), the most examined first."""
    prefix = pair_name(normalise_query(query), "")
    pairs = store.scan("pair", prefix, most=MOST_SEEN)
    pairs.sort(key=lambda pair: -(pair[1]["sums"] or [0.0])[0])
    return [name[len(prefix) :] for name, _ in pairs[:limit]]
