"""Metrics for Prometheus: a recorder over the table of `telemetry.names`, and the text of /metrics for all workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from jobnimbus_mcp.telemetry.names import METRICS, Metric

__all__ = ["BUCKETS_S", "PREFIX", "SERIES_MAX", "PrometheusRecorder"]

PREFIX = "jobnimbus_mcp_"

BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    15.0,
)
"""From a hit in memory (0.1 ms) to the bound of a call (15 s)."""

SERIES_MAX = 1_000
"""Series of one metric. Labels come from closed sets, so more means a mistake: its series are summed as `overflow`,
and memory stays bounded."""

_OVERFLOW = "overflow"
_MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"


class PrometheusRecorder:
    """The `Recorder` behind /metrics. Refuses names and labels that are not in the table, as a defect.

    Workers share their numbers when PROMETHEUS_MULTIPROC_DIR named a directory before the first import of
    prometheus_client; without it the numbers are this process's own.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._shared = os.environ.get(_MULTIPROC)
        self._families: dict[str, Counter | Gauge | Histogram] = {
            name: self._family(name, metric) for name, metric in metrics.items()
        }
        self._series: dict[str, dict[tuple[tuple[str, str], ...], Counter | Gauge | Histogram]] = {
            name: {} for name in metrics
        }

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        series = self._child(name, labels)
        if not isinstance(series, Counter):
            raise ValueError(f"{name} is not a counter")
        series.inc(n)

    def observe(self, name: str, value: float, **labels: str) -> None:
        series = self._child(name, labels)
        if not isinstance(series, Histogram):
            raise ValueError(f"{name} is not a histogram")
        series.observe(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        series = self._child(name, labels)
        if not isinstance(series, Gauge):
            raise ValueError(f"{name} is not a gauge")
        series.set(value)

    def exposition(self) -> tuple[bytes, str]:
        """The text of all workers' metrics, and its content type."""
        if self._shared is None:
            return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
        self._forget_dead_workers(Path(self._shared))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def _family(self, name: str, metric: Metric) -> Counter | Gauge | Histogram:
        full = PREFIX + name
        match metric.kind:
            case "counter":
                return Counter(full, metric.help, metric.labels, registry=self._registry)
            case "histogram":
                return Histogram(full, metric.help, metric.labels, registry=self._registry, buckets=BUCKETS_S)
            case "gauge":
                # a state is worst where it is highest; sizes add up
                mode: Literal["livemax", "livesum"] = "livemax" if name.endswith("_state") else "livesum"
                return Gauge(full, metric.help, metric.labels, registry=self._registry, multiprocess_mode=mode)
            case kind:
                raise ValueError(f"{name}: no such kind of metric: {kind}")

    def _child(self, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        metric = self._metrics.get(name)
        if metric is None:
            raise ValueError(f"no such metric: {name}")
        if not metric.labels and not labels:
            return self._families[name]
        key = tuple(labels.items())
        series = self._series[name]
        found = series.get(key)
        if found is not None:
            return found
        if labels.keys() != set(metric.labels):
            raise ValueError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
        if len(series) >= SERIES_MAX:
            return self._families[name].labels(**dict.fromkeys(labels, _OVERFLOW))
        series[key] = made = self._families[name].labels(**labels)
        return made

    @staticmethod
    def _forget_dead_workers(directory: Path) -> None:
        # counters of a dead worker stay in the sum; only what it said of itself while alive goes
        for file in directory.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _alive(pid):
                mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]  # as above


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
