"""Scoring service of one replica, without HTTP: routing, batching, events, model reload.

The path of a request: assignment to a model (`config`), queue (`batcher`), features as of now (the published state and
later events), scores of the batch, order, impression token, log. The path of an event: its token, its queue, the user's
delta, log. Only what the batcher runs uses models, caches and states, one function at a time; the rest runs in the
event loop.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from prectr.contracts.protocol import (
    Event,
    EventsResponse,
    ScoreRequest,
    ScoreResponse,
    require_ids,
)
from prectr.core.errors import PrectrError
from prectr.core.secrets import masked
from prectr.core.text import hash_fraction
from prectr.serving.batcher import Batcher, Overloaded, TooLate
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.delta_stores import LmdbDeltas, RedisDeltas, UserDeltas
from prectr.serving.event_recorder import EventRecorder
from prectr.serving.exposures import ExposureLog
from prectr.serving.garbage import GarbageTimes
from prectr.serving.impression_tokens import ImpressionTokens
from prectr.serving.instruments import COUNTED, NO_VARIANT, Instruments
from prectr.serving.models_history import record_served
from prectr.serving.publish import REDIS_URLS
from prectr.serving.redis_client import RedisGuard
from prectr.serving.request_log import RequestLog
from prectr.serving.served_models import ModelLoader, ServedModel
from prectr.serving.tokens import ImpressionKeys

WATCH_SECONDS = 2.0
"""Seconds between checks of the file of models."""
REPORT_SECONDS = 5.0
"""Seconds between two updates of the exported metrics."""
GIVE_WAY_SECONDS = 0.1
"""Most seconds that a request with events waits before it is read, so that reading it delays no score."""

logger = logging.getLogger("ray.serve")
"""Ray's logger of replicas, so that one structured log holds all messages; without Ray an ordinary logger."""


class UnknownModel(Exception):
    """A request names a model that is not served."""


@dataclass(frozen=True)
class _Job:
    model: ServedModel
    request: ScoreRequest
    deadline: float
    """Value of `time.perf_counter` after which the request is not scored."""


class ModelsAnswer(BaseModel):
    """Served models and their state."""

    models: dict[str, str]
    """Name of a model -> identity of its bundle."""
    default_model: str
    experiment: str
    shares: dict[str, float]
    shadow: str | None
    state_version: str
    state_age_seconds: float
    refused: str | None
    """Reason why the last change of models failed; null if it succeeded."""


