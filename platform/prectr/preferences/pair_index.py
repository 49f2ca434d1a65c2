"""The scored pairs as sorted integers: what a task of the mining stages looks a shown row's relevance up in.

It also says where each relevance comes from: a judgment, a teacher's label or the encoder. By that, and not by the
numbers, mining sees whether the relevance of a day has changed: another processor, batch size or thread count rounds
them differently.

Eleven bytes a pair, in arrays that Ray's object store maps into every worker of a machine once, instead of two columns
of text and a hash table in each.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import read_manifest
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
    labelled: np.ndarray
    """[L] places of the pairs whose level was looked up, not scored; ascending."""
    labels: np.ndarray
    """[L] hash of where it was looked up and of the most probable level; never 0."""
    encoder: str
    """What scored all other pairs (`origins`)."""

    @classmethod
    def open(cls, relevance: Path) -> "PairIndex":
        """Read a `score-relevance` artifact."""
        pairs = read_pairs(relevance, ["query", "item_id", "expected", "source", *LEVEL_COLUMNS])
        return cls.of(pairs, origins(read_manifest(relevance) or {}))

    @classmethod
    def of(cls, pairs: pl.DataFrame, made_from: Mapping[str, str] | None = None) -> "PairIndex":
        """Index pairs with pair, query, item_id, expected (0..1), source and the level columns.

        Args:
            pairs: the scored pairs.
            made_from: `origins` of their artifact.
        """
        made_from = made_from or {}
        queries, items = (pairs[name].unique().sort() for name in ("query", "item_id"))
        key = find_codes(pairs["query"], queries) * len(items) + find_codes(pairs["item_id"], items)
        order = np.argsort(key, kind="stable")
        level = pairs.select(pl.concat_list(LEVEL_COLUMNS).list.arg_max().alias("level")).to_series()
        labelled = np.flatnonzero((pairs["source"] != "encoder").to_numpy()[order])
        origin = pairs["source"].replace(list(made_from), list(made_from.values()))
        labels = pl.DataFrame([origin, level])[order[labelled]].hash_rows(seed=0).to_numpy()
        return cls(
            queries,
            items,
            key[order],
            pairs["pair"].to_numpy().astype(np.int32)[order],
            on_lattice(pairs["expected"].to_numpy())[order],
            level.to_numpy().astype(np.int8)[order],
            labelled,
            np.maximum(labels, 1),
            made_from.get("encoder", ""),
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

    def label(self, place: np.ndarray) -> np.ndarray:
        """Hash of the label of the pairs at some places, uint64 [n]; 0 for a pair that the encoder scored."""
        if not len(self.labelled):
            return np.zeros(len(place), np.uint64)
        found = np.minimum(np.searchsorted(self.labelled, place), len(self.labelled) - 1)
        return np.where(self.labelled[found] == place, self.labels[found], np.uint64(0))


def origins(manifest: Mapping[str, Any]) -> dict[str, str]:
    """By the source of a pair: identity of what its levels were computed from.

    Args:
        manifest: of a `score-relevance` artifact.
    """
    config, inputs = manifest.get("config", {}), manifest.get("inputs", {})
    return {
        "encoder": json.dumps([inputs.get("encoder"), config.get("int8")]),
        "teacher": json.dumps(["teacher", (manifest.get("labels") or {}).get("context")]),
        "judgment": json.dumps(["judgment", config.get("judgment_confidence")]),
    }
