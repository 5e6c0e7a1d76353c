"""What a load is put together from, so that a change costs one request and not one for every list that shows it.

All of this happens inside a load: the generations were noted before it and are compared when it is kept, so whatever is
invalidated meanwhile keeps its answer from being stored, as it does with one that JobNimbus gave. Four ways to do with
fewer requests, and what makes each of them sound:

- repaired. What lies dirty under the same key is right but for what has changed since its position in the log. Every
  such change is in the log by its record's name; those records are read by id, which does not lag; and `crm.upkeep`
  makes the list of them that JobNimbus would give.
- narrowed. A complete list holds all that a narrower one is made of.
- together. What hangs on one record is asked for with what hangs on others that were asked about lately: their lists
  end at different times, and each that ends would be a request.
- from a list. A list that was kept after the last change of a record shows it whole, whatever else has changed in it.

A list comes from an index that lags behind the records. So the position of what was loaded from JobNimbus is that of
`settle_s` before the load: what changed after it may be missing. Where all of that was looked at by id as well, the
answer is exact, which means that it needs not be taken for one that lags, and that its position is the log's last.

Lifetimes go on: an answer has the age, and what remains of the lifetime, of the oldest thing that it is made of.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from jobnimbus_mcp.cache.outcome import Loaded, Lying, Outcome, Status, Tier
from jobnimbus_mcp.cache.plan import CLOCKS_APART_S, too_old
from jobnimbus_mcp.cache.ports import EVERYTHING, SETTLED, History, order
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import OneOf, Sort
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import ACCOUNT_WIDE, CHILDREN, record_floor
from jobnimbus_mcp.crm.told import Told, told_of
from jobnimbus_mcp.crm.upkeep import Changed, is_wider, narrowed, upkept
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError
from jobnimbus_mcp.gateway.answers import ParsedValues
from jobnimbus_mcp.gateway.bases import Bases
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.together import Together, rows_most
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["LIFE_SHARE_MIN", "Asked", "Kept", "Reads", "Reuse", "loaded_of", "versions_of"]

CHANGED_MOST = 5
"""More records than that are not looked at one by one: after an import the whole list is the better question."""

FURTHER_WITHIN_S = 3.0
"""For a read that only saves another one: some five times what JobNimbus takes, and most of a call's time is left for
asking what was asked itself."""

WIDE_ROWS_MAX = 1_000
"""Rows of a kind that is read whole: two requests, and some hundred KB when it is compressed. Ten times more would
neither fit into an entry nor be read within a call's time."""

LIFE_SHARE_MIN = 0.1
"""Of a lifetime that must remain: what is nearly over would be put together again at once. The jitter's own size."""

RECORDS_FEW = 4
"""So many records of a kind that were asked for one by one within their lifetime make all of them the better question:
it is two requests at most, and perhaps one more to learn how many there are."""

_WIDE_TRIES = 3
JOBNIMBUS_CLOCK_APART_S = 120.0
"""JobNimbus's clock and ours differ by less."""

