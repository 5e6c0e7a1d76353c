"""warm: re-reads what was hot and was just invalidated, so that the next caller finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from jobnimbus_mcp.consumers.heat import Heat
from jobnimbus_mcp.consumers.rounds import FETCHED_MOST, Rounds
from jobnimbus_mcp.crm.relations import tags_of_read
from jobnimbus_mcp.errors import ProjectError
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import ACT_WITHIN_S, BATCH_MOST, Outcome
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["USES_LEAST", "Warm"]

USES_LEAST = 2.5
"""Decayed: three in the last quarter of an hour, or more over a longer time. What was asked less often may never be
asked again."""

_AFTER_SETTLING_S = 1.0
"""After the tags were renewed for the second time; earlier, what is read would not be kept for long."""

_BEGUN_WITHIN_S = 5.0
"""A read has a call's time (14 s) from when it is begun, and the whole may take 20 s."""


class Warm:
    """Implements `Consumer`. `callers`: account -> the server's own credential; without one, nothing is done for it.

    What JobNimbus refuses or cannot answer is noted with the events it would have served, and not tried again: the
    next caller asks anyway, or the next event.
    """

    name = "warm"
    batch_most = BATCH_MOST
    parallel = 1
    within_s = ACT_WITHIN_S

    def __init__(
        self,
        rounds: Rounds,
        heat: Heat,
        *,
        callers: Mapping[str, Caller],
        index_settle_s: float,
        events_settle_s: float,
    ) -> None:
        self._rounds = rounds
        self._heat = heat
        self._callers = dict(callers)
        self._index_settle_s = index_settle_s
        self._events_settle_s = events_settle_s

    def delay_s(self, event: Event) -> float | None:
        if event.instance not in self._callers or not event.tags:
            return None
        settled_s = self._index_settle_s + _AFTER_SETTLING_S
        return max(settled_s, self._events_settle_s) if event.is_new else settled_s

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        """Raises CacheUnavailable when it cannot be told what is hot."""
        accounts: dict[str, list[int]] = {}
        for place, event in enumerate(batch):
            accounts.setdefault(event.instance, []).append(place)
        rounds = (
            self._account(self._callers.get(instance), [batch[place] for place in places], request_ids[places[0]])
            for instance, places in accounts.items()
        )
        outcomes = [Outcome()] * len(batch)
        told = await asyncio.gather(*rounds, return_exceptions=True)
        for places, made in zip(accounts.values(), told, strict=True):
            if isinstance(made, BaseException):
                raise made
            for place, outcome in zip(places, made, strict=True):
                outcomes[place] = outcome
        return outcomes

    async def _account(self, caller: Caller | None, events: Sequence[Event], request_id: str) -> Sequence[Outcome]:
        if caller is None:
            return [Outcome(answer="no credential")] * len(events)  # there was one when the event was routed
        renewed = {tag for event in events for tag in event.tags}
        hot = await self._heat.hottest(caller.instance, at_least=USES_LEAST)
        touched = [(read, tags) for read, _ in hot if not renewed.isdisjoint(tags := tags_of_read(read))][:FETCHED_MOST]
        done = await self._rounds.run(
            caller.instance,
            [self._rounds.reading(read, caller) for read, _ in touched],
            request_id=request_id,
            reason="event",
            begun_within_s=_BEGUN_WITHIN_S,
        )
        failed = [(frozenset(touched[place][1]), error) for place, error in sorted(done.failed.items())]
        summary = f"read {done.made} of {len(touched)}, {done.fetched} from JobNimbus"
        return [_outcome(event, failed, summary) for event in events]


def _outcome(event: Event, failed: Sequence[tuple[frozenset[str], ProjectError]], summary: str) -> Outcome:
    """Always done: a read that failed is noted with the events it would have served. It is nobody's loss, since the
    next caller asks anyway, and JobNimbus's being away must not look like events that failed."""
    for tags, error in failed:
        if not tags.isdisjoint(event.tags):
            return Outcome(answer=f"{summary}; not read: {error.code}")
    return Outcome(answer=summary)
