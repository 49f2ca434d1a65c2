"""How much of the truth could be known at all: an observer who is told how the marketplace works.

The gap from a baseline to the truth is not all there to be closed: nobody is told a user's taste or tolerance, or an
item's appeal; they show in a few clicks only. The observer here is told everything else: the equations and constants
of docs/marketplace.md, each row's examination, relevance, markdown and query tolerance, each item's price rank, and
the taste vectors of brands and categories. What is left it infers from the clicks before the test day, each part given
what it expects of the others:

    t_u            posterior over a grid, prior N(0, TOLERANCE_USER_SD^2)
    price          posterior of the preferred price rank over a grid; prior: the users' own histogram
    taste          mode of the posterior, prior N(0, I)
    appeal         mode of an item's posterior, prior: normal with the items' mean and spread

It approximates (modes, parts in turn, nothing learnt on the test day itself), so a little more may be knowable.

| symbol | meaning | shape |
|---|---|---|
| n | shown rows of all days | |
| U, I, G | users, items, groups of brand and category | |
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

from prectr.data.marketplace import constants

ROUNDS = 3
GROUP_ROUNDS = 3
TOLERANCES = np.linspace(-0.5, 0.5, 15)
PREFERENCES = np.linspace(0.0, 1.0, 21)
TASTES = [f"taste_{axis}" for axis in range(constants.TASTE_DIMENSIONS)]
Floats = NDArray[np.float64]


class Observer:
    """What the observer is told, and what it infers; `click_probability` holds its answers for the test day."""

    def __init__(self, tables: Path, day: str, order: pl.DataFrame) -> None:
        """Read the log up to a day; `order` gives request_id and item_id of the day's rows, as they are answered."""
        rows = _rows(tables, day, order)
        self.test = rows["test"].to_numpy()
        self.seen = np.flatnonzero(~self.test)
        self.clicked = rows["clicked"].to_numpy()
        self.examined = rows["p_exam"].to_numpy()
        self.relevance = rows["r"].to_numpy()
        self.query_threshold = rows["threshold"].to_numpy() - rows["t_u"].to_numpy()
        self.user, self.item, self.group = (
            rows[name].rank("dense").to_numpy() - 1 for name in ("user_id", "item_id", "group")
        )
        self.markdown = (
            constants.ATTRACTION_BARGAIN * (1 - rows["price"] / rows["list_price"]).fill_null(0.0).to_numpy()
        )
        self._tell(logit(rows["attraction"].to_numpy()) - self.markdown, rows)
        # Beliefs: before any click, the priors.
        self.tolerance = np.tile(_normal(TOLERANCES, constants.TOLERANCE_USER_SD), (self.user.max() + 1, 1))
        self.preference = np.tile(self.preference_prior, (self.user.max() + 1, 1))
        self.taste = np.zeros((self.user.max() + 1, len(TASTES)))
        self.appeal = np.full(self.item.max() + 1, self.appeal_mean)
        for _ in range(ROUNDS):
            self._update()

    def click_probability(self) -> tuple[Floats, Floats]:
        """Of the test day's rows when examined, and their examination."""
        answer = self._acceptance() * expit(self.markdown + self._price() + self._liking() + self.appeal[self.item])
        return answer[self.test], self.examined[self.test]

    def _tell(self, rest: Floats, rows: pl.DataFrame) -> None:
        """From the truth's attraction less markdown [n]: taste vectors, price ranks, and how appeal is spread."""
        taste, preferred = rows.select(TASTES).to_numpy().astype(np.float64), rows["price_preference"].to_numpy()
        rank, appeal = np.full(self.item.max() + 1, 0.5), np.zeros(self.item.max() + 1)
        for _ in range(GROUP_ROUNDS):
            price = constants.ATTRACTION_PRICE * _nearness(rank[self.item], preferred)
            vectors = _taste_vectors(self.group, taste, rest - price - appeal[self.item])
            left = rest - (taste * vectors[self.group]).sum(1)
            rank, appeal = _price_ranks(self.item, left, preferred)
        self.rank, self.direction = rank[self.item], vectors[self.group]
        told = left - constants.ATTRACTION_PRICE * _nearness(self.rank, preferred) - appeal[self.item]
        self.unexplained = float(told.var() / rest.var())
        self.appeal_mean, self.appeal_spread = float(appeal.mean()), float(appeal.std())
        users = rows.unique("user_id")["price_preference"].to_numpy()
        near = np.abs(users[:, None] - PREFERENCES).argmin(1)
        counts = np.bincount(near, minlength=len(PREFERENCES)) + 1.0
        self.preference_prior = counts / counts.sum()

    def _update(self) -> None:
        seen = self.seen
        liked = expit(self.markdown + self._price() + self._liking() + self.appeal[self.item])
        self.tolerance = self._posterior(
            _normal(TOLERANCES, constants.TOLERANCE_USER_SD),
            [self.examined * liked * _accepted(self.relevance - self.query_threshold - t) for t in TOLERANCES],
        )
        seen_and_accepted = self.examined * self._acceptance()
        rest = self.markdown + self._liking() + self.appeal[self.item]
        self.preference = self._posterior(
            self.preference_prior,
            [
                seen_and_accepted * expit(rest + constants.ATTRACTION_PRICE * _nearness(self.rank, preferred))
                for preferred in PREFERENCES
            ],
        )
        known = self.markdown + self._price()
        for _ in range(4):  # Newton steps, taste and appeal in turn
            slope, curvature = self._slopes(seen_and_accepted, known + self._liking() + self.appeal[self.item])
            self.taste += _newton_by_user(self.user[seen], self.direction[seen], slope, curvature, self.taste)
            slope, curvature = self._slopes(seen_and_accepted, known + self._liking() + self.appeal[self.item])
            items, spread = len(self.appeal), self.appeal_spread**2
            gradient = np.bincount(self.item[seen], slope, items) - (self.appeal - self.appeal_mean) / spread
            self.appeal += gradient / (np.bincount(self.item[seen], curvature, items) + 1 / spread)

    def _posterior(self, prior: Floats, probabilities: list[Floats]) -> Floats:
        """[U, values] given the click probability of every row under each value."""
        made = np.tile(np.log(prior), (self.user.max() + 1, 1))
        for place, probability in enumerate(probabilities):
            p = np.clip(probability[self.seen], 1e-9, 1 - 1e-9)
            log_likelihood = np.where(self.clicked[self.seen], np.log(p), np.log1p(-p))
            made[:, place] += np.bincount(self.user[self.seen], log_likelihood, len(made))
        made = np.exp(made - made.max(1, keepdims=True))
        return np.asarray(made / made.sum(1, keepdims=True))

    def _slopes(self, accepted: Floats, attraction: Floats) -> tuple[Floats, Floats]:
        """First derivative of the log-likelihood in the attraction's logit, and the negative second's expectation."""
        liked = expit(attraction[self.seen])
        p = np.clip(accepted[self.seen] * liked, 1e-9, 1 - 1e-9)
        slope = np.where(self.clicked[self.seen], 1.0, -p / (1 - p)) * (1 - liked)
        return slope, p / (1 - p) * (1 - liked) ** 2

    def _acceptance(self) -> Floats:
        above = self.relevance - self.query_threshold
        return sum(self.tolerance[self.user, place] * _accepted(above - t) for place, t in enumerate(TOLERANCES))  # type: ignore[return-value]

    def _price(self) -> Floats:
        return constants.ATTRACTION_PRICE * sum(  # type: ignore[return-value]
            self.preference[self.user, place] * _nearness(self.rank, p) for place, p in enumerate(PREFERENCES)
        )

    def _liking(self) -> Floats:
        return np.asarray((self.taste[self.user] * self.direction).sum(1))


