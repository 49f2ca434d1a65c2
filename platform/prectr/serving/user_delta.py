"""User deltas: updates of a user since the published state, as sums that are added to it [ours].

    delta        one MessagePack map per user
    identity     `Bundle.state_identity` of the state that the numbers belong to; deltas of other states are ignored
    days         day number -> sums [USER_WIDTH], price [2], brands and categories (examinations and clicks of each)
    clicks       behaviour fields [5] and ts, oldest first
    shown        the last requests: id, day, and for each item its position, click and lattice steps

The merge leaves out days that the published state holds, so nothing counts twice after a new publication. A request
that is sent again adds only its new rows and clicks: a click replaces the log-likelihood of an unclicked row by that
of a clicked one. `EventReader` converts an event (a shown list) to what it adds to its user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prectr.contracts.protocol import Event, ShownItem
from prectr.preferences.sums import USER_NAMES, USER_WIDTH
from prectr.preferences.tolerance import (
    GRID_SIZE,
    MAX_POSITION,
    UNIT,
    LogLikelihoodTable,
    log_likelihood_table,
    on_lattice,
)
from prectr.ranking.bundle import Bundle
from prectr.ranking.candidates import CandidatePool, UnknownItems
from prectr.ranking.features import OnlineFeatures

KEPT_DAYS = 8
"""Newest days of a delta that are kept."""
KEPT_CLICKS = 50
"""Newest clicks of a delta that are kept."""
KEPT_REQUESTS = 20
"""Newest requests of a delta that are kept; a request that is sent again later counts as new."""
SECONDS_A_DAY = 86_400
_REQUESTS, _EXAMINED, _CLICKS = (USER_NAMES.index(name) for name in ("requests", "examined", "clicks"))

Delta = dict[str, Any]


@dataclass(frozen=True)
class SeenItem:
    """One item of a shown list, with the values that its row adds to the user's sums."""

    item_id: str
    position: int
    clicked: bool
    steps: int
    """Expected relevance minus the shift of the query's tolerance, in lattice steps."""
    brand: str
    category: str
    relative_price: float | None
    fields: list[int]
    """Behaviour fields: query, category, brand and price ids, level + 1."""


