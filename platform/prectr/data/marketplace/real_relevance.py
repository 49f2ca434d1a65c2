"""True relevance of pairs of a real catalogue, and the pools that it gives.  [ours]

A judged pair has its human grade g, and r lies in the band of g as in the invented marketplace (`relevance`). Here,
match is the share of the query's words that the title holds, and completeness is the rank of the title's length.

The r of a pair without a judgment is its expectation under a distribution of grades that depends on the cosine:

    r = r_0 + sum over j = 1..3 of P(grade >= j | cosine) (r_j - r_{j-1}),    r_g: the pair's r in the band of g

and its grade is the judged level nearest to the sum over j of P(grade >= j | cosine). Both are functions of the two
texts, except for the noise of the pair inside a band; no grade is drawn at random.

`P(grade >= j | cosine)` is an isotonic regression. Judged pairs alone do not suffice for it: a source judges the
results of its engine, so most of them are relevant, even those without a common word. Therefore each judged query also
gets as many random items of the catalogue as a pool holds, with grade 0. A random item is rarely relevant, and nearly
all such pairs share few words. So the curve starts near 0 and approaches that of the judged pairs as the cosine grows.

It cannot know whether the source left a similar pair unjudged because it was bad; if so, r is too high here. The
opposite choice, that all unjudged pairs are irrelevant, would make nearly all of a large catalogue irrelevant, because
few pairs are judged.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prectr.core import progress
from prectr.data.marketplace import constants
from prectr.data.marketplace.catalogue import Floats, Listings
from prectr.data.marketplace.relevance import inside_band
from prectr.data.marketplace.retrieval import Pools, coarse_score, empty_pools
from prectr.data.marketplace.text_match import TextMatch

LEXICAL_REACH = 240  # titles of the highest cosine that coarse ranking considers for a query, besides its judged items
CURVE_AT = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Judged:
    """J judged pairs as row numbers, sorted by (query, item)."""

    query: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    grade: npt.NDArray[np.int8]
    items: int
    """Number of items in the catalogue."""

    @cached_property
    def keys(self) -> npt.NDArray[np.int64]:
        """A number for each pair, ascending: query * items + item."""
        return self.query * self.items + self.item

    def find(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row of each pair by its key; -1 for a pair without a judgment."""
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[rows] == keys, rows, -1)


class GradeCurve:
    """P(grade >= j | cosine), j = 1..3, for pairs without a judgment."""

    def __init__(self, cosine: npt.NDArray[np.floating], grade: npt.NDArray[np.integer]) -> None:
        from sklearn.isotonic import IsotonicRegression

        self.levels = np.unique(np.append(grade, 0))
        """Grades that such a pair may have: those that were judged, and 0."""
        self._steps = [
            IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(cosine, grade >= level)
            for level in (1, 2, 3)
        ]

    def at_least(self, cosine: npt.NDArray[np.floating]) -> Floats:
        """P(grade >= j | cosine), float64 (3, n): falls with j, rises with the cosine."""
        return np.stack([step.predict(cosine) for step in self._steps]).astype(np.float64)

    def as_dict(self) -> dict[str, Any]:
        """Values of the curve at `CURVE_AT`, as JSON types."""
        at_least = np.round(self.at_least(CURVE_AT), 4)
        return {
            "cosine": np.round(CURVE_AT, 2).tolist(),
            **{f"at_least_{level}": at_least[level - 1].tolist() for level in (1, 2, 3)},
        }


def fit_curve(rng: np.random.Generator, match: TextMatch, judged: Judged) -> GradeCurve:
    """Fit the curve to the judged pairs and to POOL random items of each judged query, with grade 0."""
    query = np.repeat(np.unique(judged.query), constants.POOL)
    item = rng.integers(0, judged.items, len(query))
    cross = judged.find(query * judged.items + item) < 0
    query, item = np.append(judged.query, query[cross]), np.append(judged.item, item[cross])
    grade = np.append(judged.grade, np.zeros(int(cross.sum()), np.int8))
    return GradeCurve(match.cosine(query, item), grade)


def latent_relevance(
    cosine: npt.NDArray[np.floating],
    inside: Floats,
    grade: npt.NDArray[np.integer],
    curve: GradeCurve,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Grade and r of n pairs. `inside` is the place in a band; `grade` is the human grade, -1: not judged."""
    low, high = np.array(constants.BANDS).T[..., None]
    r_of_grade = low + (high - low) * inside  # (4, n)
    at_least = curve.at_least(cosine)
    lexical = r_of_grade[0] + (at_least * np.diff(r_of_grade, axis=0)).sum(axis=0)
    nearest = curve.levels[np.abs(at_least.sum(axis=0)[:, None] - curve.levels).argmin(axis=1)]
    judged_r = np.take_along_axis(r_of_grade, np.maximum(grade, 0)[None, :].astype(np.int64), axis=0)[0]
    return (
        np.where(grade >= 0, grade, nearest).astype(np.int8),
        np.where(grade >= 0, judged_r, lexical).astype(np.float32),
    )


def retrieve_real(match: TextMatch, curve: GradeCurve, judged: Judged, items: Listings, queries: int) -> Pools:
    """Pool of each query: the best items by coarse ranking, from its lexically nearest titles and its judged items."""
    pools = empty_pools(queries, with_judged=True)
    assert pools.judged is not None
    with progress.track("retrieve", total=queries, unit="queries") as bar:
        for start, cosines in match.cosine_blocks():
            stop = start + len(cosines)
            row, near = nearest_columns(cosines, LEXICAL_REACH)
            judged_keys = judged.keys[slice(*np.searchsorted(judged.query, [start, stop]))]
            keys = np.union1d((start + row) * judged.items + near, judged_keys)
            query, item = keys // judged.items, keys % judged.items
            judged_row = judged.find(keys)
            share = match.share(query, item)
            grade, r = latent_relevance(
                cosines[query - start, item],
                inside_band(query, item, share, items.completeness[item]),
                np.where(judged_row >= 0, judged.grade[judged_row], -1),
                curve,
            )
            score = coarse_score(query, item, r, share, items.popularity[item])
            best = np.lexsort((item, -score, query))
            rank = np.arange(len(best)) - np.searchsorted(query, query)  # `query` is ascending in both orders
            best, slot = best[rank < constants.POOL], rank[rank < constants.POOL]
            at = query[best], slot
            pools.item[at], pools.score[at] = item[best], score[best]
            pools.grade[at], pools.r[at], pools.judged[at] = grade[best], r[best], judged_row[best] >= 0
            bar.advance(len(cosines))
    return pools


def nearest_columns(
    similarity: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the `count` largest positive values of each row, and of ties with the least of them."""
    columns = similarity.shape[1]
    kept = similarity > 0
    if columns > count:
        border = np.partition(similarity, columns - count, axis=1)[:, columns - count]
        kept &= similarity >= border[:, None]
    rows, nearest = np.nonzero(kept)
    return rows, nearest
