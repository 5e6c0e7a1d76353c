"""The tally behind /cache/stats: what this process counted, and the port to where all processes' counts are summed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

__all__ = ["METRIC_NAMES", "Tally", "TallyStore"]

METRIC_NAMES = (
    "hits",
    "misses",
    "writes",
    "l1Hits",
    "l2Hits",
    "staleHits",
    "coalesced",
    "negativeHits",
    "invalidations",
    "errors",
    "upstreamCalls",
)
"""The metrics of /cache/stats in their order there; a field of the tally is `metric`, `metric|tool|NAME`,
`metric|entity|NAME` or `metric|internal`, so its size is bounded by the tools and kinds there are."""


class TallyStore(Protocol):
    """Sums over all processes, kept across restarts where the store keeps anything."""

    async def add(self, tenant: str, counts: Mapping[str, int]) -> None: ...

    async def totals(self, tenant: str) -> dict[str, int]: ...


class Tally:
    """This process's counts: since start, and not yet handed to the store."""

    def __init__(self) -> None:
        self._since_start: dict[str, Counter[str]] = {}
        self._unsent: dict[str, Counter[str]] = {}

    def add(self, tenant: str, metric: str, n: int = 1, *, tool: str = "", entity: str = "") -> None:
        """Count `n` of `metric` for a tenant; `tool` and `entity` break it down."""
        fields = [metric]
        if tool:
            fields.append(f"{metric}|tool|{tool}")
        if entity:
            fields.append(f"{metric}|entity|{entity}")
        for field in fields:
            self._put(tenant, field, n)

    def add_internal(self, tenant: str, metric: str, n: int = 1) -> None:
        """Count a look-up made on the side (names, settings, credential checks), apart from the calls' own reads."""
        self._put(tenant, f"{metric}|internal", n)

    def since_start(self, tenant: str) -> Mapping[str, int]:
        return dict(self._since_start.get(tenant, {}))

    def unsent(self, tenant: str) -> Mapping[str, int]:
        return dict(self._unsent.get(tenant, {}))

    async def flush(self, store: TallyStore) -> None:
        """Hand over what was counted since the last time; what cannot be handed over is kept for the next.

        Raises:
            CacheUnavailable: the store is away.
        """
        for tenant in list(self._unsent):
            counts = self._unsent.pop(tenant)
            try:
                await store.add(tenant, counts)
            except BaseException:
                self._unsent.setdefault(tenant, Counter()).update(counts)
                raise

    def _put(self, tenant: str, field: str, n: int) -> None:
        for counts in (self._since_start, self._unsent):
            counts.setdefault(tenant, Counter())[field] += n
