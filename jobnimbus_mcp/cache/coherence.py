"""L1 over many processes: following each tenant's log, and the lease without which nothing of L1 is served.

Two background loops. One listens at the store for new lines of the log (and for wakes of fetches that ended), and
applies them at once. The other renews the lease: it tells the store how far this process has applied, and learns where
the log stands. What it learns and cannot account for makes everything dirty. A process that cannot reach the store
therefore stops serving L1 by itself, `lease_s` after it sent the last renewal that succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import structlog

from jobnimbus_mcp.cache.applied_log import AppliedLog
from jobnimbus_mcp.cache.ports import L1_LEASE_S, START, Ears, Heard, Store, StoreError, StoreUnreachable
from jobnimbus_mcp.cache.wakes import Bell, Waiting, Wakes
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["BLOCK_S", "LINGER_S", "SWEEP_S", "Coherence"]

BLOCK_S = 1.0
"""How long the store is listened to in one go: short enough to take notice of what else is to be listened to."""

LINGER_S = 10.0
"""A process without followers goes on listening for so long after its last waiter has left."""

SWEEP_S = 10.0
"""Who has not renewed its registration for so long has crashed; its lease was over long before."""

_SOON_S = 0.1
_RETRY_MOST_S = 1.0
_LAST_POSITION = "9999999999999-0"


@dataclass(slots=True)
class _Tenant:
    bell: Bell
    log: AppliedLog = field(default_factory=AppliedLog)
    served_until: float = -inf
    wakes: str = START
    swept: float = -inf
    others: Mapping[str, bytes] = field(default_factory=dict)


class Coherence:
    """What of L1 may be served in this process. One per store; `start` before use and `aclose` after.

    `follow`: L1 is used here; without it `holds` is always False and only wakes are listened to, while somebody waits
    for one. `register`: invalidations elsewhere wait for this process. `instance`: its name, which no other has.
    `distrusted`: the tenant's store must not be relied on now, so L1, which is no newer, is not served either.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        recorder: Recorder,
        instance: str,
        tenants: Sequence[str],
        follow: bool,
        register: bool,
        distrusted: Callable[[str], bool] = lambda tenant: False,
        lease_s: float = L1_LEASE_S,
        renew_s: float = 0.5,
    ) -> None:
        if not 0 < renew_s < lease_s:
            raise ValueError("a lease must be renewed before it is over")
        self._store = store
        self._clock = clock
        self._recorder = recorder
        self._instance = instance
        self._follow = follow
        self._register = register and follow
        self._distrusted = distrusted
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._tenants = {tenant: _Tenant(Bell(clock)) for tenant in tenants}
        self._wakes = Wakes(clock)
        self._left = -inf
        self._wanted = Bell(clock)
        self._tasks: list[asyncio.Task[None]] = []

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to listen and, with `follow`, to renew."""
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._kept_alive("listen", self._listening)))
        if self._follow:
            self._tasks += [loop.create_task(self._renew_for_ever(tenant)) for tenant in self._tenants]

    async def aclose(self) -> None:
        """Serve nothing of L1 any more, then tell the store that nobody need wait for this process."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._tenants.values():
            one.served_until = -inf
        if tasks and self._register:
            try:
                async with asyncio.timeout(1.0):
                    for tenant in self._tenants:
                        await self._store.strike(tenant, {self._instance: None}, Call.begin(self._clock, "coherence"))
            except (StoreError, TimeoutError) as error:
                structlog.get_logger().info("not signed off from the fleet", error=type(error).__name__)

    # -- what the engine asks ----------------------------------------------------------------------------------------

    def mark(self, tenant: str) -> int:
        """To be taken before a READ is sent, and kept with what it brings."""
        one = self._tenants.get(tenant)
        return one.log.mark if one is not None else 0

    def holds(self, tenant: str) -> bool:
        """May what is clean be served from L1 now, without asking the store?"""
        one = self._tenants.get(tenant)
        return one is not None and self._clock.monotonic() < one.served_until and not self._distrusted(tenant)

    def clean(self, tenant: str, since: int, tags: Sequence[str], bearer: str) -> bool:
        """Has nothing been applied since the mark that names one of these tags, the bearer or everything?"""
        one = self._tenants.get(tenant)
        return one is not None and one.log.clean(since, tags, bearer)

    def waiting(self, tenant: str, key_text: str) -> AbstractContextManager[Waiting]:
        """To be entered before asking for the flight lease: a wake that overtakes the answer is not missed."""
        return self._waiting(tenant, key_text)

    def stats(self) -> dict[str, Any]:
        """By tenant: the position applied (None before the first renewal), what remains of the lease in seconds, lines
        applied, and how often everything became dirty, by reason."""
        now = self._clock.monotonic()
        return {
            tenant: {
                "applied": one.log.position,
                "leaseSeconds": round(max(0.0, one.served_until - now), 3),
                "lines": one.log.lines,
                "cleared": dict(one.log.cleared),
            }
            for tenant, one in self._tenants.items()
        }

    @contextmanager
    def _waiting(self, tenant: str, key_text: str) -> Iterator[Waiting]:
        self._wanted.ring()
        with self._wakes.waiting(tenant, key_text) as one:
            try:
                yield one
            finally:
                self._left = self._clock.monotonic()

    # -- listening ---------------------------------------------------------------------------------------------------

    async def _listening(self) -> None:
        """What the first answer brings may be old, or from before a break: a wake in it makes its waiters look again,
        and no more."""
        road, anew = _Road("listen", self._recorder), True
        while True:
            self._wanted.silence()
            if not self._follow and not self._wakes and self._clock.monotonic() - self._left >= LINGER_S:
                anew = True
                await self._wanted.wait(None)
                continue
            if self._follow and not any(one.log.position for one in self._tenants.values()):
                await self._wanted.wait(_SOON_S)
            soon = self._follow and not all(one.log.position for one in self._tenants.values())
            ears = {tenant: Ears(one.log.position, one.wakes) for tenant, one in self._tenants.items()}
            try:
                heard = await self._store.listen(ears, block_s=_SOON_S if soon else BLOCK_S)
            except StoreError as error:
                anew = True
                for one in self._tenants.values():
                    # Another server may count from an earlier time.
                    one.wakes = START
                    if isinstance(error, StoreUnreachable):
                        # The connection broke, so this process knows that it is cut off before its lease tells it.
                        one.served_until = -inf
                await self._clock.sleep(road.failed(error))
                continue
            road.worked()
            for tenant, news in heard.items():
                self._hear(self._tenants[tenant], tenant, news, anew)
            anew = False

    def _hear(self, one: _Tenant, tenant: str, news: Heard, anew: bool) -> None:
        if news.changes:
            with self._moving(one):
                one.log.apply(news.changes)
        for wake in news.wakes:
            one.wakes = wake.position
            self._wakes.tell(tenant, wake.key_text, "stored" if anew else wake.result)

    @contextmanager
    def _moving(self, one: _Tenant) -> Iterator[None]:
        """The log takes a step within; if that has moved it, whoever waits for this process is told at once."""
        position, cleared = one.log.position, dict(one.log.cleared)
        yield
        for reason, number in one.log.cleared.items():
            if number != cleared.get(reason, 0):
                self._recorder.count("cache_l1_cleared", number - cleared.get(reason, 0), reason=reason)
        if one.log.position != position:
            if self._register:
                one.bell.ring()
            if position is None:
                self._wanted.ring()

    # -- the lease ---------------------------------------------------------------------------------------------------

    async def _renew_for_ever(self, tenant: str) -> None:
        await self._kept_alive("renew", lambda: self._renewing(tenant, self._tenants[tenant]))

    async def _renewing(self, tenant: str, one: _Tenant) -> None:
        road = _Road("renew", self._recorder, tenant)
        while True:
            one.bell.silence()
            try:
                await self._renew(tenant, one)
                if self._register and self._clock.monotonic() - one.swept >= SWEEP_S:
                    await self._sweep(tenant, one)
            except StoreError as error:
                await self._clock.sleep(road.failed(error))
                continue
            road.worked()
            await one.bell.wait(self._renew_s)

    async def _renew(self, tenant: str, one: _Tenant) -> None:
        """Tell how far the log is applied, catch up with where it stands, and only then have the lease.

        An invalidation that the answer does not show yet finds this process registered, so its lease, counted from
        before the request was sent, is over before anybody stops waiting for it.
        """
        log, told, asked = one.log, one.log.position, self._clock.monotonic()
        standing = await self._store.renew_l1(
            tenant, self._instance, told or START, register=self._register, call=Call.begin(self._clock, "coherence")
        )
        with self._moving(one):
            agreed = log.meet(standing, told)
        if not agreed:
            return
        if not log.reached(standing.position):
            lines = await self._store.changes(tenant, log.position or START, Call.begin(self._clock, "coherence"))
            with self._moving(one):
                log.apply(lines)
                if not log.reached(standing.position):
                    log.skip_to(standing.position)
        one.served_until = asked + self._lease_s

    async def _sweep(self, tenant: str, one: _Tenant) -> None:
        """Take from the fleet whoever stands there just as at the last sweep."""
        now = await self._store.behind(tenant, _LAST_POSITION, Call.begin(self._clock, "coherence"))
        gone: dict[str, bytes | None] = {
            name: value for name, value in now.items() if one.others.get(name) == value and name != self._instance
        }
        if gone:
            await self._store.strike(tenant, gone, Call.begin(self._clock, "coherence"))
        one.others, one.swept = now, self._clock.monotonic()

    async def _kept_alive(self, part: str, body: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await body()
            except Exception as error:  # the boundary of a background task: a defect must not end it
                structlog.get_logger().error("coherence failed", part=part, error=type(error).__name__, exc_info=True)
                self._recorder.count("cache_coherence_failures", part=part, reason="defect")
            await self._clock.sleep(_RETRY_MOST_S)


class _Road:
    """Does one loop reach the store? Told once per change; how long it waits before the next try grows meanwhile."""

    def __init__(self, part: str, recorder: Recorder, tenant: str = "") -> None:
        self._part = part
        self._recorder = recorder
        self._tenant = tenant
        self._pause_s = 0.0

    def failed(self, error: StoreError) -> float:
        """Seconds to wait now."""
        self._recorder.count("cache_coherence_failures", part=self._part, reason=error.reason)
        if not self._pause_s:
            structlog.get_logger().warning(
                "coherence interrupted", part=self._part, instance=self._tenant, reason=error.reason
            )
        self._pause_s = min(max(2 * self._pause_s, _SOON_S), _RETRY_MOST_S)
        return self._pause_s

    def worked(self) -> None:
        if self._pause_s:
            self._pause_s = 0.0
            structlog.get_logger().info("coherence is back", part=self._part, instance=self._tenant)
