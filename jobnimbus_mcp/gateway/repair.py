"""What is kept, brought up to date: a list of which it is told what has changed since, and what its rows hang on.

Every change is in the log by its record's name; those records are read by id, which does not lag, and `crm.upkeep`
makes the list of them that JobNimbus would give. Two things are not named there, and found out otherwise: what
JobNimbus writes to its activity log by itself, of which the newest entries are one list for everybody; and what the
rows show of the records that they hang on, which is the same after most changes of those (`gateway.parents`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.cache.outcome import Loaded, Lying, Outcome, Status, Tier
from jobnimbus_mcp.cache.plan import CLOCKS_APART_S, too_old
from jobnimbus_mcp.cache.ports import History, order
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.shown import links_say, shown_under
from jobnimbus_mcp.crm.told import Told
from jobnimbus_mcp.crm.upkeep import Changed, narrowed, upkept
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError
from jobnimbus_mcp.gateway.answers import ParsedValues
from jobnimbus_mcp.gateway.load import Asked, Kept, Reads, loaded_of
from jobnimbus_mcp.gateway.parents import Parents, was_shown
from jobnimbus_mcp.gateway.since import before_parents, exact_at, named_since, told_since

__all__ = ["CHANGED_MOST", "LIFE_SHARE_MIN", "NEWEST_ENTRIES", "Base", "Repair"]

CHANGED_MOST = 5
"""More records than that are not looked at one by one: after an import the whole list is the better question."""

FURTHER_WITHIN_S = 3.0
"""For a read that only saves another one: some five times what JobNimbus takes, and most of a call's time is left for
asking what was asked itself."""

LIFE_SHARE_MIN = 0.1
"""Of a lifetime that must remain: what is nearly over would be put together again at once. The jitter's own size."""

JOBNIMBUS_CLOCK_APART_S = 120.0
"""JobNimbus's clock and ours differ by less."""

NEWEST_ENTRIES = Read.block(Entity.ACTIVITIES, (), Sort("date_created"), 0)
"""What was written to the activity log of the whole account last."""

_PARSED_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Base:
    """`fresh_s`: what remains of its lifetime under the policy of who uses it. `settled_s`: how long ago the index had
    caught up with the last of the changes told of; negative: it has not. `renewed_at`: the position up to which no
    record that rows hang on has changed."""

    value: Mapping[str, Any]
    as_of: float
    fresh_s: float
    told: Told
    position: str
    settled_s: float
    renewed_at: str


@dataclass(frozen=True, slots=True)
class _States:
    """Records as they are now. `as_of`: when the oldest was fetched."""

    records: Changed
    as_of: float


_NOTHING = _States({}, math.inf)


