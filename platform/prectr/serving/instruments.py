"""Metrics of a server, declared once and kept under equal names by Prometheus' client or by Ray."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CANDIDATES = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
NO_VARIANT = "none"
"""Value of the label `variant` of a request outside an experiment."""
_MODEL = ("model", "variant")
_Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Metric:
    """One metric and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = (
    Metric("prectr_requests", "counter", "Scoring requests by outcome", (*_MODEL, "outcome")),
    Metric("prectr_stage_seconds", "histogram", "Seconds of a request by stage", ("stage", *_MODEL), SECONDS),
    Metric("prectr_candidates", "histogram", "Candidates of a request", (), CANDIDATES),
    Metric("prectr_batch_requests", "histogram", "Requests scored in one batch", (), (1, 2, 4, 8, 16, 32)),
    Metric("prectr_queue_requests", "gauge", "Requests that wait in a replica"),
    Metric("prectr_cache_hits", "counter", "Cache look-ups that found an entry", ("cache",)),
    Metric("prectr_cache_misses", "counter", "Cache look-ups that found no entry", ("cache",)),
    Metric("prectr_users", "counter", "Requests by kind of user: cold or known", ("kind", *_MODEL)),
    Metric("prectr_items_unknown", "counter", "Candidates that the catalogue does not hold", _MODEL),
    Metric("prectr_degraded", "counter", "Requests answered without features or events", ("missing", *_MODEL)),
    Metric("prectr_drift", "gauge", "Population stability index against the validation day", ("model", "of")),
    Metric("prectr_state_age_seconds", "gauge", "Age of the state that a model reads", ("model",)),
    Metric("prectr_events", "counter", "Shown lists that were new or held new clicks"),
    Metric("prectr_events_refused", "counter", "Events that were refused or ignored, by reason", ("reason",)),
    Metric("prectr_events_queue_items", "gauge", "Shown items of events that wait in a replica"),
    Metric("prectr_reloads", "counter", "Attempts to serve other models", ("outcome",)),
    Metric("prectr_log_rows_dropped", "counter", "Rows of the exposure log that were lost because memory was full"),
    Metric("prectr_log_failures", "counter", "Writes of the exposure log that failed and are tried again"),
)
COUNTED = {
    "prectr_requests": ("outcome", ("answered", "refused", "overloaded", "toolate", "failed")),
    "prectr_users": ("kind", ("known", "cold")),
    "prectr_degraded": ("missing", ("events", "features")),
}
"""Counters by model -> their own label and its values. Each begins with 0, because Prometheus takes no first value of a
series for an increase."""


class Instruments(Protocol):
    """Receives metrics of a server."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter; adding 0 creates its series."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def flush(self) -> None:
        """Export counters and gauges as they are now; until then they may lag behind."""


class PrometheusInstruments:
    """Metrics in this process, for a Prometheus scrape."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        classes: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge}
        self._metrics: dict[str, Any] = {
            metric.name: Histogram(
                metric.name, metric.description, metric.labels, registry=self._registry, buckets=metric.bounds
            )
            if metric.kind == "histogram"
            else classes[metric.kind](metric.name, metric.description, metric.labels, registry=self._registry)
            for metric in METRICS
        }

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._of(name, labels).inc(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._of(name, labels).observe(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._of(name, labels).set(value)

    def flush(self) -> None:
        """Nothing is held back."""

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


class RayInstruments:
    """Metrics in Ray, which each node exports for all of its replicas under names that begin with `ray_`.

    Each call of Ray costs some microseconds, so counters and gauges are held back until `flush`.
    """

    def __init__(self) -> None:
        from ray.serve import metrics

        classes: Mapping[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._metrics: dict[str, Any] = {
            metric.name: metrics.Histogram(
                metric.name, description=metric.description, boundaries=_list(metric.bounds), tag_keys=metric.labels
            )
            if metric.kind == "histogram"
            else classes[metric.kind](metric.name, description=metric.description, tag_keys=metric.labels)
            for metric in METRICS
        }
        self._lock = threading.Lock()
        self._counts: dict[_Series, float] = {}
        self._gauges: dict[_Series, float] = {}

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        series = (name, tuple(labels.items()))
        with self._lock:
            self._counts[series] = self._counts.get(series, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._metrics[name].observe(value, tags=labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name, tuple(labels.items())] = value

    def flush(self) -> None:
        """Give counters and gauges to Ray."""
        with self._lock:
            counts, self._counts = self._counts, {}
            gauges, self._gauges = self._gauges, {}
        for (name, labels), value in counts.items():
            # `inc` refuses 0, which a new series begins with.
            self._metrics[name]._record(value, tags=dict(labels))
        for (name, labels), value in gauges.items():
            self._metrics[name].set(value, tags=dict(labels))


def _list(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]
