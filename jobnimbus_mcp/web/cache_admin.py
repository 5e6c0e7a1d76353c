"""The admin's view of the cache and hand in it: /cache/stats, entries, clear, invalidate and invalidations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import CacheUnavailable, InvalidInput
from jobnimbus_mcp.web.endpoint import request_id_of
from jobnimbus_mcp.web.health import Health
from jobnimbus_mcp.web.params import json_object, limit_of, one_of, query_of, since_of
from jobnimbus_mcp.web.ports import Counts, Entries, Explain, Invalidations
from jobnimbus_mcp.web.refusals import EntryNotFound
from jobnimbus_mcp.web.replies import json_reply
from jobnimbus_mcp.web.stats import figures
from jobnimbus_mcp.web.targets import ENTITIES, OPERATIONS, Tags, Target, target_of

__all__ = ["CacheAdmin"]

T = TypeVar("T")
_RATE_HOURS = 24


class CacheAdmin:
    """The admin's routes under /cache. Every change is logged; a store that is away is 503, never an empty answer."""

    def __init__(
        self,
        *,
        instances: Sequence[str],
        invalidations: Invalidations,
        entries: Entries,
        explain: Explain,
        counts: Counts,
        health: Health,
        store_facts: Callable[[], Mapping[str, Any]],
        breaker_facts: Callable[[], Mapping[str, Any]],
        l1_facts: Callable[[], Mapping[str, Any]],
        event_facts: Callable[[], Awaitable[Mapping[str, Any]]],
        ids: Callable[[], str],
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._instances = tuple(instances)
        self._invalidations = invalidations
        self._entries = entries
        self._explain = explain
        self._counts = counts
        self._health = health
        self._store_facts = store_facts
        self._breaker_facts = breaker_facts
        self._l1_facts = l1_facts
        self._event_facts = event_facts
        self._ids = ids
        self._clock = clock
        self._log = log

    async def stats(self, request: Request, body: bytes) -> Response:
        """Sums over all replicas, or of this process alone: when asked for, and while the store is away."""
        query = query_of(request.query_params.multi_items(), ("scope",))
        scope = one_of(query, "scope", ("all", "process")) or "all"
        counted: list[Mapping[str, int]] = []
        if scope == "all":
            try:
                counted = [await self._counts.shared(instance) for instance in self._instances]
            except CacheUnavailable:
                # the breaker's state and this process's counts are what one looks for in an outage
                scope = "process"
        if scope == "process":
            counted = [self._counts.own(instance) for instance in self._instances]
        store = await self._health.store()
        redis = {"connected": store.connected, "latencyMs": round(store.latency_ms, 3), "reason": store.reason}
        told = {
            "scope": scope,
            **figures(counted),
            "redis": redis | dict(self._store_facts()),
            "circuitBreaker": dict(self._breaker_facts()),
            "l1": dict(self._l1_facts()),
            "events": dict(await self._event_facts()) if store.connected else {},
        }
        return json_reply(told)

    async def entries(self, request: Request, body: bytes) -> Response:
        """What is kept, of one account or all, narrowed to an entity and an operation; or, with `key`, why one entry
        is, or is no longer, an answer."""
        query = query_of(request.query_params.multi_items(), ("instance", "entity", "operation", "limit", "key"))
        if "key" in query:
            return await self._explained(query, self._call(request))
        entity, operation = one_of(query, "entity", ENTITIES), one_of(query, "operation", OPERATIONS)
        limit = limit_of(query)
        call = self._call(request)
        rows: list[Mapping[str, Any]] = []
        for instance in self._chosen(query):
            if len(rows) < limit:
                rows += await self._entries(
                    instance, entity=entity, operation=operation, limit=limit - len(rows), call=call
                )
        return json_reply({"entries": rows, "count": len(rows)})

    async def _explained(self, query: Mapping[str, str], call: Call) -> Response:
        for name in query:
            if name not in ("key", "instance"):
                raise InvalidInput("A key names one entry, so it goes with nothing else.", field=name)
        key = CacheKey.parse(query["key"])
        if key is None or key.tenant not in self._chosen(query):
            raise InvalidInput("It must be an entry's whole key, as /cache/entries shows it.", field="key")
        told = await self._explain(key.tenant, key.text, call)
        if told is None:
            raise EntryNotFound
        return json_reply({"entry": told})

    async def clear(self, request: Request, body: bytes) -> Response:
        """Everything of one account or all is invalid; n = accounts whose epoch was renewed."""
        query_of(request.query_params.multi_items(), ())
        asked = json_object(body) if body else {}
        for name in asked:
            if name != "instance":
                raise InvalidInput("Unknown field; known: instance.", field=name[:60])
        chosen = self._chosen(asked)
        call = self._call(request)
        await _for_each(chosen, lambda one: self._invalidations.renew_epoch(one, call, reason="admin"))
        self._log.info("Cache cleared", source="admin", instances=list(chosen), request_id=call.request_id)
        return json_reply({"status": "ok", "cleared": len(chosen)})

    async def invalidate(self, request: Request, body: bytes) -> Response:
        """n = tags bumped over all accounts, or entries deleted where that had to scan."""
        query_of(request.query_params.multi_items(), ())  # an account named there would be passed over in silence
        target = target_of(json_object(body), self._instances)
        call = self._call(request)
        counts = await _for_each(target.instances, lambda one: self._invalidated(one, target, call))
        self._log.info(
            "Cache invalidated",
            event_name=_EVENT,
            resource=target.resource,
            id=target.resource_id,
            tags=list(target.work.tags) if isinstance(target.work, Tags) else [],
            source="admin",
            instances=list(target.instances),
            request_id=call.request_id,
        )
        told = {"status": "ok", "invalidated": sum(counts), "instances": list(target.instances)}
        return json_reply(told)

    async def invalidations(self, request: Request, body: bytes) -> Response:
        """What was invalidated of late, newest first."""
        query = query_of(request.query_params.multi_items(), ("limit", "since", "instance"))
        limit, since = limit_of(query), since_of(query)
        call = self._call(request)
        rows: list[dict[str, Any]] = []
        for instance in self._chosen(query):
            recent = await self._invalidations.recent(instance, limit=limit, since=since, call=call)
            rows += [{**row, "instance": instance} for row in recent]
        rows.sort(key=lambda row: str(row["at"]), reverse=True)
        return json_reply({"invalidations": rows[:limit]})

    async def invalidation_stats(self, request: Request, body: bytes) -> Response:
        """Rates per hour by entity and source, for each account."""
        query = query_of(request.query_params.multi_items(), ("instance",))
        call = self._call(request)
        rates = {
            instance: await self._invalidations.rates(instance, hours=_RATE_HOURS, call=call)
            for instance in self._chosen(query)
        }
        return json_reply({"hours": _RATE_HOURS, "instances": rates})

    async def _invalidated(self, instance: str, target: Target, call: Call) -> int:
        notice = Notice(
            event=_EVENT,
            resource=target.resource,
            resource_id=target.resource_id,
            source="admin",
            received_at=self._clock.now(),
            event_id=self._ids(),
        )
        work = target.work
        if isinstance(work, Tags):
            return (await self._invalidations.append_and_bump(instance, work.tags, notice, call)).bumped
        return await self._invalidations.invalidate_pattern(instance, pattern=work.pattern, notice=notice, call=call)

    def _chosen(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        instance = one_of(given, "instance", self._instances)
        return self._instances if instance is None else (instance,)

    def _call(self, request: Request) -> Call:
        return Call.begin(self._clock, request_id_of(request))


_EVENT = "admin.invalidate"


async def _for_each(instances: Sequence[str], act: Callable[[str], Awaitable[T]]) -> list[T]:
    """`act` for every account, also after one of them failed: the others' invalidations must not be lost.

    Raises:
        CacheUnavailable: the first failure, once all have been tried.
    """
    done: list[T] = []
    failed: CacheUnavailable | None = None
    for instance in instances:
        try:
            done.append(await act(instance))
        except CacheUnavailable as away:
            failed = failed or away
    if failed is not None:
        raise failed
    return done
