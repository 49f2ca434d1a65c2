"""User deltas: updates of a user since the published state, as sums that are added to it [ours].

A store keeps of each user

    delta        identity    `Bundle.state_identity` of the state that the numbers belong to; deltas of other states are
                             ignored
                 days        day number -> sums [USER_WIDTH], price [2], brands and categories (examinations and clicks)
                 clicks      behaviour fields [5] and ts, oldest first
    lists        the last lists: hash of the request id, time of arrival, and whether an impression token proved it
    rows         of each of these lists: identity, day, and for each item its position, click and lattice steps

Requests of the user read the delta only. The merge leaves out days that the published state holds, so nothing counts
twice after a new publication. A list that is sent again adds only its new rows and clicks: a click replaces the
log-likelihood of an unclicked row by that of a clicked one. Days ahead of the clock are never kept, so that they cannot
displace real ones. `EventReader` converts an event (a shown list) to what it adds to its user.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from prectr.contracts.protocol import Event, ShownItem
from prectr.preferences.shown import log_price
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
from prectr.ranking.candidates import CandidateLevels, Item, UnknownItems
from prectr.ranking.features import OnlineFeatures

KEPT_DAYS = 8
"""Newest days of a delta that are kept where no window is set."""
KEPT_CLICKS = 50
"""Newest clicks of a delta that are kept."""
KEPT_LISTS = 1_000
"""Lists of a user within the window that are kept; further ones are refused."""
CHUNK_ITEMS = 5
"""Items of an event that are read at once; requests are scored between two chunks."""
SECONDS_A_DAY = 86_400
_REQUESTS, _EXAMINED, _CLICKS = (USER_NAMES.index(name) for name in ("requests", "examined", "clicks"))

Delta = dict[str, Any]
ListEntry = list[Any]
"""Hash of the request id, time of arrival in seconds since 1970, whether a token proved the list."""
Outcome = Literal["new", "known", "too_many_lists", "too_fast"]
"""Result of an event: it added something, it added nothing, or it was refused: its user has sent too many lists within
the window, or too many without an impression token within a minute."""


@dataclass(frozen=True)
class UserRecord:
    """What a store keeps of a user, as an update with one list reads and writes it."""

    delta: Delta | None = None
    lists: tuple[ListEntry, ...] = ()
    rows: dict[str, Any] | None = None
    """Rows of the list of the update; None if the list is new."""


@dataclass(frozen=True)
class EventLimits:
    """Limits on the events of a user."""

    window_days: float | None = None
    """Days before now whose events count. None: the newest `KEPT_DAYS` days of all."""
    ahead_hours: float | None = None
    """Hours after now whose events count. None: any."""
    unproved_per_minute: int | None = None
    """Most new lists of a user within a minute that no impression token proves. None: any number."""

    def latest(self, now: float) -> float:
        """Latest time that counts, in seconds since 1970."""
        return float("inf") if self.ahead_hours is None else now + 3600 * self.ahead_hours

    def earliest(self, now: float) -> float:
        """Earliest time that counts, in seconds since 1970."""
        return float("-inf") if self.window_days is None else now - SECONDS_A_DAY * self.window_days


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


def list_hash(request_id: str) -> bytes:
    """Hash by which the list of a request is known."""
    return hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def add_list(
    record: UserRecord,
    seen: SeenList,
    table: LogLikelihoodTable,
    identity: str,
    *,
    now: float,
    limits: EventLimits = EventLimits(),
    proved: bool = True,
) -> tuple[UserRecord, Outcome]:
    """Add a shown list to what is kept of its user; returns the new record, or the same one if nothing changed.

    Args:
        record: record of the user, with the rows of the list if it was sent before.
        seen: the shown list.
        table: log-likelihoods of the fitted click curve.
        identity: identity of the state that the numbers belong to; a delta of another one counts as empty.
        now: time of arrival, in seconds since 1970.
        limits: limits on the user's events.
        proved: whether an impression token proved the list.
    """
    digest, rows = list_hash(seen.request_id), record.rows
    lists = tuple(entry for entry in record.lists if entry[1] >= limits.earliest(now))
    if not any(entry[0] == digest for entry in lists):
        refusal = _refusal(lists, now, limits, proved)
        if refusal is not None:
            return record, refusal
        lists, rows = (*lists, [digest, now, proved]), None
    elif rows is None:  # its rows are lost, so they cannot be told from new ones
        return record, "known"
    delta = record.delta
    if delta is None or delta["identity"] != identity:
        delta = {"identity": identity, "days": {}, "clicks": []}
    new_list = rows is None or rows["identity"] != identity
    if rows is None or new_list:
        rows = {"identity": identity, "day": seen.day, "items": {}}
    day = delta["days"].setdefault(rows["day"], _empty_day())
    day["sums"][_REQUESTS] += float(new_list)
    if not _add_items(day, rows["items"], seen.items, table, seen.ts, delta["clicks"]) and not new_list:
        return record, "known"
    latest, earliest = limits.latest(now), limits.earliest(now)
    clicks = sorted((entry for entry in delta["clicks"] if entry[-1] <= latest), key=lambda entry: entry[-1])
    days = {
        number: content
        for number, content in sorted(delta["days"].items())
        if (number + 1) * SECONDS_A_DAY > earliest and number * SECONDS_A_DAY <= latest
    }
    most_days = KEPT_DAYS if limits.window_days is None else len(days)
    delta = {"identity": identity, "days": dict(list(days.items())[-most_days:]), "clicks": clicks[-KEPT_CLICKS:]}
    return replace(record, delta=delta, lists=lists, rows=rows), "new"


def _refusal(lists: tuple[ListEntry, ...], now: float, limits: EventLimits, proved: bool) -> Outcome | None:
    """Reason why a user may not add a list; None if the user may."""
    if len(lists) >= KEPT_LISTS:
        return "too_many_lists"
    if proved or limits.unproved_per_minute is None:
        return None
    recent = sum(now - arrival < 60 and not was_proved for _, arrival, was_proved in lists)
    return "too_fast" if recent >= limits.unproved_per_minute else None


def merged(
    user: Mapping[str, Any] | None, delta: Delta | None, identity: str, as_of: float, latest: float = float("inf")
) -> dict[str, Any] | None:
    """Add a delta to a user's entry of the state.

    Args:
        user: the entry; None if the state has none.
        delta: the user's delta; None if there is none.
        identity: identity of the state.
        as_of: end of the last day in the state, in seconds since 1970.
        latest: latest time that counts, in seconds since 1970.

    Returns:
        The entry as a new dictionary; None without entry and updates.
    """
    if delta is None or delta["identity"] != identity:
        return None if user is None else dict(user)
    base = dict(user or {})
    days = [content for day, content in delta["days"].items() if as_of <= day * SECONDS_A_DAY <= latest]
    clicks = [entry for entry in delta["clicks"] if as_of <= entry[-1] <= latest]
    if not days and not clicks:
        return base or None
    base["sums"] = _total([base.get("sums"), *(day["sums"] for day in days)], USER_WIDTH)
    base["price"] = _total([base.get("price"), *(day["price"] for day in days)], 2)
    for kind in ("brands", "categories"):
        base[kind] = _with_counts(base.get(kind, {}), [day[kind] for day in days])
    base["clicks"] = [*base.get("clicks", []), *clicks]
    return base


def _with_counts(
    counts: Mapping[str, Sequence[float]], days: Sequence[Mapping[str, Sequence[float]]]
) -> dict[str, list[float]]:
    """Add the pairs of numbers of some days; a user has tens of names, and numpy would be slow for so short rows."""
    total = {name: list(pair) for name, pair in counts.items()}
    for day in days:
        for name, (first, second) in day.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = [before[0] + first, before[1] + second]
    return total


def _empty_day() -> dict[str, Any]:
    return {"sums": [0.0] * USER_WIDTH, "price": [0.0, 0.0], "brands": {}, "categories": {}}


def _add_items(
    day: dict[str, Any],
    rows: dict[str, Any],
    items: list[SeenItem],
    table: LogLikelihoodTable,
    ts: float,
    clicks: list[list[float]],
) -> bool:
    """Add the rows of items, or their later clicks, to a day; returns whether any was new.

    Args:
        day: sums of the day; changed in place.
        rows: item id -> position, click and lattice steps of the request's rows so far; changed in place.
        items: the items.
        table: log-likelihoods of the fitted click curve.
        ts: time of the list.
        clicks: clicks of the delta; changed in place.
    """
    added: list[tuple[bool, int, int]] = []
    replaced: list[tuple[bool, int, int]] = []
    sums = day["sums"]
    for item in items:
        row = rows.get(item.item_id)
        position, was_clicked, steps = row or (min(item.position, MAX_POSITION), False, item.steps)
        newly_clicked = item.clicked and not was_clicked
        if row and not newly_clicked:
            continue
        rows[item.item_id] = [position, item.clicked or was_clicked, steps]
        added.append((newly_clicked, position, steps))
        if row:
            replaced.append((False, position, steps))
        examined = 0.0 if row else float(table.examined[position] / UNIT)
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
    if not added:
        return False
    grid = (_log_likelihood(table, added) - _log_likelihood(table, replaced)) / UNIT
    sums[:GRID_SIZE] = (np.array(sums[:GRID_SIZE]) + grid).tolist()
    return True


def _log_likelihood(table: LogLikelihoodTable, rows: list[tuple[bool, int, int]]) -> np.ndarray:
    """Sum the log-likelihoods of rows (click, position, lattice steps) in the units of the table, int64 [GRID_SIZE]."""
    clicked, position, steps = np.array(rows, dtype=np.int32).reshape(-1, 3).T
    total: np.ndarray = table.values[table.cells(clicked, position, steps)].sum(axis=0)
    return total


def _total(parts: list[list[float] | None], width: int) -> list[float]:
    return np.sum([np.zeros(width), *(np.array(part) for part in parts if part is not None)], axis=0).tolist()


class EventReader:
    """Reads events with a bundle's features. Use it only in the thread that uses the features."""

    def __init__(self, bundle: Bundle, features: OnlineFeatures) -> None:
        self._bundle, self._features = bundle, features
        preferences = bundle.preferences
        self.table = log_likelihood_table(preferences.click, preferences.examination.exponent)
        """Log-likelihoods of the bundle's fitted click curve."""

    def read(self, event: Event, now: float) -> SeenList:
        """Convert an event; items that neither the catalogue nor the event describes are left out.

        Args:
            event: the shown list.
            now: seconds since 1970, used if the event has no time.
        """
        chunks = self.read_in_chunks(event, now)
        while True:
            try:
                next(chunks)
            except StopIteration as end:
                seen: SeenList = end.value
                return seen

    def read_in_chunks(self, event: Event, now: float) -> Generator[None, None, SeenList]:
        """Convert an event as `read`, with a pause after every `CHUNK_ITEMS` items."""
        items: list[SeenItem] = []
        for start in range(0, len(event.shown), CHUNK_ITEMS):
            if start:
                yield
            items += self._read_chunk(event.query, event.shown[start : start + CHUNK_ITEMS])
        return SeenList(event.request_id, now if event.ts is None else event.ts, items)

    def _read_chunk(self, query: str, shown: list[ShownItem]) -> list[SeenItem]:
        """Convert items; a title counts only for an item that the catalogue lacks."""
        by_id = {item.item_id: item for item in shown}
        try:
            return self._items(self._features.levels(query, list(by_id)), by_id)
        except UnknownItems as error:
            unknown = set(error.item_ids)
        candidates: list[str | dict[str, Any]] = []
        for name, item in by_id.items():
            if name not in unknown:
                candidates.append(name)
            elif item.title:
                described = {"item_id": name, "title": item.title, "price": item.price}
                candidates.append({key: value for key, value in described.items() if value is not None})
        return self._items(self._features.levels(query, candidates), by_id) if candidates else []

    def _items(self, read: CandidateLevels, shown: Mapping[str, ShownItem]) -> list[SeenItem]:
        steps = on_lattice(read.levels @ np.arange(4) / 3) - self._query_shift(read.known_query)
        likeliest = read.levels.argmax(axis=1) + 1
        return [
            SeenItem(
                item_id=item.item_id,
                position=shown[item.item_id].position,
                clicked=shown[item.item_id].clicked,
                steps=int(steps[row]),
                brand=item.brand or "",
                category=item.category,
                relative_price=self._relative_price(item, shown[item.item_id].price),
                fields=[*read.fields[row], int(likeliest[row])],
            )
            for row, item in enumerate(read.items)
        ]

    def _relative_price(self, item: Item, shown_price: float | None) -> float | None:
        """Log of the price at which an item was shown over the median of its category; None if unknown."""
        relative = item.relative_price
        if shown_price is not None:
            medians = self._bundle.spec.category_prices
            relative = log_price(shown_price) - medians.get(item.category, medians[""])
        return None if np.isnan(relative) else relative

    def _query_shift(self, known_query: dict[str, Any] | None) -> int:
        """Difference of the query's mined tolerance from the prior mean of queries, in lattice steps."""
        return int((known_query or {}).get("shift", 0)) if self._bundle.alternate else 0