_NOT_RECORDS = frozenset({Entity.USERS, Entity.SETTINGS, Entity.CALENDAR})
_NEWEST_ENTRIES = Read.block(Entity.ACTIVITIES, (), Sort("date_created"), 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """One load. `max_age_s`: what its reader accepts, None any age, 0 none."""

    read: Read
    question: Question
    caller: Caller
    call: Call
    max_age_s: float | None = None

    @property
    def whose(self) -> tuple[str, str]:
        return self.caller.instance, self.caller.partition


class Kept(Protocol):
    """What is asked of the cache: see `ReadThrough`."""

    async def lying(self, question: Question, call: Call) -> Lying | None: ...

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History | None: ...


class Reads(Protocol):
    """How further reads are made on behalf of a load."""

    def question(self, read: Read, caller: Caller) -> Question:
        """The read as a question whose answer is never older than an acknowledged change."""
        ...

    async def through(self, read: Read, caller: Caller, call: Call, max_age_s: float | None) -> Outcome:
        """The answer to such a question, through the cache."""
        ...

    async def ask(self, read: Read, caller: Caller, call: Call) -> dict[str, Any]:
        """JobNimbus's own answer now."""
        ...


@dataclass(frozen=True, slots=True)
class _Base:
    """`fresh_s`: what remains of its lifetime under the policy of who uses it. `settled_s`: how long ago the index had
    caught up with the last of the changes told of; negative: it has not. `renewed_at`: the position up to which no
    record that rows hang on has changed."""

    value: Mapping[str, Any]
    as_of: float
    fresh_s: float
    told: Told
    settled_s: float
    renewed_at: str


@dataclass(frozen=True, slots=True)
class _States:
    """Records as they are now. `as_of`: when the oldest was fetched."""

    records: Changed
    as_of: float


_NOTHING = _States({}, math.inf)


class Reuse:
    """Loads lists and records. One per process; its hints are lost with it."""

    def __init__(self, cache: Kept, clock: Clock, recorder: Recorder) -> None:
        self._cache = cache
        self._clock = clock
        self._recorder = recorder
        self._bases = Bases()
        self._together = Together()
        self._parsed = ParsedValues(8 * 1024 * 1024)

    async def load(self, asked: Asked, reads: Reads) -> Loaded:
        """The answer, out of what is kept where that is sure, else from JobNimbus.

        Raises:
            UpstreamError, BudgetExhausted: as `Reads.ask`.
        """
        read = asked.read
        if read.shape is Shape.WHOLE or read.entity in _NOT_RECORDS:
            return loaded_of(read, await reads.ask(read, asked.caller, asked.call))
        loaded, kind = await self._load(asked, reads)
        self._recorder.count("reuse", entity=read.entity.value, kind=kind)
        if read.shape is Shape.RECORD and read.entity in CHILDREN:
            self._together.opened(asked.whose, read.record_id)
        if read.shape is not Shape.RECORD:
            value = orjson.loads(loaded.value)
            self._bases.seen(asked.whose, read, value)
            self._together.seen(asked.whose, read, value)
        return loaded

    async def _load(self, asked: Asked, reads: Reads) -> tuple[Loaded, str]:
        read, now_only = asked.read, asked.max_age_s is not None and asked.max_age_s <= 0
        if read.shape is Shape.RECORD:
            loaded = None if now_only else await self._from_lists(asked, reads)
            return (loaded, "detail_from_list") if loaded is not None else (await self._record(asked, reads), "full")
        if read == _directory(read.entity):
            return await self._unrepaired(asked, reads), "full"
        lying = None if now_only else await self._cache.lying(asked.question, asked.call)
        history = await self._history(asked, "" if lying is None else lying.position)
        if history is None:
            return loaded_of(read, await reads.ask(read, asked.caller, asked.call)), "full"
        if lying is not None and lying.dirty:
            loaded = await self._repaired(asked, reads, lying, history)
            if loaded is not None:
                return loaded, "repaired"
        if not now_only:
            loaded = await self._narrowed(asked, reads)
            if loaded is not None:
                return loaded, "narrowed"
            loaded = await self._widened(asked, reads)
            if loaded is not None:
                return loaded, "widened"
            loaded = await self._with_others(asked, reads, history)
            if loaded is not None:
                return loaded, "together"
        return await self._full(asked, reads, history, now_only=now_only), "full"

    # -- a record ----------------------------------------------------------------------------------------------------

    async def _record(self, asked: Asked, reads: Reads) -> Loaded:
        # Before it is asked for: a record does not lag, so what was told by then is in it.
        history = await self._history(asked, "")
        value = await reads.ask(asked.read, asked.caller, asked.call)
        if history is None:
            return loaded_of(asked.read, value)
        lags = not facts_of(asked.read.entity).has_detail
        return loaded_of(asked.read, value, position=history.settled if lags else history.position)

    async def _from_lists(self, asked: Asked, reads: Reads) -> Loaded | None:
        read, whose = asked.read, asked.whose
        loaded = await self._shown_by(asked, reads, self._bases.showing(whose, read.entity, read.record_id))
        if loaded is None and await self._has_directory(asked, reads):
            loaded = await self._shown_by(asked, reads, (_directory(read.entity),))
        if loaded is None:
            self._bases.missed(whose, read.entity, read.record_id, self._clock.now())
        return loaded

    async def _shown_by(self, asked: Asked, reads: Reads, lists: Sequence[Read]) -> Loaded | None:
        read = asked.read
        for shown in lists:
            lying = await self._cache.lying(reads.question(shown, asked.caller), asked.call)
            base = None if lying is None else await self._base(asked, lying, (read, shown))
            if lying is None or base is None or read.record_id in base.told.named:
                continue
            row = next((row for row in base.value["rows"] if row.get("jnid") == read.record_id), None)
            if row is not None:
                # what was told since then was not about this record
                return loaded_of(
                    read,
                    row,
                    position=lying.position,
                    as_of=base.as_of,
                    fresh_s=base.fresh_s,
                    proved=False,
                )
        return None

    async def _has_directory(self, asked: Asked, reads: Reads) -> bool:
        """Is there a list of the whole kind now? It is read where several of its records were missed lately."""
        entity, whose, now = asked.read.entity, asked.whose, self._clock.now()
        wide = _directory(entity)
        if (
            not facts_of(entity).has_detail
            or Read.scan(entity, ()) in self._bases.complete(whose, entity)  # this one will be read anyway
            or self._together.rests(whose, entity, now)
            or self._bases.missed_since(whose, entity, now - asked.question.policy.fresh_s) < RECORDS_FEW
        ):
            return False
        history = await self._history(asked, "")
        if history is None or _told(history, history.settled, (asked.read, wide)) != Told():
            return False  # what may lag says nothing of a record
        if self._bases.count(whose, entity) is None:
            # the first rows of all, which anybody may want, and with them how many there are
            await self._through(Read.block(entity, (), Sort("date_created"), 0), asked, reads, None)
        count = self._bases.count(whose, entity)
        if count is None:
            self._together.no_use(whose, entity, now)  # JobNimbus does not say so now
            return False
        if count > WIDE_ROWS_MAX or not self._bases.fits(whose, entity, count):
            return False
        outcome = await self._through(wide, asked, reads, _most_s(asked))
        if outcome is None or not outcome.ttl_s:
            self._together.no_use(whose, entity, now)
            return False
        return True

    async def _unrepaired(self, asked: Asked, reads: Reads) -> Loaded:
        """JobNimbus's list as it is. Loads of records wait for it, so it waits for none of them."""
        history = await self._history(asked, "")
        value = await reads.ask(asked.read, asked.caller, asked.call)
        if history is None:
            return loaded_of(asked.read, value)
        if _told(history, history.settled, (asked.read,)) == Told():
            return loaded_of(asked.read, value, position=_exact_at(asked.read, history), exact=True)
        return loaded_of(asked.read, value, position=history.settled)

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _repaired(self, asked: Asked, reads: Reads, lying: Lying, history: History) -> Loaded | None:
        base = self._based(asked, lying, (asked.read,), history)
        return None if base is None else await self._kept_right(asked, reads, asked.read, base, history)

    async def _narrowed(self, asked: Asked, reads: Reads) -> Loaded | None:
        read, tried = asked.read, 0
        known = [wide for wide in self._bases.complete(asked.whose, read.entity) if wide != read]
        known += [wide for wide in self._together.lists(asked.whose, read.entity) if wide not in known and wide != read]
        # the list of the same records before one of the whole account: it is shorter
        for wide in sorted(known, key=lambda one: not one.scope):
            if tried == _WIDE_TRIES or not is_wider(wide, read):
                continue
            tried += 1
            loaded = await self._out_of(asked, reads, wide)
            if loaded is not None:
                return loaded
        return None

    async def _widened(self, asked: Asked, reads: Reads) -> Loaded | None:
        """Out of the whole kind, which is read for it where that is no more than one request."""
        read, whose = asked.read, asked.whose
        wide, count = Read.scan(read.entity, ()), self._bases.count(whose, read.entity)
        if (
            read in (wide, _NEWEST_ENTRIES)
            or count is None
            or count > WIDE_ROWS_MAX
            or not self._bases.fits(whose, read.entity, count)
            # what hangs on one record is asked for alone, unless the whole kind is at hand anyway
            or (read.scope and wide not in self._bases.complete(whose, read.entity))
            or not is_wider(wide, read)
        ):
            return None
        outcome = await self._through(wide, asked, reads, _most_s(asked))
        if outcome is None:
            return None
        if not outcome.ttl_s and len(outcome.value) > asked.question.policy.max_bytes:
            self._bases.too_large(whose, read.entity, count)
            return None
        return await self._out_of(asked, reads, wide)

    async def _with_others(self, asked: Asked, reads: Reads, history: History) -> Loaded | None:
        """Out of the lists of several records, which are asked for at once."""
        whose, entity = asked.whose, asked.read.entity
        wide = self._together.list_for(whose, asked.read, self._clock.now())
        # what may lag would have to be put right first, or would not be kept
        if wide is None or not is_wider(wide, asked.read) or _told(history, history.settled, (wide,)) != Told():
            return None
        whole, count = Read.scan(entity, ()), self._bases.count(whose, entity)
        if count is not None and count <= rows_most(entity) and self._bases.fits(whose, entity, count):
            lying = await self._cache.lying(reads.question(whole, asked.caller), asked.call)
            # where it lies, it was no use a moment ago
            wide = whole if lying is None else wide
        outcome = await self._through(wide, asked, reads, _most_s(asked))
        loaded = None if outcome is None else await self._out_of(asked, reads, wide)
        if loaded is None:
            self._together.no_use(whose, entity, self._clock.now())
        return loaded

    async def _out_of(self, asked: Asked, reads: Reads, wide: Read) -> Loaded | None:
        lying = await self._cache.lying(reads.question(wide, asked.caller), asked.call)
        among_others = len(wide.scope) > len(asked.read.scope)
        if lying is None or (lying.dirty and not among_others) or not lying.position:
            return None
        history = await self._history(asked, lying.position)
        # of several records' lists only what has changed in this one's matters: what renewed the others' alone did not
        # reach it
        hangs_on = replace(wide, scope=asked.read.scope) if among_others else wide
        base = None if history is None else self._based(asked, lying, (asked.read, hangs_on), history)
        if base is None or history is None:
            return None
        return await self._kept_right(asked, reads, wide, base, history)

    async def _full(self, asked: Asked, reads: Reads, history: History, *, now_only: bool) -> Loaded:
        """JobNimbus's list, with what it may lack put right: else it would be one that lags, and asked for again."""
        began = self._clock.now()
        value = await reads.ask(asked.read, asked.caller, asked.call)
        told = _told(history, history.settled, (asked.read,))
        if told == Told():
            return loaded_of(asked.read, value, position=_exact_at(asked.read, history), exact=True)
        if told is not None and not now_only and not told.logged and facts_of(asked.read.entity).has_detail:
            states = await self._states(asked, reads, told.named, fetches_most=CHANGED_MOST, settled_s=math.inf)
            made = None if states is None else upkept(asked.read, value, _newest(states.records, value))
            if states is not None and made is not None:
                as_of = min(states.as_of, began)
                fresh_s = self.fresh_s(asked, as_of)
                if fresh_s is not None:
                    return loaded_of(
                        asked.read,
                        made,
                        position=_exact_at(asked.read, history),
                        exact=True,
                        as_of=as_of,
                        fresh_s=fresh_s,
                    )
        return loaded_of(asked.read, value, position=history.settled)

    async def _kept_right(self, asked: Asked, reads: Reads, of: Read, base: _Base, history: History) -> Loaded | None:
        """The answer to what is asked, out of a base that is the answer to `of`, with the changes told of put in."""
        value, as_of, told = base.value, base.as_of, base.told
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

    # -- what is there -----------------------------------------------------------------------------------------------

    async def _history(self, asked: Asked, after: str) -> History | None:
        return await self._cache.history(asked.caller.instance, after, asked.question.policy.settle_s, asked.call)

    async def _base(self, asked: Asked, lying: Lying, reads: tuple[Read, ...]) -> _Base | None:
        history = await self._history(asked, lying.position) if lying.position else None
        return None if history is None else self._based(asked, lying, reads, history)

    def _based(self, asked: Asked, lying: Lying, reads: tuple[Read, ...], history: History) -> _Base | None:
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
        told = _told(history, lying.position, reads)
        if told is None:
            return None
        value = self._parsed.of(_as_outcome(lying))
        last_ms = max((order(line.position)[0] for line in history.since(lying.position) or ()), default=0)
        settled_s = (history.now_ms - last_ms) / 1000 - policy.settle_s
        renewed_at = _before_parents(asked.read.entity, history, lying.position)
        return _Base(value, lying.fetched_at, min(fresh_s, lying.fresh_s), told, settled_s, renewed_at)

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
        outcomes = await asyncio.gather(*(self._through(read, asked, reads, max_age_s) for read in missing))
        for read, outcome in zip(missing, outcomes, strict=True):
            if outcome is None:
                return None
            records[read.record_id] = None if outcome.negative else self._parsed.of(outcome)
            as_of = min(as_of, outcome.fetched_at)
        return _States(records, as_of)

    async def _entries(self, asked: Asked, reads: Reads, base: _Base, history: History) -> _States | None:
        """What JobNimbus has written to its activity log since the base was read: it dates that by itself, and the
        newest entries of all are one list for everybody."""
        lately = _told(history, history.settled, (_NEWEST_ENTRIES,))
        if asked.read == _NEWEST_ENTRIES or lately is None or lately.logged:
            return None  # what has been written this very moment may not be among them
        outcome = await self._through(_NEWEST_ENTRIES, asked, reads, asked.max_age_s)
        lying = await self._cache.lying(reads.question(_NEWEST_ENTRIES, asked.caller), asked.call)
        if outcome is None or lying is None or lying.dirty or not lying.position:
            return None
        history = await self._history(asked, lying.position)
        if history is None or _told(history, lying.position, (_NEWEST_ENTRIES,)) != Told():
            return None  # it was read while the index lagged
        value = self._parsed.of(_as_outcome(lying))
        since_s = base.as_of - asked.question.policy.settle_s - JOBNIMBUS_CLOCK_APART_S
        rows = value["rows"]
        entries = {row.get("jnid"): row for row in rows if (epoch_s(row.get("date_created")) or 0) >= since_s}
        if "incomplete" in value or (len(entries) == len(rows) < value["count"]) or None in entries:
            return None  # there may be more of them
        return _States(entries, lying.fetched_at)

    async def _through(self, read: Read, asked: Asked, reads: Reads, max_age_s: float | None) -> Outcome | None:
        """The answer to a further read; None when it could not be had, or is known to be older than it should be."""
        try:
            async with asyncio.timeout(FURTHER_WITHIN_S):
                outcome = await reads.through(read, asked.caller, asked.call, max_age_s)
        except (UpstreamError, BudgetExhausted, TimeoutError):
            return None  # what was asked itself is asked for instead, and tells what is wrong
        return None if outcome.status is Status.STALE else outcome


def _directory(entity: Entity) -> Read:
    """All records of a kind, for those who ask for single ones: in an order of its own, so that it is nobody's list."""
    return Read.scan(entity, (), sort=Sort("date_created", descending=False))


def _most_s(asked: Asked) -> float:
    """How old a list may be that an answer is to be made of: little of its lifetime would remain of an older one."""
    most_s = (1 - LIFE_SHARE_MIN) * asked.question.policy.fresh_s
    return most_s if asked.max_age_s is None else min(most_s, asked.max_age_s)


def versions_of(entity: Entity, rows: Sequence[Any]) -> dict[str, int]:
    """The version of each record shown, for the floors: its `date_updated`. Without id or date, a record has none."""
    found: dict[str, int] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        jnid, version = row.get("jnid"), epoch_s(row.get("date_updated"))
        if isinstance(jnid, str) and version is not None:
            found[record_floor(entity, jnid)] = version
    return found


def loaded_of(read: Read, value: Mapping[str, Any], **known: Any) -> Loaded:
    """The answer to `read` as the cache keeps it. `known`: what else is known of it, by `Loaded`'s names."""
    versions = versions_of(read.entity, [value] if read.shape is Shape.RECORD else value.get("rows", ()))
    # a number that nothing carries is a "not found" too, and must not outlive the record's creation by long
    negative = (
        read.shape is Shape.SCAN
        and not value["rows"]
        and any(isinstance(clause, OneOf) and clause.field == "number" for clause in read.where)
    )
    return Loaded(orjson.dumps(value), negative=negative, versions=versions, **known)


def _told(history: History, position: str, reads: tuple[Read, ...]) -> Told | None:
    """What has changed in the answers to `reads` since that position; None when that is not told."""
    lines = history.since(position)
    if lines is None or any(EVERYTHING in line.tags for line in lines):
        return None
    # what was only renewed once more since the index lags is after the position of whatever may lack it
    return told_of(reads, (line.tags for line in lines if SETTLED not in line.tags))


def _exact_at(read: Read, history: History) -> str:
    """The position of a load into which all was put that has been told since the index lags."""
    return history.position if read.scope else _before_parents(read.entity, history, history.settled)


def _before_parents(entity: Entity, history: History, position: str) -> str:
    """The last position after `position` before which no change of another record has renewed lists under it of this
    kind; the log's end when none has."""
    own, under, anywhere = f"{entity}:detail:", f"{entity}@", f"{entity}@{ACCOUNT_WIDE}"
    for line in history.since(position) or ():
        told = [tag for tag in line.tags if tag.startswith(under) and tag != anywhere]
        if told and not any(tag.startswith(own) for tag in line.tags):
            return line.previous
    return history.position


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