def _rows(tables: Path, day: str, order: pl.DataFrame) -> pl.DataFrame:
    names = [path.name for path in sorted((tables / "impressions").iterdir()) if path.name <= f"date={day}"]
    log, truth = (
        pl.concat([pl.read_parquet(folder / name / "*.parquet", hive_partitioning=False) for name in names])
        for folder in (tables / "impressions", tables / "truth" / "impressions")
    )
    rows = log.join(truth, on=["request_id", "item_id"], how="left")
    test = order.select("request_id", "item_id").with_columns(test=pl.lit(True))
    earlier = rows.join(test, on=["request_id", "item_id"], how="anti").with_columns(test=pl.lit(False))
    asked = test.join(rows, on=["request_id", "item_id"], how="left", maintain_order="left")
    items = pl.read_parquet(tables / "items.parquet").select(
        "item_id",
        pl.concat_str("category", "brand", separator="|", ignore_nulls=True).alias("group"),
        list_price="price",
    )
    users = pl.read_parquet(tables / "truth" / "users.parquet").select("user_id", "t_u", "price_preference", *TASTES)
    both = pl.concat([earlier, asked.select(earlier.columns)])
    return both.join(items, on="item_id", how="left", maintain_order="left").join(
        users, on="user_id", how="left", maintain_order="left"
    )


def _normal(grid: Floats, deviation: float) -> Floats:
    weights = np.exp(-0.5 * (grid / deviation) ** 2)
    return np.asarray(weights / weights.sum())


def _accepted(above: Floats) -> Floats:
    floor = constants.ACCEPTANCE_FLOOR
    return np.asarray(floor + (1 - floor) * expit(above / constants.ACCEPTANCE_SLOPE))


def _nearness(rank: Floats, preferred: Floats | float) -> Floats:
    return np.asarray(0.5 - 2 * np.abs(rank - preferred))


def _taste_vectors(group: np.ndarray, taste: Floats, target: Floats) -> Floats:
    """Least squares of target [n] on the users' tastes in each group, [G, T]."""
    made = np.zeros((group.max() + 1, taste.shape[1]))
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        x = np.column_stack([taste[rows], np.ones(len(rows))])
        made[group[rows[0]]] = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ target[rows])[:-1]
    return made


def _price_ranks(item: np.ndarray, left: Floats, preferred: Floats) -> tuple[Floats, Floats]:
    """Each item's price rank, as what leaves least variance among its rows, and its mean then: two [I]."""
    count = np.maximum(np.bincount(item), 1)
    least, rank, mean = np.full(len(count), np.inf), np.full(len(count), 0.5), np.zeros(len(count))
    for candidate in np.linspace(0, 1, 51):
        rest = left - constants.ATTRACTION_PRICE * _nearness(np.float64(candidate), preferred)  # type: ignore[arg-type]
        of_item = np.bincount(item, rest) / count
        variance = np.bincount(item, rest**2) / count - of_item**2
        better = variance < least
        least, rank, mean = (
            np.where(better, variance, least),
            np.where(better, candidate, rank),
            np.where(better, of_item, mean),
        )
    return rank, mean


def _newton_by_user(user: np.ndarray, x: Floats, slope: Floats, curvature: Floats, taste: Floats) -> Floats:
    """One Newton step of every user's taste, prior N(0, I): [U, T]."""
    users, width = taste.shape
    gradient = np.stack([np.bincount(user, slope * column, users) for column in x.T], axis=1) - taste
    hessian = np.zeros((users, width, width))
    for i in range(width):
        for j in range(i, width):
            hessian[:, i, j] = hessian[:, j, i] = np.bincount(user, curvature * x[:, i] * x[:, j], users)
    return np.asarray(np.linalg.solve(hessian + np.eye(width), gradient[..., None])[..., 0])
