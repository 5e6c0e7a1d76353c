"""The composition root: builds every driver, wires the two roads, opens and closes in order. Nothing else does."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import structlog
from pydantic import SecretStr
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp import __version__
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.ports import Store, StoreHealth
from jobnimbus_mcp.cache.read_through import ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.doctor import Probes
from jobnimbus_mcp.doctor_redis import store_facts
from jobnimbus_mcp.errors import CacheUnavailable, SettingsError
from jobnimbus_mcp.events.intake import Intake, WebhooksSeen
from jobnimbus_mcp.events.ports import Appended, Event
from jobnimbus_mcp.events.signature import WebhookSecrets
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.logging import configure
from jobnimbus_mcp.telemetry.metrics_prometheus import PrometheusRecorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.account import get_webhooks_of
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.registry import Toolbox, read_tools
from jobnimbus_mcp.tools.server_mcp import McpFace
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.budget_redis import RedisBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.ports import RequestBudget
from jobnimbus_mcp.upstream.sender_http import HttpSender
from jobnimbus_mcp.web.ports import Part
from jobnimbus_mcp.web.routes import WebParts, create_app
from jobnimbus_mcp.web.stats import SharedCounts

__all__ = ["App", "Overrides", "build", "doctor_probes", "from_environment", "run_stdio"]

MAX_BODY_BYTES = 1_048_576
"""The largest request body; a webhook's record is a few kilobytes, a tool call less."""

BREAKER_WINDOW_S = 120.0
"""Store failures older than this are forgotten: five in two minutes are an outage, five in a week are not."""

EMBEDDED_L2_FACTOR = 2
"""The embedded store may hold this many times L1: compressed, that is several times what L1 can."""

MEMO_SHARE = 4
"""One part in so many of L1_MAX_MB remembers finished answers, the rest what they are made of."""

TALLY_EVERY_S = 1.0
"""How often this process hands its counts to the shared sums; a crash loses no more than this."""

REDIS_CONNECTIONS = 40
IN_FLIGHT = 32
"""Commands sent at once; fewer than connections, so that the budget and health never wait for one."""


