"""Waiting until no L1 anywhere serves what has been invalidated."""

from __future__ import annotations

import structlog

from jobnimbus_mcp.cache.notice import Told
from jobnimbus_mcp.cache.ports import ANYBODY, L1_LEASE_S, Store, StoreError
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["Barrier"]

_POLLS_AT_ONCE = 10
"""Each takes a round trip, and no event loop sleeps for less than a millisecond: idle processes apply within these."""

_PAUSE_S = 0.001
_PAUSE_MOST_S = 0.02


class Barrier:
    """Passed when every registered process has applied the log so far, or its lease is over.

    Whoever waits does so by its own clock and for `margin_s` more than a lease, which lets the two clocks run apart by
    as much in that time. Who has not moved by then is struck from the fleet, so that it is waited for once.
    """

    def __init__(
        self, store: Store, *, clock: Clock, recorder: Recorder, lease_s: float = L1_LEASE_S, margin_s: float = 0.2
    ) -> None:
        self._store = store
        self._clock = clock
        self._recorder = recorder
        self._whole_s = lease_s + margin_s
        self._over_s = lease_s + margin_s / 2

    async def passed(self, tenant: str, told: Told, call: Call) -> None:
        """Return when no L1 serves anything older any more. Never fails: a store that cannot tell who has applied it
        costs the time that makes sure. Takes at most a lease and the margin, whatever the call's deadline."""
        if not told.unknown and not told.registered:
            return
        entered = self._clock.monotonic()
        end = "unknown" if told.unknown else await self._polled(tenant, told, entered, call)
        if end != "applied":
            await self._clock.sleep(entered + self._whole_s - self._clock.monotonic())
        self._recorder.observe("cache_barrier_seconds", self._clock.monotonic() - entered, end=end)

    async def _polled(self, tenant: str, told: Told, entered: float, call: Call) -> str:
        """applied, lease (it is over), unknown (the register was lost meanwhile) or failed (the store is away)."""
        # Its own: what the caller's has left, or has learnt of the store, must not cut the promise short.
        polling = Call.begin(self._clock, call.request_id, within_s=self._whole_s + 1.0)
        first: dict[str, bytes] | None = None
        first_at = entered
        polls, pause_s = 0, _PAUSE_S
        try:
            while True:
                behind = await self._store.behind(tenant, told.position, polling, register=told.register)
                if first is None:
                    first, first_at = behind, self._clock.monotonic()
                if not behind:
                    return "applied"
                if ANYBODY in behind:
                    # Once is enough: who registers from here on says nothing of those who were there.
                    return "unknown"
                remaining_s = entered + self._whole_s - self._clock.monotonic()
                if remaining_s <= 0:
                    break
                polls += 1
                if polls < _POLLS_AT_ONCE:
                    await self._clock.sleep(0)
                else:
                    await self._clock.sleep(min(pause_s, remaining_s))
                    pause_s = min(2 * pause_s, _PAUSE_MOST_S)
            still: dict[str, bytes | None] = {name: value for name, value in behind.items() if first.get(name) == value}
            # Who renewed just before a first look that came late may hold on until then, and must not be forgotten.
            if still and self._clock.monotonic() - first_at >= self._over_s:
                structlog.get_logger().warning("struck from the fleet", instance=tenant, processes=len(still))
                await self._store.strike(tenant, still, polling)
        except StoreError as error:
            self._recorder.count("cache_coherence_failures", part="barrier", reason=error.reason)
            return "failed"
        return "lease"
