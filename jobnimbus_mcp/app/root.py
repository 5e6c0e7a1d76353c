"""Everything wired: settings in, the server out. The only place that knows all parts."""

from __future__ import annotations

import asyncio
import gc
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import structlog
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp import __version__
from jobnimbus_mcp.app.accounts import Accounts
from jobnimbus_mcp.app.changes import AppendAndBump, CountedInvalidations, received
from jobnimbus_mcp.app.consuming import consumers_of, heat_of, watch
from jobnimbus_mcp.app.doors import build_doors
from jobnimbus_mcp.app.events import Events, EventSide, build_logs
from jobnimbus_mcp.app.freshness import adaptive_lifetimes, modes_of, policies_of, refreshing
from jobnimbus_mcp.app.secrets import all_revealed, revealed, some
from jobnimbus_mcp.app.store import StoreParts, build_store
from jobnimbus_mcp.app.toolset import build_toolbox
from jobnimbus_mcp.app.writing import WriteTeller, receipts_of
from jobnimbus_mcp.cache.ports import Store, StoreHealth
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.consumers.rounds import server_callers
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.intake import Intake, WebhooksSeen
from jobnimbus_mcp.events.signature import WebhookSecrets
from jobnimbus_mcp.gateway.changes_poll import ChangesPoll
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.gateway.policies import early_beta
from jobnimbus_mcp.gateway.reads import LIFETIME_ONLY, Gateway
from jobnimbus_mcp.gateway.reuse import Reuse
from jobnimbus_mcp.gateway.writing import Writes
from jobnimbus_mcp.resilience.breaker import State
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.metrics_prometheus import PrometheusRecorder
from jobnimbus_mcp.telemetry.recorder import NullRecorder, Recorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.account import get_webhooks_of
from jobnimbus_mcp.tools.extras_mcp import Extras
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.server_mcp import McpFace
from jobnimbus_mcp.tools.toolbox import Toolbox
from jobnimbus_mcp.upstream.budget_by_account import BudgetByAccount
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.budget_redis import RedisBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.ports import RequestBudget
from jobnimbus_mcp.upstream.sender_http import HttpSender
from jobnimbus_mcp.web.ports import Part
from jobnimbus_mcp.web.routes import WebParts, create_app

__all__ = ["App", "Overrides", "build", "new_id"]

_FACTS_WITHIN_S = 0.5

MAX_BODY_BYTES = 1_048_576
"""The largest request body; a webhook's record is a few kilobytes, a tool call less."""


@dataclass(frozen=True)
class Overrides:
    """What tests and the demo put in place of the real thing.

    `freeze_heap`: for a process that serves for long: what was built at its start is left out of garbage collection.
    `background` False: for a process that only asks: nothing is healed, followed, counted or taken from the journal.
    `handled` False: events are not acted on, unless `App.event_side` is told to.
    `extras`: what MCP clients are offered besides.
    """

    clock: Clock | None = None
    store: Store | None = None
    upstream_transport: httpx.AsyncBaseTransport | None = None
    issuer_transport: httpx.AsyncBaseTransport | None = None
    random01: Callable[[], float] | None = None
    freeze_heap: bool = False
    background: bool = True
    handled: bool = True
    extras: Extras | None = None


