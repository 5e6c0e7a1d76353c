"""/health, /ready and /cache/health: whether the process, its parts and the store are well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.cache.ports import StoreHealth
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.web.ports import Part, ProbeStore, Readiness
from jobnimbus_mcp.web.replies import json_reply

__all__ = ["REASONS", "Health", "Remeasured"]

REASONS = frozenset({"unreachable", "timeout", "circuit_open", "read_only", "out_of_memory", "disabled"})
_EVERY_S = 1.0
"""Anyone may ask, and asking must not become a load on Redis."""
_PROBE_TIMEOUT_S = 1.0

T = TypeVar("T")


class Remeasured(Generic[T]):
    """A measurement at most a second old, made by one of those who ask while the others wait for it."""

    def __init__(self, measure: Callable[[], Awaitable[T]], clock: Clock, every_s: float = _EVERY_S) -> None:
        self._measure = measure
        self._clock = clock
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def value(self) -> T:
        """The latest measurement; a fresh one when that is too old."""
        async with self._lock:
            if self._last is None or self._clock.monotonic() - self._last[0] >= self._every_s:
                measured = await self._measure()
                self._last = (self._clock.monotonic(), measured)
            return self._last[1]


class Health:
    """The three probes. A probe that fails is an answer, never an error, and never tells an exception's text."""

    def __init__(
        self,
        *,
        probe_store: ProbeStore,
        circuit_state: Callable[[], str],
        readiness: Readiness,
        version: str,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._probe_store = probe_store
        self._circuit_state = circuit_state
        self._readiness = readiness
        self._version = version
        self._clock = clock
        self._log = log
        self._started = clock.monotonic()
        self._store = Remeasured(self._measured_store, clock)
        self._parts = Remeasured(self._measured_parts, clock)

    async def health(self, request: Request, body: bytes) -> Response:
        """The process lives."""
        now = self._clock.now()
        uptime_s = round(self._clock.monotonic() - self._started, 3)
        told = {"status": "ok", "version": self._version, "uptimeSeconds": uptime_s, "timestamp": rfc3339(now)}
        return json_reply(told)

    async def ready(self, request: Request, body: bytes) -> Response:
        """Which parts are up; 503 when one that nothing works without is down."""
        parts = await self._parts.value()
        down = [part for part in parts.values() if part.status == "down"]
        told = {"status": "degraded" if down else "ready", "parts": {n: _part(part) for n, part in parts.items()}}
        return json_reply(told, 503 if any(part.essential for part in down) else 200)

    async def cache_health(self, request: Request, body: bytes) -> Response:
        """Whether the store answers and takes writes."""
        store = await self.store()
        told: dict[str, Any] = {
            "status": "healthy" if store.reason is None else "unhealthy",
            "connected": store.connected,
            "circuitState": store.circuit_state,
        }
        if store.reason is None:
            return json_reply(told | {"latencyMs": round(store.latency_ms, 3)})
        return json_reply(told | {"reason": store.reason}, 503)

    async def store(self) -> StoreHealth:
        """The store as it was at most a second ago."""
        return await self._store.value()

    async def _measured_store(self) -> StoreHealth:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                store = await self._probe_store()
        except TimeoutError:
            return self._unwell("timeout")
        except Exception as fault:  # the boundary of a probe: the store is not well, whatever it was
            self._log.warning("store probe failed", error_type=type(fault).__name__)
            return self._unwell("unreachable")
        return store if store.reason is None or store.reason in REASONS else self._unwell("unreachable")

    def _unwell(self, reason: str) -> StoreHealth:
        return StoreHealth(connected=False, circuit_state=self._circuit_state(), latency_ms=0.0, reason=reason)

    async def _measured_parts(self) -> Mapping[str, Part]:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                return await self._readiness()
        except TimeoutError:
            return {"readiness": Part("down", essential=True, reason="timeout")}
        except Exception as fault:  # the boundary of a probe: a server that cannot tell its state is not ready
            self._log.warning("readiness probe failed", error_type=type(fault).__name__)
            return {"readiness": Part("down", essential=True, reason="failed")}


def _part(part: Part) -> dict[str, str]:
    return {"status": part.status} if part.reason is None else {"status": part.status, "reason": part.reason}
