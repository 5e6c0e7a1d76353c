"""May what is kept be shown under this credential? Only while the origin accepted it lately.

The store keeps one marker per (tenant, partition) for as long as an acceptance counts. Without it the origin is asked
before a hit is served. No key is made in the store for a partition that the origin never accepted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jobnimbus_mcp.cache.key import entry_glob, partition_prefix
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.cache.ports import Seen, Store, StoreError
from jobnimbus_mcp.cache.single_flight import Flight, SingleFlight
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError, UpstreamUnauthorized

__all__ = ["UNDECIDED_S", "Admission", "Admit"]

Admit = Callable[[Call], Awaitable[None]]
"""Asks the origin whether it still accepts this partition's credential.

Raises `UpstreamUnauthorized` when it does not, another `UpstreamError` or `BudgetExhausted` when that cannot be known.
"""

UNDECIDED_S = 30.0
"""An origin that cannot say is not asked again for so long: hits go on while it is down, and it is not hammered."""

_REMEMBERED = 4096
_DROP_STEPS = 400
"""Bounds one partition's deletion; what it leaves is unreachable without the marker and expires by itself."""


class Admission:
    """The check before a hit; asks the origin once per (tenant, partition) however many wait."""

    def __init__(self, store: Store, l1: L1, clock: Clock, *, admission_s: float) -> None:
        self._store = store
        self._l1 = l1
        self._clock = clock
        self._admission_s = admission_s
        self._flights: SingleFlight[None] = SingleFlight(clock)
        self._undecided_until: Bounded[tuple[str, str], float] = Bounded(_REMEMBERED)
        self._refused: Bounded[tuple[str, str], bool] = Bounded(_REMEMBERED)

    def needed(self, tenant: str, partition: str, *, marked: bool) -> bool:
        """Must the origin be asked before a hit is served? A refusal the store could not be told of counts as well."""
        if self._refused.get((tenant, partition)):
            return True
        if marked:
            return False
        until = self._undecided_until.get((tenant, partition))
        return until is None or self._clock.monotonic() >= until

    async def before_hit(self, tenant: str, partition: str, guard: bytes, admit: Admit, call: Call) -> None:
        """Return when a hit may be served: accepted, or the origin cannot say.

        Raises:
            UpstreamUnauthorized: refused; the partition has been dropped.
        """
        try:
            await self._ask(tenant, partition, guard, admit, call)
        except UpstreamUnauthorized:
            raise
        except (UpstreamError, BudgetExhausted):
            if self._refused.get((tenant, partition)):
                raise
            self._undecided_until.put((tenant, partition), self._clock.monotonic() + UNDECIDED_S)

    async def require(self, tenant: str, partition: str, admit: Admit, call: Call) -> None:
        """Return when the credential is accepted, by the marker or by the origin; unlike a hit, never when unknown."""
        marked, guard = False, b""
        try:
            marked, guard = await self._store.admission(tenant, partition, call)
        except StoreError:
            marked = False  # the origin is asked instead; the store's driver has counted the failure
        if not marked or self._refused.get((tenant, partition)):
            await self._ask(tenant, partition, guard, admit, call)

    def accepted(self, tenant: str, partition: str) -> None:
        """The origin has just answered under this credential."""
        self._refused.discard((tenant, partition))
        self._undecided_until.discard((tenant, partition))

    async def mark(self, tenant: str, partition: str, guard: bytes, call: Call) -> None:
        """Note the acceptance in the store, where it can be told."""
        self.accepted(tenant, partition)
        if guard:
            try:
                await self._store.admit(tenant, partition, guard, admission_s=self._admission_s, call=call)
            except StoreError:
                return  # unmarked: the next hit asks again; the store's driver has counted the failure

    async def drop(self, tenant: str, partition: str, call: Call) -> None:
        """Take the marker away, then the partition's entries, here and in the store."""
        self._l1.discard_prefix(partition_prefix(tenant, partition))
        try:
            await self._store.withdraw(tenant, partition, call)
            glob, cursor = entry_glob(tenant, partition=partition), 0
            for _ in range(_DROP_STEPS):
                cursor, _ = await self._store.delete_some(tenant, glob, cursor, call)
                if cursor == 0:
                    break
        except StoreError:
            # Where the store could not be told, this process remembers it until the origin accepts the credential.
            self._refused.put((tenant, partition), True)

    async def refused(self, tenant: str, partition: str, seen: Seen | None, call: Call) -> None:
        """A load was refused. A partition that was never admitted leaves no trace in the store.

        `seen` None: the store was not looked at, so this process remembers the refusal in its place.
        """
        if seen is None:
            self._l1.discard_prefix(partition_prefix(tenant, partition))
            self._refused.put((tenant, partition), True)
        elif seen.admitted:
            await self.drop(tenant, partition, call)

    async def aclose(self) -> None:
        await self._flights.aclose()

    async def _ask(self, tenant: str, partition: str, guard: bytes, admit: Admit, call: Call) -> None:
        async def asking(flight: Flight[None]) -> None:
            try:
                await admit(call)
            except UpstreamUnauthorized:
                await self.drop(tenant, partition, call)
                raise
            await self.mark(tenant, partition, guard, call)
            flight.answer(None)

        await self._flights.fly((tenant, partition), asking, call=call)
