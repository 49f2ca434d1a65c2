"""What a ranker would be clicked for, from lists that were shown in random order: before any online test.  [ours]

Estimand: expected clicks a request within the first `depth` positions if the ranker reordered the items shown.
Which items are shown is the logging policy's choice and stays so: the log holds no clicks of other items, and a list
tells nothing of how they would have ranked.

Assumption, the item-position model: a click depends on the item and on its position, not on the items around it (Li,
Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, "Offline Evaluation of Ranking Policies with Click Models", 2018).

    w_i    = pi(k_i | i) / p(k_i | i)
    IPS    = 1/R sum_r sum_i w_i c_i
    SNIPS  = 1/R sum_k R_k (sum_{i at k} w_i c_i) / (sum_{i at k} w_i)
    DR     = 1/R sum_r [ sum_i sum_k pi(k | i) q(i, k)  +  sum_i w_i (c_i - q(i, k_i)) ]

| symbol | variable |
|---|---|
| k_i, c_i | `position` from 1 and `clicked` of shown item i, both as logged |
| p(k given i) | `propensity`: of item i at position k, given which items the list holds |
| pi(k given i) | the ranker's, by its scores; tied items share their positions |
| q(i, k) | `model`: click probability of i at k by another model |
| R, R_k | requests; those with a position k |

IPS is unbiased, and noisy where few rows match. SNIPS weights every position by itself: rows at one position are alike,
so this takes out more noise than one sum of weights would. DR is unbiased for any q that was not fitted on these rows,
and less noisy the better q is. Intervals are by user, from linearised sums (delta method).

Nothing here reads files or knows a model: arrays in, figures out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from prectr.metrics.columns import group_codes
from prectr.metrics.comparison import Interval

Method = Literal["ips", "snips", "dr"]


@dataclass(frozen=True)
class PolicyValue:
    """An estimate of clicks a request.

    Attributes:
        method: the estimator; "logged" for the mean of the log itself.
        value: clicks a request.
        standard_error: over users.
        interval: at the level that was asked for.
        effective_rows: (sum w)^2 / sum w^2, how many rows of equal weight would be as good.
        rows: within the depth.
        requests: how many.
        users: how many.
        influence: [users] what each user moves the value by, users in order of their codes; for paired differences.
    """

    method: Method | Literal["logged"]
    value: float
    standard_error: float
    interval: Interval
    effective_rows: float
    rows: int
    requests: int
    users: int
    influence: np.ndarray


class RandomisedRows:
    """Impressions of requests whose order was random.

    Args:
        request: [n] request of each row, any labels.
        user: [n] user of each row; a request has one.
        position: [n] from 1; a request's positions are 1..m without gaps.
        clicked: bool [n].
        propensity: [n] probability that the item is where it is, given which items the list holds; see
            `uniform_placement`.
        depth: positions that count; None: all.

    Raises:
        ValueError: there are no rows, the lengths differ, a propensity is missing, not above 0 or above 1, positions of
            a request are not 1..m, or a request has several users.
    """

    def __init__(
        self,
        request: np.ndarray,
        user: np.ndarray,
        position: np.ndarray,
        clicked: np.ndarray,
        propensity: np.ndarray,
        depth: int | None = None,
    ) -> None:
        lengths = {len(column) for column in (request, user, position, clicked, propensity)}
        if lengths == {0}:
            raise ValueError("No randomised rows: off-policy values need requests whose order was random (explore).")
        if len(lengths) > 1:
            raise ValueError(f"Columns must be of the same rows; their lengths are {sorted(lengths)}.")
        if depth is not None and depth < 1:
            raise ValueError(f"depth is {depth}; count at least the first position.")
        self.propensity = np.asarray(propensity, np.float64)
        missing = int(np.isnan(self.propensity).sum())
        outside = int(((self.propensity <= 0) | (self.propensity > 1)).sum())
        if missing or outside:
            raise ValueError(
                f"Of {len(self.propensity)} propensities {missing} are missing and {outside} not above 0 and at most 1."
            )
        self.request, self.requests = group_codes(request)
        self.user, self.users = group_codes(user)
        self.position = np.asarray(position, np.int64)
        self.clicked = np.asarray(clicked, np.float64)
        self.length = _list_lengths(self.request, self.requests, self.position)
        owner = np.zeros(self.requests, np.int64)
        owner[self.request] = self.user
        shared = int((owner[self.request] != self.user).sum())
        if shared:
            raise ValueError(f"{shared} rows are of another user than other rows of their request.")
        self.owner = owner
        self.depth = int(self.position.max()) if depth is None else depth
        self._counted = self.position <= self.depth

    def value(
        self, method: Method, score: np.ndarray, model: np.ndarray | None = None, level: float = 0.95
    ) -> PolicyValue:
        """Clicks a request if each list were ordered by `score`.

        Args:
            method: "ips", "snips" or "dr".
            score: [n] of the ranker; higher goes first.
            model: [n, K] click probability of each row's item at positions 1..K, K the longest list; for "dr".
            level: of the interval.

        Raises:
            ValueError: a score is missing, the lengths differ, or "dr" has no model of that shape.
        """
        score = np.asarray(score, np.float64)
        if len(score) != len(self.request) or np.isnan(score).any():
            raise ValueError(
                f"Give one score a row: {len(score)} for {len(self.request)} rows, {np.isnan(score).sum()} are NaN."
            )
        first, last = self._target_positions(score)
        chance = ((self.position >= first) & (self.position <= last)) / (last - first + 1)
        weight = np.where(self._counted, chance / self.propensity, 0.0)
        if method == "snips":
            value, influence = self._self_normalised(weight)
        else:
            gained = weight * self.clicked
            if method == "dr":
                gained = weight * (self.clicked - self._modelled(model)) + self._expected(model, first, last)
            value, influence = self._per_request(gained)
        return self._told(method, value, influence, weight, level)

    def logged(self, level: float = 0.95) -> PolicyValue:
        """Clicks a request of the random order itself, as logged."""
        weight = self._counted.astype(np.float64)
        value, influence = self._per_request(weight * self.clicked)
        return self._told("logged", value, influence, weight, level)

    def _told(
        self, method: Method | Literal["logged"], value: float, influence: np.ndarray, weight: np.ndarray, level: float
    ) -> PolicyValue:
        error, interval = _sure(value, influence, level)
        squares = float((weight**2).sum())
        return PolicyValue(
            method=method,
            value=value,
            standard_error=error,
            interval=interval,
            effective_rows=float(weight.sum()) ** 2 / squares if squares else 0.0,
            rows=int(self._counted.sum()),
            requests=self.requests,
            users=self.users,
            influence=influence,
        )

    def _target_positions(self, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last position, from 1, of the block of tied items that each row is in when ordered by score."""
        order = np.lexsort((-score, self.request))
        request, ordered = self.request[order], score[order]
        place = _places(request, self.length)
        new = np.ones(len(order), bool)
        new[1:] = (request[1:] != request[:-1]) | (ordered[1:] != ordered[:-1])
        block = np.cumsum(new) - 1
        size = np.bincount(block)
        first_of_block = place[new]
        first, last = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        first[order] = first_of_block[block]
        last[order] = first_of_block[block] + size[block] - 1
        return first, last

    def _modelled(self, model: np.ndarray | None) -> np.ndarray:
        """q(i, k_i), [n]."""
        longest = int(self.length.max())
        if model is None or model.shape != (len(self.request), longest):
            shape = None if model is None else model.shape
            raise ValueError(f"dr needs the model's clicks as [{len(self.request)}, {longest}]; got {shape}.")
        if not np.isfinite(model).all():
            raise ValueError(f"The model's clicks have {int((~np.isfinite(model)).sum())} missing values.")
        return model[np.arange(len(model)), self.position - 1]

    def _expected(self, model: np.ndarray | None, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """sum_k pi(k | i) q(i, k) over the positions that count, [n]."""
        assert model is not None
        total = np.concatenate([np.zeros((len(model), 1)), np.cumsum(model, axis=1)], axis=1)
        row = np.arange(len(model))
        end = np.minimum(last, self.depth)
        summed = total[row, np.maximum(end, first - 1)] - total[row, first - 1]
        return summed / (last - first + 1)

    def _per_request(self, gained: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over requests of the sum over rows, and each user's influence on it."""
        value = float(gained.sum()) / self.requests
        of_user = np.bincount(self.user, weights=gained, minlength=self.users)
        return value, (of_user - value * np.bincount(self.owner, minlength=self.users)) / self.requests

    def _self_normalised(self, weight: np.ndarray) -> tuple[float, np.ndarray]:
        """SNIPS and each user's influence; a position without a matching row makes it NaN."""
        value, influence = 0.0, np.zeros(self.users)
        for position in range(1, min(self.depth, int(self.length.max())) + 1):
            rows = self.position == position
            weights = np.bincount(self.user[rows], weights=weight[rows], minlength=self.users)
            clicks = np.bincount(self.user[rows], weights=(weight * self.clicked)[rows], minlength=self.users)
            having = np.bincount(self.owner[self.length >= position], minlength=self.users)
            total = weights.sum()
            rate = clicks.sum() / total if total else float("nan")
            value += rate * having.sum() / self.requests
            influence += rate * having / self.requests
            influence += having.sum() / self.requests * (clicks - rate * weights) / (total or float("nan"))
        influence -= value * np.bincount(self.owner, minlength=self.users) / self.requests
        return float(value), influence


def paired_difference(first: PolicyValue, second: PolicyValue, level: float = 0.95) -> tuple[float, float, Interval]:
    """Second minus first on the same rows: the difference, its standard error, its interval.

    Raises:
        ValueError: the values are not of the same users.
    """
    if first.users != second.users or first.requests != second.requests:
        raise ValueError("Values of different rows cannot be paired.")
    value = second.value - first.value
    return value, *_sure(value, second.influence - first.influence, level)


def uniform_placement(request: np.ndarray, position: np.ndarray, propensity: np.ndarray) -> np.ndarray:
    """Propensity of an item at its position given which items the list holds, from logged ones: 1 / m for m items.

    A log of a uniformly random order holds, for position k, the probability 1 / (pool - k + 1) of the item given those
    above it. Given the set of items shown, every order of them is then alike.

    Args:
        request: [n].
        position: [n] from 1.
        propensity: [n] as logged.

    Raises:
        ValueError: a propensity is missing or outside (0, 1], or the propensities are not those of a uniform order:
            then where an item may have stood given the others cannot be told from the log.
    """
    codes, requests = group_codes(request)
    position = np.asarray(position, np.int64)
    propensity = np.asarray(propensity, np.float64)
    wrong = int((~(propensity > 0) | (propensity > 1)).sum())
    if wrong:
        raise ValueError(f"Of {len(propensity)} propensities {wrong} are missing, not above 0 or above 1.")
    length = _list_lengths(codes, requests, position)
    pool = 1.0 / propensity + position - 1
    smallest, largest = np.full(requests, np.inf), np.zeros(requests)
    np.minimum.at(smallest, codes, pool)
    np.maximum.at(largest, codes, pool)
    slack = 1e-6 * largest
    uneven = int(((largest - smallest > slack) | (smallest < length - slack)).sum())
    if uneven:
        raise ValueError(
            f"{uneven} of {requests} requests were not ordered uniformly by their propensities: 1 / propensity + "
            "position - 1, the number of items to choose from, must be the same at all positions of a request."
        )
    return 1.0 / length[codes]


def _list_lengths(request: np.ndarray, requests: int, position: np.ndarray) -> np.ndarray:
    """Items of each request, [requests]."""
    length = np.bincount(request, minlength=requests)
    order = np.lexsort((position, request))
    broken = np.unique(request[order][position[order] != _places(request[order], length)])
    if len(broken):
        raise ValueError(f"{len(broken)} of {requests} requests do not have the positions 1..m once each.")
    return length


def _places(request: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Place from 1 of each row within its request, for rows that are sorted by request."""
    return np.arange(len(request)) - (np.cumsum(length) - length)[request] + 1


def _sure(value: float, influence: np.ndarray, level: float) -> tuple[float, Interval]:
    """Standard error and interval of a value by what each user moves it by, [users]."""
    users = len(influence)
    if users < 2:
        return float("nan"), Interval(float("nan"), float("nan"))
    error = float(np.sqrt((influence**2).sum() * users / (users - 1)))
    reach = float(stdtrit(users - 1, (1 + level) / 2)) * error
    return error, Interval(value - reach, value + reach)
