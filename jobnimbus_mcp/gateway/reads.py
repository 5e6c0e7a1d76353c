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
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import Is, Not, OneOf
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import floors_of_read, record_floor, tags_of_read
from jobnimbus_mcp.errors import RecordNotFound, UpstreamNotFound
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
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
    -> that partition, by which callers are known who bring a key that leads there."""

    def __init__(
        self,
        cache: Cache,
        upstream: Upstream,
        policies: Policies,
        tally: Tally,
        consistency_of: Callable[[str], str],
        noted: Noted | None = None,
        own_partitions: Mapping[str, str] | None = None,
    ) -> None:
        self._cache = cache
        self._upstream = upstream
        self._policies = policies
        self._tally = tally
        self._parsed = ParsedValues(PARSED_BYTES)
        self._noted = noted
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
        key = CacheKey(
            caller.instance,
            caller.partition,
            read.entity.value,
            read.operation.value,
            read.identifier,
            bearer=caller.bearer,
        )
        mode = self._policies.mode_of(read)
        question = Question(
            key, tags_of_read(read), self._policies.of(read, caller.instance), mode=mode, settles=floors_of_read(read)
        )

        async def load(loading: Call) -> Loaded:
            return await self._load(read, caller, loading)

        async def admit(asking: Call) -> None:
            await self.check(caller, asking)

        outcome = await self._cache.read(
            question, load, call=call, max_age_s=max_age_s, admit=admit, own=not caller.own_key
        )
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

    async def _load(self, read: Read, caller: Caller, call: Call) -> Loaded:
        try:
            if read.entity is Entity.CALENDAR:
                value, versions = await self._load_calendar(read, caller, call)
            else:
                value = await self._upstream.load(
                    read, instance=caller.instance, credential=caller.credential, call=call
                )
                versions = _versions(read.entity, [value] if read.shape is Shape.RECORD else value.get("rows", ()))
        except UpstreamNotFound:
            if read.shape is not Shape.RECORD:
                raise
            return Loaded(_NOTHING, negative=True)
        # a number that nothing carries is a "not found" too, and must not outlive the record's creation by long
        negative = read.shape is Shape.SCAN and any(
            isinstance(clause, OneOf) and clause.field == "number" for clause in read.where
        )
        return Loaded(orjson.dumps(value), negative=negative and not value["rows"], versions=versions)

    async def _load_calendar(self, read: Read, caller: Caller, call: Call) -> tuple[dict[str, Any], dict[str, int]]:
        parts = []
        for kind in _CALENDAR_KINDS:
            where = read.where
            if kind is Entity.TASKS:
                where = (*where, Not(Is("hide_from_calendarview", True)))
            parts.append(Read.scan(kind, where, sort=read.sort))
        try:
            async with asyncio.TaskGroup() as group:
                loads = [
                    group.create_task(
                        self._upstream.load(part, instance=caller.instance, credential=caller.credential, call=call)
                    )
                    for part in parts
                ]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        values = [load.result() for load in loads]
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
            versions |= _versions(kind, value["rows"])
        return merged, versions

    def _count(self, read: Read, caller: Caller, outcome: Outcome, *, internal: bool, bypass_asked: bool) -> None:
        if internal and outcome.status is not Status.BYPASS:
            fetched = outcome.status is Status.MISS or (
                outcome.status is Status.STALE and outcome.tier is Tier.UPSTREAM
            )
            self._tally.add_internal(caller.instance, "misses" if fetched else "hits")
        if outcome.status is Status.BYPASS and not bypass_asked:
            self._tally.add(caller.instance, "errors", entity=read.entity.value)


def _versions(entity: Entity, rows: Sequence[Any]) -> dict[str, int]:
    """The version of each record shown, for the floors: its `date_updated`. Without id or date, a record has none."""
    found: dict[str, int] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        jnid, version = row.get("jnid"), epoch_s(row.get("date_updated"))
        if isinstance(jnid, str) and version is not None:
            found[record_floor(entity, jnid)] = version
    return found


def not_found(entity: Entity) -> RecordNotFound:
    """The error for a record that JobNimbus does not have, in words for an agent."""
    kind = entity.value.removesuffix("s")
    return RecordNotFound(
        f"JobNimbus has no {kind} with this id or number, or this key may not see it. "
        f"Search or list the {entity.value} to find the right one."
    )
