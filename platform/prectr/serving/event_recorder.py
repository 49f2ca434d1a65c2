"""Recording of shown lists and clicks: whether they are proved and in time, their queue, and the users' deltas.

Events are added to their users by the batcher, in short steps while no request waits.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prectr.contracts.protocol import Event, EventsResponse, InvalidField, Tolerance, require_ids
from prectr.serving.batcher import Batcher, Overloaded
from prectr.serving.config import ServeConfig
from prectr.serving.delta_stores import UserDeltas
from prectr.serving.exposures import ExposureLog
from prectr.serving.impression_tokens import ImpressionTokens, InvalidImpression
from prectr.serving.instruments import Instruments
from prectr.serving.redis_client import StoreDown
from prectr.serving.served_models import ServedModel
from prectr.serving.user_delta import EventLimits, Outcome, add_list


class Unproved(Exception):
    """An event has no valid impression token, and its sender may not report events without one.

    Attributes:
        number: place of the event in the request.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class TooManyEvents(Exception):
    """All users of a request have sent too many lists."""


@dataclass
class _Update:
    """Result of adding events to their users."""

    recorded: list[Event] = field(default_factory=list)
    """Events for the log."""
    accepted: int = 0
    refused: Counter[Outcome] = field(default_factory=Counter)
    tolerances: dict[str, Tolerance] = field(default_factory=dict)
    degraded: set[str] = field(default_factory=set)


class EventRecorder:
    """Records events of a scoring service.

    Args:
        config: settings of serving.
        instruments: receives the metrics.
        impressions: checks the tokens of events.
        deltas: where the users' deltas are.
        batcher: runs the updates beside the scoring of requests.
        log: receives the recorded events; None: nothing does.
        default: returns the model whose relevance and features count.
        take_degraded: returns the parts of features that were unavailable since its last call.

    Attributes:
        queued_items: shown items of events that wait or are being added.
    """

    def __init__(
        self,
        config: ServeConfig,
        instruments: Instruments,
        impressions: ImpressionTokens,
        deltas: UserDeltas,
        batcher: Batcher[Any, Any],
        log: ExposureLog | None,
        default: Callable[[], ServedModel],
        take_degraded: Callable[[], Iterable[str]],
    ) -> None:
        self._config, self._instruments, self._impressions = config, instruments, impressions
        self._deltas, self._batcher, self._log = deltas, batcher, log
        self._default, self._take_degraded = default, take_degraded
        self._limits = EventLimits(config.event_window_days, config.event_ahead_hours, config.unproved_lists_per_minute)
        self.queued_items = 0

    async def record(self, events: Sequence[Event], trusted: bool = True) -> EventsResponse:
        """Record shown lists and clicks; arguments and errors as `ScoringService.record_events`."""
        now = time.time()
        items = sum(len(event.shown) for event in events)
        if items > self._config.event_items:
            message = f"hold {items} items; at most {self._config.event_items} are accepted (serve.event_items)"
            raise InvalidField(("events",), message)
        for number, event in enumerate(events):
            try:
                require_ids(event, self._config.null_ids)
                self._require_clock(event, now)
            except InvalidField as error:
                raise InvalidField(("events", number, *error.path), str(error)) from None
            self._require_proof(number, event, trusted)
        if self.queued_items + items > self._config.event_queue_items and self.queued_items:
            self._count_refused("queue", len(events))
            raise Overloaded
        earliest = self._limits.earliest(now)
        recent = [event for event in events if event.ts is None or event.ts >= earliest]
        self._count_refused("old", len(events) - len(recent))
        self.queued_items += items
        try:
            update = await self._batcher.run_spare(self._update_users(recent, now))
        finally:
            self.queued_items -= items
        if self._log is not None:
            self._log.add_events(update.recorded, now)
        self._instruments.count("prectr_events", update.accepted)
        for reason, count in update.refused.items():
            self._count_refused(reason, count)
        limited = update.refused.total()
        if limited and limited == len(recent):
            raise TooManyEvents
        return EventsResponse(
            accepted=update.accepted,
            ignored=len(events) - len(recent),
            limited=limited,
            tolerances=update.tolerances,
            degraded=sorted(update.degraded),
        )

    def _update_users(self, events: Sequence[Event], now: float) -> Generator[None, None, _Update]:
        """Update users as the batcher's spare work, with the relevance and features of the default model."""
        update = _Update()
        for event in events:
            model = self._default()
            seen = yield from model.events.read_in_chunks(event, now)
            add = partial(
                add_list,
                seen=seen,
                table=model.events.table,
                identity=model.bundle.state_identity,
                now=now,
                limits=self._limits,
                proved=event.impression_token is not None,
            )
            try:
                outcome = self._deltas.change(event.user_id, event.request_id, add)
            except StoreDown:
                update.degraded.add("events")
                update.recorded.append(event)
            else:
                update.accepted += outcome == "new"
                if outcome in ("new", "known"):
                    update.recorded.append(event)
                else:
                    update.refused[outcome] += 1
            yield
        for user_id in dict.fromkeys(event.user_id for event in update.recorded):
            mean, deviation = self._default().ranking.features.tolerance_of(user_id)
            update.tolerances[user_id] = Tolerance(mean=mean, deviation=deviation)
            update.degraded |= set(self._take_degraded())
            yield
        return update

    def _require_clock(self, event: Event, now: float) -> None:
        """Refuse an event whose time is too far ahead of the server's clock."""
        if event.ts is None or event.ts <= self._limits.latest(now):
            return
        self._count_refused("ahead", 1)
        time_of_event, clock = (
            datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") for seconds in (event.ts, now)
        )
        raise InvalidField(
            ("ts",),
            f"{time_of_event} is {(event.ts - now) / 3600:.1f} hours ahead of the server's clock ({clock}); at most "
            f"{self._config.event_ahead_hours:g} are accepted (serve.event_ahead_hours)",
        )

    def _require_proof(self, number: int, event: Event, trusted: bool) -> None:
        """Check the impression token of an event."""
        if event.impression_token is None:
            if not trusted:
                self._count_refused("unproved", 1)
                raise Unproved(number, "has no impression_token, and no token of scope events came with the request")
            return
        try:
            self._impressions.check(event)
        except InvalidImpression as error:
            self._count_refused(error.reason, 1)
            raise Unproved(number, f"impression_token: {error}") from None

    def _count_refused(self, reason: str, count: int) -> None:
        if count:
            self._instruments.count("prectr_events_refused", count, reason=reason)
