"""Where counters and latencies go: a port, and two recorders that need nothing."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

__all__ = ["InMemoryRecorder", "NullRecorder", "Recorder"]


class Recorder(Protocol):
    """Takes counts and observations under the names of `telemetry.names`; labels from closed sets only."""

    def count(self, name: str, n: float = 1, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...


class NullRecorder:
    """Forgets everything."""

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        return

    def observe(self, name: str, value: float, **labels: str) -> None:
        return

    def gauge(self, name: str, value: float, **labels: str) -> None:
        return


class InMemoryRecorder:
    """Keeps sums and last values, for tests."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self.observed: dict[str, list[float]] = defaultdict(list)
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        self.counts[name, tuple(sorted(labels.items()))] += n

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed[name].append(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, tuple(sorted(labels.items()))] = value

    def total(self, name: str) -> float:
        """Sum over all labels."""
        return sum(n for (counted, _), n in self.counts.items() if counted == name)
