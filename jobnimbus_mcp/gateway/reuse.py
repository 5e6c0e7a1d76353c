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
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from jobnimbus_mcp.cache.outcome import Loaded, Lying
from jobnimbus_mcp.cache.ports import History
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Sort
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import CHILDREN
from jobnimbus_mcp.crm.told import Told
from jobnimbus_mcp.crm.upkeep import is_wider
from jobnimbus_mcp.gateway.bases import Bases
from jobnimbus_mcp.gateway.load import Asked, Kept, Made, Reads, loaded_of, made_of
from jobnimbus_mcp.gateway.parents import Parents
from jobnimbus_mcp.gateway.repair import LIFE_SHARE_MIN, NEWEST_ENTRIES, LagsError, NotHadError, Repair
from jobnimbus_mcp.gateway.since import exact_at, told_since
from jobnimbus_mcp.gateway.together import Together, rows_most
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["ALL_WITHIN_S", "Reuse"]

_T = TypeVar("_T")

WIDE_ROWS_MAX = 1_000
"""Rows of a kind that is read whole: two requests, and some hundred KB when it is compressed. Ten times more would
neither fit into an entry nor be read within a call's time."""

RECORDS_FEW = 4
"""So many records of a kind that were asked for one by one within their lifetime make all of them the better question:
it is two requests at most, and perhaps one more to learn how many there are."""

ALL_WITHIN_S = 5.0
"""For all further reads of a load before what is asked itself is asked for, and again for those after it."""

_OF_WHAT_IS_LEFT = 3
"""Further reads may take that part of what is left of a call's time: the most is for asking what was asked itself."""

_WIDE_TRIES = 3

_NOT_RECORDS = frozenset({Entity.USERS, Entity.SETTINGS, Entity.CALENDAR})