@dataclass
class App:
    """Everything built, nothing opened: `running()` opens and closes it; `asgi` does so through its lifespan."""

    settings: Settings
    clock: Clock
    asgi: ASGIApp
    mcp: McpFace
    toolbox: Toolbox
    identities: Identities
    partitions: Partitions
    accounts: Accounts
    client: JobNimbusClient
    tally: Tally
    recorder: PrometheusRecorder
    events: Events
    event_side: EventSide
    _opened: Callable[[], AbstractAsyncContextManager[None]] = field(repr=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Open background work; close it, the caches and the connections in reverse order."""
        async with self._opened():
            yield self


def build(settings: Settings, overrides: Overrides | None = None) -> App:
    """The whole server from its settings.

    Raises:
        SettingsError: settings that only show to be wrong together.
    """
    given = overrides or Overrides()
    clock = given.clock or SystemClock()
    random01 = given.random01 or random.Random().random
    log: FilteringBoundLogger = structlog.get_logger()
    recorder = PrometheusRecorder()
    tally = Tally()
    instances = settings.instances

    budgets: dict[str, RequestBudget] = {}
    side = build_store(
        settings,
        StoreParts(
            clock=clock,
            random01=random01,
            recorder=recorder,
            modes=modes_of(settings),
            early_beta=lambda instance: early_beta(budgets[instance].share_left(instance)),
        ),
        instead=given.store,
        tally=tally,
    )
    accounts = side.accounts
    budgets |= _budgets(settings, accounts, clock, recorder)
    budget = BudgetByAccount(budgets)
    side_of_events = build_logs(settings, accounts, clock=clock, random01=random01, recorder=recorder, told=log)
    events = side_of_events.events

    sender = _sender(settings, given.upstream_transport)
    breakers = upstream_breakers(instances, clock, recorder)
    client = JobNimbusClient(
        sender=sender,
        budget=budget,
        breakers=breakers,
        clock=clock,
        random01=random01,
        recorder=recorder,
        on_call=lambda instance, entity: tally.add(instance, "upstreamCalls", entity=entity.value),
        max_concurrent=settings.jobnimbus_max_concurrent,
        trusted=all_revealed(settings.api_keys).items(),
    )

    # who asks, and what they may ask
    partitions = Partitions(revealed(settings.partition_secret), settings.jobnimbus_shared_partitions)
    identities = Identities(instances, all_revealed(settings.api_keys), partitions)
    secrets = WebhookSecrets(
        shared=some(settings.webhook_secret),
        per_instance=all_revealed(settings.webhook_secrets),
        signing=some(settings.webhook_signing_secret),
    )

    def consistency_of(instance: str) -> str:
        told_of_changes = settings.takes_webhooks(instance) or settings.catches_up(instance)
        return settings.cache_consistency.value if told_of_changes else LIFETIME_ONLY

    adaptive = adaptive_lifetimes(settings, accounts, clock, settings.takes_webhooks)
    policies = policies_of(settings, adaptive)
    heat = heat_of(accounts, clock, recorder)
    callers = server_callers(identities)
    reuse = Reuse(accounts, clock, recorder)
    gateway = Gateway(
        accounts,
        client,
        policies,
        tally,
        consistency_of,
        reuse=reuse,
        noted=heat.note,
        own_partitions={instance: caller.partition for instance, caller in callers.items()},
    )
    seen = WebhooksSeen()

    async def arrived(instance: str) -> Mapping[str, Mapping[str, Any]]:
        return await received(accounts, seen, instance, clock, new_id())

    append = AppendAndBump(accounts, side_of_events.ways, side_of_events.routes_of, tally=tally, recorder=recorder)
    receipts = receipts_of(accounts, clock, new_id)
    writes = Writes(
        client,
        gateway,
        receipts,
        WriteTeller(append, event_id=side_of_events.event_id, clock=clock),
        clock=clock,
        recorder=recorder,
        log=log,
        settle_s=settings.index_settle_s,
    )
    toolbox = build_toolbox(
        settings,
        gateway=gateway,
        writes=writes,
        rows_kept=receipts,
        files=client,
        get_webhooks=get_webhooks_of(_public_url(settings), settings.takes_webhooks, arrived),
        clock=clock,
        tally=tally,
        recorder=recorder,
        log=log,
        memo=AnswerMemo(side.memo_bytes),
    )
    # warming runs tools too: neither counted as anybody's calls nor noted as asked for
    unheard = replace(
        toolbox,
        gateway=Gateway(accounts, client, policies, Tally(), consistency_of, reuse=reuse),
        tally=Tally(),
        recorder=NullRecorder(),
        memo=AnswerMemo(0),
        writer=None,
    )

    async def took_in(event: Event) -> None:
        await append(event, Call.begin(clock, event.event_id))

    side_of_events.took_in = took_in
    consuming = consumers_of(
        settings,
        accounts,
        events,
        gateway=gateway,
        tools=unheard,
        heat=heat,
        callers=callers,
        share_left=budget.share_left,
        clock=clock,
        ids=new_id,
        recorder=recorder,
        log=log,
    )
    side_of_events.consumers += consuming.consumers
    watching = watch(
        settings,
        accounts,
        poll=ChangesPoll(client, identities, budget, clock=clock, ids=new_id),
        tell=append,
        event_id=side_of_events.event_id,
        clock=clock,
        random01=random01,
        recorder=recorder,
        log=log,
    )
    face = McpFace(
        toolbox,
        identities,
        clock,
        version=__version__,
        request_id_of=_request_id_of,
        recheck_s=float(settings.credential_recheck_s),
        extras=given.extras,
    )

    intake = Intake(
        append,
        secrets=secrets,
        instances=instances,
        clock=clock,
        ids=side_of_events.event_id,
        recorder=recorder,
        log=log,
        seen=seen,
        rejected=side_of_events.rejected,
    )

    async def probe_store() -> StoreHealth:
        if not settings.cache_enabled:
            return StoreHealth(False, accounts.circuit_state, 0.0, "disabled")
        return accounts.worst(await asyncio.gather(*(one.store.health() for one in accounts.stores)))

    async def readiness() -> Mapping[str, Part]:
        parts = {one.name: Part("off", reason="disabled") for one in accounts.stores}
        if settings.cache_enabled:
            probed = await asyncio.gather(*(one.store.health() for one in accounts.stores))
            for one, health in zip(accounts.stores, probed, strict=True):
                parts[one.name] = Part("up" if health.reason is None else "down", reason=health.reason)
        for instance in instances:
            is_open = breakers[instance].state is State.OPEN
            parts[f"jobnimbus:{instance}"] = Part("down", reason="circuit_open") if is_open else Part("up")
        in_a_store_that_is_down = [
            tenant
            for one in accounts.stores
            if settings.events_transport == "redis" and parts[one.name].status == "down"
            for tenant in one.tenants
        ]
        asked = [instance for instance in instances if instance not in in_a_store_that_is_down]
        told: dict[str, str | None] = dict.fromkeys(in_a_store_that_is_down, "unreachable")
        told |= dict(zip(asked, await asyncio.gather(*map(events.health, asked)), strict=True))
        for instance, reason in told.items():
            parts[f"events:{instance}"] = Part("up" if reason is None else "down", reason=reason)
        parts["webhooks"] = Part("up") if secrets.any else Part("off", reason="no_secret")
        return parts

    async def event_facts() -> Mapping[str, Any]:
        told: dict[str, Any] = {}
        for instance in instances:
            try:
                async with asyncio.timeout(_FACTS_WITHIN_S):
                    told[instance] = {"consumers": await events.facts(instance), **await watching.facts(instance)}
            except (CacheUnavailable, TimeoutError):
                told[instance] = {"reason": "unreachable"}
        return told

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        try:
            if not given.background:
                async with side.connected():
                    yield
                return
            stop_hearing = events.listen(lambda _, uri: face.resource_updated(uri))
            async with (
                side.opened(),
                refreshing(adaptive),
                consuming.running(),
                side_of_events.opened(handled=given.handled),
                watching.running(),
                writes.running(),
            ):
                if any(one.redis is None for one in accounts.stores):
                    log.info("store is embedded", note="kept in this process; set REDIS_URL to share and keep it")
                if given.freeze_heap:
                    gc.collect()
                    gc.freeze()
                yield
            stop_hearing()
        finally:
            await doors.aclose()
            await sender.aclose()

    doors = build_doors(settings, accounts, clock=clock, recorder=recorder, log=log, transport=given.issuer_transport)
    http_app = face.http_app(max_body_bytes=MAX_BODY_BYTES)
    parts = WebParts(
        clock=clock,
        ids=new_id,
        recorder=recorder,
        log=log,
        version=__version__,
        instances=instances,
        allowed_hosts=settings.allowed_hosts,
        mcp_tokens=tuple(token.get_secret_value() for token in settings.mcp_auth_tokens),
        clients=doors.clients,
        oauth=doors.oauth,
        caller_rate=doors.rate,
        requests_per_minute=settings.caller_max_requests_per_minute,
        admin_token=revealed(settings.admin_token),
        access_log=settings.access_log,
        tools=toolbox,
        identities=identities,
        intake=intake,
        invalidations=CountedInvalidations(accounts, tally, append, side_of_events.event_id),
        events=events,
        warm=consuming.warming.start,
        entries=accounts.entries,
        explain=accounts.explain,
        counts=side.counts,
        probe_store=probe_store,
        circuit_state=lambda: accounts.circuit_state,
        store_facts=lambda: _store_facts(accounts),
        breaker_facts=lambda: {
            "state": accounts.circuit_state,
            "stores": {one.name: one.store.circuit_state for one in accounts.stores},
            "owedInvalidations": list(accounts.indebted),
            "upstream": {instance: box.state.value for instance, box in breakers.items()},
        },
        l1_facts=accounts.l1_stats,
        event_facts=event_facts,
        readiness=readiness,
        exposition=recorder.exposition,
        mcp_app=http_app,
        lifespans=(opened, face.http_running),
    )
    return App(
        settings=settings,
        clock=clock,
        asgi=create_app(parts),
        mcp=face,
        toolbox=toolbox,
        identities=identities,
        partitions=partitions,
        accounts=accounts,
        client=client,
        tally=tally,
        recorder=recorder,
        events=events,
        event_side=side_of_events,
        _opened=opened,
    )


def _sender(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> HttpSender:
    concurrent = settings.jobnimbus_max_concurrent
    return HttpSender(
        settings.jobnimbus_api_base_url,
        max_connections=concurrent * len(settings.instances) if concurrent else None,
        upload_base_url=settings.jobnimbus_upload_base_url,
        file_hosts=settings.jobnimbus_files_hosts,
        transport=transport,
    )


def _budgets(settings: Settings, accounts: Accounts, clock: Clock, recorder: Recorder) -> Mapping[str, RequestBudget]:
    """Every account's, shared through its Redis where there is one."""
    rate_per_s = settings.jobnimbus_max_requests_per_s
    local = LocalBudget(rate_per_s, settings.instances, clock)
    found: dict[str, RequestBudget] = {}
    for one in accounts.stores:
        budget: RequestBudget = local
        if one.redis is not None:
            budget = RedisBudget(
                one.redis,
                local,
                rate_per_s=rate_per_s,
                clock=clock,
                recorder=recorder,
                command_timeout_s=settings.redis_command_timeout_ms / 1000,
            )
        found |= dict.fromkeys(one.tenants, budget)
    return found


def _store_facts(accounts: Accounts) -> Mapping[str, Any]:
    """Kind and address; of several stores the first's, and all of them by name."""
    told = [
        {"kind": "embedded" if one.redis is None else "redis", "address": one.address, "instances": list(one.tenants)}
        for one in accounts.stores
    ]
    facts: dict[str, Any] = {"kind": told[0]["kind"], "address": told[0]["address"]}
    if len(told) > 1:
        facts["stores"] = dict(zip((one.name for one in accounts.stores), told, strict=True))
    return facts


def _public_url(settings: Settings) -> str:
    """Where JobNimbus would reach this server, as far as the settings tell."""
    outside = [host for host in settings.allowed_hosts if host not in ("localhost", "127.0.0.1", "[::1]")]
    return f"https://{outside[0]}" if outside else "https://<YOUR-HOST>"


def _request_id_of(scope: Mapping[str, Any] | None) -> str:
    """The id the front gave an HTTP request; a new one on stdio."""
    if scope is not None:
        state = scope.get("state")
        if isinstance(state, Mapping) and isinstance(state.get("request_id"), str):
            return str(state["request_id"])
    return new_id()


def new_id() -> str:
    """An id for a request or an event: never the same twice."""
    return uuid.uuid4().hex