@dataclass(frozen=True)
class Overrides:
    """What tests and the demo put in place of the real thing."""

    clock: Clock | None = None
    store: Store | None = None
    upstream_transport: httpx.AsyncBaseTransport | None = None
    random01: Callable[[], float] | None = None


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
    cache: ReadThrough
    store: GuardedStore
    invalidator: Invalidator
    client: JobNimbusClient
    tally: Tally
    recorder: PrometheusRecorder
    _stack: Callable[[], Any] = field(repr=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Open background work; close it, the caches and the connections in reverse order."""
        async with self._stack():
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

    # the store, and what guards it
    redis_client = connect(_revealed(settings.store_url) or "", **_pool(settings)) if settings.store_url else None
    if given.store is not None:
        raw_store: Store = given.store
    elif redis_client is not None:
        raw_store = RedisStore(redis_client)
    else:
        raw_store = MemoryStore(clock, max_bytes=max(1, settings.l1_max_mb) * EMBEDDED_L2_FACTOR * 1024 * 1024)
    breaker = BreakerBox(
        BreakerPolicy(
            window_s=BREAKER_WINDOW_S,
            open_s=settings.cache_circuit_reset_timeout_ms / 1000,
            failures=settings.cache_circuit_failure_threshold,
        ),
        clock,
        lambda state: recorder.gauge("breaker_state", _LEVELS[state], breaker="store"),
    )
    command_timeout_s = settings.redis_command_timeout_ms / 1000
    store = GuardedStore(raw_store, breaker, clock, command_timeout_s, recorder, max_in_flight=IN_FLIGHT)
    memo_bytes = settings.l1_max_mb * 1024 * 1024 // MEMO_SHARE
    l1 = L1(settings.l1_max_mb * 1024 * 1024 - memo_bytes)
    cache = ReadThrough(
        store,
        l1,
        clock=clock,
        random01=random01,
        recorder=recorder,
        compress=settings.cache_compression_enabled,
        admission_s=settings.credential_recheck_s,
        enabled=settings.cache_enabled,
    )
    invalidator = Invalidator(store, clock=clock, recorder=recorder)
    counts = SharedCounts(tally, store)

    # the way to JobNimbus
    budget: RequestBudget = LocalBudget(settings.jobnimbus_max_requests_per_s, instances, clock)
    if redis_client is not None:
        assert isinstance(budget, LocalBudget)
        budget = RedisBudget(
            redis_client,
            budget,
            rate_per_s=settings.jobnimbus_max_requests_per_s,
            clock=clock,
            recorder=recorder,
            command_timeout_s=command_timeout_s,
        )
    concurrent = settings.jobnimbus_max_concurrent
    sender = HttpSender(
        settings.jobnimbus_api_base_url,
        max_connections=concurrent * len(instances) if concurrent else None,
        transport=given.upstream_transport,
    )
    breakers = upstream_breakers(instances, clock, recorder)
    client = JobNimbusClient(
        sender=sender,
        budget=budget,
        breakers=breakers,
        clock=clock,
        random01=random01,
        recorder=recorder,
        on_call=lambda instance, entity: tally.add(instance, "upstreamCalls", entity=entity.value),
        max_concurrent=concurrent,
    )

    # who asks, and what they may ask
    partitions = Partitions(_revealed(settings.partition_secret), settings.jobnimbus_shared_partitions)
    identities = Identities(instances, _all_revealed(settings.api_keys), partitions)
    secrets = WebhookSecrets(
        shared=_some(settings.webhook_secret),
        per_instance=_all_revealed(settings.webhook_secrets),
        signing=_some(settings.webhook_signing_secret),
    )

    def hears_of_changes(instance: str) -> bool:
        return bool(secrets.shared or secrets.signing or instance in secrets.per_instance)

    def consistency_of(instance: str) -> str:
        return settings.cache_consistency if hears_of_changes(instance) else "ttl"

    gateway = Gateway(
        cache,
        client,
        Policies(settings.ttl_overrides, max_bytes=settings.cache_max_item_size_kb * 1024),
        tally,
        consistency_of,
    )
    seen = WebhooksSeen()

    async def received(instance: str) -> Mapping[str, Mapping[str, Any]]:
        return await _received(invalidator, seen, instance, clock)

    toolbox = Toolbox(
        read_tools(get_webhooks_of(_public_url(settings), hears_of_changes, received)),
        gateway,
        clock,
        settings.account_timezone,
        settings.answer_max_bytes,
        tally,
        recorder,
        log,
        AnswerMemo(memo_bytes),
    )
    face = McpFace(toolbox, identities, clock, version=__version__, request_id_of=_request_id_of)

    # the way in for changes
    async def append_and_bump(event: Event, call: Call) -> Appended:
        notice = Notice(
            event=event.name,
            resource=event.change.ref.entity.value,
            resource_id=event.change.ref.jnid,
            source=event.source,
            received_at=event.received_at,
            event_id=event.event_id,
            dedupe_key=event.dedupe_key,
        )
        applied = await invalidator.append_and_bump(event.instance, event.tags, notice, call)
        tally.add(event.instance, "invalidations", entity=notice.resource)
        return Appended(applied.event_id, applied.duplicate, applied.latency_ms)

    intake = Intake(
        append_and_bump,
        secrets=secrets,
        instances=instances,
        clock=clock,
        ids=_new_id,
        recorder=recorder,
        log=log,
        seen=seen,
    )

    async def probe_store() -> StoreHealth:
        if not settings.cache_enabled:
            return StoreHealth(False, store.circuit_state, 0.0, "disabled")
        return await store.health()

    async def readiness() -> Mapping[str, Part]:
        health = await probe_store()
        parts = {
            "store": Part("off", reason="disabled")
            if health.reason == "disabled"
            else Part("up" if health.reason is None else "down", reason=health.reason)
        }
        for instance in instances:
            is_open = breakers[instance].state is State.OPEN
            parts[f"jobnimbus:{instance}"] = Part("down", reason="circuit_open") if is_open else Part("up")
        parts["webhooks"] = Part("up") if secrets.any else Part("off", reason="no_secret")
        return parts

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if redis_client is not None:
                stack.push_async_callback(redis_client.aclose)
            stack.push_async_callback(sender.aclose)
            await stack.enter_async_context(store)
            stack.push_async_callback(cache.aclose)
            await stack.enter_async_context(_flushing(counts, clock))
            if settings.store_url is None:
                log.info("store is embedded", note="kept in this process; set REDIS_URL to share and keep it")
            # what exists now stays for the life of the process: the collector need not look at it again
            gc.collect()
            gc.freeze()
            yield

    http_app = face.http_app(max_body_bytes=MAX_BODY_BYTES)
    parts = WebParts(
        clock=clock,
        ids=_new_id,
        recorder=recorder,
        log=log,
        version=__version__,
        instances=instances,
        allowed_hosts=settings.allowed_hosts,
        mcp_tokens=tuple(token.get_secret_value() for token in settings.mcp_auth_tokens),
        admin_token=_revealed(settings.admin_token),
        access_log=settings.access_log,
        tools=toolbox,
        identities=identities,
        intake=intake,
        invalidations=_Counting(invalidator, tally),
        entries=cache.entries,
        counts=counts,
        probe_store=probe_store,
        circuit_state=lambda: store.circuit_state,
        store_facts=lambda: {"kind": "redis" if settings.store_url else "embedded", "address": settings.store_address},
        breaker_facts=lambda: {
            "state": store.circuit_state,
            "owedInvalidations": list(store.indebted),
            "upstream": {instance: box.state.value for instance, box in breakers.items()},
        },
        l1_facts=cache.l1_stats,
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
        cache=cache,
        store=store,
        invalidator=invalidator,
        client=client,
        tally=tally,
        recorder=recorder,
        _stack=opened,
    )


def from_environment() -> ASGIApp:
    """The ASGI app of one worker: settings from the environment and `.env`, logging configured."""
    settings = Settings.from_env(os.environ, env_file=".env")
    configure(settings.log_level, settings.log_format, secrets=settings.secret_values())
    return build(settings).asgi


async def run_stdio(settings: Settings) -> None:
    """Serve MCP on stdin and stdout until the client hangs up.

    Raises:
        SettingsError: several accounts, or no key: a stdio client can name neither.
    """
    if len(settings.instances) > 1:
        raise SettingsError("JOBNIMBUS_INSTANCES: stdio serves one account; name that one alone")
    if not settings.holds_api_key:
        raise SettingsError("JOBNIMBUS_API_KEY: stdio needs the account's key from the environment")
    app = build(settings)
    async with app.running():
        await app.mcp.run_stdio()


@asynccontextmanager
async def doctor_probes(settings: Settings) -> AsyncIterator[Probes]:
    """What doctor asks, over the same parts that serve."""
    app = build(settings)

    async def check_key(instance: str) -> None:
        caller = app.identities.identify(None, instance)
        call = Call.begin(app.clock, _new_id(), tool="doctor")
        await app.client.check_credential(instance=instance, credential=caller.credential, call=call)

    def digest(instance: str) -> str:
        return app.partitions.digest(instance, settings.api_keys[instance].get_secret_value())

    async def last_webhook_age_s(instance: str) -> float | None:
        call = Call.begin(app.clock, _new_id(), tool="doctor")
        rows = await app.invalidator.recent(instance, limit=1_000, since=None, call=call)
        newest = next((row for row in rows if row["source"] == "webhook"), None)
        return None if newest is None else app.clock.now() - _epoch(newest["at"])

    async with app.running():
        yield Probes(
            store=lambda: store_facts(_revealed(settings.store_url) or ""),
            check_key=check_key,
            digest=digest,
            last_webhook_age_s=last_webhook_age_s,
        )


class _Counting:
    """The admin's invalidations, counted like those of webhooks."""

    def __init__(self, invalidator: Invalidator, tally: Tally) -> None:
        self._invalidator = invalidator
        self._tally = tally
        self.renew_epoch = invalidator.renew_epoch
        self.recent = invalidator.recent
        self.rates = invalidator.rates

    async def append_and_bump(self, tenant: str, tags: Any, notice: Notice, call: Call) -> Any:
        applied = await self._invalidator.append_and_bump(tenant, tags, notice, call)
        self._tally.add(tenant, "invalidations")
        return applied

    async def invalidate_pattern(self, tenant: str, **what: Any) -> int:
        deleted = await self._invalidator.invalidate_pattern(tenant, **what)
        self._tally.add(tenant, "invalidations")
        return deleted


_LEVELS = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


@asynccontextmanager
async def _flushing(counts: SharedCounts, clock: Clock) -> AsyncIterator[None]:
    """Hand the tally over now and then, and once more at the end; while the store is away it is kept."""

    async def flush() -> None:
        try:
            await counts.flush()
        except CacheUnavailable:
            return  # counted by the store's guard; the counts wait for the next time

    async def for_ever() -> None:
        while True:
            await clock.sleep(TALLY_EVERY_S)
            await flush()

    task = asyncio.get_running_loop().create_task(for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await flush()


async def _received(
    invalidator: Invalidator, seen: WebhooksSeen, instance: str, clock: Clock
) -> Mapping[str, Mapping[str, Any]]:
    """What has arrived at all replicas as the shared log has it; while that is away, at this process."""
    call = Call.begin(clock, _new_id(), tool="get_webhooks")
    try:
        rows = await invalidator.recent(instance, limit=1_000, since=None, call=call)
    except CacheUnavailable:
        return {
            resource: {"count": told["count"], "last_at": rfc3339(told["last_at"])}
            for resource, told in seen.seen(instance).items()
        }
    arrived = [row for row in rows if row["source"] == "webhook"]
    counted = Counter(row["resource"] for row in arrived)
    last = {row["resource"]: row["at"] for row in reversed(arrived)}
    return {resource: {"count": n, "last_at": last[resource]} for resource, n in counted.items()}


def _public_url(settings: Settings) -> str:
    """Where JobNimbus would reach this server, as far as the settings tell."""
    outside = [host for host in settings.allowed_hosts if host not in ("localhost", "127.0.0.1", "[::1]")]
    return f"https://{outside[0]}" if outside else "https://<YOUR-HOST>"


def _pool(settings: Settings) -> dict[str, Any]:
    return {
        "max_connections": REDIS_CONNECTIONS,
        "connect_timeout_s": settings.redis_connection_timeout_ms / 1000,
    }


def _request_id_of(scope: Mapping[str, Any] | None) -> str:
    """The id the front gave an HTTP request; a new one on stdio."""
    if scope is not None:
        state = scope.get("state")
        if isinstance(state, Mapping) and isinstance(state.get("request_id"), str):
            return str(state["request_id"])
    return _new_id()


def _new_id() -> str:
    return uuid.uuid4().hex


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _some(secret: SecretStr | None) -> tuple[str, ...]:
    return () if secret is None else (secret.get_secret_value(),)


def _all_revealed(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in secrets.items()}
