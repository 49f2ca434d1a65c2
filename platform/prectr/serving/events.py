"""Conversion of an event (a shown list) to what it adds to its user: relevance, query tolerance, behaviour fields."""

import numpy as np

from prectr.contracts.protocol import Event, ShownItem
from prectr.preferences.tolerance import LogLikelihoodTable, log_likelihood_table, on_lattice
from prectr.ranking.bundle import Bundle
from prectr.ranking.candidates import CandidatePool, UnknownItems
from prectr.ranking.features import OnlineFeatures
from prectr.serving.user_delta import SeenItem, SeenList


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
