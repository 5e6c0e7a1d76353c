"""The store as everybody is given it: bounded, behind a breaker, and with a memory for what it could not be told.

An invalidation that the store could not be told leaves a debt: until everything of that tenant has been invalidated,
nothing of it is read from the store. Debts are paid in the background within about a second of the store's being back,
without needing a call, and also while the breaker is open: other processes on the same store may never have lost it,
and read old data until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import structlog

from jobnimbus_mcp.cache.command_bound import CommandBound, CommandExpired
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import (
    EntryRow,
    LogRow,
    Seen,
    Store,
    StoreError,
    StoreHealth,
    StoreNotTried,
    StoreOutOfMemory,
    StoreTimeout,
)
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.resilience.breaker import BreakerBox, State
from jobnimbus_mcp.telemetry.recorder import NullRecorder, Recorder

__all__ = ["DEBT_RETRY_S", "GuardedStore"]

T = TypeVar("T")

DEBT_RETRY_S = 0.5
"""Between two attempts to pay a debt: long enough for a store that is away or refuses writes, short enough for those
who still read from it."""


class GuardedStore:
    """A `Store` around a driver. `start` before use and `aclose` after, or `async with`.

    `command_timeout_s` bounds every command from when it is sent; at most `max_in_flight` are sent at once, the others
    wait outside that bound (so it must not exceed the client's number of connections). After one time-out or lost
    connection a call's `store_usable` is False and nothing more is tried in it. `probe_timeout_s` bounds the
    background's commands, which may have to connect first. `tenants`: who owes when the store is away at the start,
    since a process that ended meanwhile took with it what it owed.
    """

    def __init__(
        self,
        store: Store,
        breaker: BreakerBox,
        clock: Clock,
        command_timeout_s: float = 0.1,
        recorder: Recorder | None = None,
        *,
        max_in_flight: int = 32,
        probe_timeout_s: float = 1.0,
        tenants: Sequence[str] = (),
    ) -> None:
        if command_timeout_s <= 0 or max_in_flight < 1:
            raise ValueError("command_timeout_s and max_in_flight must be positive")
        self._store = store
        self._breaker = breaker
        self._clock = clock
        self._command_timeout_s = command_timeout_s
        self._probe_timeout_s = max(probe_timeout_s, command_timeout_s)
        self._recorder: Recorder = recorder if recorder is not None else NullRecorder()
        self._tenants = tuple(tenants)
        self._slots = asyncio.Semaphore(max_in_flight)
        self._debts: dict[str, int] = {}
        self._debts_made = 0
        self._paid_last: dict[str, float] = {}
        self._payments: dict[str, asyncio.Task[bool]] = {}
        self._wake = asyncio.Event()
        self._healer: asyncio.Task[None] | None = None
        self._reported = State.CLOSED

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to heal in the background."""
        if self._healer is None:
            self._healer = asyncio.get_running_loop().create_task(self.heal())

    async def aclose(self) -> None:
        """Stop healing, after one last try to pay what is owed. The driver is whoever's constructed it to close."""
        tasks = [task for task in (self._healer, *self._payments.values()) if task is not None]
        self._healer = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tenant in tuple(self._debts):
            try:
                await self._pay(tenant, self._command_timeout_s)
            except StoreError as error:
                structlog.get_logger().error("invalidation owed and lost", instance=tenant, reason=error.reason)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def heal(self) -> None:
        """For ever: pay what is owed, and when the breaker's time is over probe the store.

        Begins with a ping, so that the first connection is made under the wider bound and on nobody's path.
        """
        if self._breaker.admit() and not await self._pinged(full_is_well=True):
            for tenant in self._tenants:
                self._owe(tenant, "away at the start")
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._debts or self._breaker.state is not State.CLOSED:
                if self._breaker.state is not State.OPEN:
                    if not await self._probe():
                        await self._clock.sleep(DEBT_RETRY_S)
                elif not (self._debts and await self._paid_while_open()):
                    # No longer, since a debt may be made meanwhile.
                    await self._clock.sleep(min(DEBT_RETRY_S, max(0.001, self._breaker.retry_in_s)))

    @property
    def circuit_state(self) -> str:
        return self._breaker.state.value

    @property
    def indebted(self) -> tuple[str, ...]:
        """Tenants of which nothing is read until everything of theirs has been invalidated."""
        return tuple(self._debts)

    async def health(self) -> StoreHealth:
        """Ask the store now whether it takes writes."""
        call, sent = Call.begin(self._clock, "health"), self._clock.monotonic()
        try:
            await self.ping(call)
        except StoreError as error:
            return StoreHealth(False, self.circuit_state, self._ms_since(sent), error.reason)
        return StoreHealth(True, self.circuit_state, self._ms_since(sent), None)

    # -- the store ---------------------------------------------------------------------------------------------------

    async def read(self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, call: Call) -> Seen:
        if self._debts:
            await self._settled(key.tenant, call)
        return await self._sent("read", call, lambda: self._store.read(key, tags, etag, want=want, call=call))

    async def fill(
        self,
        key: CacheKey,
        tags: Sequence[str],
        seen: Seen,
        value: bytes,
        *,
        ttl_s: float,
        admission_s: float,
        call: Call,
    ) -> bool:
        if key.tenant in self._debts:
            raise StoreNotTried
        return await self._sent(
            "fill",
            call,
            lambda: self._store.fill(key, tags, seen, value, ttl_s=ttl_s, admission_s=admission_s, call=call),
        )

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        return await self._owing(
            tenant,
            self._sent(
                "bump", call, lambda: self._store.append_and_bump(tenant, tags, notice, call), past_breaker=True
            ),
        )

    async def renew_epoch(self, tenant: str, call: Call) -> None:
        owed = self._debts.get(tenant)
        await self._owing(
            tenant, self._sent("renew_epoch", call, lambda: self._store.renew_epoch(tenant, call), past_breaker=True)
        )
        self._settle(tenant, owed)

    async def admission(self, tenant: str, partition: str, call: Call) -> tuple[bool, bytes]:
        return await self._sent("admission", call, lambda: self._store.admission(tenant, partition, call))

    async def admit(self, tenant: str, partition: str, guard: bytes, *, admission_s: float, call: Call) -> bool:
        return await self._sent(
            "admit", call, lambda: self._store.admit(tenant, partition, guard, admission_s=admission_s, call=call)
        )

    async def withdraw(self, tenant: str, partition: str, call: Call, *, if_admitted: bool = False) -> bool:
        return await self._sent(
            "withdraw", call, lambda: self._store.withdraw(tenant, partition, call, if_admitted=if_admitted)
        )

    async def delete_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, int]:
        return await self._owing(
            tenant, self._sent("delete", call, lambda: self._store.delete_some(tenant, glob, cursor, call))
        )

    async def list_some(self, tenant: str, glob: str, cursor: int, call: Call) -> tuple[int, list[EntryRow]]:
        return await self._sent("list", call, lambda: self._store.list_some(tenant, glob, cursor, call))

    async def log(self, tenant: str, *, limit: int, since: float | None, call: Call) -> list[LogRow]:
        return await self._sent("log", call, lambda: self._store.log(tenant, limit=limit, since=since, call=call))

    async def rates(self, tenant: str, hours: Sequence[int], call: Call) -> dict[int, dict[str, int]]:
        return await self._sent("rates", call, lambda: self._store.rates(tenant, hours, call))

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        call = Call.begin(self._clock, "tally")
        await self._sent("tally", call, lambda: self._store.add(tenant, counts, batch=batch))

    async def totals(self, tenant: str) -> dict[str, int]:
        call = Call.begin(self._clock, "tally")
        return await self._sent("tally", call, lambda: self._store.totals(tenant))

    async def ping(self, call: Call) -> None:
        await self._sent("ping", call, lambda: self._store.ping(call))

    # -- one command -------------------------------------------------------------------------------------------------

    async def _sent(
        self, operation: str, call: Call, send: Callable[[], Awaitable[T]], *, past_breaker: bool = False
    ) -> T:
        """Send one command when there is room; whatever happened meanwhile to the call or the breaker counts.

        `past_breaker`: an invalidation is worth its time-out also while the breaker is open. Nobody sends it again, and
        a store that is back before the breaker knows would cost the tenant everything that is kept.
        """
        if not call.store_usable:
            raise StoreNotTried("unreachable")
        async with self._slots:
            if not call.store_usable:
                raise StoreNotTried("unreachable")
            if not self._breaker.admit() and not past_breaker:
                call.store_usable = False
                raise StoreNotTried
            try:
                return await self._tried(operation, send, self._command_timeout_s)
            except StoreOutOfMemory:
                raise
            except StoreError:
                call.store_usable = False
                raise

    async def _tried(self, operation: str, send: Callable[[], Awaitable[T]], within_s: float) -> T:
        """Await an admitted command and report its end to the breaker exactly once."""
        began = self._clock.monotonic()
        try:
            with CommandBound(within_s):
                result = await send()
        except CommandExpired as error:
            if error.stalled:
                self._breaker.abandoned(began)
            else:
                self._failed(operation, "timeout", began)
            raise StoreTimeout("event loop held up" if error.stalled else "") from error
        except StoreOutOfMemory as error:
            self._breaker.succeeded(began)
            self._recorder.count("cache_errors", operation=operation, reason=error.reason)
            raise
        except StoreError as error:
            self._failed(operation, error.reason, began)
            raise
        except asyncio.CancelledError:
            self._breaker.abandoned(began)
            raise
        except Exception as error:  # the boundary to a driver: whatever it lets through is a failure of the store
            structlog.get_logger().warning("cache store failed", operation=operation, error=type(error).__name__)
            self._failed(operation, "unreachable", began)
            raise StoreError(type(error).__name__) from error
        self._breaker.succeeded(began)
        self._recorder.observe("store_seconds", self._clock.monotonic() - began, operation=operation)
        if self._reported is not State.CLOSED:
            self._report()
        return result

    def _failed(self, operation: str, reason: str, began: float) -> None:
        self._breaker.failed(began)
        self._recorder.count("cache_errors", operation=operation, reason=reason)
        self._report(reason)

    def _report(self, reason: str = "") -> None:
        """Log a change of the breaker's state once, and wake the healer when there is something to heal."""
        state = self._breaker.state
        if state is not State.CLOSED:
            self._wake.set()
        if state is not self._reported:
            self._reported = state
            log = structlog.get_logger()
            if state is State.CLOSED:
                log.info("cache store is back", circuit_state=state.value)
            elif state is State.OPEN:
                log.warning("cache store is away", circuit_state=state.value, reason=reason)

    # -- debts -------------------------------------------------------------------------------------------------------

    async def _owing(self, tenant: str, told: Awaitable[T]) -> T:
        """Await an invalidation; unless it certainly holds, the tenant owes. A cancelled one may not have been sent."""
        try:
            return await told
        except BaseException as error:
            self._owe(tenant, _reason(error))
            raise

    def _owe(self, tenant: str, reason: str) -> None:
        self._debts_made += 1
        if tenant not in self._debts:
            structlog.get_logger().warning("invalidation owed", instance=tenant, reason=reason)
        self._debts[tenant] = self._debts_made
        self._wake.set()

    async def _settled(self, tenant: str, call: Call) -> None:
        """Return when the tenant owes nothing, paying first if need be.

        Raises:
            StoreNotTried: it owes, and that could not be changed now.
        """
        if tenant not in self._debts:
            return
        if not call.store_usable:
            raise StoreNotTried
        payment = self._payments.get(tenant)
        if payment is None:
            last = self._paid_last.get(tenant)
            if last is not None and self._clock.monotonic() - last < DEBT_RETRY_S:
                call.store_usable = False
                raise StoreNotTried
            self._paid_last[tenant] = self._clock.monotonic()
            payment = asyncio.get_running_loop().create_task(self._pay_admitted(tenant))
            self._payments[tenant] = payment
            payment.add_done_callback(lambda _: self._payments.pop(tenant, None))
        if not await asyncio.shield(payment) or tenant in self._debts:
            call.store_usable = False
            raise StoreNotTried

    async def _pay_admitted(self, tenant: str) -> bool:
        if not self._breaker.admit():
            return False
        try:
            await self._pay(tenant, self._command_timeout_s)
        except StoreError:
            return False
        return True

    async def _pay(self, tenant: str, within_s: float) -> None:
        owed = self._debts.get(tenant)
        call = Call.begin(self._clock, "debt")
        await self._tried("renew_epoch", lambda: self._store.renew_epoch(tenant, call), within_s)
        self._recorder.count("cache_epoch_renewals", reason="owed")
        self._settle(tenant, owed)

    def _settle(self, tenant: str, owed: int | None) -> None:
        # A debt made while the payment was under way is not covered by it.
        if owed is not None and self._debts.get(tenant) == owed:
            del self._debts[tenant]
            self._paid_last.pop(tenant, None)
            structlog.get_logger().info("owed invalidation applied", instance=tenant)

    async def _paid_while_open(self) -> bool:
        """Pay all debts past the open breaker, which takes no notice of results before its time is over."""
        try:
            for tenant in tuple(self._debts):
                if self._breaker.state is not State.OPEN:
                    return False
                await self._pay(tenant, self._probe_timeout_s)
        except StoreError:
            return False
        return True

    async def _probe(self) -> bool:
        """Pay all debts, or ping where there are none; True when all went well."""
        for tenant in tuple(self._debts):
            if not self._breaker.admit():
                return False
            try:
                await self._pay(tenant, self._probe_timeout_s)
            except StoreError:
                return False
        if self._breaker.state is State.CLOSED:
            return True
        return self._breaker.admit() and await self._pinged()

    async def _pinged(self, *, full_is_well: bool = False) -> bool:
        """`full_is_well`: a store without room has answered, and invalidations hold in it."""
        call = Call.begin(self._clock, "probe")
        try:
            await self._tried("ping", lambda: self._store.ping(call), self._probe_timeout_s)
        except StoreOutOfMemory:
            return full_is_well
        except StoreError:
            return False
        return True

    def _ms_since(self, then: float) -> float:
        return round((self._clock.monotonic() - then) * 1000, 3)


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, StoreError) else type(error).__name__
