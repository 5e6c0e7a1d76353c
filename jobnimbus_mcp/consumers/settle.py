"""settle: renews a change's tags once more when JobNimbus's index has caught up with it.

JobNimbus's lists and searches come from an index that lags behind its own webhook: a list that was fetched right after
the webhook may be older than it, and be kept. A record by its id is current, so a record's own tag is left alone.
Source: JobNimbus API documentation, hints of the back end (observed to lag by up to about 6 s).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import BATCH_MOST, Outcome

__all__ = ["TAGS_MOST", "Bump", "Settle"]

Bump = Callable[[str, Sequence[str]], Awaitable[None]]
"""(account, tags): when it returns, no read that starts later gets older data. Bounded in time by itself; raises
CacheUnavailable when the cache could not be told."""

TAGS_MOST = 200
"""Renewed in one step, which holds up all other commands of the store meanwhile."""

_WITHIN_S = 15.0


class Settle:
    """Implements `Consumer`. `index_settle_s`: how far JobNimbus's index lags; 0: it does not, and nothing is done."""

    name = "settle"
    batch_most = BATCH_MOST
    parallel = 4
    within_s = _WITHIN_S

    def __init__(self, bump: Bump, *, index_settle_s: float) -> None:
        self._bump = bump
        self._index_settle_s = index_settle_s

    def delay_s(self, event: Event) -> float | None:
        return self._index_settle_s if self._index_settle_s > 0 and _of_the_index(event) else None

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        tags: dict[str, dict[str, None]] = {}
        for event in batch:
            tags.setdefault(event.instance, {}).update(dict.fromkeys(_of_the_index(event)))
        # each account may have a store of its own, and one that is away delays no other
        bumps = (self._bumped(instance, tuple(found)) for instance, found in tags.items())
        outcomes: dict[str, Outcome] = {}
        for instance, made in zip(tags, await asyncio.gather(*bumps, return_exceptions=True), strict=True):
            if isinstance(made, BaseException):
                raise made
            outcomes[instance] = made
        return [outcomes[event.instance] for event in batch]

    async def _bumped(self, instance: str, tags: Sequence[str]) -> Outcome:
        try:
            for start in range(0, len(tags), TAGS_MOST):
                await self._bump(instance, tags[start : start + TAGS_MOST])
        except CacheUnavailable as away:
            return Outcome(away.code, away=True)
        return Outcome()


def _of_the_index(event: Event) -> tuple[str, ...]:
    """The event's tags but those of single records."""
    return tuple(tag for tag in event.tags if tag.split(":", 2)[1:2] != [Operation.DETAIL.value])
