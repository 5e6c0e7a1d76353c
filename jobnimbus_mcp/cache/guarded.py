"""The store as everybody is given it: bounded, behind a breaker, and with a memory for what it could not be told.

An invalidation that the store could not be told leaves a debt: until it has been made up for, nothing of that tenant is
read from the store. That happens in the background within about a second of the store's being back, without needing a
call, and also while the breaker is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from jobnimbus_mcp.cache.commands import Commands
from jobnimbus_mcp.cache.debts import Debts
from jobnimbus_mcp.cache.deferral import Deferral
from jobnimbus_mcp.cache.journal import Journal
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Applied, Notice, Told
from jobnimbus_mcp.cache.ports import (
    Ears,
    EntryRow,
    Heard,
    History,
    Lead,
    Logged,
    LogRow,
    Seen,
    Standing,
    Store,
    StoreError,
    StoreHealth,
    StoreNotTried,
)
from jobnimbus_mcp.cache.repay import DEBT_RETRY_S, Repayer, Replayed
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.resilience.breaker import BreakerBox
from jobnimbus_mcp.telemetry.recorder import NullRecorder, Recorder

__all__ = ["DEBT_RETRY_S", "GuardedStore"]

T = TypeVar("T")


class GuardedStore:
    """A `Store` around a driver. `start` before use and `aclose` after, or `async with`.

    `command_timeout_s` bounds every command from when it is sent; at most `max_in_flight` are sent at once, the others
    wait outside that bound (so it must not exceed the client's number of connections). After one time-out or lost
    connection a call's `store_usable` is False and nothing more is tried in it. `probe_timeout_s` bounds the
    background's commands, which may have to connect first. `tenants`: whose store it is; they all owe when it is away
    at the start, since a process that ended meanwhile took with it what it owed. `journal`: takes over what `defer` is
    told; this store's alone, and closed with it.
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
        journal: Journal | None = None,
    ) -> None:
        counted: Recorder = recorder if recorder is not None else NullRecorder()
        wake = asyncio.Event()
        self._store = store
        self._breaker = breaker
        self._clock = clock
        self._commands = Commands(
            breaker, clock, counted, timeout_s=command_timeout_s, max_in_flight=max_in_flight, troubled=wake.set
        )
        self._debts = Debts()
        self._deferral = None if journal is None else Deferral(journal, self._debts, clock, counted, wake)
        self._repayer = Repayer(
            store,
            self._commands,
            clock,
            counted,
            wake,
            debts=self._debts,
            deferral=self._deferral,
            tenants=tenants,
            probe_timeout_s=max(probe_timeout_s, command_timeout_s),
        )
        self._sent = self._commands.sent

    def tell_replayed(self, replayed: Replayed) -> None:
        """Whom to tell of what the journal's lines have appended; to be said before `start`."""
        self._repayer.replayed = replayed

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Know what the journal holds, then begin to heal in the background."""
        await self._repayer.start()

    async def aclose(self) -> None:
        """Stop healing, after one last try to pay what is owed. The driver is whoever's constructed it to close."""
        await self._repayer.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def moved(self) -> None:
        """The store is to be found elsewhere now, and answers there: nothing is sat out that began before."""
        self._repayer.moved()

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool:
        """Have the journal take over an invalidation which `append_and_bump` has just failed to make; True when it is
        on the disk.

        Nothing of the tenant is read until it has been made, which happens in the background. False: it is owed all
        the same, for as long as this process lives.
        """
        return self._deferral is not None and await self._deferral.defer(tenant, tags, notice)

    async def caught_up(self, tenant: str, within_s: float) -> None:
        """Return when the journal holds no event of the tenant any more; `within_s` seconds at most, and at once while
        the breaker is open. Who has an event answers after that, so that the sender's next one comes after it,
        whichever process that is sent to."""
        await self._repayer.caught_up(tenant, within_s)

    def owes(self, tenant: str) -> bool:
        """L1 of the tenant must not be trusted: the store does not know all that this process does, or L1 may not yet
        know what the store has been told since."""
        return self._repayer.owes(tenant)

    @property
    def indebted(self) -> tuple[str, ...]:
        """Tenants of which nothing is read until what they owe has been made up for."""
        return tuple(self._debts)

    @property
    def circuit_state(self) -> str:
        return self._breaker.state.value

    async def health(self) -> StoreHealth:
        """Ask the store now whether it takes writes."""
        call, sent = Call.begin(self._clock, "health"), self._clock.monotonic()
        try:
            await self.ping(call)
        except StoreError as error:
            return StoreHealth(False, self.circuit_state, self._ms_since(sent), error.reason)
        return StoreHealth(True, self.circuit_state, self._ms_since(sent), None)

    # -- the store ---------------------------------------------------------------------------------------------------

    async def read(
        self, key: CacheKey, tags: Sequence[str], etag: str, *, want: bool, dirty: bool = False, call: Call
    ) -> Seen:
        if self._debts:
            await self._repayer.settled(key.tenant, call)
        return await self._sent(
            "read", call, lambda: self._store.read(key, tags, etag, want=want, dirty=dirty, call=call)
        )

    async def lead(
        self, key: CacheKey, seen: Seen, token: str, *, etag: str = "", patient: bool = False, call: Call
    ) -> Lead:
        if key.tenant in self._debts:
            raise StoreNotTried
        return await self._sent(
            "lead", call, lambda: self._store.lead(key, seen, token, etag=etag, patient=patient, call=call)
        )

    async def keep_lead(self, key: CacheKey, token: str, call: Call) -> bool:
        return await self._sent("keep_lead", call, lambda: self._store.keep_lead(key, token, call))

    async def release(
        self, key: CacheKey, token: str, *, result: str, failures: int = 0, throttle_s: float = 0.0, call: Call
    ) -> None:
        """As far as the store can be told: the lease runs out by itself, and the failure has been counted."""
        with suppress(StoreError):
            await self._sent(
                "release",
                call,
                lambda: self._store.release(
                    key, token, result=result, failures=failures, throttle_s=throttle_s, call=call
                ),
            )

    async def fill(
        self,
        key: CacheKey,
        tags: Sequence[str],
        seen: Seen,
        value: bytes,
        *,
        ttl_s: float,
        admission_s: float,
        token: str = "",
        call: Call,
    ) -> bool:
        if key.tenant in self._debts:
            raise StoreNotTried
        return await self._sent(
            "fill",
            call,
            lambda: self._store.fill(
                key, tags, seen, value, ttl_s=ttl_s, admission_s=admission_s, token=token, call=call
            ),
        )

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        return await self._owing(
            tenant,
            self._sent(
                "bump",
                call,
                lambda: self._store.append_and_bump(tenant, tags, notice, call, tells=tells),
                past_breaker=True,
            )
            if notice.parcel is None or not self._debts.waits(tenant)
            else _not_tried(),
            cause="" if self._deferral is None else notice.event_id,
        )

    async def renew_epoch(self, tenant: str, call: Call) -> Told:
        mark = self._debts.mark
        told = await self._owing(
            tenant, self._sent("renew_epoch", call, lambda: self._store.renew_epoch(tenant, call), past_breaker=True)
        )
        self._repayer.renewed(tenant, mark)
        return told

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        return await self._sent(
            "renew_l1",
            call,
            lambda: self._store.renew_l1(tenant, instance, applied, register=register, call=call),
            # who is no instance asks on behalf of an invalidation, and those pass an open breaker
            past_breaker=not instance,
            background=bool(instance),
        )

    async def changes(self, tenant: str, after: str, call: Call) -> list[Logged]:
        return await self._sent("changes", call, lambda: self._store.changes(tenant, after, call), background=True)

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History:
        if tenant in self._debts:
            raise StoreNotTried
        return await self._sent("history", call, lambda: self._store.history(tenant, after, back_s, call))

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        return await self._store.listen(ears, block_s=block_s)

    async def behind(self, tenant: str, position: str, call: Call, *, register: bytes = b"") -> dict[str, bytes]:
        return await self._sent(
            "behind", call, lambda: self._store.behind(tenant, position, call, register=register), past_breaker=True
        )

    async def strike(self, tenant: str, instances: Mapping[str, bytes | None], call: Call) -> None:
        await self._sent("strike", call, lambda: self._store.strike(tenant, instances, call), past_breaker=True)

    async def inspect(self, key: CacheKey, call: Call) -> EntryRow | None:
        return await self._sent("inspect", call, lambda: self._store.inspect(key, call))

    async def generations(self, tenant: str, tags: Sequence[str], call: Call) -> tuple[bytes | None, ...]:
        return await self._sent("generations", call, lambda: self._store.generations(tenant, tags, call))

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

    # -- debts -------------------------------------------------------------------------------------------------------

    async def _owing(self, tenant: str, told: Awaitable[T], cause: str = "") -> T:
        """Await an invalidation; unless it certainly holds, the tenant owes. A cancelled one may not have been sent."""
        try:
            return await told
        except BaseException as error:
            reason = error.reason if isinstance(error, StoreError) else type(error).__name__
            self._repayer.owe(tenant, reason, cause)
            raise

    def _ms_since(self, then: float) -> float:
        return round((self._clock.monotonic() - then) * 1000, 3)


async def _not_tried() -> NoReturn:
    """In the place of an event that must not overtake those in the journal."""
    raise StoreNotTried