class Reuse:
    """Loads lists and records. One per process; its hints are lost with it."""

    def __init__(self, cache: Kept, clock: Clock, recorder: Recorder) -> None:
        self._cache = cache
        self._clock = clock
        self._recorder = recorder
        self._bases = Bases()
        self._together = Together()
        self._parents = Parents()
        self._repair = Repair(cache, clock, self._parents)

    async def load(self, asked: Asked, reads: Reads) -> Loaded:
        """The answer, out of what is kept where that is sure, else from JobNimbus.

        Raises:
            UpstreamError, BudgetExhausted: as `Reads.ask`.
        """
        read = asked.read
        if read.shape is Shape.WHOLE or read.entity in _NOT_RECORDS:
            return loaded_of(read, await reads.ask(read, asked.caller, asked.call))
        (loaded, value, epoch), kind = await self._load(asked, reads)
        self._recorder.count("reuse", entity=read.entity.value, kind=kind)
        whose = asked.whose
        if read.shape is Shape.RECORD:
            records = [value]
            if read.entity in CHILDREN:
                self._together.opened(whose, read.record_id)
        else:
            self._bases.seen(whose, read, value)
            self._together.seen(whose, read, value)
            opened = self._together.parents(whose) if kind == "full" and read.entity in CHILDREN else ()
            records = [row for row in value["rows"] if row.get("jnid") in opened]
        now, position = self._clock.now(), loaded.position
        self._parents.saw(whose, read.entity, records, epoch=epoch, position=position, until_s=now)
        return loaded

    def left_s(self, lifetime_s: float, as_of: float) -> float:
        """What remains of a lifetime that began then (wall seconds); 0 when it is over."""
        return max(0.0, lifetime_s - (self._clock.now() - as_of))

    async def _load(self, asked: Asked, reads: Reads) -> tuple[Made, str]:
        read, now_only = asked.read, asked.max_age_s is not None and asked.max_age_s <= 0
        if read.shape is Shape.RECORD:
            made = None if now_only else await self._in_time(asked, self._from_lists(asked, reads))
            return (made, "detail_from_list") if made is not None else (await self._record(asked, reads), "full")
        if read == _directory(read.entity):
            return await self._unrepaired(asked, reads), "full"
        lying = None if now_only else await self._cache.lying(asked.question, asked.call)
        history = await self._repair.history(asked, "" if lying is None else lying.position)
        if history is None:
            return made_of(read, await reads.ask(read, asked.caller, asked.call)), "full"
        found = None if now_only else await self._in_time(asked, self._out_of_kept(asked, reads, lying, history))
        return (await self._full(asked, reads, history, now_only=now_only), "full") if found is None else found

    async def _in_time(self, asked: Asked, work: Coroutine[Any, Any, _T | None]) -> _T | None:
        """What comes of further reads, if it comes in time and none of them fails: then what is asked itself is asked
        for, and no other way tried before."""
        try:
            async with asyncio.timeout(min(ALL_WITHIN_S, asked.call.remaining_s(self._clock) / _OF_WHAT_IS_LEFT)):
                return await work
        except (NotHadError, TimeoutError):
            return None

    async def _out_of_kept(
        self, asked: Asked, reads: Reads, lying: Lying | None, history: History
    ) -> tuple[Made, str] | None:
        if lying is not None and lying.dirty:
            made = await self._repaired(asked, reads, lying, history)
            if made is not None:
                return made, "repaired"
        made = await self._narrowed(asked, reads)
        if made is not None:
            return made, "narrowed"
        made = await self._widened(asked, reads)
        if made is not None:
            return made, "widened"
        made = await self._with_others(asked, reads, history)
        return None if made is None else (made, "together")

    # -- a record ----------------------------------------------------------------------------------------------------

    async def _record(self, asked: Asked, reads: Reads) -> Made:
        # Before it is asked for: a record does not lag, so what was told by then is in it.
        history = await self._repair.history(asked, "")
        value = await reads.ask(asked.read, asked.caller, asked.call)
        if history is None:
            return made_of(asked.read, value)
        lags = not facts_of(asked.read.entity).has_detail
        return made_of(asked.read, value, history, position=history.settled if lags else history.position)

    async def _from_lists(self, asked: Asked, reads: Reads) -> Made | None:
        read, whose = asked.read, asked.whose
        wide, showing = _directory(read.entity), self._bases.showing(whose, read.entity, read.record_id)
        made = await self._shown_by(asked, reads, [shown for shown in showing if shown != wide])
        if made is None:
            self._bases.missed(whose, read.entity, read.record_id, self._clock.now())
            made = await self._shown_by(asked, reads, [shown for shown in showing if shown == wide])
        if made is None and await self._has_directory(asked, reads):
            made = await self._shown_by(asked, reads, (wide,))
        return made

    async def _shown_by(self, asked: Asked, reads: Reads, lists: Sequence[Read]) -> Made | None:
        read = asked.read
        for shown in lists:
            lying = await self._cache.lying(reads.question(shown, asked.caller), asked.call)
            base = None if lying is None else await self._repair.base(asked, lying, (read, shown))
            if lying is None or base is None or read.record_id in base.told.named or base.told.parents:
                continue
            row = next((row for row in base.value["rows"] if row.get("jnid") == read.record_id), None)
            if row is not None:
                # what was told since then was not about this record
                return made_of(
                    read,
                    row,
                    position=lying.position,
                    as_of=base.as_of,
                    fresh_s=base.fresh_s,
                    proved=False,
                )._replace(epoch=lying.epoch)
        return None

    async def _has_directory(self, asked: Asked, reads: Reads) -> bool:
        """Is there a list of the whole kind now? It is read where several of its records were missed lately."""
        entity, whose, now = asked.read.entity, asked.whose, self._clock.now()
        wide = _directory(entity)
        if (
            not facts_of(entity).has_detail
            or Read.scan(entity, ()) in self._bases.complete(whose, entity)  # this one will be read anyway
            or self._together.rests(whose, entity, now)
            or self._bases.missed_since(whose, entity, now - asked.question.policy.fresh_s) <= RECORDS_FEW
        ):
            return False
        history = await self._repair.history(asked, "")
        if history is None or told_since(history, history.settled, (asked.read, wide)) != Told():
            return False  # what may lag says nothing of a record
        try:
            if self._bases.count(whose, entity) is None:
                # the first rows of all, which anybody may want, and with them how many there are
                await self._repair.through(Read.block(entity, (), Sort("date_created"), 0), asked, reads, None)
            count = self._bases.count(whose, entity)
            if count is not None and (count > WIDE_ROWS_MAX or not self._bases.fits(whose, entity, count)):
                return False
            # JobNimbus may not say how many there are
            outcome = None if count is None else await self._repair.through(wide, asked, reads, _most_s(asked))
        except NotHadError:
            outcome = None
        if outcome is None or not outcome.ttl_s:
            self._together.no_use(whose, entity, now)
            return False
        return True

    async def _unrepaired(self, asked: Asked, reads: Reads) -> Made:
        """JobNimbus's list as it is. Loads of records wait for it, so it waits for none of them."""
        history = await self._repair.history(asked, "")
        value = await reads.ask(asked.read, asked.caller, asked.call)
        if history is None:
            return made_of(asked.read, value)
        if told_since(history, history.settled, (asked.read,)) == Told():
            return made_of(asked.read, value, history, position=exact_at(asked.read, history), exact=True)
        return made_of(asked.read, value, history, position=history.settled)

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _repaired(self, asked: Asked, reads: Reads, lying: Lying, history: History) -> Made | None:
        base = self._repair.based(asked, lying, (asked.read,), history)
        return None if base is None else await self._repair.kept_right(asked, reads, asked.read, base, history)

    async def _narrowed(self, asked: Asked, reads: Reads) -> Made | None:
        read, tried = asked.read, 0
        known = [wide for wide in self._bases.complete(asked.whose, read.entity) if wide != read]
        known += [wide for wide in self._together.lists(asked.whose, read.entity) if wide not in known and wide != read]
        # the list of the same records before one of the whole account: it is shorter
        for wide in sorted(known, key=lambda one: not one.scope):
            if tried == _WIDE_TRIES or not is_wider(wide, read):
                continue
            tried += 1
            made = await self._out_of(asked, reads, wide)
            if made is not None:
                return made
        return None

    async def _widened(self, asked: Asked, reads: Reads) -> Made | None:
        """Out of the whole kind, which is read for it where that is no more than one request."""
        read, whose = asked.read, asked.whose
        wide, count = Read.scan(read.entity, ()), self._bases.count(whose, read.entity)
        if (
            read in (wide, NEWEST_ENTRIES)
            or count is None
            or count > WIDE_ROWS_MAX
            or not self._bases.fits(whose, read.entity, count)
            # what hangs on one record is asked for alone, unless the whole kind is at hand anyway
            or (read.scope and wide not in self._bases.complete(whose, read.entity))
            or not is_wider(wide, read)
            or self._bases.rests(whose, read.entity, self._clock.now())
        ):
            return None
        try:
            outcome = await self._repair.through(wide, asked, reads, _most_s(asked))
        except NotHadError as error:
            if not isinstance(error, LagsError):
                self._bases.not_had(whose, read.entity, self._clock.now())
            raise
        if not outcome.ttl_s and len(outcome.value) > asked.question.policy.max_bytes:
            self._bases.too_large(whose, read.entity, count)
            return None
        return await self._out_of(asked, reads, wide)

    async def _with_others(self, asked: Asked, reads: Reads, history: History) -> Made | None:
        """Out of the lists of several records, which are asked for at once."""
        whose, entity = asked.whose, asked.read.entity
        wide = self._together.list_for(whose, asked.read, self._clock.now())
        # what may lag would have to be put right first, or would not be kept
        if wide is None or not is_wider(wide, asked.read) or told_since(history, history.settled, (wide,)) != Told():
            return None
        whole, count = Read.scan(entity, ()), self._bases.count(whose, entity)
        if count is not None and count <= rows_most(entity) and self._bases.fits(whose, entity, count):
            lying = await self._cache.lying(reads.question(whole, asked.caller), asked.call)
            # where it lies, it was no use a moment ago
            wide = whole if lying is None else wide
        try:
            await self._repair.through(wide, asked, reads, _most_s(asked))
            made = await self._out_of(asked, reads, wide)
        except NotHadError:
            self._together.no_use(whose, entity, self._clock.now())
            raise
        if made is None:
            self._together.no_use(whose, entity, self._clock.now())
        return made

    async def _out_of(self, asked: Asked, reads: Reads, wide: Read) -> Made | None:
        lying = await self._cache.lying(reads.question(wide, asked.caller), asked.call)
        among_others = len(wide.scope) > len(asked.read.scope)
        if lying is None or (lying.dirty and not among_others) or not lying.position:
            return None
        history = await self._repair.history(asked, lying.position)
        # of several records' lists only what has changed in this one's matters: what renewed the others' alone did not
        # reach it
        hangs_on = replace(wide, scope=asked.read.scope) if among_others else wide
        base = None if history is None else self._repair.based(asked, lying, (asked.read, hangs_on), history)
        if base is None or history is None:
            return None
        return await self._repair.kept_right(asked, reads, wide, base, history)

    async def _full(self, asked: Asked, reads: Reads, history: History, *, now_only: bool) -> Made:
        """JobNimbus's list, with what it may lack put right: else it would be one that lags, and asked for again."""
        began = self._clock.now()
        value = await reads.ask(asked.read, asked.caller, asked.call)
        told = told_since(history, history.settled, (asked.read,))
        if told == Told():
            return made_of(asked.read, value, history, position=exact_at(asked.read, history), exact=True)
        if not now_only:
            work = self._repair.caught_up(asked, reads, value, told, history, began)
            made = await self._in_time(asked, work)
            if made is not None:
                return made
        return made_of(asked.read, value, history, position=history.settled)


def _directory(entity: Entity) -> Read:
    """All records of a kind, for those who ask for single ones: in an order of its own, so that it is nobody's list."""
    return Read.scan(entity, (), sort=Sort("date_created", descending=False))


def _most_s(asked: Asked) -> float:
    """How old a list may be that an answer is to be made of: little of its lifetime would remain of an older one."""
    most_s = (1 - LIFE_SHARE_MIN) * asked.question.policy.fresh_s
    return most_s if asked.max_age_s is None else min(most_s, asked.max_age_s)
