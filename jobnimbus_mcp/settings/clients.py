"""Who may call, as settings write it: MCP_CLIENTS, and what must hold between the settings of OAuth.

The messages name a client and never repeat its token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.settings.checks import check_http_url, check_secret
from jobnimbus_mcp.web.clients import Client
from jobnimbus_mcp.web.hosts import AllowedHosts

__all__ = [
    "CLIENTS_MOST",
    "check_issuer",
    "check_jwks_url",
    "check_scope",
    "oauth_mistakes",
    "parse_clients",
    "unknown_tools",
]

CLIENTS_MOST = 1_000
"""Each request is compared with all of them: a thousand take half a millisecond."""

_FIELDS = ("name", "token", "instances", "toolsets", "tools", "read_only", "requests_per_minute")
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_UNNAMED = "caller-"
"""Begins the names of those who have none, `web.clients.client_of_token`."""
_PER_MINUTE_MOST = 1_000_000
_SCOPE = re.compile(r"[!#-\[\]-~]{1,200}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def parse_clients(
    text: str, *, instances: Collection[str], toolsets: Collection[str], tokens: Collection[str]
) -> tuple[Client, ...]:
    """The clients of `MCP_CLIENTS`: a JSON array of objects `{"name", "token", "instances"?, "toolsets"?, "tools"?,
    "read_only"?, "requests_per_minute"?}`; none for an empty text. What is left out is not bounded.

    `instances`, `toolsets`: those there are; `tokens`: those of nobody in particular, which no client may have too.
    Whether there are such tools only the toolbox knows: `unknown_tools`.

    Raises:
        ValueError: it says what is wrong with which client.
    """
    told = _told(text)
    if len(told) > CLIENTS_MOST:
        raise ValueError(f"at most {CLIENTS_MOST} clients")
    clients, names, taken = list[Client](), set[str](), set(tokens)
    for number, fields in enumerate(told, 1):
        called = fields.get("name")
        if not isinstance(called, str) or not _NAME.fullmatch(called) or called.startswith(_UNNAMED):
            said = f"1 to 40 lower-case letters, digits or -, and does not begin with {_UNNAMED}"
            raise ValueError(f'client {number}: "name" is {said}')
        try:
            client = _client(called, fields, instances, toolsets)
            if called in names:
                raise ValueError("there are two of this name")
            if client.token in taken:
                raise ValueError('its "token" is also another client\'s, or in MCP_AUTH_TOKENS')
        except ValueError as wrong:
            raise ValueError(f"client {called}: {wrong}") from None
        names.add(called)
        taken.add(client.token)
        clients.append(client)
    return tuple(clients)


def unknown_tools(clients: Iterable[Client], tools: Collection[str]) -> list[str]:
    """A sentence for each client that names a tool which is not among `tools`."""
    return [
        f'MCP_CLIENTS: client {client.access.client}: "tools" names {sorted(strange)[0][:60]}, which is no tool'
        for client in clients
        if (strange := (client.access.tools or frozenset()) - set(tools))
    ]


def check_issuer(value: str) -> str:
    """An issuer as its tokens name it: to the letter, so nothing is cut off or added."""
    check_http_url(value)
    return _over_tls(value)


def check_jwks_url(value: str) -> str:
    """Where an issuer's keys are; unlike other URLs it may have a query."""
    check_http_url(value.partition("?")[0])
    return _over_tls(value)


def check_scope(value: str) -> str:
    """One scope, which a challenge can quote. Source: RFC 6749, section 3.3."""
    if not _SCOPE.fullmatch(value):
        raise ValueError('must be one scope: printable ASCII without blanks, " and \\')
    return value


def oauth_mistakes(
    issuer: str | None, resource: str | None, jwks_url: str | None, allowed_hosts: Sequence[str]
) -> list[str]:
    """What is wrong with the settings of OAuth together, each of which is fine."""
    if issuer is None:
        given = {"OAUTH_RESOURCE_URL": resource, "OAUTH_JWKS_URL": jwks_url}
        return [f"{name}: needs OAUTH_ISSUER_URL as well" for name, value in given.items() if value is not None]
    if resource is None:
        return ["OAUTH_ISSUER_URL: needs OAUTH_RESOURCE_URL, this server's public URL of /mcp, as well"]
    if not AllowedHosts(allowed_hosts).answers_for(urlsplit(resource).netloc):
        return ["OAUTH_RESOURCE_URL: its host must be in ALLOWED_HOSTS, or no request for it is answered"]
    return []


def _told(text: str) -> Sequence[Mapping[str, Any]]:
    if not text.strip():
        return []
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
        raise ValueError("it must be a JSON array of objects")
    return told


def _client(name: str, fields: Mapping[str, Any], instances: Collection[str], toolsets: Collection[str]) -> Client:
    if not fields.keys() <= set(_FIELDS):
        raise ValueError(f"a client has these fields and no others: {', '.join(_FIELDS)}")
    token, read_only = fields.get("token"), fields.get("read_only", False)
    if not isinstance(token, str):
        raise ValueError('"token" is missing')
    try:
        check_secret(SecretStr(token))
    except ValueError as wrong:
        raise ValueError(f'"token" {wrong}') from None
    if not isinstance(read_only, bool):
        raise ValueError('"read_only" must be true or false')
    per_minute = fields.get("requests_per_minute")
    whole = isinstance(per_minute, int) and not isinstance(per_minute, bool)
    if per_minute is not None and not (whole and 0 <= per_minute <= _PER_MINUTE_MOST):
        raise ValueError(f'"requests_per_minute" must be a whole number from 0 (no limit) to {_PER_MINUTE_MOST}')
    access = Access(
        client=name,
        instances=_names(fields, "instances", instances),
        toolsets=_names(fields, "toolsets", toolsets),
        tools=_names(fields, "tools", None),
        read_only=read_only,
        requests_per_minute=per_minute,
    )
    return Client(token, access)


def _names(fields: Mapping[str, Any], name: str, known: Collection[str] | None) -> frozenset[str] | None:
    """A list of names, all known; None, no bound, where it is left out."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError(f'"{name}" must be a list of names, or be left out')
    if known is not None and not set(value) <= set(known):
        raise ValueError(f'"{name}" must be among: {", ".join(known)}')
    return frozenset(value)


def _over_tls(value: str) -> str:
    at = urlsplit(value)
    if at.scheme != "https" and at.hostname not in _LOOPBACK:
        raise ValueError("must be https://, or anybody on the way could issue tokens")
    return value
