"""Findings about callers: which tokens open the tools, what they allow, how often, and who else is let in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from jobnimbus_mcp.doctor.facts import PROBE_BOUND_S, Finding, IssuerAway, Level, Probes
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.web.clients import Client

__all__ = ["caller_findings"]

_CLIENTS_TOLD = 10
"""More would hide the other findings."""


async def caller_findings(settings: Settings, probes: Probes) -> list[Finding]:
    """Of everybody who may call; no token is told."""
    clients = settings.clients()
    return [
        *_tokens(settings),
        *_clients(clients),
        *(await _issuer(settings, probes)),
        _writes(settings, clients),
        _toolsets(settings),
        _rate(settings, clients),
        _admin(settings, clients),
        Finding(Level.OK, "hosts", f"answered: {', '.join(settings.allowed_hosts)} (ALLOWED_HOSTS)."),
    ]


def _tokens(settings: Settings) -> list[Finding]:
    """What `serve` asks too: whoever holds a key of its own needs a door."""
    subject = "callers"
    if settings.mcp_auth_tokens:
        return [Finding(Level.OK, subject, f"{len(settings.mcp_auth_tokens)} bearer token(s) open /mcp.")]
    if settings.has_doors:
        return []
    if settings.holds_api_key:
        said = (
            "`serve` refuses to start, because anybody could read with the server's key. Set MCP_AUTH_TOKENS, "
            "MCP_CLIENTS or OAUTH_ISSUER_URL, or serve on loopback with --insecure-loopback."
        )
        return [Finding(Level.BAD, subject, said)]
    said = "every caller brings a JobNimbus key; neither MCP_AUTH_TOKENS, MCP_CLIENTS nor OAUTH_ISSUER_URL is set."
    return [Finding(Level.OK, subject, said)]


def _clients(clients: tuple[Client, ...]) -> list[Finding]:
    if not clients:
        return []
    told = [_told_of(client.access) for client in clients[:_CLIENTS_TOLD]]
    if more := len(clients) - len(told):
        told.append(f"and {more} more")
    return [Finding(Level.OK, "clients", f"{len(clients)} in MCP_CLIENTS: {', '.join(told)}.")]


def _told_of(access: Access) -> str:
    """A client's name with what bounds it."""
    bounds = ["read-only"] if access.read_only else []
    for what, names in (("accounts", access.instances), ("toolsets", access.toolsets), ("tools", access.tools)):
        if names is not None:
            bounds.append(f"{what} {_listed(names)}")
    if access.requests_per_minute is not None:
        limit = access.requests_per_minute
        bounds.append(f"{limit} requests a minute" if limit else "no limit of requests")
    return f"{access.client} ({'; '.join(bounds)})" if bounds else access.client


async def _issuer(settings: Settings, probes: Probes) -> list[Finding]:
    if settings.oauth_issuer_url is None:
        return []
    subject, where = "oauth", settings.oauth_issuer_url
    try:
        keys = await asyncio.wait_for(probes.issuer(), PROBE_BOUND_S)
    except (IssuerAway, TimeoutError) as away:
        why = str(away) or "no answer in time"
        said = f"the keys of {where} cannot be had ({why}), so no access token opens anything; start it, or correct "
        return [Finding(Level.BAD, subject, f"{said}OAUTH_ISSUER_URL or OAUTH_JWKS_URL.")]
    if not keys:
        said = f"{where} tells no key that tokens may be signed with here (RS256, PS256, ES256 or EdDSA)."
        return [Finding(Level.BAD, subject, said)]
    said = f"access tokens of {where} for {settings.oauth_resource_url} open /mcp; it tells {keys} key(s)."
    return [Finding(Level.OK, subject, said)]


def _writes(settings: Settings, clients: Iterable[Client]) -> Finding:
    subject = "writes"
    if settings.mcp_read_only:
        return Finding(Level.OK, subject, "off by MCP_READ_ONLY: nobody changes JobNimbus through this server.")
    read_only = sum(client.access.read_only for client in clients)
    but = [f"{read_only} client(s) of MCP_CLIENTS"] if read_only else []
    if settings.oauth_issuer_url is not None:
        but.append(f"access tokens without {settings.oauth_scope_write}")
    whom = f" to all but {' and '.join(but)}" if but else ""
    return Finding(Level.OK, subject, f"on{whom}; MCP_READ_ONLY=true takes them away.")


def _toolsets(settings: Settings) -> Finding:
    shown = set(settings.mcp_toolsets)
    if "all" in shown:
        return Finding(Level.OK, "toolsets", "tools/list shows every tool (MCP_TOOLSETS).")
    said = f"tools/list shows {_listed(shown)} (MCP_TOOLSETS); find_tools and use_tool lead to the others."
    return Finding(Level.OK, "toolsets", said)


def _rate(settings: Settings, clients: tuple[Client, ...]) -> Finding:
    subject, most = "calls per caller", settings.caller_max_requests_per_minute
    if most:
        return Finding(Level.OK, subject, f"at most {most} a minute (CALLER_MAX_REQUESTS_PER_MINUTE), then 429.")
    unbounded = sum(client.access.requests_per_minute is None for client in clients) + len(settings.mcp_auth_tokens)
    if settings.oauth_issuer_url is not None or unbounded > 1:
        said = "no limit, so one of several callers can use up an account's request budget. "
        return Finding(Level.WARN, subject, said + "Set CALLER_MAX_REQUESTS_PER_MINUTE.")
    return Finding(Level.OK, subject, "no limit; CALLER_MAX_REQUESTS_PER_MINUTE sets one.")


def _admin(settings: Settings, clients: Iterable[Client]) -> Finding:
    subject = "admin"
    if settings.admin_token is None:
        said = "off (503): /metrics, /cache/stats and the rest of the admin routes. Set ADMIN_TOKEN to open them."
        return Finding(Level.WARN, subject, said)
    token = settings.admin_token.get_secret_value()
    if token in {one.get_secret_value() for one in settings.mcp_auth_tokens}:
        said = "ADMIN_TOKEN is also in MCP_AUTH_TOKENS, so every caller is an administrator; use another."
        return Finding(Level.WARN, subject, said)
    for client in clients:
        if client.token == token:
            said = f"ADMIN_TOKEN is also the token of {client.access.client} in MCP_CLIENTS, who is an administrator "
            return Finding(Level.WARN, subject, said + "so; use another.")
    return Finding(Level.OK, subject, "open to the bearer of ADMIN_TOKEN.")


def _listed(names: Iterable[str]) -> str:
    return "+".join(sorted(names))
