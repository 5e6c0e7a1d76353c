"""The stores' side of the server: drivers or the embedded store, their guards, the engines over them, and the tally."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from jobnimbus_mcp.app.accounts import Accounts, StoreOfAccounts
from jobnimbus_mcp.app.secrets import revealed
from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.connect_redis import connect, is_cluster
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.journal_file import JournalFile
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.mode import Mode
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

__all__ = ["StoreParts", "StoreSide", "build_store"]

BREAKER_WINDOW_S = 120.0
"""Store failures older than this are forgotten: five in two minutes are an outage, five in a week are not."""

EMBEDDED_L2_FACTOR = 2
"""The embedded store may hold this many times L1_MAX_MB: compressed, that is several times what L1 can."""

MEMO_SHARE = 4
"""One part in so many of L1_MAX_MB remembers finished answers, the rest what they are made of."""

TALLY_EVERY_S = 1.0
"""How often this process hands its counts to the shared sums; a crash loses no more than this."""

REDIS_CONNECTIONS = 64
IN_FLIGHT = 32
"""Commands sent at once; fewer than connections, so that the budget and health never wait for one."""

_FILLS_WITHIN_S = 0.5
_LEAVE_WITHIN_S = 0.8
"""At a stop, after the calls in flight have had theirs: together with what paying debts may take, under two seconds."""

_MEGABYTE = 1024 * 1024
_LEVELS = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


@dataclass(frozen=True)
class StoreSide:
    """Built, not opened."""

    accounts: Accounts
    counts: SharedCounts
    memo_bytes: int
    clock: Clock

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Heal, stay coherent and hand over counts in the background; at the end let fills finish, leave the fleet and
        close the connections."""
        async with self.connected(), AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            for one in self.accounts.stores:
                await one.store.start()
                await one.coherence.start()
            await stack.enter_async_context(_flushing(self.counts, self.clock))
            yield

    async def _close(self) -> None:
        """Everything at once, and each step bounded: neither many stores nor frozen ones make a stop long."""
        stores = self.accounts.stores
        await asyncio.gather(*(_within(_FILLS_WITHIN_S, one.cache.aclose()) for one in stores))
        await asyncio.gather(
            _within(_LEAVE_WITHIN_S, _flushed(self.counts)),
            *(_within(_LEAVE_WITHIN_S, one.coherence.aclose()) for one in stores),
            *(one.store.aclose() for one in stores),
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Ask the stores, and do nothing of one's own accord."""
        async with AsyncExitStack() as stack:
            for one in self.accounts.stores:
                if one.redis is not None:
                    stack.push_async_callback(one.redis.aclose)
            yield


@dataclass(frozen=True)
class StoreParts:
    """What every store's parts are built with. `modes`: those of the kinds of read there are."""

    clock: Clock
    random01: Callable[[], float]
    recorder: Recorder
    modes: frozenset[Mode]
    early_beta: Callable[[str], float]


def build_store(settings: Settings, parts: StoreParts, *, instead: Store | None, tally: Tally) -> StoreSide:
    """The stores of the settings, or one for all accounts over the driver given `instead`."""
    l1_bytes = settings.l1_max_mb * _MEGABYTE
    memo_bytes = l1_bytes // MEMO_SHARE
    plan = [("store", None, settings.instances)] if instead is not None else _plan(settings)
    share = (l1_bytes - memo_bytes) // len(plan)
    stores = [
        _store(settings, parts, name, url, tuple(tenants), instead=instead, l1_bytes=share)
        for name, url, tenants in plan
    ]
    accounts = Accounts(stores)
    return StoreSide(accounts, SharedCounts(tally, accounts), memo_bytes, parts.clock)


def _plan(settings: Settings) -> list[tuple[str, str | None, Sequence[str]]]:
    """(name, URL or None for the embedded store, accounts) of each store there is.

    Accounts with the same Redis share its connections and its breaker; in a cluster each has its own node, so its own.
    """
    by_url: dict[str | None, list[str]] = {}
    for instance in settings.instances:
        by_url.setdefault(revealed(settings.store_url_of(instance)), []).append(instance)
    found: list[tuple[str, str | None, Sequence[str]]] = []
    for url, tenants in by_url.items():
        if url is not None and is_cluster(url):
            found += [(f"store:{tenant}", url, (tenant,)) for tenant in tenants]
        else:
            found.append(("store" if len(by_url) == 1 else f"store:{'+'.join(tenants)}", url, tenants))
    return [("store", url, tenants) for _, url, tenants in found] if len(found) == 1 else found


def _store(
    settings: Settings,
    parts: StoreParts,
    name: str,
    url: str | None,
    tenants: tuple[str, ...],
    *,
    instead: Store | None,
    l1_bytes: int,
) -> StoreOfAccounts:
    clock, recorder = parts.clock, parts.recorder
    redis = None
    if url is not None:
        redis = connect(
            url,
            tenant=tenants[0],
            max_connections=REDIS_CONNECTIONS,
            connect_timeout_s=settings.redis_connection_timeout_ms / 1000,
            max_retries=settings.redis_max_retries,
            on_moved=lambda: store.moved(),
        )
    driver: Store
    if instead is not None:
        driver = instead
    elif redis is not None:
        driver = RedisStore(redis, probe=tenants[0])
    else:
        driver = MemoryStore(clock, max_bytes=max(1, settings.l1_max_mb) * EMBEDDED_L2_FACTOR * _MEGABYTE)
    breaker = BreakerBox(
        BreakerPolicy(
            window_s=BREAKER_WINDOW_S,
            open_s=settings.cache_circuit_reset_timeout_ms / 1000,
            failures=settings.cache_circuit_failure_threshold,
        ),
        clock,
        lambda state: recorder.gauge("breaker_state", _LEVELS[state], breaker=name),
    )
    store = GuardedStore(
        driver,
        breaker,
        clock,
        settings.redis_command_timeout_ms / 1000,
        recorder,
        max_in_flight=IN_FLIGHT,
        tenants=tenants,
        journal=JournalFile(settings.data_dir / "journal", tenants=tenants) if redis is not None else None,
    )
    uses_l1 = settings.cache_enabled and l1_bytes > 0
    coherence = Coherence(
        store,
        clock=clock,
        recorder=recorder,
        instance=secrets.token_hex(8),
        tenants=tenants,
        follow=uses_l1 and any(mode.trusts_l1 for mode in parts.modes),
        register=uses_l1 and Mode.BARRIER in parts.modes,
        distrusted=store.owes,
    )
    cache = ReadThrough(
        store,
        L1(l1_bytes),
        clock=clock,
        random01=parts.random01,
        recorder=recorder,
        compress=settings.cache_compression_enabled,
        admission_s=settings.credential_recheck_s,
        enabled=settings.cache_enabled,
        coherence=coherence,
        early_beta=parts.early_beta,
    )
    barrier = Barrier(store, clock=clock, recorder=recorder)
    return StoreOfAccounts(
        name=name,
        address=settings.store_address_of(tenants[0]),
        tenants=tenants,
        redis=redis,
        store=store,
        coherence=coherence,
        cache=cache,
        invalidator=Invalidator(store, clock=clock, recorder=recorder, barrier=barrier),
        noted=driver.noted if isinstance(driver, MemoryStore) else lambda tenant, key: False,
    )


@asynccontextmanager
async def _flushing(counts: SharedCounts, clock: Clock) -> AsyncIterator[None]:
    """Hand the tally over now and then; while the store is away it is kept."""

    async def for_ever() -> None:
        while True:
            await clock.sleep(TALLY_EVERY_S)
            await _flushed(counts)

    task = asyncio.get_running_loop().create_task(for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _flushed(counts: SharedCounts) -> None:
    try:
        await counts.flush()
    except CacheUnavailable:
        return  # counted by the store's guard; the counts wait for the next time


async def _within(seconds: float, closing: Awaitable[None]) -> None:
    """What has not ended by then ends with the process."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await closing
