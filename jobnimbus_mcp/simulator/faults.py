"""Faults on demand: which of them a call meets, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NO_EFFECT", "Effect", "Fault", "FaultPlan", "parse_fault"]

_MOST_FAULTS = 100


@dataclass(slots=True)
class Fault:
    """`path`: prefix relative to the API root. `times`: calls still to be hit; None: until reset.

    `status` 200 means the web app's HTML where JSON was expected.
    """

    path: str = "/"
    times: int | None = None
    status: int | None = None
    latency_s: float = 0
    retry_after_s: int | None = None
    stale_list_s: float = 0
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one call. Without `status` it is answered, late, stale or cut short."""

    status: int | None = None
    latency_s: float = 0
    retry_after_s: int | None = None
    stale_list_s: float = 0
    truncate: bool = False


NO_EFFECT = Effect()


@dataclass(slots=True)
class FaultPlan:
    """The faults in force, in the order they were asked for."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Raises: ValueError when there are too many already."""
        if len(self.faults) >= _MOST_FAULTS:
            raise ValueError(f"more than {_MOST_FAULTS} faults; reset first")
        self.faults.append(fault)

    def clear(self) -> None:
        self.faults.clear()

    def meet(self, path: str, *, is_list: bool) -> Effect:
        """The combined effect on a call, counted against each fault that takes part.

        Delays add up, the oldest stale list wins, and the first fault with a status ends it: later ones wait their
        turn. A fault that only makes lists stale passes by other calls.
        """
        if not self.faults:
            return NO_EFFECT
        latency_s = stale_s = 0.0
        truncate = False
        status = retry_after_s = None
        for fault in self.faults:
            only_stale = fault.stale_list_s > 0 and fault.status is None and not fault.truncate and not fault.latency_s
            if not path.startswith(fault.path) or (only_stale and not is_list):
                continue
            if fault.times is not None:
                fault.times -= 1
            latency_s += fault.latency_s
            stale_s = max(stale_s, fault.stale_list_s)
            truncate = truncate or fault.truncate
            if fault.status is not None:
                status, retry_after_s = fault.status, fault.retry_after_s
                break
        self.faults = [fault for fault in self.faults if fault.times is None or fault.times > 0]
        return Effect(status, latency_s, retry_after_s, stale_s, truncate)


def parse_fault(body: Mapping[str, Any]) -> Fault:
    """A fault from the control route's JSON object.

    Raises: ValueError naming what is wrong.
    """
    unknown = set(body) - {"status", "path", "times", "latencyMs", "retryAfter", "staleListSeconds", "truncate"}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]}")
    path = body.get("path", "/")
    if not isinstance(path, str):
        raise ValueError("path must be a string")
    truncate = body.get("truncate", False)
    if not isinstance(truncate, bool):
        raise ValueError("truncate must be true or false")
    status = _number(body, "status", 200, 599, whole=True)
    retry_after = _number(body, "retryAfter", 0, 86_400, whole=True)
    times = _number(body, "times", 1, 1_000_000, whole=True)
    latency_ms = _number(body, "latencyMs", 0, 600_000)
    stale_s = _number(body, "staleListSeconds", 0, 86_400)
    if status is None and retry_after is not None:
        status = 429
    if status is None and not latency_ms and not stale_s and not truncate:
        raise ValueError("a fault needs status, latencyMs, staleListSeconds or truncate")
    return Fault(
        path=f"/{path.lstrip('/')}",
        times=None if times is None else int(times),
        status=None if status is None else int(status),
        latency_s=(latency_ms or 0) / 1000,
        retry_after_s=None if retry_after is None else int(retry_after),
        stale_list_s=stale_s or 0,
        truncate=truncate,
    )


def _number(body: Mapping[str, Any], name: str, least: float, most: float, *, whole: bool = False) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least} to {most}")
    return value
