"""What is kept, brought up to date: a list of which it is told what has changed since, and what its rows hang on.

Every change is in the log by its record's name; those records are read by id, which does not lag, and `crm.upkeep`
makes the list of them that JobNimbus would give. Two things are not named there, and found out otherwise: what
JobNimbus writes to its activity log by itself, of which the newest entries are one list for everybody; and what the
rows show of the records that they hang on, which is the same after most changes of those (`gateway.parents`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.cache.outcome import Lying, Outcome, Status, Tier
from jobnimbus_mcp.cache.plan import CLOCKS_APART_S, too_old
from jobnimbus_mcp.cache.ports import History, Logged, order
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.relations import tags_of_read
from jobnimbus_mcp.crm.shown import links_say, shown_under
from jobnimbus_mcp.crm.told import Told
from jobnimbus_mcp.crm.upkeep import Changed, narrowed, upkept
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError
from jobnimbus_mcp.gateway.answers import ParsedValues
from jobnimbus_mcp.gateway.load import Asked, Kept, Made, Reads, made_of
from jobnimbus_mcp.gateway.parents import Parents, was_shown
from jobnimbus_mcp.gateway.since import before_parents, exact_at, named_since, told_since

__all__ = ["CHANGED_MOST", "LIFE_SHARE_MIN", "NEWEST_ENTRIES", "Base", "LagsError", "NotHadError", "Repair"]

CHANGED_MOST = 5
"""More records than that are not looked at one by one: after an import the whole list is the better question."""

FURTHER_WITHIN_S = 3.0
"""For a read that only saves another one: some five times what JobNimbus takes."""

LIFE_SHARE_MIN = 0.1
"""Of a lifetime that must remain: what is nearly over would be put together again at once. The jitter's own size."""

JOBNIMBUS_CLOCK_APART_S = 120.0
"""JobNimbus's clock and ours differ by less."""

NEWEST_ENTRIES = Read.block(Entity.ACTIVITIES, (), Sort("date_created"), 0)
"""What was written to the activity log of the whole account last."""

_PARSED_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Base:
    """`as_of`, `kept_at`: wall seconds between which all of it was fetched. `fresh_s`: what remains of its lifetime
    under the policy of who uses it. `settled_s`: how long ago the index had caught up with the last of the changes told
    of; negative: it has not. `parents_s`: how long ago the last change of what rows hang on was told of. `renewed_at`:
    the position up to which no record that rows hang on has changed."""

    value: Mapping[str, Any]
    as_of: float
    kept_at: float
    fresh_s: float
    told: Told
    position: str
    settled_s: float
    parents_s: float
    renewed_at: str


class NotHadError(Exception):
    """A further read failed or took too long: what is asked itself is asked for, and nothing else tried before."""


class LagsError(NotHadError):
    """It is known to be older than it should be, which passes within seconds."""


@dataclass(frozen=True, slots=True)
class _States:
    """Records as they are now. `as_of`: when the oldest was fetched."""

    records: Changed
    as_of: float


