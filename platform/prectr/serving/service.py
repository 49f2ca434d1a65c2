"""A replica's whole business, without HTTP: models, who sees which, one request's way, events, changes of models.

One request: assigned to a model, queued (`batcher`), features as of now (the published state and what events told
since), scored with what else is in the batch, ordered, logged. Models, caches and states are used by the batcher's one
thread only; everything else runs in the event loop.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from prectr.contracts.protocol import Event, EventsResponse, ScoreRequest, ScoreResponse, Tolerance
from prectr.core.errors import PrectrError
from prectr.core.text import hash_fraction
from prectr.serving.assignment import assigned_model
from prectr.serving.batcher import Batcher, Overloaded, TooLate
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.delta_stores import LmdbDeltas, RedisDeltas, UserDeltas
from prectr.serving.exposures import ExposureLog
from prectr.serving.instruments import Instruments
from prectr.serving.publish import REDIS_URLS
from prectr.serving.redis_client import RedisGuard, StoreDown
from prectr.serving.served_models import ModelLoader, ServedModel
from prectr.serving.user_delta import add_list

WATCH_SECONDS = 2.0
"""Between two looks at the file of models."""
DRIFT_EVERY = 50
"""Batches between two figures of drift."""

logger = logging.getLogger("ray.serve")
"""Ray's logger of replicas, so that one structured log holds everything; without Ray an ordinary logger."""


class UnknownModel(Exception):
    """A request names a model that is not served."""


@dataclass(frozen=True)
class _Job:
    model: ServedModel
    request: ScoreRequest


class ModelsAnswer(BaseModel):
    """What is served."""

    models: dict[str, str]
    """Name -> identity of the bundle."""
    default_model: str
    experiment: str
    shares: dict[str, float]
    shadow: str | None
    state_version: str
    state_age_seconds: float
    refused: str | None
    """Why the last attempt to serve other models changed nothing."""


