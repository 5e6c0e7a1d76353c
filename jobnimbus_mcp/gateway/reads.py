"""A read, from question to answer: policy, key and tags, then through the cache to JobNimbus when it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, Not, OneOf
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import tags_of_read
from jobnimbus_mcp.errors import RecordNotFound, UpstreamNotFound
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.telemetry.tally import Tally

__all__ = ["Gateway", "Upstream"]

_CALENDAR_KINDS = (Entity.TASKS, Entity.JOBS, Entity.WORKORDERS)
_NOTHING = b"{}"

PARSED_BYTES = 2 * 1024 * 1024
"""Of values kept parsed: some ten blocks of a list, for calls that ask the same at the same time."""


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


class Gateway:
    """Reads for the tools. `consistency_of(instance)`: what freshness this server can promise for an account."""

    def __init__(
        self,
        cache: ReadThrough,
        upstream: Upstream,
        policies: Policies,
        tally: Tally,
        consistency_of: Callable[[str], str],
    ) -> None:
        self._cache = cache
        self._upstream = upstream
        self._policies = policies
        self._tally = tally
        self._parsed = ParsedValues(PARSED_BYTES)
        self.consistency_of = consistency_of

    async def get(
        self,
        read: Read,
        caller: Caller,
        call: Call,
        *,
        max_age_s: float | None = None,
        internal: bool = False,
        collect: Callable[[Outcome], None] | None = None,
    ) -> Answer:
        """The answer to `read` as this caller may see it.

        `max_age_s`: None accepts what the cache holds; 0 asks JobNimbus now. `internal`: a look-up on the side,
        counted apart. `collect` is told the outcome, also of a "not found" that the cache knew.

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
        question = Question(key, tags_of_read(read), self._policies.of(read))

        async def load(loading: Call) -> Loaded:
            return await self._load(read, caller, loading)

        async def admit(asking: Call) -> None:
            await self.check(caller, asking)

        outcome = await self._cache.read(question, load, call=call, max_age_s=max_age_s, admit=admit)
        if collect is not None:
            collect(outcome)
        self._count(read, caller, outcome, internal=internal, bypass_asked=max_age_s == 0)
        if outcome.negative and read.shape is Shape.RECORD:
            raise not_found(read.entity)
        return Answer(outcome, self._parsed)

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
                value = await self._load_calendar(read, caller, call)
            else:
                value = await self._upstream.load(
                    read, instance=caller.instance, credential=caller.credential, call=call
                )
        except UpstreamNotFound:
            if read.shape is not Shape.RECORD:
                raise
            return Loaded(_NOTHING, negative=True)
        # a number that nothing carries is a "not found" too, and must not outlive the record's creation by long
        negative = read.shape is Shape.SCAN and any(
            isinstance(clause, OneOf) and clause.field == "number" for clause in read.where
        )
        return Loaded(orjson.dumps(value), negative=negative and not value["rows"])

    async def _load_calendar(self, read: Read, caller: Caller, call: Call) -> dict[str, Any]:
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
        return merged

    def _count(self, read: Read, caller: Caller, outcome: Outcome, *, internal: bool, bypass_asked: bool) -> None:
        if internal and outcome.status is not Status.BYPASS:
            served = outcome.status in (Status.HIT, Status.STALE, Status.REVALIDATED)
            self._tally.add_internal(caller.instance, "hits" if served else "misses")
        if outcome.status is Status.BYPASS and not bypass_asked:
            self._tally.add(caller.instance, "errors", entity=read.entity.value)


def not_found(entity: Entity) -> RecordNotFound:
    """The error for a record that JobNimbus does not have, in words for an agent."""
    kind = entity.value.removesuffix("s")
    return RecordNotFound(
        f"JobNimbus has no {kind} with this id or number, or this key may not see it. "
        f"Search or list the {entity.value} to find the right one."
    )
