"""The tally behind /cache/stats: what this process counted, and the port to where all processes' counts are summed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from jobnimbus_mcp.errors import CacheUnavailable

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

    async def add(self, tenant: str, counts: Mapping[str, int], *, batch: str) -> None:
        """Add `counts`, once for each `batch`: `<process>:<number>`, the numbers of a process growing."""
        ...

    async def totals(self, tenant: str) -> dict[str, int]: ...


class Tally:
    """This process's counts: since start, and not yet handed to the store.

    `process` names this process among all that share the store, so it is another after each start; without a colon.
    """

    def __init__(self, process: str | None = None) -> None:
        self._process = process or uuid.uuid4().hex
        self._since_start: dict[str, Counter[str]] = {}
        self._unsent: dict[str, Counter[str]] = {}
        self._unanswered: dict[str, tuple[str, Counter[str]]] = {}
        self._batches = 0

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
        """Counted and not known to be in the store; of a batch whose answer was lost nobody knows."""
        _, unanswered = self._unanswered.get(tenant, ("", Counter()))
        return dict(unanswered + self._unsent.get(tenant, Counter()))

    async def flush(self, store: TallyStore, *, tenant: str | None = None) -> None:
        """Hand over what was counted since the last time, of one tenant or (None) of all.

        A batch that was not acknowledged may have been added all the same; the next time it is sent again first, as it
        was, and the store knows whether it has it. Tenants may have stores of their own, so one that is away does not
        keep the others' counts back.

        Raises:
            CacheUnavailable: the store is away; the first failure, once all have been tried.
        """
        failed: CacheUnavailable | None = None
        for name in [*self._unanswered, *self._unsent] if tenant is None else [tenant] * 2:
            if name not in self._unanswered:
                counts = self._unsent.pop(name, None)
                if not counts:
                    continue
                self._batches += 1
                self._unanswered[name] = (f"{self._process}:{self._batches}", counts)
            batch, counts = self._unanswered[name]
            try:
                await store.add(name, counts, batch=batch)
            except CacheUnavailable as away:
                failed = failed or away
                continue
            del self._unanswered[name]
        if failed is not None:
            raise failed

    def _put(self, tenant: str, field: str, n: int) -> None:
        for counts in (self._since_start, self._unsent):
            counts.setdefault(tenant, Counter())[field] += n