class ScoringService:
    """Answers requests with the models of a configuration.

    Args:
        config: of serving; `config.models` says what to begin with.
        instruments: where figures are kept.

    Raises:
        UsageError: no bundle, none of that name, or published features of other samples.
        PrectrError: a bundle does not score as it did when it was published, or Redis does not answer.
    """

    def __init__(self, config: ServeConfig, instruments: Instruments) -> None:
        self._config, self._instruments = config, instruments
        self._guard = (
            RedisGuard(config.features, config.redis_timeout_ms / 1000, config.redis_retry_ms / 1000)
            if config.features is not None and config.features.startswith(REDIS_URLS)
            else None
        )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._deltas = self._open_deltas()
        self._loader = ModelLoader(config, self._deltas, self._guard)
        self.log = ExposureLog(config.log, config.log_flush_seconds) if config.log is not None else None
        self._batcher: Batcher[_Job, ScoreResponse | ValueError] = Batcher(
            self._score_batch, config.batch, config.max_queued_requests
        )
        self._models: Mapping[str, ServedModel] = {}
        self._routing = ModelsConfig()
        self._refused: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._batches = 0
        self._counted: dict[str, tuple[int, int]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        if config.models.bundles:
            try:
                self._models = self._loader.load(config.models, {})
            except BaseException:
                self._let_go()
                raise
            self._routing = config.models

    # One request

    async def score(self, request: ScoreRequest, patience: float | None = None) -> ScoreResponse:
        """Score a request.

        Args:
            request: what to score.
            patience: seconds that it may wait; at most the deadline of the configuration, which is the default.

        Raises:
            UnknownModel: the request names a model that is not served.
            UnknownItems: none of its candidates is known.
            Overloaded: too many wait already.
            TooLate: it waited too long.
        """
        name, variant = (
            assigned_model(request.user_id, self._routing) if request.model is None else (request.model, None)
        )
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(name)
        started, now = time.perf_counter(), time.time()
        most = self._config.deadline_ms / 1000
        try:
            answer, waited = await self._batcher.submit(
                _Job(model, request), len(request.candidates), most if patience is None else min(patience, most)
            )
        except (Overloaded, TooLate) as error:
            self._instruments.count("prectr_requests", model=name, outcome=type(error).__name__.lower())
            raise
        finally:
            self._instruments.set("prectr_queue_requests", len(self._batcher))
        if isinstance(answer, ValueError):
            self._instruments.count("prectr_requests", model=name, outcome="refused")
            raise answer
        response = answer.model_copy(
            update={
                "model": name,
                "variant": variant,
                "state_age_seconds": round(max(0.0, now - model.state.info.as_of), 1),
                "seconds": {"waiting": round(waited, 5), **answer.seconds},
            }
        )
        self._count(request, response, time.perf_counter() - started)
        if self.log is not None:
            self.log.scored(request.user_id, request.query, response, _moment(request, now))
        self._shadow(request, response, now)
        return response

    def _score_batch(self, jobs: Sequence[_Job]) -> list[ScoreResponse | ValueError]:
        """In the batcher's thread: the jobs of each model in one call."""
        answers: dict[int, ScoreResponse | ValueError] = {}
        for model in {id(job.model): job.model for job in jobs}.values():  # an old and a new one may share a name
            if model.state.refresh():
                for served in self._models.values():
                    served.ranking.features.forget()
            places = [place for place, job in enumerate(jobs) if job.model is model]
            for place, answer in zip(places, model.ranking.rank_many([jobs[place].request for place in places])):
                answers[place] = answer
                if isinstance(answer, ScoreResponse) and answer.results:
                    model.drift.add(
                        score=[entry.score for entry in answer.results],
                        level=[entry.expected_level for entry in answer.results],
                    )
        self._instruments.observe("prectr_batch_requests", len(jobs))
        self._batches += 1
        if self._batches % DRIFT_EVERY == 1:
            self._gauge()
        return [answers[place] for place in range(len(jobs))]

    def _shadow(self, request: ScoreRequest, given: ScoreResponse, now: float) -> None:
        """Have the shadow model score along; it is the first to go when there is much to do."""
        shadow = self._routing.shadow
        if shadow is None or self.log is None or self._batcher.busy or shadow.model == given.model:
            return
        if hash_fraction(given.request_id, "shadow") >= shadow.share:
            return
        model, log = self._models[shadow.model], self.log
        context = request.context.model_copy(update={"request_id": given.request_id})
        job = _Job(model, request.model_copy(update={"context": context}))

        async def along() -> None:
            with suppress(Overloaded, TooLate):
                answer, _ = await self._batcher.submit(job, len(request.candidates), self._config.deadline_ms / 1000)
                if isinstance(answer, ScoreResponse):
                    response = answer.model_copy(update={"model": model.name})
                    log.scored(request.user_id, request.query, response, _moment(request, now), shadow=True)

        self._spawn(along())

    # Events

    async def tell(self, events: Sequence[Event]) -> EventsResponse:
        """Take shown lists and clicks: they are in the next request's features of their users."""
        now = time.time()
        if self.log is not None:
            self.log.told(events, now)
        response = await self._batcher.run(self._take, events, now)
        self._instruments.count("prectr_events", response.accepted)
        return response

    def _take(self, events: Sequence[Event], now: float) -> EventsResponse:
        """In the batcher's thread. Numbers are those of the default model's state."""
        model = self._models[self._routing.control or ""]
        accepted, degraded, users = 0, set(), {}
        for event in events:
            seen = model.events.read(event, now)
            add = partial(add_list, seen=seen, table=model.events.table, identity=model.bundle.state_identity)
            try:
                _, new = self._deltas.change(event.user_id, add)
            except StoreDown:
                degraded.add("events")
                continue
            accepted += new
            users[event.user_id] = model.ranking.features.tolerance_of(event.user_id)
        degraded |= set(self._loader.take_without())
        tolerances = {user: Tolerance(mean=mean, deviation=deviation) for user, (mean, deviation) in users.items()}
        return EventsResponse(accepted=accepted, tolerances=tolerances, degraded=sorted(degraded))

    # Models

    async def reconfigure(self, models: ModelsConfig) -> None:
        """Serve other models, or others to others, from the next request on; no request is lost meanwhile.

        A bundle that cannot be served changes nothing: the old ones go on, `describe` and a counter say so.

        Raises:
            PrectrError: nothing is served yet, and this cannot be.
        """
        async with self._changing:
            before = self._models
            try:
                loaded = await asyncio.to_thread(self._loader.load, models, before)
            except PrectrError as error:
                self._instruments.count("prectr_reloads", outcome="refused")
                if not before:
                    raise
                self._refused = str(error)
                logger.error("models are not changed: %s", error)
                return
            self._models, self._routing, self._refused = loaded, models, None
            self._instruments.count("prectr_reloads", outcome="done")
            logger.info("serving %s", ", ".join(f"{name} {model.bundle.version}" for name, model in loaded.items()))
            await self._batcher.drained()
            kept = set(map(id, loaded.values()))
            await self._batcher.run(self._loader.close, [old for old in before.values() if id(old) not in kept])

    def watch(self, file: Path) -> None:
        """Reconfigure whenever a YAML file with the content of `ModelsConfig` changes."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(file))

    async def _watch(self, file: Path) -> None:
        seen = None
        while True:
            with suppress(OSError):
                state = file.stat()
                if (state.st_mtime_ns, state.st_size) != seen:
                    seen = (state.st_mtime_ns, state.st_size)
                    await self._reconfigure_from(file)
            await asyncio.sleep(WATCH_SECONDS)

    async def _reconfigure_from(self, file: Path) -> None:
        try:
            content = yaml.safe_load(await asyncio.to_thread(file.read_text, encoding="utf-8")) or {}
            models = ModelsConfig.model_validate(content)
        except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
            self._refused = f"{file}: {error}"
            self._instruments.count("prectr_reloads", outcome="refused")
            logger.error("models are not changed: %s", self._refused)
            return
        if models.bundles:
            await self.reconfigure(models)

    def describe(self) -> ModelsAnswer:
        """What is served now."""
        control = self._routing.control or ""
        state = self._models[control].state.info
        return ModelsAnswer(
            models={name: model.bundle.version for name, model in self._models.items()},
            default_model=control,
            experiment=self._routing.experiment.name,
            shares=self._routing.experiment.shares,
            shadow=self._routing.shadow and self._routing.shadow.model,
            state_version=state.version,
            state_age_seconds=round(max(0.0, time.time() - state.as_of), 1),
            refused=self._refused,
        )

    @property
    def default(self) -> ServedModel:
        """The model of all who are in no treatment."""
        return self._models[self._routing.control or ""]

    async def run(self, work: Any, *arguments: Any) -> Any:
        """Do something with the models in the thread that they belong to."""
        return await self._batcher.run(work, *arguments)

    async def check_health(self) -> None:
        """Score the golden requests of every model.

        Raises:
            PrectrError: one does not score as it did.
        """
        if not self._batcher.busy:  # a replica that answers is alive, and has better things to do
            await self._batcher.run(self._loader.check, list(self._models.values()))

    async def close(self) -> None:
        """Finish what waits, write the log, let go of everything."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._batcher.drained()
        await self._batcher.run(self._loader.close, list(self._models.values()))
        await self._batcher.close()
        self._let_go()

    def _open_deltas(self) -> UserDeltas:
        if self._guard is not None:
            return RedisDeltas(self._guard)
        if self._config.events is not None:
            return LmdbDeltas(self._config.events)
        self._temporary = tempfile.TemporaryDirectory(prefix="prectr-events-")
        return LmdbDeltas(Path(self._temporary.name))

    def _let_go(self) -> None:
        self._loader.close_all()
        self._deltas.close()
        if self.log is not None:
            self.log.close()
        if self._guard is not None:
            self._guard.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # Figures

    def _count(self, request: ScoreRequest, response: ScoreResponse, seconds: float) -> None:
        note = self._instruments
        note.count("prectr_requests", model=response.model, outcome="answered")
        note.observe("prectr_candidates", len(request.candidates))
        note.observe("prectr_stage_seconds", seconds, stage="whole")
        for stage, spent in response.seconds.items():
            note.observe("prectr_stage_seconds", spent, stage=stage)
        note.count("prectr_users", kind="known" if response.user_known else "cold")
        unknown = len(response.unscored) + sum(not entry.in_catalogue for entry in response.results)
        note.count("prectr_items_unknown", unknown)
        for what in response.degraded:
            note.count("prectr_degraded", without=what)

    def _gauge(self) -> None:
        for model in self._models.values():
            for of in ("score", "level"):
                self._instruments.set("prectr_drift", model.drift.index(of), model=model.name, of=of)
            self._instruments.set("prectr_state_age_seconds", max(0.0, time.time() - model.state.info.as_of))
            caches = {"text": model.ranking.scorer.text.cache, "pools": model.ranking.features.pools}
            for name, cache in caches.items():
                if cache is not None:
                    self._count_cache(f"{model.name}/{name}", name, cache.hits, cache.misses)

    def _count_cache(self, key: str, name: str, hits: int, misses: int) -> None:
        hits_before, misses_before = self._counted.get(key, (0, 0))
        self._instruments.count("prectr_cache_hits", max(0, hits - hits_before), cache=name)
        self._instruments.count("prectr_cache_misses", max(0, misses - misses_before), cache=name)
        self._counted[key] = (hits, misses)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)


def _moment(request: ScoreRequest, now: float) -> float:
    return now if request.context.ts is None else request.context.ts
