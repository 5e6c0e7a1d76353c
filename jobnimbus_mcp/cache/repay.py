"""Making up for what the store could not be told, in the background and without needing a call.

A tenant whose invalidation failed owes it. Either its epoch is renewed, which invalidates everything of it, or the
journal has taken the invalidation over and the store is told of it later, as it was. That is tried about twice a second
while the store is away, also while the breaker is open: other processes on the same store may never have lost it, and
read old data until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from jobnimbus_mcp.cache.commands import Commands
from jobnimbus_mcp.cache.debts import Debts
from jobnimbus_mcp.cache.deferral import Deferral
from jobnimbus_mcp.cache.journal import Kept, Line
from jobnimbus_mcp.cache.notice import Parcel
from jobnimbus_mcp.cache.ports import L1_LEASE_S, Store, StoreError, StoreNotTried, StoreOutOfMemory
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.resilience.breaker import State
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["DEBT_RETRY_S", "Repayer", "Replayed"]

T = TypeVar("T")

DEBT_RETRY_S = 0.5
"""Between two attempts to pay a debt: long enough for a store that is away or refuses writes, short enough for those
who still read from it."""

_AT_ONCE = 4
"""Past the bound on commands in flight, so no more than the client has connections to spare."""

Replayed = Callable[[str, Parcel, str], Awaitable[None]]
"""Told of a tenant's parcel, and the id it has in the store, when a line has brought it there and before the journal
forgets that. Raises CacheUnavailable: the line stays, and the store is told of it again."""

_TRIES = 3
_CLOSE_WITHIN_S = 0.8


class Repayer:
    """Knows what is owed, and pays. `store` is the driver, `commands` the way to it.

    `tenants`: who owes when the store or the journal is away at the start, since a process that ended meanwhile took
    with it what it owed. `probe_timeout_s` bounds the background's commands, which may have to connect first.
    """

    def __init__(
        self,
        store: Store,
        commands: Commands,
        clock: Clock,
        recorder: Recorder,
        wake: asyncio.Event,
        *,
        debts: Debts,
        deferral: Deferral | None,
        tenants: Sequence[str],
        probe_timeout_s: float,
    ) -> None:
        self._debts = debts
        self._deferral = deferral
        self._store = store
        self._commands = commands
        self._breaker = commands.breaker
        self._clock = clock
        self._recorder = recorder
        self._wake = wake
        self._hurry = asyncio.Event()
        self._tenants = tuple(tenants)
        self._probe_timeout_s = probe_timeout_s
        self._tries: dict[int, int] = {}
        self._tried_at: dict[str, float] = {}
        self._settled_at: dict[str, float] = {}
        self._payments: dict[str, asyncio.Task[bool]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.replayed: Replayed | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Know what the journal holds, then begin to heal and to adopt."""
        if self._loops:
            return
        loop = asyncio.get_running_loop()
        if self._deferral is not None:
            if not await self._deferral.adopt():
                for tenant in self._tenants:
                    self.owe(tenant, "journal away at the start")
            self._loops.append(loop.create_task(self._for_ever(self._deferral.adopt_for_ever)))
        self._loops.append(loop.create_task(self._for_ever(self._heal)))

    async def aclose(self) -> None:
        """Stop healing, after one last try to pay. What cannot be paid is left to the journal."""
        loops, self._loops = self._loops, []
        for task in (*loops, *self._payments.values()):
            task.cancel()
        await asyncio.gather(*loops, *self._payments.values(), return_exceptions=True)
        if self._deferral is not None:
            await self._deferral.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                for tenant in self._debts:
                    await self._paid(tenant, self._commands.timeout_s)
        await asyncio.gather(*(self._leave(tenant) for tenant in self._debts))
        if self._deferral is not None:
            await self._deferral.aclose()

    async def _leave(self, tenant: str) -> None:
        # Once is enough, or each restart without the store would add a line.
        waits = self._debts.renewal_left(tenant) or not self._debts.renewal_due(tenant)
        if waits or (self._deferral is not None and await self._deferral.leave(tenant)):
            structlog.get_logger().warning("invalidations wait in the journal", instance=tenant)
        else:
            structlog.get_logger().error("invalidation owed and lost", instance=tenant)

    # -- owing -------------------------------------------------------------------------------------------------------

    def owe(self, tenant: str, reason: str, cause: str = "") -> None:
        """Nothing of the tenant may be trusted until this has been made up for. `cause`: what the journal may take it
        over by; "" = nothing."""
        if tenant not in self._debts:
            structlog.get_logger().warning("invalidation owed", instance=tenant, reason=reason)
        self._debts.owe(tenant, cause)
        self._wake.set()

    def owes(self, tenant: str) -> bool:
        """Also for one L1 lease after the last payment: L1 hears of that on a way of its own, and until it has renewed
        its lease once more it may not have heard."""
        settled_at = self._settled_at.get(tenant)
        if settled_at is not None and self._clock.monotonic() - settled_at >= L1_LEASE_S:
            del self._settled_at[tenant]
            settled_at = None
        return settled_at is not None or tenant in self._debts

    def moved(self) -> None:
        """The store is elsewhere now and answers there: try it at once."""
        self._breaker.moved()
        self._tried_at.clear()
        self._wake.set()
        self._hurry.set()

    def renewed(self, tenant: str, mark: int) -> None:
        """The tenant's epoch has been renewed after this mark of the debts was taken."""
        was = tenant in self._debts
        covered = self._debts.renewed(tenant, mark)
        if self._deferral is not None:
            self._deferral.forget(covered)
        self._settle(tenant, was)

    async def settled(self, tenant: str, call: Call) -> None:
        """Return when the tenant owes nothing, paying first if need be.

        Raises:
            StoreNotTried: it owes, and that could not be changed now.
        """
        if tenant not in self._debts:
            return
        if not call.store_usable:
            raise StoreNotTried
        if tenant not in self._payments:
            last, now = self._tried_at.get(tenant), self._clock.monotonic()
            if self._breaker.state is State.OPEN or (last is not None and now - last < DEBT_RETRY_S):
                call.store_usable = False
                raise StoreNotTried
            self._tried_at[tenant] = now
        # No longer than any command: a long journal is for the background.
        await asyncio.wait({self._payment(tenant, self._commands.timeout_s)}, timeout=self._commands.timeout_s)
        if tenant in self._debts:
            call.store_usable = False
            raise StoreNotTried

    async def caught_up(self, tenant: str, within_s: float) -> None:
        """Return when the journal holds nothing of the tenant to be told one by one, telling it now; `within_s` seconds
        at most, and not at all while the breaker is open."""
        if self._debts.waits(tenant) and self._breaker.state is not State.OPEN:
            await asyncio.wait({self._payment(tenant, self._probe_timeout_s)}, timeout=within_s)

    # -- healing -----------------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """Begins with a ping, so that the first connection is made under the wider bound and on nobody's path."""
        if self._breaker.admit() and not await self._pinged(full_is_well=True):
            for tenant in self._tenants:
                self.owe(tenant, "away at the start")
        while True:
            while self._debts or self._breaker.state is not State.CLOSED:
                if self._breaker.state is not State.OPEN:
                    if not await self._probe():
                        await self._rest(DEBT_RETRY_S)
                elif not (self._debts and await self._all_paid()):
                    # No longer, since a debt may be made meanwhile.
                    await self._rest(min(DEBT_RETRY_S, max(0.001, self._breaker.retry_in_s)))
            await self._wake.wait()
            self._wake.clear()

    async def _probe(self) -> bool:
        """Pay all debts, or ping where there are none; True when all went well."""
        if self._debts and not await self._all_paid():
            return False
        return self._breaker.state is State.CLOSED or (self._breaker.admit() and await self._pinged())

    async def _all_paid(self) -> bool:
        state = self._breaker.state
        for tenant in self._debts:
            if state is State.OPEN and self._breaker.state is not State.OPEN:
                return False
            if not await asyncio.shield(self._payment(tenant, self._probe_timeout_s)):
                return False
        return not self._debts

    async def _pinged(self, *, full_is_well: bool = False) -> bool:
        """`full_is_well`: a store without room has answered, and invalidations hold in it."""
        call = Call.begin(self._clock, "probe")
        try:
            await self._commands.tried("ping", lambda: self._store.ping(call), self._probe_timeout_s)
        except StoreOutOfMemory:
            return full_is_well
        except StoreError:
            return False
        return True

    async def _rest(self, seconds: float) -> None:
        """Sleep, until the store has moved at most."""
        loop = asyncio.get_running_loop()
        waits = (loop.create_task(self._clock.sleep(seconds)), loop.create_task(self._hurried()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._hurry.clear()

    async def _hurried(self) -> None:
        await self._hurry.wait()

    async def _for_ever(self, body: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await body()
            except Exception as error:  # the boundary of a background task: a defect must not end it
                structlog.get_logger().error("healing failed", error=type(error).__name__, exc_info=True)
            await self._clock.sleep(DEBT_RETRY_S)

    # -- paying ------------------------------------------------------------------------------------------------------

    def _payment(self, tenant: str, within_s: float) -> asyncio.Task[bool]:
        """The payment under way, or a new one; readers and the background share it."""
        payment = self._payments.get(tenant)
        if payment is None:
            payment = asyncio.get_running_loop().create_task(self._paid(tenant, within_s))
            self._payments[tenant] = payment
            payment.add_done_callback(lambda _: self._payments.pop(tenant, None))
        return payment

    async def _paid(self, tenant: str, within_s: float) -> bool:
        """Pay what is due now; False when the store could not be told."""
        try:
            if self._debts.renewal_due(tenant):
                await self._renew(tenant, within_s)
            while lines := self._debts.lines(tenant, 1 if self._breaker.state is State.HALF_OPEN else _AT_ONCE):
                await self._apply(tenant, _of_different_records(lines), within_s)
        except StoreError:
            return False
        return True

    async def _renew(self, tenant: str, within_s: float) -> None:
        mark, call = self._debts.mark, Call.begin(self._clock, "debt")
        await self._admitted("renew_epoch", lambda: self._store.renew_epoch(tenant, call), within_s)
        self._recorder.count("cache_epoch_renewals", reason="owed")
        self.renewed(tenant, mark)

    async def _apply(self, tenant: str, lines: Sequence[Kept], within_s: float) -> None:
        """Tell the store what these lines say, all at once; the first failure is raised when all have ended."""
        ended = await asyncio.gather(*(self._replay(kept.line, within_s) for kept in lines), return_exceptions=True)
        applied = [kept for kept, error in zip(lines, ended, strict=True) if error is None]
        for kept in applied:
            self._recorder.count("journal", outcome="applied")
            self._tries.pop(kept.ref, None)
        self._debts.applied(applied)
        if self._deferral is not None:
            self._deferral.forget(applied)
        self._settle(tenant, was=True)
        for kept, error in zip(lines, ended, strict=True):
            if type(error) is StoreError:
                self._unfit(kept)
        for error in ended:
            if error is not None:
                raise error

    def _unfit(self, kept: Kept) -> None:
        """The store answers, and not to this: after some tries a renewal does for it, lest it block all others."""
        tries = self._tries.get(kept.ref, 0) + 1
        if tries < _TRIES:
            self._tries[kept.ref] = tries
            return
        self._tries.pop(kept.ref, None)
        structlog.get_logger().error("journal line cannot be applied", instance=kept.line.tenant)
        self._debts.keep(Kept(kept.ref, Line(kept.line.tenant, (), None)))

    async def _replay(self, line: Line, within_s: float) -> None:
        notice = line.notice
        if notice is None:
            return
        call = Call.begin(self._clock, notice.event_id)
        late = replace(notice, late=True)
        applied = await self._admitted(
            "replay", lambda: self._store.append_and_bump(line.tenant, line.tags, late, call), within_s
        )
        if self.replayed is None or notice.parcel is None:
            return
        try:
            await self.replayed(line.tenant, notice.parcel, applied.event_id)
        except CacheUnavailable as error:
            raise StoreNotTried("parcel") from error

    async def _admitted(self, operation: str, send: Callable[[], Awaitable[T]], within_s: float) -> T:
        """An open breaker is passed by; it takes no notice of results before its time is over."""
        if self._breaker.state is not State.OPEN and not self._breaker.admit():
            raise StoreNotTried
        return await self._commands.tried(operation, send, within_s)

    def _settle(self, tenant: str, was: bool) -> None:
        if was and tenant not in self._debts:
            self._tried_at.pop(tenant, None)
            self._settled_at[tenant] = self._clock.monotonic()
            structlog.get_logger().info("owed invalidation applied", instance=tenant)


def _of_different_records(lines: Sequence[Kept]) -> list[Kept]:
    """As many of the oldest lines as are about different records: one record's changes keep their order."""
    chosen: list[Kept] = []
    records: set[tuple[str, str]] = set()
    for kept in lines:
        notice = kept.line.notice
        record = ("", "") if notice is None else (notice.resource, notice.resource_id)
        if record in records:
            break
        records.add(record)
        chosen.append(kept)
    return chosen
