"""Who may call, put together from the settings: clients, the OAuth issuer, and the count of their requests."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import httpx
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.app.accounts import Accounts
from jobnimbus_mcp.app.secrets import revealed
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.gateway.access import TOOLSETS
from jobnimbus_mcp.gateway.caller_rate import CallerRate, LocalCallerRate
from jobnimbus_mcp.gateway.caller_rate_redis import RedisCallerRate
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.settings.clients import parse_clients, unknown_tools
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.clients import Client
from jobnimbus_mcp.web.jwks_http import JwksHttp
from jobnimbus_mcp.web.keyring import KeyRing
from jobnimbus_mcp.web.oauth import Rules
from jobnimbus_mcp.web.resource_server import ResourceServer

__all__ = ["Callers", "callers_of"]


@dataclass(frozen=True)
class Callers:
    """What the doors of HTTP are made of. `jwks`: the way to the issuer, to be closed."""

    tokens: tuple[str, ...]
    clients: tuple[Client, ...]
    oauth: ResourceServer | None
    rate: CallerRate
    jwks: JwksHttp | None

    async def aclose(self) -> None:
        """Close the way to the issuer."""
        if self.jwks is not None:
            await self.jwks.aclose()


def callers_of(
    settings: Settings,
    accounts: Accounts,
    *,
    tools: Collection[str],
    clock: Clock,
    recorder: Recorder,
    log: FilteringBoundLogger,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Callers:
    """`tools`: the names there are. `transport`: the way to the issuer, None: the network.

    Raises:
        SettingsError: a client that cannot be one.
    """
    tokens = tuple(token.get_secret_value() for token in settings.mcp_auth_tokens)
    toolsets = (*TOOLSETS, "default", "all")
    try:
        clients = parse_clients(
            revealed(settings.mcp_clients) or "", instances=settings.instances, toolsets=toolsets, tokens=tokens
        )
    except ValueError as wrong:
        raise SettingsError(f"MCP_CLIENTS: {wrong}") from None
    if mistakes := unknown_tools(clients, tools):
        raise SettingsError("; ".join(mistakes))

    issuer, resource, jwks, oauth = settings.oauth_issuer_url, settings.oauth_resource_url, None, None
    if issuer is not None and resource is not None:
        jwks = JwksHttp(issuer, jwks_url=settings.oauth_jwks_url, transport=transport)
        rules = Rules(
            issuer=issuer,
            resource=resource,
            read_scope=settings.oauth_scope_read,
            write_scope=settings.oauth_scope_write,
            instances=frozenset(settings.instances),
            toolsets=frozenset(toolsets),
            instances_claim=settings.oauth_instances_claim or None,
        )
        oauth = ResourceServer(rules, KeyRing(jwks, clock, log), clock)
    return Callers(tokens, clients, oauth, _rate(settings, accounts, clock, recorder), jwks)


def _rate(settings: Settings, accounts: Accounts, clock: Clock, recorder: Recorder) -> CallerRate:
    """Shared by all replicas through the first account's Redis, where it has one."""
    local, home = LocalCallerRate(clock), settings.instances[0]
    client = accounts.of(home).redis
    if client is None:
        return local
    return RedisCallerRate(
        client,
        local,
        home=home,
        clock=clock,
        recorder=recorder,
        command_timeout_s=settings.redis_command_timeout_ms / 1000,
    )
