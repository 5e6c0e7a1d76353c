"""The figures of /cache/stats, from the flat fields of the tally."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jobnimbus_mcp.telemetry.tally import METRIC_NAMES, Tally, TallyStore

__all__ = ["SharedCounts", "figures"]


def figures(fields: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """`{"metrics", "byTool", "byEntity", "internal"}` of the sums of several accounts' fields."""
    total: Counter[str] = Counter()
    for counted in fields:
        total.update(counted)
    by: dict[str, dict[str, dict[str, int]]] = {"tool": {}, "entity": {}}
    internal: dict[str, int] = {}
    for field, n in sorted(total.items()):
        metric, _, rest = field.partition("|")
        kind, _, name = rest.partition("|")
        if rest == "internal":
            internal[metric] = n
        elif kind in by and name:
            by[kind].setdefault(name, {})[metric] = n
    return {
        "metrics": _with_rate(total),
        "byTool": {name: _of_tool(_with_rate(counted)) for name, counted in by["tool"].items()},
        "byEntity": {name: _with_rate(counted) for name, counted in by["entity"].items()},
        "internal": internal,
    }


def _of_tool(told: dict[str, Any]) -> dict[str, Any]:
    """Without what is counted by kind of record only: changes and requests belong to no tool."""
    return {name: n for name, n in told.items() if name not in ("invalidations", "upstreamCalls")}


def _with_rate(counted: Mapping[str, int]) -> dict[str, Any]:
    """Every metric in its order, `hitRate` after `misses`: hits / (hits + misses) in percent, 0.00% of nothing."""
    hits, misses = counted.get("hits", 0), counted.get("misses", 0)
    told: dict[str, Any] = {"hits": hits, "misses": misses, "hitRate": f"{100 * hits / ((hits + misses) or 1):.2f}%"}
    return told | {name: counted.get(name, 0) for name in METRIC_NAMES if name not in told}


class SharedCounts:
    """This process's tally and the store it is handed to, never seen half handed over.

    Whoever flushes in the background does it through this object: a flush takes the counts out of the tally before
    they are in the store, and a sum made at that moment would lack them.
    """

    def __init__(self, tally: Tally, store: TallyStore) -> None:
        self._tally = tally
        self._store = store
        self._lock = asyncio.Lock()

    async def flush(self) -> None:
        """Hand over what was counted; what cannot be handed over is kept for the next time.

        Raises:
            CacheUnavailable: the store is away.
        """
        async with self._lock:
            await self._tally.flush(self._store)

    async def shared(self, instance: str) -> Mapping[str, int]:
        """All processes' counts, with this one's latest.

        Raises:
            CacheUnavailable: the store is away.
        """
        async with self._lock:
            # handed over first: of a hand-over whose answer was lost nobody knows whether it is in the sums
            await self._tally.flush(self._store, tenant=instance)
            return await self._store.totals(instance)

    def own(self, instance: str) -> Mapping[str, int]:
        """This process's counts since it started."""
        return self._tally.since_start(instance)
