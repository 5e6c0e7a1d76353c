"""May what is kept be shown under this credential? Only while the origin accepted it lately.

The store keeps one marker per bearer for as long as an acceptance counts. Without it the origin is asked before a hit
is served. No key is made in the store for a bearer that the origin never accepted. Bearers may share the entries of a
partition; markers, checks and refusals are each one's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from jobnimbus_mcp.cache.key import CacheKey, entry_glob, partition_prefix
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.cache.ports import Seen, Store, StoreError
from jobnimbus_mcp.cache.single_flight import Flight, SingleFlight
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError, UpstreamUnauthorized

__all__ = ["CHECK_S", "UNDECIDED_S", "Admission", "Admit", "Bearer", "bearer_of"]

Admit = Callable[[Call], Awaitable[None]]
"""Asks the origin whether it still accepts this bearer's credential.

Raises `UpstreamUnauthorized` when it does not, another `UpstreamError` or `BudgetExhausted` when that cannot be known.
"""

CHECK_S = 5.0
"""An origin that has not answered for so long cannot say: a hit is not kept waiting until its call's deadline."""

UNDECIDED_S = 30.0
"""An origin that cannot say is not asked again for so long: hits go on while it is down, and it is not hammered."""

_REMEMBERED = 4096
_DROP_STEPS = 400
"""Bounds one partition's deletion; what it leaves is unreachable without the marker and expires by itself."""


class Bearer(NamedTuple):
    """Whose acceptance counts. The entries are those of `partition`, which are `name`'s alone when both are equal."""

    tenant: str
    partition: str
    name: str


def bearer_of(key: CacheKey) -> Bearer:
    return Bearer(key.tenant, key.partition, key.bearer)


