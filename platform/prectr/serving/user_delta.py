"""What became known of a user since the published state: additive, so that it is merged by adding [ours, MODEL.md 3a].

    delta        one MessagePack map a user
    identity     of the state whose numbers it speaks (`Bundle.state_identity`); another one's is not read
    days         day number -> sums [USER_WIDTH], price [2], brands and categories (exam and clicks of each)
    clicks       behaviour fields [5] and ts, oldest first
    shown        the last requests: id, day, and of each item its position, whether clicked, and lattice steps

A day that the published state holds already is left out when the two are merged, so nothing counts twice after a new
state was published. A request that is told again adds what is new of it: a click turns the log-likelihood of a row that
was not clicked into that of one that was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prectr.preferences.sums import USER_NAMES, USER_WIDTH
from prectr.preferences.tolerance import GRID_SIZE, MAX_POSITION, UNIT, LogLikelihoodTable

KEPT_DAYS = 8
KEPT_CLICKS = 50
KEPT_REQUESTS = 20
SECONDS_A_DAY = 86_400
_REQUESTS, _EXAMINED, _CLICKS = (USER_NAMES.index(name) for name in ("requests", "examined", "clicks"))

Delta = dict[str, Any]


@dataclass(frozen=True)
class SeenItem:
    """One item of a list that a user saw, with what its row adds to the user's sums."""

    item_id: str
    position: int
    clicked: bool
    steps: int
    """Expected relevance minus what is known of the query's tolerance, in lattice steps."""
    brand: str
    category: str
    relative_price: float | None
    fields: list[int]
    """Behaviour fields: query, category, brand and price ids, level + 1."""


@dataclass(frozen=True)
class SeenList:
    """A list that a user saw."""

    request_id: str
    ts: float
    items: list[SeenItem]

    @property
    def day(self) -> int:
        """Number of the day, UTC."""
        return int(self.ts // SECONDS_A_DAY)


def add_list(delta: Delta | None, seen: SeenList, table: LogLikelihoodTable, identity: str) -> tuple[Delta, bool]:
    """The delta with a list added, and whether that told anything new.

    Args:
        delta: what is there; None or another identity's: nothing.
        seen: the list.
        table: log-likelihoods of the fitted click curve.
        identity: of the state that the numbers belong to.
    """
    if delta is None or delta["identity"] != identity:
        delta = {"identity": identity, "days": {}, "clicks": [], "shown": []}
    told = next((entry for entry in delta["shown"] if entry[0] == seen.request_id), None)
    new = told is None
    if told is None:
        told = [seen.request_id, seen.day, {}]
        delta["shown"] = [*delta["shown"], told][-KEPT_REQUESTS:]
    of_day = delta["days"].setdefault(told[1], _empty_day())
    of_day["sums"][_REQUESTS] += float(new)
    for item in seen.items:
        new |= _add_item(of_day, told[2], item, table, seen.ts, delta["clicks"])
    delta["clicks"] = sorted(delta["clicks"], key=lambda entry: entry[-1])[-KEPT_CLICKS:]
    delta["days"] = dict(sorted(delta["days"].items())[-KEPT_DAYS:])
    return delta, new


def merged(user: Mapping[str, Any] | None, delta: Delta | None, identity: str, as_of: float) -> dict[str, Any] | None:
    """A user's entry of the state with the delta added.

    Args:
        user: the entry; None where the state does not know the user.
        delta: what became known since; None for nothing.
        identity: of the state.
        as_of: seconds since 1970 up to which the state holds everything.
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
    told: dict[str, Any],
    item: SeenItem,
    table: LogLikelihoodTable,
    ts: float,
    clicks: list[list[float]],
) -> bool:
    """Add an item's row, or the click that came later, to its day; whether there was anything new."""
    known = told.get(item.item_id)
    position, was_clicked, steps = known or (min(item.position, MAX_POSITION), False, item.steps)
    newly_clicked = item.clicked and not was_clicked
    if known and not newly_clicked:
        return False
    told[item.item_id] = [position, item.clicked or was_clicked, steps]
    cells = table.cells(np.array([False, True]), np.full(2, position), np.full(2, steps, np.int16))
    unclicked, clicked = table.values[cells] / UNIT
    grid = (clicked if newly_clicked else unclicked) - (unclicked if known else 0.0)
    examined = 0.0 if known else float(table.examined[position] / UNIT)
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