@dataclass(frozen=True, slots=True)
class _Parents:
    """Records that rows hang on, as they are now. `as_of`: when the oldest was fetched."""

    records: tuple[tuple[EntityRef, Mapping[str, Any]], ...]
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

    async def kept_right(self, asked: Asked, reads: Reads, of: Read, base: Base, history: History) -> Made | None:
        """The answer to what is asked, out of a base that is the answer to `of`, with the changes told of put in.

        Raises:
            NotHadError: JobNimbus did not give what is missing.
        """
        value, as_of, told = base.value, base.as_of, base.told
        parents = await self._still_shown(asked, reads, base)
        if parents is None:
            return None
        as_of = min(as_of, parents.as_of)
        if told.named or told.logged:
            pages = max(1, math.ceil(len(value["rows"]) / facts_of(asked.read.entity).page_rows))
            entries = await self._entries(asked, reads, base, history) if told.logged else _NOTHING
            if entries is None:
                return None
            named = told.named - entries.records.keys()
            # a row shows what it hangs on as that was when the row was read
            most_s = _least(asked.max_age_s, base.parents_s - CLOCKS_APART_S if told.parents else None)
            states = await self._states(
                asked, reads, named, fetches_most=pages, max_age_s=most_s, settled_s=base.settled_s
            )
            if states is None:
                return None
            made = upkept(of, value, _newest({**entries.records, **states.records}, value))
            if made is None:
                return None
            value, as_of = made, min(as_of, states.as_of, entries.as_of)
        if not _say(value["rows"], parents):
            return None
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
        return made_of(
            asked.read,
            value,
            history,
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
    ) -> Made | None:
        """JobNimbus's own list, asked for since `began` (wall seconds), with what it may still lack put in; None where
        that is not known.

        `told`: what has changed since the index lags. Where that is not all known, or rows may show what has changed of
        a record that they hang on, what is told of by name is in the answer all the same, which then is not exact.

        Raises:
            NotHadError: JobNimbus did not give what is missing.
        """
        read = asked.read
        all_named = told is not None and not told.logged
        named = told.named if told is not None and all_named else named_since(history, history.settled, read)
        if not named or not facts_of(read.entity).has_detail:
            return None
        states = await self._states(
            asked, reads, named, fetches_most=CHANGED_MOST, max_age_s=asked.max_age_s, settled_s=math.inf
        )
        made = None if states is None else upkept(read, value, _newest(states.records, value))
        if states is None or made is None:
            return None
        as_of = min(states.as_of, began)
        fresh_s = self.fresh_s(asked, as_of)
        if fresh_s is None:
            return None
        exact = told is not None and all_named and not told.parents
        position = exact_at(read, history) if exact else history.settled
        return made_of(read, made, history, position=position, exact=exact, as_of=as_of, fresh_s=fresh_s)

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
        lines = history.since(lying.position) or ()
        parents = {tag for ref in told.parents for tag in tags_of_read(Read.record(ref.entity, ref.jnid))}
        return Base(
            value=self._parsed.of(_as_outcome(lying)),
            as_of=lying.fetched_at,
            kept_at=lying.kept_at,
            fresh_s=min(fresh_s, lying.fresh_s),
            told=told,
            position=lying.position,
            settled_s=_since_s(history, lines) - policy.settle_s,
            parents_s=_since_s(history, (line for line in lines if not parents.isdisjoint(line.tags))),
            renewed_at=before_parents(asked.read.entity, history, lying.position),
        )

    def fresh_s(self, asked: Asked, as_of: float) -> float | None:
        """What remains of the lifetime of an answer of that age; None when that is not worth keeping it."""
        policy = asked.question.policy
        fresh_s = policy.fresh_s - (self._clock.now() - as_of)
        return fresh_s if fresh_s >= LIFE_SHARE_MIN * policy.fresh_s else None

    async def _states(
        self,
        asked: Asked,
        reads: Reads,
        named: Collection[str],
        *,
        fetches_most: int,
        max_age_s: float | None,
        settled_s: float,
    ) -> _States | None:
        """The records as they are now, or were so long ago; None when too many of them had to be fetched.

        `settled_s`: how long ago the index had caught up with the last change of them.
        """
        entity, now = asked.read.entity, self._clock.now()
        if not facts_of(entity).has_detail:
            # these come from the index too
            max_age_s = _least(max_age_s, settled_s - CLOCKS_APART_S)
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
        for read, outcome in zip(missing, await self._all_through(missing, asked, reads, max_age_s), strict=True):
            records[read.record_id] = None if outcome.negative else self._parsed.of(outcome)
            as_of = min(as_of, outcome.fetched_at)
        return _States(records, as_of)

    async def _entries(self, asked: Asked, reads: Reads, base: Base, history: History) -> _States | None:
        """What JobNimbus has written to its activity log since the base was read: it dates that by itself, and the
        newest entries of all are one list for everybody."""
        lately = told_since(history, history.settled, (NEWEST_ENTRIES,))
        if asked.read == NEWEST_ENTRIES or lately is None or lately.logged:
            return None  # what has been written this very moment may not be among them
        await self.through(NEWEST_ENTRIES, asked, reads, asked.max_age_s)
        lying = await self._cache.lying(reads.question(NEWEST_ENTRIES, asked.caller), asked.call)
        if lying is None or lying.dirty or not lying.position:
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

    async def _still_shown(self, asked: Asked, reads: Reads, base: Base) -> _Parents | None:
        """What the base's rows hang on and was changed, where they show of it what there is to show although it was;
        None where that is not known."""
        if len(base.told.parents) > CHANGED_MOST:
            return None
        images: list[bytes] = []
        for parent in base.told.parents:
            until_s = base.as_of - asked.question.policy.settle_s - CLOCKS_APART_S
            image = self._parents.image(asked.whose, parent, base.position, until_s)
            history = None if image is None else await self.history(asked, image.position)
            if image is None or history is None:
                return None
            if not was_shown(parent, image, history, position=base.position, fetched_s=base.as_of, kept_s=base.kept_at):
                return None
            images.append(image.digest)
        wanted = [Read.record(parent.entity, parent.jnid) for parent in base.told.parents]
        records, as_of = [], math.inf
        outcomes = await self._all_through(wanted, asked, reads, asked.max_age_s)
        for parent, digest, outcome in zip(base.told.parents, images, outcomes, strict=True):
            record = None if outcome.negative else self._parsed.of(outcome)
            if record is None or shown_under(parent.entity, record) != digest:
                return None
            records.append((parent, record))
            as_of = min(as_of, outcome.fetched_at)
        return _Parents(tuple(records), as_of)

    async def _all_through(
        self, wanted: Sequence[Read], asked: Asked, reads: Reads, max_age_s: float | None
    ) -> list[Outcome]:
        """As `through`, at the same time; all have ended when it returns or raises."""
        found = await asyncio.gather(
            *(self.through(read, asked, reads, max_age_s) for read in wanted), return_exceptions=True
        )
        outcomes: list[Outcome] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            outcomes.append(one)
        return outcomes

    async def through(self, read: Read, asked: Asked, reads: Reads, max_age_s: float | None) -> Outcome:
        """The answer to a further read.

        Raises:
            NotHadError: it could not be had; LagsError: it is known to be older than it should be.
        """
        try:
            async with asyncio.timeout(FURTHER_WITHIN_S):
                outcome = await reads.through(read, asked.caller, asked.call, max_age_s)
        except (UpstreamError, BudgetExhausted, TimeoutError) as error:
            raise NotHadError from error  # what was asked itself is asked for instead, and tells what is wrong
        if outcome.status is Status.STALE:
            raise LagsError
        return outcome


def _least(one: float | None, other: float | None) -> float | None:
    return min((bound for bound in (one, other) if bound is not None), default=None)


def _since_s(history: History, lines: Iterable[Logged]) -> float:
    """How long ago the last of these was told of, by the store's clock."""
    return (history.now_ms - max((order(line.position)[0] for line in lines), default=0)) / 1000


def _say(rows: Sequence[Mapping[str, Any]], parents: _Parents) -> bool:
    """Do the rows say of what they hang on what it says of itself?"""
    return all(links_say(row, parent, record) for parent, record in parents.records for row in rows)


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
