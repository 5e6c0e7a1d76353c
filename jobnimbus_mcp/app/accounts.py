"""Which store serves which account: each store with an engine of its own, so that one failing leaves the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.outcome import Lying, Outcome
from jobnimbus_mcp.cache.ports import History, StoreHealth
from jobnimbus_mcp.cache.read_through import Admit, Loader, Question, ReadThrough
from jobnimbus_mcp.call import Call

__all__ = ["Accounts", "StoreOfAccounts"]


@dataclass(frozen=True)
class StoreOfAccounts:
    """One store and what works over it, for the accounts in `tenants`. `redis` is None on the embedded store.

    `name`: as /ready and /cache/stats show it; `address`: without credentials. `noted(tenant, key)`: the embedded
    store's memory of dedupe and version keys.
    """

    name: str
    address: str
    tenants: tuple[str, ...]
    redis: Redis | None
    store: GuardedStore
    coherence: Coherence
    cache: ReadThrough
    invalidator: Invalidator
    noted: Callable[[str, str], bool]


class Accounts:
    """Every account's store. Reads, invalidations and counts find theirs by the account's name."""

    def __init__(self, stores: Sequence[StoreOfAccounts]) -> None:
        self.stores = tuple(stores)
        self._of = {tenant: store for store in stores for tenant in store.tenants}

    def of(self, tenant: str) -> StoreOfAccounts:
        return self._of[tenant]

    # -- reads -------------------------------------------------------------------------------------------------------

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome:
        """As `ReadThrough.read`."""
        cache = self._of[question.key.tenant].cache
        return await cache.read(question, loader, call=call, max_age_s=max_age_s, admit=admit, own=own)

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None:
        """As `ReadThrough.admitted`."""
        await self._of[tenant].cache.admitted(tenant, partition, admit, call, bearer=bearer)

    async def lying(self, question: Question, call: Call) -> Lying | None:
        """As `ReadThrough.lying`."""
        return await self._of[question.key.tenant].cache.lying(question, call)

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History | None:
        """As `ReadThrough.history`."""
        return await self._of[tenant].cache.history(tenant, after, back_s, call)

    async def entries(
        self, tenant: str, *, entity: str | None = None, operation: str | None = None, limit: int = 100, call: Call
    ) -> list[dict[str, Any]]:
        """As `ReadThrough.entries`."""
        cache = self._of[tenant].cache
        return await cache.entries(tenant, entity=entity, operation=operation, limit=limit, call=call)

    async def explain(self, tenant: str, key_text: str, call: Call) -> Mapping[str, Any] | None:
        """As `ReadThrough.explain`."""
        return await self._of[tenant].cache.explain(key_text, call)

    # -- invalidations -----------------------------------------------------------------------------------------------

    async def append_and_bump(
        self, tenant: str, tags: Sequence[str], notice: Notice, call: Call, *, tells: Sequence[str] = ()
    ) -> Applied:
        """As `Invalidator.append_and_bump`."""
        return await self._of[tenant].invalidator.append_and_bump(tenant, tags, notice, call, tells=tells)

    async def defer(self, tenant: str, tags: Sequence[str], notice: Notice) -> bool:
        """As `GuardedStore.defer`."""
        return await self._of[tenant].store.defer(tenant, tags, notice)

    async def caught_up(self, tenant: str, within_s: float) -> None:
        """As `GuardedStore.caught_up`."""
        await self._of[tenant].store.caught_up(tenant, within_s)

    async def everywhere(self, tenant: str, call: Call) -> None:
        """As `Invalidator.everywhere`."""
        await self._of[tenant].invalidator.everywhere(tenant, call)

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str) -> None:
        """As `Invalidator.renew_epoch`."""
        await self._of[tenant].invalidator.renew_epoch(tenant, call, reason=reason)

    async def invalidate_pattern(self, tenant: str, pattern: str, notice: Notice, call: Call) -> int:
        """As `Invalidator.invalidate_pattern`."""
        return await self._of[tenant].invalidator.invalidate_pattern(tenant, pattern, notice, call)

    async def recent(
        self, tenant: str, *, limit: int, since: float | None, call: Call | None = None
    ) -> list[dict[str, Any]]:
        """As `Invalidator.recent`."""
        return await self._of[tenant].invalidator.recent(tenant, limit=limit, since=since, call=call)

    async def rates(self, tenant: str, hours: int = 24, *, call: Call | None = None) -> dict[str, Any]:
        """As `Invalidator.rates`."""
        return await self._of[tenant].invalidator.rates(tenant, hours, call=call)

    async def counted_per_hour(self, tenant: str, hours: Sequence[int], call: Call) -> Mapping[int, Mapping[str, int]]:
        """As `Store.rates`."""
        return await self._of[tenant].store.rates(tenant, hours, call)

    # -- lasting counts ----------------------------------------------------------------------------------------------

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        """As `Store.add`."""
        await self._of[tenant].store.add(tenant, counts, batch=batch)

    async def totals(self, tenant: str) -> dict[str, int]:
        """As `Store.totals`."""
        return await self._of[tenant].store.totals(tenant)

    # -- what admins look at -----------------------------------------------------------------------------------------

    @property
    def circuit_state(self) -> str:
        """Of the store that is worst off."""
        states = [one.store.circuit_state for one in self.stores]
        return next((state for state in ("OPEN", "HALF_OPEN") if state in states), "CLOSED")

    @property
    def indebted(self) -> tuple[str, ...]:
        return tuple(tenant for one in self.stores for tenant in one.store.indebted)

    def l1_stats(self) -> dict[str, Any]:
        """Sums over the stores, and how coherent each account's L1 is."""
        sums = _summed(one.cache.l1_stats() for one in self.stores)
        return sums | {"coherence": {name: told for one in self.stores for name, told in one.coherence.stats().items()}}

    @staticmethod
    def worst(health: Iterable[StoreHealth]) -> StoreHealth:
        """The first that is not well, else the slowest."""
        told = tuple(health)
        unwell = next((one for one in told if one.reason is not None), None)
        return unwell if unwell is not None else max(told, key=lambda one: one.latency_ms)


def _summed(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for told in facts:
        for name, number in told.items():
            sums[name] = sums.get(name, 0) + number
    return sums
