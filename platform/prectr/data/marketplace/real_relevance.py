"""The latent relevance of pairs of a real catalogue, and the pools that are made by it.  [ours]

A judged pair has its human grade g, and r lies in the band of g as in the invented marketplace (`relevance`); there,
match is the share of the query's words that the title holds, and completeness ranks the titles by their length.

A pair that nobody judged has the expectation of the same r under a distribution of grades that its words suggest:

    r = r_0 + sum over j = 1..3 of P(grade >= j | cosine) (r_j - r_{j-1}),    r_g: the pair's place in the band of g

and its grade is the judged level next to the sum over j of P(grade >= j | cosine). It is a function of the two texts,
but for the noise of the pair inside a band; no grade is drawn by lot.

`P(grade >= j | cosine)` is an isotonic regression. Judged pairs alone would not do: a source judges what its engine
brought up, so that most of them are relevant, those with no common word included. Each judged query is therefore
accompanied by as many random items of the catalogue as a pool holds, as grade 0. Nobody judged such a cross-query pair
either, but a random item is relevant by accident only, and nearly all of them lie where few words are shared. So the
curve starts near 0 and comes up to the judged pairs' own as the cosine grows. What it cannot know is whether the source
left a similar pair unjudged because it was bad; where it did, r is too high here. The opposite choice, that all
unjudged pairs are irrelevant, would make nearly all of a large catalogue irrelevant, because few pairs are judged.
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

LEXICAL_REACH = 240  # titles of the highest cosine that coarse ranking gets to see of a query, beside its judged ones
CURVE_AT = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Judged:
    """J judged pairs by row numbers, sorted by (query, item)."""

    query: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    grade: npt.NDArray[np.int8]
    items: int
    """Items of the catalogue."""

    @cached_property
    def keys(self) -> npt.NDArray[np.int64]:
        """One ascending number a pair."""
        return self.query * self.items + self.item

    def find(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row of each pair, -1 where it was not judged."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)


class GradeCurve:
    """P(grade >= j | cosine), j = 1..3, of pairs that nobody judged."""

    def __init__(self, cosine: npt.NDArray[np.floating], grade: npt.NDArray[np.integer]) -> None:
        from sklearn.isotonic import IsotonicRegression

        self.levels = np.unique(np.append(grade, 0))
        """The grades that such a pair may have: those judged, and 0."""
        self._steps = [
            IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(cosine, grade >= level)
            for level in (1, 2, 3)
        ]

    def at_least(self, cosine: npt.NDArray[np.floating]) -> Floats:
        """float64 (3, n): falls with j, rises with the cosine."""
        return np.stack([step.predict(cosine) for step in self._steps]).astype(np.float64)

    def as_dict(self) -> dict[str, Any]:
        """The curve at `CURVE_AT`, ready for JSON."""
        at_least = np.round(self.at_least(CURVE_AT), 4)
        return {
            "cosine": np.round(CURVE_AT, 2).tolist(),
            **{f"at_least_{level}": at_least[level - 1].tolist() for level in (1, 2, 3)},
        }


def fit_curve(rng: np.random.Generator, match: TextMatch, judged: Judged) -> GradeCurve:
    """Calibrate on the judged pairs and, as grade 0, on POOL random items a judged query."""
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
    """Grade and r of n pairs; `inside` is the place in a band, `grade` the human one, -1 where there is none."""
    low, high = np.array(constants.BANDS).T[..., None]
    r_of_grade = low + (high - low) * inside  # (4, n)
    at_least = curve.at_least(cosine)
    lexical = r_of_grade[0] + (at_least * np.diff(r_of_grade, axis=0)).sum(axis=0)
    nearest = curve.levels[np.abs(at_least.sum(axis=0)[:, None] - curve.levels).argmin(axis=1)]
    given = np.take_along_axis(r_of_grade, np.maximum(grade, 0)[None, :].astype(np.int64), axis=0)[0]
    return (
        np.where(grade >= 0, grade, nearest).astype(np.int8),
        np.where(grade >= 0, given, lexical).astype(np.float32),
    )


def retrieve_real(match: TextMatch, curve: GradeCurve, judged: Judged, items: Listings, queries: int) -> Pools:
    """Each query's pool: the best by coarse ranking of its lexically nearest titles and of its judged items."""
    pools = empty_pools(queries, with_judged=True)
    assert pools.judged is not None
    with progress.track("retrieve", total=queries, unit="queries") as bar:
        for start, cosines in match.cosine_blocks():
            stop = start + len(cosines)
            row, near = nearest_columns(cosines, LEXICAL_REACH)
            own = judged.keys[slice(*np.searchsorted(judged.query, [start, stop]))]
            keys = np.union1d((start + row) * judged.items + near, own)
            query, item = keys // judged.items, keys % judged.items
            place = judged.find(keys)
            share = match.share(query, item)
            grade, r = latent_relevance(
                cosines[query - start, item],
                inside_band(query, item, share, items.completeness[item]),
                np.where(place >= 0, judged.grade[place], -1),
                curve,
            )
            score = coarse_score(query, item, r, share, items.popularity[item])
            best = np.lexsort((item, -score, query))
            rank = np.arange(len(best)) - np.searchsorted(query, query)  # `query` is ascending, sorted or not by score
            best, slot = best[rank < constants.POOL], rank[rank < constants.POOL]
            at = query[best], slot
            pools.item[at], pools.score[at] = item[best], score[best]
            pools.grade[at], pools.r[at], pools.judged[at] = grade[best], r[best], place[best] >= 0
            bar.advance(len(cosines))
    return pools


def nearest_columns(
    similarity: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the `count` largest positive values of each row; of ties at the border, all."""
    columns = similarity.shape[1]
    kept = similarity > 0
    if columns > count:
        border = np.partition(similarity, columns - count, axis=1)[:, columns - count]
        kept &= similarity >= border[:, None]
    rows, places = np.nonzero(kept)
    return rows, places
