"""The table of paths, and the app made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.gateway.caller_rate import CallerRate, LocalCallerRate
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.auth import AdminOnly, Anyone, CallersOnly
from jobnimbus_mcp.web.cache_admin import CacheAdmin
from jobnimbus_mcp.web.clients import Client
from jobnimbus_mcp.web.endpoint import Endpoint, McpEndpoint
from jobnimbus_mcp.web.events_admin import EventsAdmin
from jobnimbus_mcp.web.health import Health
from jobnimbus_mcp.web.hosts import AllowedHosts
from jobnimbus_mcp.web.limits import Limits
from jobnimbus_mcp.web.middleware import Front
from jobnimbus_mcp.web.ports import (
    Counts,
    Entries,
    Events,
    Explain,
    Identify,
    Invalidations,
    ProbeStore,
    Readiness,
    Receiver,
    ToolCaller,
    Warm,
)
from jobnimbus_mcp.web.resource_server import ResourceServer
from jobnimbus_mcp.web.tools_http import ToolsOverHttp
from jobnimbus_mcp.web.webhooks import Webhooks

__all__ = ["WebParts", "create_app"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """Everything the routes are made of.

    `ids` makes request ids and event ids: 8 to 128 of `[A-Za-z0-9._-]`, never the same twice. `mcp_app` gets requests
    for /mcp with their path unchanged, and with the caller's `Access` as "access" in their state. `mcp_tokens`: each
    opens everything; `clients`: those that open less; `oauth`: who knows an issuer's; with none of these, everybody may
    call.
    `requests_per_minute`: of each caller whose token has no number of its own, counted by `caller_rate`, None: within
    this process; 0: no limit. `lifespans` are entered in order when the server starts, left in reverse.
    `exposition` gives the text of /metrics and its content type.
    """

    clock: Clock
    ids: Callable[[], str]
    recorder: Recorder
    log: FilteringBoundLogger
    version: str
    instances: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    mcp_tokens: tuple[str, ...] = field(default=(), repr=False)
    clients: tuple[Client, ...] = ()
    oauth: ResourceServer | None = None
    caller_rate: CallerRate | None = None
    requests_per_minute: int = 0
    admin_token: str | None = field(default=None, repr=False)
    access_log: bool = False
    tools: ToolCaller
    identities: Identify
    intake: Receiver
    invalidations: Invalidations
    entries: Entries
    explain: Explain
    events: Events
    warm: Warm
    counts: Counts
    probe_store: ProbeStore
    circuit_state: Callable[[], str]
    store_facts: Callable[[], Mapping[str, Any]]
    breaker_facts: Callable[[], Mapping[str, Any]]
    l1_facts: Callable[[], Mapping[str, Any]]
    event_facts: Callable[[], Awaitable[Mapping[str, Any]]]
    readiness: Readiness
    exposition: Callable[[], tuple[bytes, str]]
    mcp_app: ASGIApp
    lifespans: tuple[Callable[[], AbstractAsyncContextManager[Any]], ...] = ()


def create_app(parts: WebParts) -> ASGIApp:
    """The whole of HTTP as one ASGI app, its lifespan that of the parts."""
    anyone, admin = Anyone(), AdminOnly(parts.admin_token)
    callers = CallersOnly((*map(Client.unnamed, parts.mcp_tokens), *parts.clients), parts.recorder, issued=parts.oauth)
    limits = Limits(
        parts.caller_rate or LocalCallerRate(parts.clock),
        parts.identities,
        per_minute=parts.requests_per_minute,
        recorder=parts.recorder,
    )
    tools = ToolsOverHttp(parts.tools, parts.identities, parts.clock)
    webhooks = Webhooks(parts.intake, parts.clock)
    health = Health(
        probe_store=parts.probe_store,
        circuit_state=parts.circuit_state,
        readiness=parts.readiness,
        version=parts.version,
        clock=parts.clock,
        log=parts.log,
    )
    cache = CacheAdmin(
        instances=parts.instances,
        invalidations=parts.invalidations,
        entries=parts.entries,
        explain=parts.explain,
        counts=parts.counts,
        health=health,
        store_facts=parts.store_facts,
        breaker_facts=parts.breaker_facts,
        l1_facts=parts.l1_facts,
        event_facts=parts.event_facts,
        ids=parts.ids,
        clock=parts.clock,
        log=parts.log,
    )

    events = EventsAdmin(instances=parts.instances, events=parts.events, warm=parts.warm, log=parts.log)

    async def metrics(request: Request, body: bytes) -> Response:
        text, content_type = parts.exposition()
        return Response(text, headers={"content-type": content_type})

    get, post = ["GET"], ["POST"]
    routes = [
        # no sessions are kept, so there is nothing to listen to by GET and nothing to end by DELETE
        Route("/mcp", McpEndpoint(parts.mcp_app, callers, limits), methods=post),
        Route("/mcp/tools/call", Endpoint(tools.call, callers, limits), methods=post),
        Route("/mcp/tools/list", Endpoint(tools.listing, callers, limits), methods=post),
        Route("/webhooks/jobnimbus", Endpoint(webhooks.receive, anyone), methods=post),
        Route("/health", Endpoint(health.health, anyone), methods=get),
        Route("/ready", Endpoint(health.ready, anyone), methods=get),
        Route("/cache/health", Endpoint(health.cache_health, anyone), methods=get),
        Route("/metrics", Endpoint(metrics, admin), methods=get),
        Route("/cache/stats", Endpoint(cache.stats, admin), methods=get),
        Route("/cache/entries", Endpoint(cache.entries, admin), methods=get),
        Route("/cache/clear", Endpoint(cache.clear, admin), methods=post),
        Route("/cache/invalidate", Endpoint(cache.invalidate, admin), methods=["POST", "DELETE"]),
        Route("/cache/invalidations", Endpoint(cache.invalidations, admin), methods=get),
        Route("/cache/events", Endpoint(events.listing, admin), methods=get),
        Route("/cache/events/{event_id}", Endpoint(events.one, admin), methods=get),
        Route("/cache/warming", Endpoint(events.warming, admin), methods=post),
        Route("/cache/invalidations/stats", Endpoint(cache.invalidation_stats, admin), methods=get),
    ]
    if parts.oauth is not None:
        told = Endpoint(parts.oauth.metadata, anyone)
        routes += [Route(path, told, methods=get) for path in parts.oauth.metadata_paths]
    return Front(
        Router(routes, redirect_slashes=False, lifespan=_lifespan_of(parts)),
        hosts=AllowedHosts(parts.allowed_hosts),
        ids=parts.ids,
        clock=parts.clock,
        recorder=parts.recorder,
        log=parts.log,
        access_log=parts.access_log,
    )


def _lifespan_of(parts: WebParts) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for enter in parts.lifespans:
                await stack.enter_async_context(enter())
            yield

    return lifespan
