"""Off-policy evaluation of rankers from lists that were shown in random order, before any online test [ours].

Estimand: expected clicks a request within the first `depth` positions if the ranker reordered the items shown. The
logging policy still chooses which items are shown, because the log holds no clicks on other items.

Assumption, the item-position model: a click depends on the item and its position, not on the other items (Li,
Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, "Offline Evaluation of Ranking Policies with Click Models", 2018).

    w_i    = pi(k_i | i) / p(k_i | i)
    IPS    = 1/R sum_r sum_i w_i c_i
    SNIPS  = 1/R sum_k R_k (sum_{i at k} w_i c_i) / (sum_{i at k} w_i)
    DR     = 1/R sum_r [ sum_i sum_k pi(k | i) q(i, k)  +  sum_i w_i (c_i - q(i, k_i)) ]

| symbol | variable |
|---|---|
| k_i, c_i | `position` from 1 and `clicked` of shown item i, both as logged |
| p(k given i) | `propensity`: probability of item i at position k, given the items of the list |
| pi(k given i) | the same probability when the ranker orders by its scores; tied items share their positions |
| q(i, k) | `model`: click probability of i at k by another model |
| R, R_k | number of requests; of requests with a position k |

IPS is unbiased, but noisy if few rows match. SNIPS normalises the weights of each position separately: rows at one
position are similar, so this removes more noise than one sum of weights would. DR is unbiased for any q that was not
fitted on these rows; a better q gives less noise. Intervals are by user, from linearised sums (delta method).

This module reads no files and runs no model: it takes arrays and returns figures.
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
        method: the estimator; "logged" is the mean of the log itself.
        value: clicks a request.
        standard_error: standard error over users.
        interval: confidence interval.
        effective_rows: (sum w)^2 / sum w^2, the number of rows of equal weight with the same precision.
        rows: number of rows within the depth.
        requests: number of requests.
        users: number of users.
        influence: [users] influence of each user on the value, in the order of user codes; for paired differences.
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
    """Impressions of requests that were shown in random order.

    Args:
        request: [n] request of each row, any labels.
        user: [n] user of each row; each request has one user.
        position: [n] from 1; the positions of a request are 1..m without gaps.
        clicked: bool [n].
        propensity: [n] probability of the item's position, given the items of the list; see `uniform_placement`.
        depth: number of first positions that count; None: all.

    Raises:
        ValueError: there are no rows, the lengths differ, a propensity is missing or outside (0, 1], positions of a
            request are not 1..m, or a request has several users.
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
            raise ValueError(f"All columns must have the same length; the lengths are {sorted(lengths)}.")
        if depth is not None and depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1.")
        self.propensity = np.asarray(propensity, np.float64)
        missing = int(np.isnan(self.propensity).sum())
        outside = int(((self.propensity <= 0) | (self.propensity > 1)).sum())
        if missing or outside:
            raise ValueError(
                f"Of {len(self.propensity)} propensities {missing} are missing and {outside} are outside (0, 1]."
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
            raise ValueError(
                f"{shared} rows have another user than other rows of their request; a request has one user."
            )
        self.owner = owner
        self.depth = int(self.position.max()) if depth is None else depth
        self._counted = self.position <= self.depth

    def value(
        self, method: Method, score: np.ndarray, model: np.ndarray | None = None, level: float = 0.95
    ) -> PolicyValue:
        """Estimate clicks a request if each list were ordered by `score`.

        Args:
            method: "ips", "snips" or "dr".
            score: [n] scores of the ranker; higher scores come first.
            model: [n, K] click probability of each row's item at positions 1..K, K the longest list; for "dr".
            level: confidence level of the interval.

        Raises:
            ValueError: a score is missing, the lengths differ, or `model` is missing or of another shape for "dr".
        """
        score = np.asarray(score, np.float64)
        if len(score) != len(self.request) or np.isnan(score).any():
            raise ValueError(
                f"Give one score per row: {len(score)} for {len(self.request)} rows, {np.isnan(score).sum()} are NaN."
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
        return self._policy_value(method, value, influence, weight, level)

    def logged(self, level: float = 0.95) -> PolicyValue:
        """Clicks a request in the log itself, that is in random order."""
        weight = self._counted.astype(np.float64)
        value, influence = self._per_request(weight * self.clicked)
        return self._policy_value("logged", value, influence, weight, level)

    def _policy_value(
        self, method: Method | Literal["logged"], value: float, influence: np.ndarray, weight: np.ndarray, level: float
    ) -> PolicyValue:
        error, interval = _interval(value, influence, level)
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
        """First and last position, from 1, of each row's block of tied items in the order by score."""
        order = np.lexsort((-score, self.request))
        request, ordered = self.request[order], score[order]
        row_places = _places(request, self.length)
        is_first = np.ones(len(order), bool)
        is_first[1:] = (request[1:] != request[:-1]) | (ordered[1:] != ordered[:-1])
        block = np.cumsum(is_first) - 1
        size = np.bincount(block)
        first_of_block = row_places[is_first]
        first, last = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        first[order] = first_of_block[block]
        last[order] = first_of_block[block] + size[block] - 1
        return first, last

    def _modelled(self, model: np.ndarray | None) -> np.ndarray:
        """q(i, k_i): the model's click probability at the logged position, [n]."""
        longest = int(self.length.max())
        if model is None or model.shape != (len(self.request), longest):
            shape = None if model is None else model.shape
            raise ValueError(f"dr needs the model's clicks as [{len(self.request)}, {longest}]; got {shape}.")
        if not np.isfinite(model).all():
            raise ValueError(f"The model's clicks have {int((~np.isfinite(model)).sum())} missing values; give all.")
        return model[np.arange(len(model)), self.position - 1]

    def _expected(self, model: np.ndarray | None, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """sum_k pi(k | i) q(i, k) over the positions within the depth, [n]."""
        assert model is not None
        cumulated = np.concatenate([np.zeros((len(model), 1)), np.cumsum(model, axis=1)], axis=1)
        row = np.arange(len(model))
        end = np.minimum(last, self.depth)
        summed = cumulated[row, np.maximum(end, first - 1)] - cumulated[row, first - 1]
        return summed / (last - first + 1)

    def _per_request(self, gained: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over requests of the sum over rows, and the influence of each user."""
        value = float(gained.sum()) / self.requests
        of_user = np.bincount(self.user, weights=gained, minlength=self.users)
        return value, (of_user - value * np.bincount(self.owner, minlength=self.users)) / self.requests

    def _self_normalised(self, weight: np.ndarray) -> tuple[float, np.ndarray]:
        """SNIPS and the influence of each user; NaN if a position has no matching row."""
        value, influence = 0.0, np.zeros(self.users)
        for position in range(1, min(self.depth, int(self.length.max())) + 1):
            rows = self.position == position
            weights = np.bincount(self.user[rows], weights=weight[rows], minlength=self.users)
            clicks = np.bincount(self.user[rows], weights=(weight * self.clicked)[rows], minlength=self.users)
            requests = np.bincount(self.owner[self.length >= position], minlength=self.users)
            total = weights.sum()
            rate = clicks.sum() / total if total else float("nan")
            value += rate * requests.sum() / self.requests
            influence += rate * requests / self.requests
            influence += requests.sum() / self.requests * (clicks - rate * weights) / (total or float("nan"))
        influence -= value * np.bincount(self.owner, minlength=self.users) / self.requests
        return float(value), influence


def paired_difference(first: PolicyValue, second: PolicyValue, level: float = 0.95) -> tuple[float, float, Interval]:
    """Second minus first value on the same rows: difference, standard error and interval.

    Raises:
        ValueError: the values have different numbers of users or requests.
    """
    if first.users != second.users or first.requests != second.requests:
        raise ValueError("The two values come from different rows; estimate both on the same rows.")
    value = second.value - first.value
    return value, *_interval(value, second.influence - first.influence, level)


def uniform_placement(request: np.ndarray, position: np.ndarray, propensity: np.ndarray) -> np.ndarray:
    """Convert logged propensities to the propensity of a position given the items of the list: 1 / m for m items.

    A log of a uniformly random order of `pool` items holds one of two propensities for position k: the probability
    1 / (pool - k + 1) of the item given the items above it, or the probability 1 / pool that the item is there,
    whatever else is shown. Given the set of items shown, each of them is then at each position equally often. A request
    may have either.

    Args:
        request: [n] request of each row.
        position: [n] from 1.
        propensity: [n] as logged.

    Raises:
        ValueError: a propensity is missing or outside (0, 1], or the propensities of a request are neither. The log
            then does not determine the probability of a position given the items.
    """
    codes, requests = group_codes(request)
    position = np.asarray(position, np.int64)
    propensity = np.asarray(propensity, np.float64)
    wrong = int((~(propensity > 0) | (propensity > 1)).sum())
    if wrong:
        raise ValueError(f"Of {len(propensity)} propensities {wrong} are missing or outside (0, 1].")
    length = _list_lengths(codes, requests, position)
    uniform = np.zeros(requests, bool)
    for pool in (1.0 / propensity + position - 1, 1.0 / propensity):
        smallest, largest = np.full(requests, np.inf), np.zeros(requests)
        np.minimum.at(smallest, codes, pool)
        np.maximum.at(largest, codes, pool)
        slack = 1e-6 * largest
        uniform |= (largest - smallest <= slack) & (smallest >= length - slack)
    if not uniform.all():
        raise ValueError(
            f"{int((~uniform).sum())} of {requests} requests have propensities of an order that is not uniform: the "
            "number of items to choose from must be the same at all positions of a request, and no smaller than the "
            "list. It is 1 / propensity + position - 1 if the log holds the probability of an item given those above "
            "it, and 1 / propensity if it holds that of the item at its position."
        )
    return 1.0 / length[codes]


def _list_lengths(request: np.ndarray, requests: int, position: np.ndarray) -> np.ndarray:
    """Number of items of each request, [requests]."""
    length = np.bincount(request, minlength=requests)
    order = np.lexsort((position, request))
    broken = np.unique(request[order][position[order] != _places(request[order], length)])
    if len(broken):
        raise ValueError(f"{len(broken)} of {requests} requests do not have the positions 1..m once each.")
    return length


def _places(request: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Place of each row within its request, from 1, for rows sorted by request."""
    return np.arange(len(request)) - (np.cumsum(length) - length)[request] + 1


def _interval(value: float, influence: np.ndarray, level: float) -> tuple[float, Interval]:
    """Standard error and interval of a value from the influence of each user, [users]."""
    users = len(influence)
    if users < 2:
        return float("nan"), Interval(float("nan"), float("nan"))
    error = float(np.sqrt((influence**2).sum() * users / (users - 1)))
    reach = float(stdtrit(users - 1, (1 + level) / 2)) * error
    return error, Interval(value - reach, value + reach)
