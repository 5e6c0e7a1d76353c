"""One fetch for all processes: its leader holds a lease in the store, the others are woken when it has ended.

A follower waits no longer than the lease of a leader that died, and a little for the one that leads next; then it goes
on without. Generations are part of the lease, so nobody follows a fetch that began before a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.plan import origin_failed
from jobnimbus_mcp.cache.ports import ANY_ENTRY, FLIGHT_LEASE_S, Floor, Lead, LeadVerdict, Store, StoreError
from jobnimbus_mcp.cache.question import Errand, Look
from jobnimbus_mcp.cache.throttle import throttle_s
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["FOLLOW_S", "KEEP_EVERY_S", "Fetch", "FlightLeases", "LookAgain", "Throttled"]

KEEP_EVERY_S = 1.5
"""Renewals of a lease of 5 s: two may be lost."""

FOLLOW_S = FLIGHT_LEASE_S + 1.5
"""Following in all: a dead leader's lease, and a usual fetch of the one that leads after it."""

_WAKE_LATE_S = 0.05
_ROUNDS = 8
"""Bounds the taking of turns when generations move again and again."""

Fetch = Callable[[Look, str, Mapping[str, Floor] | None], Awaitable[bool]]
"""Fetches, keeps and answers under a lease's token ("" without one) and its floors; True when the lease was given back
with the fill."""

LookAgain = Callable[[], Awaitable[Look | None]]
"""READs again; None when that found an answer and gave it."""


class Throttled(Exception):
    """The origin failed a short while ago: whoever has something to serve, serves that. `wait_s`: until then."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class FlightLeases:
    """Leads or follows. `token` makes names that no two leaders share."""

    def __init__(
        self, store: Store, coherence: Coherence, clock: Clock, recorder: Recorder, token: Callable[[], str]
    ) -> None:
        self._store = store
        self._coherence = coherence
        self._clock = clock
        self._recorder = recorder
        self._token = token

    async def fly(self, errand: Errand, look: Look, fetch: Fetch, look_again: LookAgain) -> None:
        """Have the errand done by one process: this one fetches, or another's fetch is looked up when it has ended.

        One that is to be alone leads where it can, so that others may follow it, and follows nobody.

        Raises:
            Throttled: the errand is patient, and the last fetch failed.
            Exception: what `fetch` raised.
        """
        key, call, token = errand.question.key, errand.call, self._token()
        replaces = ANY_ENTRY if errand.alone else errand.replaces
        until = self._clock.monotonic() + min(FOLLOW_S, call.remaining_s(self._clock) / 2)
        for _ in range(_ROUNDS):
            ended: str | None = None
            # Listening begins before the question who leads: a fetch that ends in between is heard of.
            with self._coherence.waiting(key.tenant, errand.key_text) as waiting:
                try:
                    lead = await self._store.lead(key, look.seen, token, etag=replaces, patient=True, call=call)
                    insists = lead.verdict is LeadVerdict.THROTTLED and not errand.patient
                    if insists:
                        lead = await self._store.lead(key, look.seen, token, etag=replaces, call=call)
                except StoreError:
                    break  # the store's driver has counted it; the fetch is not shared
                if lead.verdict is LeadVerdict.LED:
                    return await self._lead(errand, look, token, lead, fetch, insists=insists)
                if errand.alone:
                    break
                if lead.verdict is LeadVerdict.THROTTLED:
                    self._count("throttled")
                    raise Throttled(lead.wait_s)
                if lead.verdict is LeadVerdict.FOLLOW:
                    left_s = until - self._clock.monotonic()
                    if left_s <= 0:
                        break
                    ended = await waiting.ended(min(lead.wait_s + _WAKE_LATE_S, left_s))
            try:
                again = await look_again()
            except StoreError:
                break
            if again is None:
                self._count("follower" if lead.verdict is LeadVerdict.FOLLOW else "found")
                return None
            moved = (again.seen.vector, again.seen.guard) != (look.seen.vector, look.seen.guard)
            look = again
            if not look.seen.vector:
                break
            # At the same generations it would be pointed at the same entry again, or another fetch would end the same.
            useless = lead.verdict is LeadVerdict.FILLED or (ended in ("unkept", "failed") and not errand.patient)
            if useless and not moved:
                break
        self._count("alone")
        await fetch(look, "", None)
        return None

    async def _lead(self, errand: Errand, look: Look, token: str, lead: Lead, fetch: Fetch, *, insists: bool) -> None:
        """`insists`: others leave the origin alone now; if it fails again, their pause is begun anew and no longer."""
        self._count("leader")
        keeping = asyncio.get_running_loop().create_task(self._keep(errand, token))
        began = self._clock.monotonic()
        given_back, result, failures = False, "unkept", 0
        try:
            given_back = await fetch(look, token, lead.floors)
        except BaseException as error:
            result = "failed"
            if origin_failed(error, self._clock.monotonic() - began, errand.question.policy):
                failures = max(1, lead.failures) if insists else lead.failures + 1
            raise
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if not given_back:
                await self._release(errand, token, result, failures)

    async def _keep(self, errand: Errand, token: str) -> None:
        kept = True
        while kept:
            await self._clock.sleep(KEEP_EVERY_S)
            try:
                kept = await self._store.keep_lead(errand.question.key, token, self._call(errand))
            except StoreError:
                continue  # counted by the store's driver; the next renewal may come in time

    async def _release(self, errand: Errand, token: str, result: str, failures: int) -> None:
        pause_s = throttle_s(failures) if failures else 0.0
        try:
            await self._store.release(
                errand.question.key,
                token,
                result=result,
                failures=failures,
                throttle_s=pause_s,
                call=self._call(errand),
            )
        except StoreError:
            return  # counted by the store's driver; the lease runs out by itself

    def _call(self, errand: Errand) -> Call:
        # Of its own: the lease outlives what the errand's call may still do.
        return Call.begin(self._clock, errand.call.request_id)

    def _count(self, role: str) -> None:
        self._recorder.count("cache_flights", role=role)