@dataclass(frozen=True)
class SeenList:
    """A list that was shown to a user."""

    request_id: str
    ts: float
    items: list[SeenItem]

    @property
    def day(self) -> int:
        """Day in UTC as days since 1970."""
        return int(self.ts // SECONDS_A_DAY)


def add_list(delta: Delta | None, seen: SeenList, table: LogLikelihoodTable, identity: str) -> tuple[Delta, bool]:
    """Add a shown list to a delta; returns the delta and whether the list had new rows or clicks.

    Args:
        delta: the user's delta; None, or a delta of another identity, counts as empty.
        seen: the shown list.
        table: log-likelihoods of the fitted click curve.
        identity: identity of the state that the numbers belong to.
    """
    if delta is None or delta["identity"] != identity:
        delta = {"identity": identity, "days": {}, "clicks": [], "shown": []}
    request = next((entry for entry in delta["shown"] if entry[0] == seen.request_id), None)
    new = request is None
    if request is None:
        request = [seen.request_id, seen.day, {}]
        delta["shown"] = [*delta["shown"], request][-KEPT_REQUESTS:]
    day = delta["days"].setdefault(request[1], _empty_day())
    day["sums"][_REQUESTS] += float(new)
    for item in seen.items:
        new |= _add_item(day, request[2], item, table, seen.ts, delta["clicks"])
    delta["clicks"] = sorted(delta["clicks"], key=lambda entry: entry[-1])[-KEPT_CLICKS:]
    delta["days"] = dict(sorted(delta["days"].items())[-KEPT_DAYS:])
    return delta, new


def merged(user: Mapping[str, Any] | None, delta: Delta | None, identity: str, as_of: float) -> dict[str, Any] | None:
    """Add a delta to a user's entry of the state.

    Args:
        user: the entry; None if the state has none.
        delta: the user's delta; None if there is none.
        identity: identity of the state.
        as_of: end of the last day in the state, in seconds since 1970.

    Returns:
        The entry as a new dictionary; None without entry and updates.
    """
    if delta is None or delta["identity"] != identity:
        return None if user is None else dict(user)
    base = dict(user or {})
    days = [content for day, content in delta["days"].items() if day * SECONDS_A_DAY >= as_of]
    clicks = [entry for entry in delta["clicks"] if entry[-1] >= as_of]
    if not days and not clicks:
        return base or None
    base["sums"] = _total([base.get("sums"), *(day["sums"] for day in days)], USER_WIDTH)
    base["price"] = _total([base.get("price"), *(day["price"] for day in days)], 2)
    for kind in ("brands", "categories"):
        counts = {name: list(values) for name, values in base.get(kind, {}).items()}
        for day in days:
            for name, values in day[kind].items():
                counts[name] = _total([counts.get(name), values], 2)
        base[kind] = counts
    base["clicks"] = [*base.get("clicks", []), *clicks]
    return base


def _empty_day() -> dict[str, Any]:
    return {"sums": [0.0] * USER_WIDTH, "price": [0.0, 0.0], "brands": {}, "categories": {}}


def _add_item(
    day: dict[str, Any],
    rows: dict[str, Any],
    item: SeenItem,
    table: LogLikelihoodTable,
    ts: float,
    clicks: list[list[float]],
) -> bool:
    """Add an item's row, or its later click, to a day; returns whether either was new.

    Args:
        day: sums of the day; changed in place.
        rows: item id -> position, click and lattice steps of the request's rows so far; changed in place.
        item: the item.
        table: log-likelihoods of the fitted click curve.
        ts: time of the list.
        clicks: clicks of the delta; changed in place.
    """
    row = rows.get(item.item_id)
    position, was_clicked, steps = row or (min(item.position, MAX_POSITION), False, item.steps)
    newly_clicked = item.clicked and not was_clicked
    if row and not newly_clicked:
        return False
    rows[item.item_id] = [position, item.clicked or was_clicked, steps]
    cells = table.cells(np.array([False, True]), np.full(2, position), np.full(2, steps, np.int16))
    unclicked, clicked = table.values[cells] / UNIT
    grid = (clicked if newly_clicked else unclicked) - (unclicked if row else 0.0)
    examined = 0.0 if row else float(table.examined[position] / UNIT)
    sums = day["sums"]
    sums[:GRID_SIZE] = (np.array(sums[:GRID_SIZE]) + grid).tolist()
    sums[_EXAMINED] += examined
    sums[_CLICKS] += float(newly_clicked)
    for kind, name in (("brands", item.brand), ("categories", item.category)):
        counts = day[kind].setdefault(name, [0.0, 0.0])
        counts[0] += examined
        counts[1] += float(newly_clicked)
    if newly_clicked:
        clicks.append([*item.fields, ts])
        if item.relative_price is not None:
            day["price"][0] += item.relative_price
            day["price"][1] += 1.0
    return True


def _total(parts: list[list[float] | None], width: int) -> list[float]:
    return np.sum([np.zeros(width), *(np.array(part) for part in parts if part is not None)], axis=0).tolist()


class EventReader:
    """Reads events with a bundle's features. Use it only in the thread that uses the features."""

    def __init__(self, bundle: Bundle, features: OnlineFeatures) -> None:
        self._bundle, self._features = bundle, features

    @property
    def table(self) -> LogLikelihoodTable:
        """Log-likelihoods of the bundle's fitted click curve."""
        preferences = self._bundle.preferences
        return log_likelihood_table(preferences.click, preferences.examination.exponent)

    def read(self, event: Event, now: float) -> SeenList:
        """Convert an event; items that neither the catalogue nor the event describes are left out.

        Args:
            event: the shown list.
            now: seconds since 1970, used if the event has no time.
        """
        shown = {item.item_id: item for item in event.shown}
        try:
            pool = self._features.pool(event.query, [_candidate(item) for item in shown.values()])
        except UnknownItems as error:
            described = [item for name, item in shown.items() if name not in error.item_ids]
            if not described:
                return SeenList(event.request_id, now if event.ts is None else event.ts, [])
            pool = self._features.pool(event.query, [_candidate(item) for item in described])
        return SeenList(event.request_id, now if event.ts is None else event.ts, self._items(pool, shown))

    def _items(self, pool: CandidatePool, shown: dict[str, ShownItem]) -> list[SeenItem]:
        levels = pool.pairs.levels
        steps = on_lattice(levels @ np.arange(4) / 3) - self._query_shift(pool)
        likeliest = levels.argmax(axis=1) + 1
        return [
            SeenItem(
                item_id=item.item_id,
                position=shown[item.item_id].position,
                clicked=shown[item.item_id].clicked,
                steps=int(steps[row]),
                brand=item.brand or "",
                category=item.category,
                relative_price=None if np.isnan(item.relative_price) else item.relative_price,
                fields=[*map(int, pool.fields[row]), int(likeliest[row])],
            )
            for row, item in enumerate(pool.items)
        ]

    def _query_shift(self, pool: CandidatePool) -> int:
        """Difference of the query's mined tolerance from the prior mean of queries, in lattice steps."""
        entry = pool.known_query or {}
        return int(entry.get("shift", 0)) if self._bundle.alternate else 0


def _candidate(item: ShownItem) -> str | dict[str, object]:
    fields = {"title": item.title, "price": item.price}
    fields = {name: value for name, value in fields.items() if value is not None}
    return {"item_id": item.item_id, **fields} if fields else item.item_id
