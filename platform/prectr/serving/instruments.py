"""What a server counts: declared once, kept by Prometheus' own client or by Ray's metrics, under the same names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CANDIDATES = (1.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True)
class Metric:
    """One metric and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    what: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = (
    Metric("prectr_requests", "counter", "Scoring requests by how they ended", ("model", "outcome")),
    Metric("prectr_stage_seconds", "histogram", "Time of a request by stage", ("stage",), SECONDS),
    Metric("prectr_candidates", "histogram", "Candidates of a request", (), CANDIDATES),
    Metric("prectr_batch_requests", "histogram", "Requests that were scored in one call", (), (1, 2, 4, 8, 16, 32)),
    Metric("prectr_queue_requests", "gauge", "Requests that wait in a replica"),
    Metric("prectr_cache_hits", "counter", "Cache look-ups that were answered", ("cache",)),
    Metric("prectr_cache_misses", "counter", "Cache look-ups that were not", ("cache",)),
    Metric("prectr_users", "counter", "Users of requests: cold or known", ("kind",)),
    Metric("prectr_items_unknown", "counter", "Candidates that the catalogue does not hold"),
    Metric("prectr_degraded", "counter", "Requests that were answered without something", ("without",)),
    Metric("prectr_drift", "gauge", "Population stability index against the validation day", ("model", "of")),
    Metric("prectr_state_age_seconds", "gauge", "Since the published state was current"),
    Metric("prectr_events", "counter", "Shown lists that were told"),
    Metric("prectr_reloads", "counter", "Attempts to serve other models", ("outcome",)),
)
BY_NAME = {metric.name: metric for metric in METRICS}


class Instruments(Protocol):
    """Counts, without caring where to."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""


class PrometheusInstruments:
    """In this process; `text` is what a scrape gets."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        makers: Mapping[str, Any] = {"counter": Counter, "gauge": Gauge}
        self._metrics: dict[str, Any] = {
            metric.name: Histogram(
                metric.name, metric.what, metric.labels, registry=self._registry, buckets=metric.bounds
            )
            if metric.kind == "histogram"
            else makers[metric.kind](metric.name, metric.what, metric.labels, registry=self._registry)
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

    def text(self) -> bytes:
        """In Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


class RayInstruments:
    """Ray's metrics, which each node exports for all of its replicas; their names begin with `ray_`."""

    def __init__(self) -> None:
        from ray.serve import metrics

        makers: Mapping[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._metrics: dict[str, Any] = {
            metric.name: metrics.Histogram(
                metric.name, description=metric.what, boundaries=_list(metric.bounds), tag_keys=metric.labels
            )
            if metric.kind == "histogram"
            else makers[metric.kind](metric.name, description=metric.what, tag_keys=metric.labels)
            for metric in METRICS
        }

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        if value > 0:  # Ray refuses to add nothing
            self._metrics[name].inc(value, tags=labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._metrics[name].observe(value, tags=labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._metrics[name].set(value, tags=labels)


def _list(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]
