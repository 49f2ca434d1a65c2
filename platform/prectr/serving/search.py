"""Candidates for a query where no search engine stands before the ranker: what the playground offers.

First what the log knows with the query, then items of the catalogue that share words with it. This is no retrieval to
serve people with: an inverted index on whole words of titles, in memory, of so many items at most.

    score(item) = sum over the query's words in its title of log(1 + N / n_w)

    symbol  meaning
    N       items in the index
    n_w     items with the word

Ties go to the title with fewer words, then to the earlier item.
"""

import math
import re
from array import array
from collections.abc import Iterable

import numpy as np

from prectr.core.text import neighbour_pairs, normalise_query
from prectr.features.store import FeatureStore, NamedEntry, pair_name

MOST_ITEMS = 200_000
"""That the index holds; of a larger catalogue it holds the first so many, by item id. About 120 bytes an item."""
MOST_SEEN = 1_000
"""Stored candidates of a query that are looked at."""
_QUERY_WORDS = 32
_WORD = re.compile(r"[^\W_]+")
_FIRST_IDEOGRAPH = "\u2e80"


def words_of(text: str) -> list[str]:
    """Distinct words of a text in normal form; a word of a script without spaces gives every two neighbours.

    It differs from `core.text.lower_words`, because a query has to match titles of all scripts and spellings.
    """
    found: dict[str, None] = {}
    for word in _WORD.findall(normalise_query(text)):
        pieces = [word] if word.isascii() or max(word) < _FIRST_IDEOGRAPH else neighbour_pairs(word)
        found.update(dict.fromkeys(pieces))
    return list(found)


class CatalogueIndex:
    """An inverted index that is filled by and by.

    Attributes:
        cut: the catalogue holds more items than the index may.
    """

    def __init__(self, most: int = MOST_ITEMS) -> None:
        self._most = most
        self._names: list[str] = []
        self._lengths = array("i")
        self._postings: dict[str, array[int]] = {}
        self.cut = False

    def __len__(self) -> int:
        return len(self._names)

    def extend(self, items: Iterable[NamedEntry]) -> None:
        """Add items by id; what is too many is left out."""
        for name, item in items:
            place = len(self._names)
            if place == self._most:
                self.cut = True
                return
            words = words_of(item["title"])
            self._names.append(name)
            self._lengths.append(len(words))
            for word in words:
                self._postings.setdefault(word, array("i")).append(place)

    def search(self, query: str, limit: int) -> list[str]:
        """Ids of the items that share most with a query, best first."""
        known = [posting for word in words_of(query)[:_QUERY_WORDS] if (posting := self._postings.get(word))]
        if not known or limit < 1:
            return []
        scores = np.zeros(len(self))
        for posting in known:
            scores[np.frombuffer(posting, np.intc)] += math.log1p(len(self) / len(posting))
        places = np.flatnonzero(scores)
        # One key, so that a frequent word does not mean sorting half of the catalogue: words of a title and its place
        # weigh less than any difference of scores that would be seen.
        shorter = np.minimum(np.frombuffer(self._lengths, np.intc)[places], 999)
        key = scores[places] - 1e-6 * shorter - 1e-12 * places
        best = np.argpartition(-key, limit)[:limit] if len(key) > limit else np.arange(len(key))
        return [self._names[place] for place in places[best[np.argsort(-key[best])]]]


def seen_candidates(store: FeatureStore, query: str, limit: int) -> list[str]:
    """Ids of the items that the state holds with a query (shown, or handed over as candidates), the most looked at
    first."""  # fmt: skip
    prefix = pair_name(normalise_query(query), "")
    found = store.scan("pair", prefix, most=MOST_SEEN)
    found.sort(key=lambda entry: -(entry[1]["sums"] or [0.0])[0])
    return [name[len(prefix) :] for name, _ in found[:limit]]
