"""Faults on demand: which of them a call meets, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NO_EFFECT", "Effect", "Fault", "FaultPlan", "parse_fault"]

_MOST_FAULTS = 100
_BESIDE = ("/api2", "/files/v1", "/cdn")
_METHODS = ("GET", "POST", "PUT", "DELETE")
_FIELDS = frozenset(
    {"status", "path", "method", "times", "latencyMs", "retryAfter", "staleListSeconds", "truncate", "after"}
)


@dataclass(slots=True)
class Fault:
    """`path`: prefix relative to the API root; what lies beside it (`/api2`, `/files/v1`, `/cdn`) by its full path, and
    only `/` means both. `method`: the only one hit, None: all. `times`: calls still to be hit; None: until reset.

    `status` 200 means the web app's HTML where JSON was expected. With `after`, the call is carried out first and only
    its answer is the failure, so that a client cannot know whether a write took effect.
    """

    path: str = "/"
    method: str | None = None
    times: int | None = None
    status: int | None = None
    latency_s: float = 0
    retry_after_s: int | None = None
    stale_list_s: float = 0
    truncate: bool = False
    after: bool = False

    def hits(self, path: str, method: str) -> bool:
        """Whether a call of that method (GET for a HEAD) and path is meant."""
        if self.method not in (None, method):
            return False
        return self.path == "/" or (path.startswith(self.path) and _place(path) == _place(self.path))


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one call. Without `status` it is answered, late, stale or cut short; with `after` it is carried
    out nevertheless."""

    status: int | None = None
    latency_s: float = 0
    retry_after_s: int | None = None
    stale_list_s: float = 0
    truncate: bool = False
    after: bool = False


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

    def meet(self, path: str, *, is_list: bool, method: str = "GET") -> Effect:
        """The combined effect on a call, counted against each fault that takes part.

        Delays add up, the oldest stale list wins, and the first fault with a status ends it: later ones wait their
        turn. A fault that only makes lists stale passes by other calls.
        """
        if not self.faults:
            return NO_EFFECT
        latency_s = stale_s = 0.0
        truncate = after = False
        status = retry_after_s = None
        for fault in self.faults:
            only_stale = fault.stale_list_s > 0 and fault.status is None and not fault.truncate and not fault.latency_s
            if not fault.hits(path, method) or (only_stale and not is_list):
                continue
            if fault.times is not None:
                fault.times -= 1
            latency_s += fault.latency_s
            stale_s = max(stale_s, fault.stale_list_s)
            truncate = truncate or fault.truncate
            if fault.status is not None:
                status, retry_after_s, after = fault.status, fault.retry_after_s, fault.after
                break
        self.faults = [fault for fault in self.faults if fault.times is None or fault.times > 0]
        return Effect(status, latency_s, retry_after_s, stale_s, truncate, after)


def parse_fault(body: Mapping[str, Any]) -> Fault:
    """A fault from the control route's JSON object: `status`, `path`, `times`, `latencyMs`, `retryAfter`,
    `staleListSeconds`, `truncate`; `method` ("POST") for calls of one method alone; `after` (true) for a `status` that
    comes only after the call took effect.

    Raises: ValueError naming what is wrong.
    """
    unknown = set(body) - _FIELDS
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]}")
    path = body.get("path", "/")
    if not isinstance(path, str):
        raise ValueError("path must be a string")
    method = body.get("method")
    if method not in (None, *_METHODS):
        raise ValueError(f"method must be one of {', '.join(_METHODS)}")
    truncate, after = (_flag(body, name) for name in ("truncate", "after"))
    status = _number(body, "status", 200, 599, whole=True)
    retry_after = _number(body, "retryAfter", 0, 86_400, whole=True)
    times = _number(body, "times", 1, 1_000_000, whole=True)
    latency_ms = _number(body, "latencyMs", 0, 600_000)
    stale_s = _number(body, "staleListSeconds", 0, 86_400)
    if status is None and retry_after is not None:
        status = 429
    if status is None and not latency_ms and not stale_s and not truncate:
        raise ValueError("a fault needs status, latencyMs, staleListSeconds or truncate")
    if after and status is None:
        raise ValueError("after needs a status")
    return Fault(
        method=method,
        path=f"/{path.lstrip('/')}",
        times=None if times is None else int(times),
        status=None if status is None else int(status),
        latency_s=(latency_ms or 0) / 1000,
        retry_after_s=None if retry_after is None else int(retry_after),
        stale_list_s=stale_s or 0,
        truncate=truncate,
        after=after,
    )


def _place(path: str) -> str:
    """The root beside the API's own that a path lies under; "" for the API's."""
    return next((root for root in _BESIDE if path == root or path.startswith(f"{root}/")), "")


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")
    return value


def _number(body: Mapping[str, Any], name: str, least: float, most: float, *, whole: bool = False) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least} to {most}")
    return value
