"""A read, from question to answer: policy, key and tags, then through the cache to JobNimbus when it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.cache.read_through import Admit, Loader
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, Not
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import floors_of_read, tags_of_read
from jobnimbus_mcp.errors import RecordNotFound, UpstreamNotFound
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.load import Asked, loaded_of, versions_of
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.repair import LIFE_SHARE_MIN
from jobnimbus_mcp.gateway.reuse import Reuse
from jobnimbus_mcp.telemetry.tally import Tally

__all__ = ["LIFETIME_ONLY", "Cache", "Gateway", "Noted", "Upstream"]

LIFETIME_ONLY = "ttl"
"""The consistency told where this server learns of no changes: the lifetime is the only bound."""

_CALENDAR_KINDS = (Entity.TASKS, Entity.JOBS, Entity.WORKORDERS)
_NOTHING = b"{}"
_WEAKER = (Mode.STRICT, Mode.BARRIER, Mode.BOUNDED, Mode.ANY)

PARSED_BYTES = 2 * 1024 * 1024
"""Of values kept parsed: some ten blocks of a list, for calls that ask the same at the same time."""

Noted = Callable[[str, Read], None]
"""(account, question): somebody was answered who shares the server's own partition. Never waits, never fails."""


class Upstream(Protocol):
    """What the gateway asks of the JobNimbus client."""

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        """The answer in the form `crm.reads.Shape` documents.

        Raises:
            UpstreamError: by its kind; UpstreamNotFound for a record that is not there.
            BudgetExhausted: our own request budget is used up.
        """
        ...

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None:
        """Return when JobNimbus accepts the credential.

        Raises:
            UpstreamUnauthorized: it does not.
            UpstreamError: it could not be asked.
        """
        ...


class Cache(Protocol):
    """What the gateway asks of the read-through cache: see `ReadThrough`."""

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome: ...

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None: ...


