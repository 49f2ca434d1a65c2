"""The scored pairs as sorted integers: what a task of the mining stages looks a shown row's relevance up in.

Eleven bytes a pair, in arrays that Ray's object store maps into every worker of a machine once, instead of two columns
of text and a hash table in each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.coding import Coded, find_codes
from prectr.preferences.tolerance import on_lattice
from prectr.relevance.pairs import read_pairs


@dataclass(frozen=True)
class PairIndex:
    """Pairs of a relevance artifact, sorted by (query, item_id)."""

    queries: pl.Series
    """Distinct normalised queries, sorted."""
    items: pl.Series
    """Distinct item ids, sorted."""
    key: np.ndarray
    """[P] place of the query times the number of items, plus place of the item; ascending."""
    pair: np.ndarray
    """[P] number of the pair."""
    expected: np.ndarray
    """[P] relevance in lattice steps (`prectr.preferences.tolerance`)."""
    level: np.ndarray
    """[P] the most probable level."""

    @classmethod
    def open(cls, relevance: Path) -> "PairIndex":
        """Read a `score-relevance` artifact."""
        pairs = read_pairs(relevance, ["query", "item_id", "expected", *LEVEL_COLUMNS])
        return cls.of(pairs)

    @classmethod
    def of(cls, pairs: pl.DataFrame) -> "PairIndex":
        """Index pairs with pair, query, item_id, expected (0..1) and the level columns."""
        queries, items = (pairs[name].unique().sort() for name in ("query", "item_id"))
        key = find_codes(pairs["query"], queries) * len(items) + find_codes(pairs["item_id"], items)
        order = np.argsort(key, kind="stable")
        level = pairs.select(pl.concat_list(LEVEL_COLUMNS).list.arg_max()).to_series()
        return cls(
            queries,
            items,
            key[order],
            pairs["pair"].to_numpy().astype(np.int32)[order],
            on_lattice(pairs["expected"].to_numpy())[order],
            level.to_numpy().astype(np.int8)[order],
        )

    def find(self, query: Coded, item: Coded) -> np.ndarray:
        """Place in the index of each row's pair, int64 [n]; -1 where it was not scored.

        Args:
            query: normalised queries of n rows.
            item: their item ids.
        """
        known_query = find_codes(query.keys, self.queries)[query.codes]
        known_item = find_codes(item.keys, self.items)[item.codes]
        wanted = known_query * len(self.items) + known_item
        place = np.minimum(np.searchsorted(self.key, wanted), max(len(self.key) - 1, 0))
        hit = (known_query >= 0) & (known_item >= 0)
        if len(self.key):
            hit &= self.key[place] == wanted
        return np.where(hit, place, -1)