class Admission:
    """The check before a hit; asks the origin once per bearer however many wait.

    A refusal is remembered here, beside what the store is told, until the origin accepts the bearer again: so neither a
    store that could not be told nor an origin that cannot say gives a refused one anything.
    """

    def __init__(self, store: Store, l1: L1, clock: Clock, *, admission_s: float) -> None:
        self._store = store
        self._l1 = l1
        self._clock = clock
        self._admission_s = admission_s
        self._flights: SingleFlight[None] = SingleFlight(clock)
        self._undecided_until: Bounded[Bearer, float] = Bounded(_REMEMBERED)
        self._refused_at: Bounded[Bearer, float] = Bounded(_REMEMBERED)

    def refusing(self, bearer: Bearer) -> bool:
        """Did the origin refuse this bearer when it was last heard of here?"""
        return len(self._refused_at) > 0 and self._refused_at.get(bearer) is not None

    def needed(self, bearer: Bearer, *, marked: bool) -> bool:
        """Must the origin be asked before a hit is served? A remembered refusal counts more than a marker."""
        if self._refused_at.get(bearer) is not None:
            return True
        if marked:
            return False
        until = self._undecided_until.get(bearer)
        return until is None or self._clock.monotonic() >= until

    async def may_show(self, key: CacheKey, seen: Seen, admit: Admit | None, call: Call) -> None:
        """Return when the bearer may be shown what was seen of `key`; as `before_hit`, where that is needed at all."""
        bearer = bearer_of(key)
        if admit is not None and self.needed(bearer, marked=seen.admitted):
            guard = seen.guard
            if not guard:
                try:
                    guard = (await self._store.admission(key.tenant, key.bearer, call))[1]
                except StoreError:
                    guard = b""  # the acceptance is then not noted; the store's driver has counted the failure
            await self.before_hit(bearer, guard, admit, call, marked=seen.admitted)

    async def before_hit(self, bearer: Bearer, guard: bytes, admit: Admit, call: Call, *, marked: bool) -> None:
        """Return when a hit may be served: accepted, or the origin cannot say within `CHECK_S`.

        Raises:
            UpstreamUnauthorized: refused; the bearer has been dropped.
            UpstreamError, BudgetExhausted: the origin cannot say, and what it said last was a refusal.
        """
        asking = replace(call, deadline=min(call.deadline, self._clock.monotonic() + CHECK_S))
        # The entries alone show that the bearer was accepted once, unless they may be another's.
        known = marked or bearer.name == bearer.partition
        try:
            await self._ask(bearer, guard, admit, asking, known=known, hurried=True)
        except UpstreamUnauthorized:
            raise
        except (UpstreamError, BudgetExhausted):
            if self._refused_at.get(bearer) is not None:
                raise
            self._undecided_until.put(bearer, self._clock.monotonic() + UNDECIDED_S)
        finally:
            call.store_usable = call.store_usable and asking.store_usable

    async def require(self, bearer: Bearer, admit: Admit, call: Call) -> None:
        """Return when the credential is accepted, by the marker or by the origin; unlike a hit, never when unknown."""
        marked, guard = False, b""
        try:
            marked, guard = await self._store.admission(bearer.tenant, bearer.name, call)
        except StoreError:
            marked = False  # the origin is asked instead; the store's driver has counted the failure
        if not marked or self._refused_at.get(bearer) is not None:
            await self._ask(bearer, guard, admit, call, known=marked, hurried=False)

    def accepted(self, bearer: Bearer, asked_at: float) -> None:
        """The origin answered under this credential what it was asked then (monotonic)."""
        self._undecided_until.discard(bearer)
        refused_at = self._refused_at.get(bearer)
        # What was asked before the refusal may be answered after it.
        if refused_at is not None and asked_at >= refused_at:
            self._refused_at.discard(bearer)

    async def mark(self, bearer: Bearer, guard: bytes, call: Call) -> None:
        """Note an acceptance in the store, where it can be told."""
        if guard:
            try:
                await self._store.admit(bearer.tenant, bearer.name, guard, admission_s=self._admission_s, call=call)
            except StoreError:
                return  # unmarked: the next hit asks again; the store's driver has counted the failure

    async def refused(self, bearer: Bearer, seen: Seen | None, call: Call) -> None:
        """A load was refused. A bearer that was never admitted leaves no trace in the store.

        `seen` None: the store was not looked at.
        """
        self._refused_at.put(bearer, self._clock.monotonic())
        if seen is None:
            self._discard_held(bearer)
        else:
            await self._drop(bearer, call, if_admitted=not seen.admitted)

    async def aclose(self, within_s: float = 2.0) -> None:
        """Let checks under way end, for so long; then cancel them."""
        await self._flights.aclose(within_s)

    def _discard_held(self, bearer: Bearer) -> None:
        if bearer.name == bearer.partition:
            self._l1.discard_prefix(partition_prefix(bearer.tenant, bearer.partition))

    async def _drop(self, bearer: Bearer, call: Call, *, if_admitted: bool = False) -> None:
        """Take the marker away, and the entries unless others share them. One that was never admitted has neither."""
        tenant, partition, name = bearer
        try:
            if not await self._store.withdraw(tenant, name, call, if_admitted=if_admitted) and if_admitted:
                return
            self._discard_held(bearer)
            if name != partition:
                return
            glob, cursor = entry_glob(tenant, partition=partition), 0
            for _ in range(_DROP_STEPS):
                cursor, _ = await self._store.delete_some(tenant, glob, cursor, call)
                if cursor == 0:
                    break
        except StoreError:
            self._discard_held(bearer)
            return  # this process remembers the refusal in its place; the store's driver has counted the failure

    async def _ask(self, bearer: Bearer, guard: bytes, admit: Admit, call: Call, *, known: bool, hurried: bool) -> None:
        """`known`: the store has something of the bearer. `hurried`: shares no flight with those who have more time."""

        async def asking(flight: Flight[None]) -> None:
            asked_at = self._clock.monotonic()
            try:
                await admit(call)
            except UpstreamUnauthorized:
                self._refused_at.put(bearer, self._clock.monotonic())
                if known:
                    await self._drop(bearer, call)
                raise
            self.accepted(bearer, asked_at)
            await self.mark(bearer, guard, call)
            flight.answer(None)

        await self._flights.fly((bearer, hurried), asking, call=call)