class Gateway:
    """Reads for the tools. `consistency_of(instance)`: what freshness this server can promise for an account at best;
    "ttl" where it learns of no changes. `noted` is told of each answered read that a call is about and that shares the
    server's own partition; not of look-ups on the side, nor of what was asked past the cache. `own_partitions`: account
    -> that partition, by which callers are known who bring a key that leads there. `reuse`: what loads are put together
    by; None: each asks JobNimbus for all of it."""

    def __init__(
        self,
        cache: Cache,
        upstream: Upstream,
        policies: Policies,
        tally: Tally,
        consistency_of: Callable[[str], str],
        noted: Noted | None = None,
        own_partitions: Mapping[str, str] | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self._cache = cache
        self._upstream = upstream
        self._policies = policies
        self._tally = tally
        self._parsed = ParsedValues(PARSED_BYTES)
        self._noted = noted
        self._reuse = reuse
        self._own_partitions = dict(own_partitions or {})
        self.consistency_of = consistency_of

    async def get(
        self,
        read: Read,
        caller: Caller,
        call: Call,
        *,
        max_age_s: float | None = None,
        internal: bool = False,
        collect: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """The answer to `read` as this caller may see it.

        `max_age_s`: None accepts what the cache holds; 0 asks JobNimbus now. `internal`: a look-up on the side,
        counted apart. `collect` is told the answer, also a "not found" that the cache knew.

        Raises:
            RecordNotFound: JobNimbus has no such record, or hides it from this key.
            UpstreamError, BudgetExhausted: nothing fresh enough was kept, and JobNimbus could not be asked.
        """
        mode = self._policies.mode_of(read)
        outcome = await self._read(read, caller, call, mode, max_age_s)
        answer = Answer(outcome, self._parsed, mode)
        if collect is not None:
            collect(answer)
        self._count(read, caller, outcome, internal=internal, bypass_asked=max_age_s == 0)
        if outcome.negative and read.shape is Shape.RECORD:
            raise not_found(read.entity)
        if self._noted is not None and not internal and max_age_s != 0 and self._is_own(caller):
            self._noted(caller.instance, read)
        return answer

    def consistency_told(self, instance: str, answers: Sequence[Answer]) -> str:
        """What freshness was promised to an answer made of these: the weakest of their modes, unless nothing is heard
        of changes."""
        promised = self.consistency_of(instance)
        if promised == LIFETIME_ONLY or not answers:
            return promised
        return max((answer.mode for answer in answers), key=_WEAKER.index).value

    def _is_own(self, caller: Caller) -> bool:
        return not caller.own_key or caller.partition == self._own_partitions.get(caller.instance)

    async def check(self, caller: Caller, call: Call) -> None:
        """Ask JobNimbus whether it accepts the credential; raises as `Upstream.check_credential` does."""
        await self._upstream.check_credential(instance=caller.instance, credential=caller.credential, call=call)

    async def admitted(self, caller: Caller, call: Call) -> None:
        """Return when JobNimbus accepted this credential recently, asking it when it did not."""

        async def admit(asking: Call) -> None:
            await self.check(caller, asking)

        await self._cache.admitted(caller.instance, caller.partition, admit, call, bearer=caller.bearer)

    # -- for what a load is put together from ------------------------------------------------------------------------

    def question(self, read: Read, caller: Caller) -> Question:
        """The read as a question whose answer is never older than an acknowledged change."""
        return self._question(read, caller, Mode.STRICT)

    async def through(self, read: Read, caller: Caller, call: Call, max_age_s: float | None) -> Outcome:
        """The answer to such a question, counted as a look-up on the side.

        Raises:
            UpstreamError, BudgetExhausted: as `get`.
        """
        outcome = await self._read(read, caller, call, Mode.STRICT, max_age_s)
        self._count(read, caller, outcome, internal=True, bypass_asked=max_age_s == 0)
        return outcome

    async def ask(self, read: Read, caller: Caller, call: Call) -> dict[str, Any]:
        """JobNimbus's own answer now; raises as `Upstream.load` does."""
        return await self._upstream.load(read, instance=caller.instance, credential=caller.credential, call=call)

    # -- loads -------------------------------------------------------------------------------------------------------

    def _question(self, read: Read, caller: Caller, mode: Mode) -> Question:
        key = CacheKey(
            caller.instance,
            caller.partition,
            read.entity.value,
            read.operation.value,
            read.identifier,
            bearer=caller.bearer,
        )
        return Question(
            key, tags_of_read(read), self._policies.of(read, caller.instance), mode=mode, settles=floors_of_read(read)
        )

    async def _read(self, read: Read, caller: Caller, call: Call, mode: Mode, max_age_s: float | None) -> Outcome:
        question = self._question(read, caller, mode)

        async def load(loading: Call) -> Loaded:
            return await self._load(Asked(read, question, caller, loading, max_age_s))

        async def admit(asking: Call) -> None:
            await self.check(caller, asking)

        return await self._cache.read(
            question, load, call=call, max_age_s=max_age_s, admit=admit, own=not caller.own_key
        )

    async def _load(self, asked: Asked) -> Loaded:
        read = asked.read
        try:
            if read.entity is Entity.CALENDAR:
                return await self._load_calendar(asked)
            if self._reuse is not None:
                return await self._reuse.load(asked, self)
            return loaded_of(read, await self.ask(read, asked.caller, asked.call))
        except UpstreamNotFound:
            if read.shape is not Shape.RECORD:
                raise
            return Loaded(_NOTHING, negative=True)

    async def _load_calendar(self, asked: Asked) -> Loaded:
        """Three lists in one. Each is a read of its own, so that a change of one kind costs nothing of the others."""
        read, parts = asked.read, []
        for kind in _CALENDAR_KINDS:
            where = read.where
            if kind is Entity.TASKS:
                where = (*where, Not(Is("hide_from_calendarview", True)))
            parts.append(Read.scan(kind, where, sort=read.sort))
        try:
            async with asyncio.TaskGroup() as group:
                loads = [group.create_task(self._part(part, asked)) for part in parts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        found = [load.result() for load in loads]
        values = [value for value, _ in found]
        outcomes = [outcome for _, outcome in found if outcome is not None]
        merged: dict[str, Any] = {"rows": [row for value in values for row in value["rows"]]}
        why = [
            f"{kind}: {value['incomplete']}"
            for kind, value in zip(_CALENDAR_KINDS, values, strict=True)
            if "incomplete" in value
        ]
        if why:
            merged["incomplete"] = "; ".join(why)
        versions: dict[str, int] = {}
        for kind, value in zip(_CALENDAR_KINDS, values, strict=True):
            versions |= versions_of(kind, value["rows"])
        if self._reuse is None or not outcomes:
            return Loaded(orjson.dumps(merged), versions=versions)
        # a part that was not kept has nothing left that could be told
        left_s = [outcome.ttl_s for outcome in outcomes if outcome.ttl_s > 0]
        left_s += [
            self._reuse.left_s(self._part_lifetime_s(part, asked), outcome.fetched_at)
            for part, (_, outcome) in zip(parts, found, strict=True)
            if outcome is not None
        ]
        return Loaded(
            orjson.dumps(merged),
            versions=versions,
            as_of=min(outcome.fetched_at for outcome in outcomes),
            fresh_s=min(left_s),
            proved=len(outcomes) < len(found),
        )

    async def _part(self, part: Read, asked: Asked) -> tuple[dict[str, Any], Outcome | None]:
        """One kind's part of a calendar. A part is made anew when little of the calendar's lifetime would remain."""
        if self._reuse is not None:
            most_s = (1 - LIFE_SHARE_MIN) * self._part_lifetime_s(part, asked)
            if asked.max_age_s is not None:
                most_s = min(most_s, asked.max_age_s)
            outcome = await self.through(part, asked.caller, asked.call, most_s)
            if outcome.status is not Status.STALE:
                return self._parsed.of(outcome), outcome
        return await self.ask(part, asked.caller, asked.call), None

    def _part_lifetime_s(self, part: Read, asked: Asked) -> float:
        """How long a part may stay in a calendar: as long as any calendar, and no longer than a list of its kind. How
        often another kind changes says nothing of this one."""
        base_s = self._policies.lifetime_s(Entity.CALENDAR, asked.read.operation)
        own_s = self._policies.lifetime_s(part.entity, part.operation, asked.caller.instance)
        return min(max(base_s, asked.question.policy.fresh_s), own_s)

    def _count(self, read: Read, caller: Caller, outcome: Outcome, *, internal: bool, bypass_asked: bool) -> None:
        if internal and outcome.status is not Status.BYPASS:
            fetched = outcome.status is Status.MISS or (
                outcome.status is Status.STALE and outcome.tier is Tier.UPSTREAM
            )
            self._tally.add_internal(caller.instance, "misses" if fetched else "hits")
        if outcome.status is Status.BYPASS and not bypass_asked:
            self._tally.add(caller.instance, "errors", entity=read.entity.value)


def not_found(entity: Entity) -> RecordNotFound:
    """The error for a record that JobNimbus does not have, in words for an agent."""
    kind = entity.value.removesuffix("s")
    return RecordNotFound(
        f"JobNimbus has no {kind} with this id or number, or this key may not see it. "
        f"Search or list the {entity.value} to find the right one."
    )