class ScoringService:
    """Answers requests with the models of a configuration.

    Args:
        config: settings of serving; `config.models` are the first models.
        instruments: receives the metrics.
        impression_key: key of impression tokens where none is configured, the same in all replicas; None: a random one.

    Raises:
        UsageError: a path holds no bundle, the published features come from other samples, or the keys of impression
            tokens cannot be read.
        PrectrError: a golden request does not score as it did in training, or Redis does not answer.
    """

    def __init__(self, config: ServeConfig, instruments: Instruments, impression_key: str | None = None) -> None:
        self._config, self._instruments = config, instruments
        security = config.security
        keys = ImpressionKeys(security, os.environ, impression_key)
        self._impressions = ImpressionTokens(keys.current, security.impression_hours)
        self._guard = (
            RedisGuard(config.features, config.redis_timeout_ms / 1000, config.redis_retry_ms / 1000)
            if config.features is not None and config.features.startswith(REDIS_URLS)
            else None
        )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._deltas = self._open_deltas()
        self._loader = ModelLoader(config, self._deltas, self._guard)
        self.log = (
            ExposureLog(config.log, config.log_flush_seconds, config.log_days) if config.log is not None else None
        )
        self._requests = RequestLog() if config.request_log else None
        self._batcher: Batcher[_Job, ScoreResponse | ValueError | TooLate] = Batcher(
            self._score_batch, config.batch, config.max_queued_requests, spare_in_loop=self._guard is None
        )
        self._events = EventRecorder(
            config,
            instruments,
            self._impressions,
            self._deltas,
            self._batcher,
            self.log,
            default=lambda: self.default,
            take_degraded=self._loader.take_degraded,
        )
        self._models: Mapping[str, ServedModel] = {}
        self._routing = ModelsConfig()
        self._refusal: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cache_counts: dict[str, tuple[int, int]] = {}
        self._log_counts = (0, 0)
        self._stopping = False
        self._garbage = GarbageTimes()
        self._background: list[asyncio.Task[None]] = []
        self._reload_lock = asyncio.Lock()
        if config.models.bundles:
            try:
                self._models = self._loader.load(config.models, {})
            except BaseException:
                self._release()
                raise
            self._routing = config.models
            self._garbage.settle()

    # One request

    async def score(self, request: ScoreRequest, patience: float | None = None) -> ScoreResponse:
        """Score a request.

        Args:
            request: the request.
            patience: seconds that it may wait, at most the deadline of the configuration; None: that deadline.

        Raises:
            InvalidField: an id is a word for a missing one.
            UnknownModel: the request names a model that is not served.
            UnknownItems: neither the catalogue nor the request describes any of its candidates.
            Overloaded: the queue is full.
            TooLate: it waited too long.
        """
        require_ids(request, self._config.null_ids)
        name, variant = (
            self._routing.assigned_model(request.user_id) if request.model is None else (request.model, None)
        )
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(name)
        started, now = time.perf_counter(), time.time()
        deadline = self._config.deadline_ms / 1000
        patience = deadline if patience is None else min(patience, deadline)
        try:
            answer, waited = await self._batcher.submit(
                _Job(model, request, started + patience), len(request.candidates), patience
            )
            if isinstance(answer, TooLate):
                raise answer
        except Exception as error:
            outcome = type(error).__name__.lower() if isinstance(error, Overloaded | TooLate) else "failed"
            self._finish(request, name, variant, outcome, started)
            raise
        finally:
            self._instruments.set("prectr_queue_requests", len(self._batcher))
        if isinstance(answer, ValueError):
            self._finish(request, name, variant, "refused", started)
            raise answer
        response = answer.model_copy(
            update={
                "model": name,
                "variant": variant,
                "impression_token": self._impressions.sign(
                    answer.request_id, request.user_id, request.query, [entry.item_id for entry in answer.results]
                ),
                "state_age_seconds": round(max(0.0, now - model.state.info.as_of), 1),
                "seconds": {"waiting": round(waited, 5), **answer.seconds},
            }
        )
        self._finish(request, name, variant, "answered", started, response)
        if self.log is not None:
            self.log.add_scored(request.user_id, request.query, response, _request_time(request, now))
        self._shadow(request, response, now)
        return response

    def _score_batch(self, jobs: Sequence[_Job]) -> list[ScoreResponse | ValueError | TooLate]:
        """Score jobs in the batcher's thread, those of each model in one call, except those that are late by then."""
        answers: dict[int, ScoreResponse | ValueError | TooLate] = {}
        for model in {id(job.model): job.model for job in jobs}.values():  # during a reload two models may share a name
            if model.state.refresh():
                for served in self._models.values():
                    served.ranking.features.forget()
            numbers = [number for number, job in enumerate(jobs) if job.model is model]
            now = time.perf_counter()
            answers |= {number: TooLate() for number in numbers if jobs[number].deadline < now}
            numbers = [number for number in numbers if number not in answers]
            for number, answer in zip(numbers, model.ranking.rank_many([jobs[number].request for number in numbers])):
                answers[number] = answer
                if isinstance(answer, ScoreResponse) and answer.results:
                    model.drift.add(
                        score=[entry.score for entry in answer.results],
                        level=[entry.expected_level for entry in answer.results],
                    )
        self._instruments.observe("prectr_batch_requests", len(jobs))
        return [answers[number] for number in range(len(jobs))]

    def _shadow(self, request: ScoreRequest, response: ScoreResponse, now: float) -> None:
        """Score a request with the shadow model in the background, unless the replica is busy."""
        shadow = self._routing.shadow
        if shadow is None or self.log is None or self._batcher.busy or shadow.model == response.model:
            return
        if hash_fraction(response.request_id, "shadow") >= shadow.share:
            return
        model, log = self._models[shadow.model], self.log
        context = request.context.model_copy(update={"request_id": response.request_id})
        patience = self._config.deadline_ms / 1000
        job = _Job(model, request.model_copy(update={"context": context}), time.perf_counter() + patience)

        async def score_and_log() -> None:
            with suppress(Overloaded, TooLate):
                answer, _ = await self._batcher.submit(job, len(request.candidates), patience)
                if isinstance(answer, ScoreResponse):
                    shadowed = answer.model_copy(update={"model": model.name})
                    log.add_scored(request.user_id, request.query, shadowed, _request_time(request, now), shadow=True)

        self._spawn(score_and_log())

    # Events

    @asynccontextmanager
    async def beside_scores(self) -> AsyncIterator[None]:
        """For the whole of a request with events: delay no score.

        It begins when no request is scored or waits, after `GIVE_WAY_SECONDS` at most.
        """
        with self._batcher.short_turns():
            await self._batcher.until_idle(GIVE_WAY_SECONDS)
            yield

    async def record_events(self, events: Sequence[Event], trusted: bool = True) -> EventsResponse:
        """Record shown lists and clicks; the next request of a user is scored with them.

        Args:
            events: the events.
            trusted: whether the sender may report lists without an impression token.

        Raises:
            InvalidField: an id is a word for a missing one, the time of an event is ahead of the clock, or there are
                too many items. Nothing was recorded.
            Unproved: an event has a token that is not valid, or none, and the sender is not trusted. Nothing was
                recorded.
            Overloaded: the queue of events is full. Nothing was recorded.
            TooManyEvents: the users of all events have sent too many lists.
        """
        return await self._events.record(events, trusted)

    # Models

    async def reconfigure(self, models: ModelsConfig) -> None:
        """Change the models or their routing from the next request on, without losing a request.

        If a bundle cannot be served, the old models stay; `describe` and a counter report the refusal.

        Raises:
            PrectrError: a bundle cannot be served, and no model is served yet.
        """
        async with self._reload_lock:
            before = self._models
            try:
                loaded = await asyncio.to_thread(self._loader.load, models, before)
            except PrectrError as error:
                self._instruments.count("prectr_reloads", outcome="refused")
                if not before:
                    raise
                self._refusal = str(error)
                logger.error("models are not changed: %s", error)
                return
            self._models, self._routing, self._refusal = loaded, models, None
            self._instruments.count("prectr_reloads", outcome="done")
            logger.info("serving %s", ", ".join(f"{name} {model.bundle.version}" for name, model in loaded.items()))
            await self._batcher.drained()
            kept = set(map(id, loaded.values()))
            await self._batcher.run(self._loader.close, [old for old in before.values() if id(old) not in kept])
            await self._batcher.run(self._garbage.settle)

    def watch(self, file: Path) -> None:
        """Watch a YAML file with the content of `ModelsConfig` and reconfigure when it changes."""
        self._background.append(asyncio.get_running_loop().create_task(self._watch(file)))

    async def _watch(self, file: Path) -> None:
        stamp = None
        while True:
            with suppress(OSError):
                status = file.stat()
                if (status.st_mtime_ns, status.st_size) != stamp:
                    stamp = (status.st_mtime_ns, status.st_size)
                    await self._reconfigure_from(file)
            await asyncio.sleep(WATCH_SECONDS)

    async def _reconfigure_from(self, file: Path) -> None:
        try:
            text = await asyncio.to_thread(file.read_text, encoding="utf-8")
            models = ModelsConfig.model_validate(yaml.safe_load(text) or {})
        except (yaml.YAMLError, UnicodeDecodeError, ValidationError, PrectrError) as error:
            self._refusal = f"{file}: {error}"
            self._instruments.count("prectr_reloads", outcome="refused")
            logger.error("models are not changed: %s", self._refusal)
            return
        if models.bundles:
            await self.reconfigure(models)
            if self._refusal is None:
                await asyncio.to_thread(record_served, file, text)

    def describe(self) -> ModelsAnswer:
        """Describe the served models."""
        state = self.default.state.info
        return ModelsAnswer(
            models={name: model.bundle.version for name, model in self._models.items()},
            default_model=self._routing.control or "",
            experiment=self._routing.experiment.name,
            shares=self._routing.experiment.shares,
            shadow=self._routing.shadow and self._routing.shadow.model,
            state_version=state.version,
            state_age_seconds=round(max(0.0, time.time() - state.as_of), 1),
            refused=self._refusal and masked(self._refusal),
        )

    @property
    def default(self) -> ServedModel:
        """The model of all users outside a treatment."""
        return self._models[self._routing.control or ""]

    def unready(self) -> str | None:
        """Why no requests should be sent here now; None if they should.

        A full queue is no reason: its clients get 429, and a replica less would only fill the queues of the others.
        """
        if self._stopping:
            return "the server is stopping"
        return None if self._models else "no model is loaded"

    def begin_shutdown(self) -> None:
        """Report from now on that the server is stopping; requests are still answered."""
        self._stopping = True

    async def run(self, work: Any, *arguments: Any) -> Any:
        """Run a function that uses the models, in the batcher's thread."""
        return await self._batcher.run(work, *arguments)

    async def check_health(self) -> None:
        """Score the golden requests of every model.

        Raises:
            PrectrError: a golden request does not score as it did in training.
        """
        if not self._batcher.busy:  # a replica that answers requests is healthy
            await self._batcher.run(self._loader.check, list(self._models.values()))

    async def close(self) -> None:
        """Answer the waiting requests, write the log, and release all resources."""
        self.begin_shutdown()
        for task in self._background:
            task.cancel()
        await self._batcher.drained()
        await self._batcher.run(self._export)
        await self._batcher.run(self._loader.close, list(self._models.values()))
        await self._batcher.close()
        self._release()

    def _open_deltas(self) -> UserDeltas:
        if self._guard is not None:
            return RedisDeltas(self._guard)
        if self._config.events is not None:
            return LmdbDeltas(self._config.events)
        self._temporary = tempfile.TemporaryDirectory(prefix="prectr-events-")
        return LmdbDeltas(Path(self._temporary.name))

    def _release(self) -> None:
        self._garbage.close()
        self._loader.close_all()
        self._deltas.close()
        if self.log is not None:
            self.log.close()
        if self._guard is not None:
            self._guard.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # Metrics

    def report(self) -> None:
        """Export the metrics every few seconds, also while no requests arrive."""
        self._background.append(asyncio.get_running_loop().create_task(self._report()))

    async def _report(self) -> None:
        while True:
            await self._batcher.run(self._export)
            await self._batcher.run(self._garbage.collect_if_due)
            await asyncio.sleep(REPORT_SECONDS)

    def _finish(
        self,
        request: ScoreRequest,
        model: str,
        variant: str | None,
        outcome: str,
        started: float,
        response: ScoreResponse | None = None,
    ) -> None:
        """Count a request that was answered or refused, and write its line of the request log."""
        seconds, variant = time.perf_counter() - started, variant or NO_VARIANT
        self._instruments.count("prectr_requests", model=model, variant=variant, outcome=outcome)
        if response is not None:
            self._count(request, response, seconds, {"model": model, "variant": variant})
        if self._requests is not None:
            request_id = request.context.request_id if response is None else response.request_id
            self._requests.write(request, model, variant, outcome, seconds, request_id)

    def _count(self, request: ScoreRequest, response: ScoreResponse, seconds: float, model: dict[str, str]) -> None:
        instruments = self._instruments
        instruments.observe("prectr_candidates", len(request.candidates))
        for stage, stage_seconds in {"whole": seconds, **response.seconds}.items():
            instruments.observe("prectr_stage_seconds", stage_seconds, stage=stage, **model)
        instruments.count("prectr_users", 1.0, kind="known" if response.user_known else "cold", **model)
        unknown = len(response.unscored) + sum(not entry.in_catalogue for entry in response.results)
        instruments.count("prectr_items_unknown", unknown, **model)
        for source in response.degraded:
            instruments.count("prectr_degraded", 1.0, missing=source, **model)

    def _declare_counters(self) -> None:
        """Begin the counters of each model and variant with 0."""
        for outcome in ("done", "refused"):
            self._instruments.count("prectr_reloads", 0.0, outcome=outcome)
        for reason in ("queue", "old", "ahead", "unproved", "expired", "forged"):
            self._instruments.count("prectr_events_refused", 0.0, reason=reason)
        for name in ("prectr_events", "prectr_log_rows_dropped", "prectr_log_failures"):
            self._instruments.count(name, 0.0)
        tested = {self._routing.control, *self._routing.experiment.shares} if self._routing.experiment.shares else ()
        for model in self._models:
            labels = {"model": model, "variant": model if model in tested else NO_VARIANT}
            self._instruments.count("prectr_items_unknown", 0.0, **labels)
            for name, (label, values) in COUNTED.items():
                for value in values:
                    self._instruments.count(name, 0.0, **labels, **{label: value})

    def _export(self) -> None:
        """Update the metrics that are not updated with each request, and export all; a failure is only logged."""
        try:
            self._declare_counters()
            self._set_gauges()
            self._instruments.flush()
        except Exception:
            logger.exception("the metrics cannot be exported")

    def _set_gauges(self) -> None:
        self._instruments.set("prectr_events_queue_items", self._events.queued_items)
        if self.log is not None:
            counts, before = (self.log.dropped, self.log.failures), self._log_counts
            self._instruments.count("prectr_log_rows_dropped", counts[0] - before[0])
            self._instruments.count("prectr_log_failures", counts[1] - before[1])
            self._log_counts = counts
        for model in self._models.values():
            for of in ("score", "level"):
                self._instruments.set("prectr_drift", model.drift.index(of), model=model.name, of=of)
            age = max(0.0, time.time() - model.state.info.as_of)
            self._instruments.set("prectr_state_age_seconds", age, model=model.name)
            caches = {"text": model.ranking.scorer.text.cache, "pools": model.ranking.features.pools}
            for name, cache in caches.items():
                if cache is not None:
                    self._count_cache(f"{model.name}/{name}", name, cache.hits, cache.misses)

    def _count_cache(self, key: str, name: str, hits: int, misses: int) -> None:
        hits_before, misses_before = self._cache_counts.get(key, (0, 0))
        self._instruments.count("prectr_cache_hits", max(0, hits - hits_before), cache=name)
        self._instruments.count("prectr_cache_misses", max(0, misses - misses_before), cache=name)
        self._cache_counts[key] = (hits, misses)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the event loop holds only weak references
        task.add_done_callback(self._tasks.discard)


def _request_time(request: ScoreRequest, now: float) -> float:
    return now if request.context.ts is None else request.context.ts
