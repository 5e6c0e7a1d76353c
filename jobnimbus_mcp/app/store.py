"""The store's side of the server: the driver or the embedded store, its guard, the engine over it, and the tally."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from jobnimbus_mcp.app.secrets import revealed
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.cache.read_through import ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.web.stats import SharedCounts

__all__ = ["StoreSide", "build_store"]

BREAKER_WINDOW_S = 120.0
"""Store failures older than this are forgotten: five in two minutes are an outage, five in a week are not."""

EMBEDDED_L2_FACTOR = 2
"""The embedded store may hold this many times L1_MAX_MB: compressed, that is several times what L1 can."""

MEMO_SHARE = 4
"""One part in so many of L1_MAX_MB remembers finished answers, the rest what they are made of."""

TALLY_EVERY_S = 1.0
"""How often this process hands its counts to the shared sums; a crash loses no more than this."""

REDIS_CONNECTIONS = 40
IN_FLIGHT = 32
"""Commands sent at once; fewer than connections, so that the budget and health never wait for one."""

_LEVELS = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


@dataclass(frozen=True)
class StoreSide:
    """Built, not opened. `redis` is None on the embedded store."""

    redis: Redis | None
    store: GuardedStore
    cache: ReadThrough
    invalidator: Invalidator
    counts: SharedCounts
    memo_bytes: int
    clock: Clock

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Heal and hand over counts in the background; at the end let fills finish and close the connections."""
        async with AsyncExitStack() as stack:
            if self.redis is not None:
                stack.push_async_callback(self.redis.aclose)
            await stack.enter_async_context(self.store)
            stack.push_async_callback(self.cache.aclose)
            await stack.enter_async_context(_flushing(self.counts, self.clock))
            yield


def build_store(
    settings: Settings,
    *,
    instead: Store | None,
    clock: Clock,
    random01: Callable[[], float],
    recorder: Recorder,
    tally: Tally,
) -> StoreSide:
    """The store of the settings, or the one given `instead`."""
    url = revealed(settings.store_url)
    redis = None
    if url is not None:
        connect_timeout_s = settings.redis_connection_timeout_ms / 1000
        redis = connect(
            url,
            max_connections=REDIS_CONNECTIONS,
            connect_timeout_s=connect_timeout_s,
            max_retries=settings.redis_max_retries,
        )
    megabyte = 1024 * 1024
    driver: Store
    if instead is not None:
        driver = instead
    elif redis is not None:
        driver = RedisStore(redis)
    else:
        driver = MemoryStore(clock, max_bytes=max(1, settings.l1_max_mb) * EMBEDDED_L2_FACTOR * megabyte)
    breaker = BreakerBox(
        BreakerPolicy(
            window_s=BREAKER_WINDOW_S,
            open_s=settings.cache_circuit_reset_timeout_ms / 1000,
            failures=settings.cache_circuit_failure_threshold,
        ),
        clock,
        lambda state: recorder.gauge("breaker_state", _LEVELS[state], breaker="store"),
    )
    store = GuardedStore(
        driver,
        breaker,
        clock,
        settings.redis_command_timeout_ms / 1000,
        recorder,
        max_in_flight=IN_FLIGHT,
        tenants=settings.instances,
    )
    memo_bytes = settings.l1_max_mb * megabyte // MEMO_SHARE
    cache = ReadThrough(
        store,
        L1(settings.l1_max_mb * megabyte - memo_bytes),
        clock=clock,
        random01=random01,
        recorder=recorder,
        compress=settings.cache_compression_enabled,
        admission_s=settings.credential_recheck_s,
        enabled=settings.cache_enabled,
    )
    invalidator = Invalidator(store, clock=clock, recorder=recorder)
    return StoreSide(redis, store, cache, invalidator, SharedCounts(tally, store), memo_bytes, clock)


@asynccontextmanager
async def _flushing(counts: SharedCounts, clock: Clock) -> AsyncIterator[None]:
    """Hand the tally over now and then, and once more at the end; while the store is away it is kept."""

    async def flush() -> None:
        try:
            await counts.flush()
        except CacheUnavailable:
            return  # counted by the store's guard; the counts wait for the next time

    async def for_ever() -> None:
        while True:
            await clock.sleep(TALLY_EVERY_S)
            await flush()

    task = asyncio.get_running_loop().create_task(for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await flush()