class Repair:
    """Makes answers of what lies in the cache. One per process. `parents`: what was seen of records that others hang
    on."""

    def __init__(self, cache: Kept, clock: Clock, parents: Parents) -> None:
        self._cache = cache
        self._clock = clock
        self._parents = parents
        self._parsed = ParsedValues(_PARSED_BYTES)

    async def kept_right(self, asked: Asked, reads: Reads, of: Read, base: Base, history: History) -> Loaded | None:
        """The answer to what is asked, out of a base that is the answer to `of`, with the changes told of put in."""
        value, as_of, told = base.value, base.as_of, base.told
        if told.parents:
            same_s = await self._still_shown(asked, reads, told.parents, value["rows"], base.position, as_of)
            if same_s is None:
                return None
            as_of = min(as_of, same_s)
        if told.named or told.logged:
            pages = max(1, math.ceil(len(value["rows"]) / facts_of(asked.read.entity).page_rows))
            entries = await self._entries(asked, reads, base, history) if told.logged else _NOTHING
            if entries is None:
                return None
            named = told.named - entries.records.keys()
            states = await self._states(asked, reads, named, fetches_most=pages, settled_s=base.settled_s)
            if states is None:
                return None
            made = upkept(of, value, {**entries.records, **states.records})
            if made is None:
                return None
            value, as_of = made, min(as_of, states.as_of, entries.as_of)
        if of != asked.read:
            cut = narrowed(asked.read, of, value)
            if cut is None:
                return None
            value = cut
        fresh_s = self.fresh_s(asked, as_of)
        if fresh_s is None:
            return None
        # Rows show what they hang on, whose changes renew the lists under it alone. A list of the whole account goes on
        # from before them, so that what is cut out of it for one such record is not taken for newer than they are.
        position = history.position if asked.read.scope else base.renewed_at
        return loaded_of(
            asked.read,
            value,
            position=position,
            exact=True,
            as_of=as_of,
            fresh_s=min(fresh_s, base.fresh_s),
            proved=False,
        )

    async def caught_up(
        self,
        asked: Asked,
        reads: Reads,
        value: Mapping[str, Any],
        told: Told | None,
        history: History,
        began: float,
    ) -> Loaded | None:
        """JobNimbus's own list, asked for since `began` (wall seconds), with what it may still lack put in; None where
        that is not known.

        `told`: what has changed since the index lags. Where that is not all known, or it cannot be seen whether the
        rows are still right, the records told of are in the answer all the same, which then is not exact.
        """
        read = asked.read
        if not facts_of(read.entity).has_detail:
            return None
        same_s, named = None, named_since(history, history.settled, read)
        if told is not None and not told.logged:
            same_s = await self._still_shown(asked, reads, told.parents, value["rows"], history.settled, began)
            named = named if same_s is None else told.named
        states = await self._states(asked, reads, named, fetches_most=CHANGED_MOST, settled_s=math.inf)
        made = None if states is None else upkept(read, value, _newest(states.records, value))
        if states is None or made is None or (same_s is None and not named):
            return None
        exact = same_s is not None
        as_of = min(states.as_of, began, math.inf if same_s is None else same_s)
        fresh_s = self.fresh_s(asked, as_of)
        if fresh_s is None:
            return None
        position = exact_at(read, history) if exact else history.settled
        return loaded_of(read, made, position=position, exact=exact, as_of=as_of, fresh_s=fresh_s)

    # -- what is there -----------------------------------------------------------------------------------------------

    async def history(self, asked: Asked, after: str) -> History | None:
        return await self._cache.history(asked.caller.instance, after, asked.question.policy.settle_s, asked.call)

    async def base(self, asked: Asked, lying: Lying, reads: tuple[Read, ...]) -> Base | None:
        history = await self.history(asked, lying.position) if lying.position else None
        return None if history is None else self.based(asked, lying, reads, history)

    def based(self, asked: Asked, lying: Lying, reads: tuple[Read, ...], history: History) -> Base | None:
        """What lies there as something to start from; None when it is too old, or it is not told what has changed."""
        policy, fresh_s = asked.question.policy, self.fresh_s(asked, lying.fetched_at)
        if (
            lying.negative
            or not lying.position
            or lying.epoch != history.epoch
            or fresh_s is None
            or lying.fresh_s < LIFE_SHARE_MIN * policy.fresh_s
            or too_old(lying.fetched_at, asked.max_age_s, self._clock.now())
        ):
            return None
        told = told_since(history, lying.position, reads)
        if told is None:
            return None
        value = self._parsed.of(_as_outcome(lying))
        last_ms = max((order(line.position)[0] for line in history.since(lying.position) or ()), default=0)
        settled_s = (history.now_ms - last_ms) / 1000 - policy.settle_s
        renewed_at = before_parents(asked.read.entity, history, lying.position)
        return Base(value, lying.fetched_at, min(fresh_s, lying.fresh_s), told, lying.position, settled_s, renewed_at)

    def fresh_s(self, asked: Asked, as_of: float) -> float | None:
        """What remains of the lifetime of an answer of that age; None when that is not worth keeping it."""
        policy = asked.question.policy
        fresh_s = policy.fresh_s - (self._clock.now() - as_of)
        return fresh_s if fresh_s >= LIFE_SHARE_MIN * policy.fresh_s else None

    async def _states(
        self, asked: Asked, reads: Reads, named: Collection[str], *, fetches_most: int, settled_s: float
    ) -> _States | None:
        """The records as they are now; None when too many of them had to be fetched, or one could not be.

        `settled_s`: how long ago the index had caught up with the last change of them.
        """
        entity, now, max_age_s = asked.read.entity, self._clock.now(), asked.max_age_s
        if not facts_of(entity).has_detail:
            # these come from the index too
            max_age_s = settled_s - CLOCKS_APART_S if max_age_s is None else min(max_age_s, settled_s - CLOCKS_APART_S)
        if not named:
            return _NOTHING
        if len(named) > CHANGED_MOST or (max_age_s is not None and max_age_s <= 0):
            return None
        wanted = [Read.record(entity, jnid) for jnid in sorted(named)]
        found = await asyncio.gather(
            *(self._cache.lying(reads.question(read, asked.caller), asked.call) for read in wanted)
        )
        records: dict[str, Mapping[str, Any] | None] = {}
        as_of, missing = now, []
        for read, lying in zip(wanted, found, strict=True):
            if lying is None or lying.dirty or too_old(lying.fetched_at, max_age_s, now):
                missing.append(read)
            else:
                records[read.record_id] = None if lying.negative else self._parsed.of(_as_outcome(lying))
                as_of = min(as_of, lying.fetched_at)
        if len(missing) > fetches_most:
            return None
        outcomes = await asyncio.gather(*(self.through(read, asked, reads, max_age_s) for read in missing))
        for read, outcome in zip(missing, outcomes, strict=True):
            if outcome is None:
                return None
            records[read.record_id] = None if outcome.negative else self._parsed.of(outcome)
            as_of = min(as_of, outcome.fetched_at)
        return _States(records, as_of)

    async def _entries(self, asked: Asked, reads: Reads, base: Base, history: History) -> _States | None:
        """What JobNimbus has written to its activity log since the base was read: it dates that by itself, and the
        newest entries of all are one list for everybody."""
        lately = told_since(history, history.settled, (NEWEST_ENTRIES,))
        if asked.read == NEWEST_ENTRIES or lately is None or lately.logged:
            return None  # what has been written this very moment may not be among them
        outcome = await self.through(NEWEST_ENTRIES, asked, reads, asked.max_age_s)
        lying = await self._cache.lying(reads.question(NEWEST_ENTRIES, asked.caller), asked.call)
        if outcome is None or lying is None or lying.dirty or not lying.position:
            return None
        seen = await self.history(asked, lying.position)
        if seen is None or told_since(seen, lying.position, (NEWEST_ENTRIES,)) != Told():
            return None  # it was read while the index lagged
        value = self._parsed.of(_as_outcome(lying))
        since_s = base.as_of - asked.question.policy.settle_s - JOBNIMBUS_CLOCK_APART_S
        rows = value["rows"]
        entries = {row.get("jnid"): row for row in rows if (epoch_s(row.get("date_created")) or 0) >= since_s}
        if "incomplete" in value or (len(entries) == len(rows) < value["count"]) or None in entries:
            return None  # there may be more of them
        return _States(entries, lying.fetched_at)

    async def _still_shown(
        self,
        asked: Asked,
        reads: Reads,
        parents: Collection[EntityRef],
        rows: Sequence[Mapping[str, Any]],
        position: str,
        fetched_s: float,
    ) -> float | None:
        """As of when it is known that the rows under these records show of them what there is to show, though they have
        changed after `position`; None when it is not. `fetched_s`: when the rows were fetched, wall seconds."""
        since_s = math.inf
        for parent in parents:
            until_s = fetched_s - asked.question.policy.settle_s
            for image in self._parents.images(asked.whose, parent, position, until_s):
                seen_since = await self.history(asked, image.position)
                if seen_since and was_shown(parent, image, seen_since, position=position, fetched_s=fetched_s):
                    break
            else:
                return None
            read = Read.record(parent.entity, parent.jnid)
            outcome = await self.through(read, asked, reads, asked.max_age_s)
            if outcome is None or outcome.negative:
                return None
            record = self._parsed.of(outcome)
            if shown_under(parent.entity, record) != image.digest or not all(
                links_say(row, parent, record) for row in rows
            ):
                return None
            since_s = min(since_s, outcome.fetched_at)
        return since_s

    async def through(self, read: Read, asked: Asked, reads: Reads, max_age_s: float | None) -> Outcome | None:
        """The answer to a further read; None when it could not be had, or is known to be older than it should be."""
        try:
            async with asyncio.timeout(FURTHER_WITHIN_S):
                outcome = await reads.through(read, asked.caller, asked.call, max_age_s)
        except (UpstreamError, BudgetExhausted, TimeoutError):
            return None  # what was asked itself is asked for instead, and tells what is wrong
        return None if outcome.status is Status.STALE else outcome


def _newest(records: Changed, value: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """The records, or the list's rows of them where those are newer: a change that nobody has told of yet."""
    rows = {row.get("jnid"): row for row in value["rows"]}
    newest = dict(records)
    for jnid, record in records.items():
        row = rows.get(jnid)
        if row is not None and record is not None and _version(row) > _version(record):
            newest[jnid] = row
    return newest


def _version(row: Mapping[str, Any]) -> int:
    return epoch_s(row.get("date_updated")) or 0


def _as_outcome(lying: Lying) -> Outcome:
    return Outcome(lying.value, lying.negative, Status.HIT, Tier.L2, lying.fetched_at, lying.fresh_s, False, lying.etag)
