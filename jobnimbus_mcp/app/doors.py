"""Who may come in, and how often: tokens, an issuer's tokens, and each caller's share."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.app.accounts import Accounts
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.gateway.access import TOOLSETS
from jobnimbus_mcp.gateway.caller_rate import CallerRate, LocalCallerRate
from jobnimbus_mcp.gateway.caller_rate_redis import RedisCallerRate
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.clients import Client
from jobnimbus_mcp.web.jwks_http import JwksHttp
from jobnimbus_mcp.web.keyring import KeyRing
from jobnimbus_mcp.web.oauth import Rules
from jobnimbus_mcp.web.resource_server import ResourceServer

__all__ = ["Doors", "build_doors"]


@dataclass(frozen=True)
class Doors:
    """What the routes are made of. Whoever makes it closes it."""

    clients: tuple[Client, ...]
    oauth: ResourceServer | None
    rate: CallerRate
    _jwks: JwksHttp | None = field(default=None, repr=False)

    async def aclose(self) -> None:
        """Close the connections to the issuer."""
        if self._jwks is not None:
            await self._jwks.aclose()


def build_doors(
    settings: Settings,
    accounts: Accounts,
    *,
    clock: Clock,
    recorder: Recorder,
    log: FilteringBoundLogger,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Doors:
    """`transport`: to the issuer, in tests."""
    jwks: JwksHttp | None = None
    oauth: ResourceServer | None = None
    if settings.oauth_issuer_url is not None and settings.oauth_resource_url is not None:
        jwks = JwksHttp(settings.oauth_issuer_url, jwks_url=settings.oauth_jwks_url, transport=transport)
        rules = Rules(
            issuer=settings.oauth_issuer_url,
            resource=settings.oauth_resource_url,
            read_scope=settings.oauth_scope_read,
            write_scope=settings.oauth_scope_write,
            instances=frozenset(settings.instances),
            toolsets=frozenset({*TOOLSETS, "default", "all"}),
            instances_claim=settings.oauth_instances_claim,
            toolsets_claim=settings.oauth_toolsets_claim,
        )
        oauth = ResourceServer(rules, KeyRing(jwks, clock, log), clock)
    return Doors(settings.clients(), oauth, _rate(settings, accounts, clock, recorder), jwks)


def _rate(settings: Settings, accounts: Accounts, clock: Clock, recorder: Recorder) -> CallerRate:
    """Over all replicas where there is a Redis: the first account's, since a caller has one share for all accounts."""
    local = LocalCallerRate(clock)
    home = settings.instances[0]
    redis = accounts.of(home).redis
    if redis is None:
        return local
    return RedisCallerRate(
        redis,
        local,
        home=home,
        clock=clock,
        recorder=recorder,
        command_timeout_s=settings.redis_command_timeout_ms / 1000,
    )
