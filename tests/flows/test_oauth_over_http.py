"""OAuth from end to end: a real client finds the issuer, gets a token there, and is served what it allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import orjson
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from oauth_issuer import ISSUER, RESOURCE, Issuer
from pydantic import AnyUrl
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import LogCapture

BOUND_S = 20.0
OWN = "own-token-0123456789"
SETTINGS = {"OAUTH_ISSUER_URL": ISSUER, "OAUTH_RESOURCE_URL": RESOURCE, "MCP_AUTH_TOKENS": OWN}


@asynccontextmanager
async def world_of(open_world: Any, **settings: str) -> AsyncIterator[Any]:
    issuer = Issuer(lambda: 0.0)
    async with open_world({**SETTINGS, **settings}, issuer=issuer.transport) as world:
        issuer.now = world.clock.now
        yield SimpleNamespace(world=world, issuer=issuer)


@pytest.fixture
async def side(open_world: Any) -> AsyncIterator[Any]:
    async with world_of(open_world) as made:
        yield made


async def call(side: Any, token: str, tool: str = "get_jobs", instance: str = "stamford") -> Any:
    headers = {**side.world.headers(None, instance), "Authorization": f"Bearer {token}"}
    body = {"name": tool, "arguments": {}}
    async with asyncio.timeout(BOUND_S):
        return await side.world.http.post("/mcp/tools/call", json=body, headers=headers)


async def test_a_token_reads_and_without_the_scope_to_write_reads_only(side: Any) -> None:
    writing = next(spec.name for spec in side.world.app.toolbox.specs if spec.effect.writes)
    reader = side.issuer.token(scope="jobnimbus:read")
    assert (await call(side, reader)).status_code == 200
    refused = await call(side, reader, writing)
    assert (refused.status_code, refused.json()["code"]) == (403, "read_only")
    # with the scope the tool itself refuses: nothing was said to write
    writer = await call(side, side.issuer.token(), writing)
    assert (writer.status_code, writer.json()["code"]) == (400, "invalid_argument")


async def test_a_token_for_some_accounts_is_refused_for_others(side: Any) -> None:
    token = side.issuer.token(jobnimbus_instances=["stamford"])
    assert (await call(side, token)).status_code == 200
    refused = await call(side, token, instance="guilford")
    assert (refused.status_code, refused.json()["code"]) == (403, "instance_not_allowed")
    assert (await call(side, side.issuer.token(), instance="guilford")).status_code == 200
    nowhere = await call(side, side.issuer.token(jobnimbus_instances=[]))
    assert (nowhere.status_code, nowhere.json()["code"]) == (403, "instance_not_allowed")


async def test_a_token_ends_with_its_time_and_the_server_s_own_goes_on(side: Any) -> None:
    token = side.issuer.token(exp=side.world.clock.now() + 60)
    assert (await call(side, token)).status_code == 200
    side.world.clock.advance(100)
    expired = await call(side, token)
    assert (expired.status_code, expired.json()["code"]) == (401, "unauthorized")
    assert (await call(side, OWN)).status_code == 200


async def test_a_key_that_the_issuer_changed_is_learnt_and_the_old_one_dropped(side: Any) -> None:
    before = side.issuer.token(exp=side.world.clock.now() + 10_000)
    assert (await call(side, before)).status_code == 200
    side.issuer.keys["two"] = side.issuer.keys.pop("one")
    side.world.clock.advance(60)
    assert (await call(side, side.issuer.token(kid="two"))).status_code == 200
    assert (await call(side, before)).status_code == 401


async def test_neither_token_nor_subject_is_logged(side: Any, logged: LogCapture) -> None:
    good, bad = side.issuer.token(sub="ana@example.com"), side.issuer.token(sub="ana@example.com", exp=1)
    assert [(await call(side, token)).status_code for token in (good, bad)] == [200, 401]
    said = repr(logged.entries)
    assert logged.entries
    for secret in (good, bad, "ana@example.com"):
        assert secret not in said


class Kept:
    """The client's memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Authorizing:
    """The issuer's own side of the flow: it registers clients, and gives tokens for codes with the scopes asked."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.codes: dict[str, Mapping[str, list[str]]] = {}
        issuer.metadata |= {
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "registration_endpoint": f"{ISSUER}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }

    async def agreed(self, url: str) -> AuthorizationCodeResult:
        """Somebody says yes in a browser."""
        asked = parse_qs(urlsplit(url).query)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return AuthorizationCodeResult(code=code, state=asked["state"][0])

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        told: Any
        if request.url.path == "/register":
            told = orjson.loads(await request.body()) | {"client_id": "agent"}
            response = Response(orjson.dumps(told), 201, media_type="application/json")
        elif request.url.path == "/token":
            form = parse_qs((await request.body()).decode())
            asked = self.codes.pop(form["code"][0])
            token = self.issuer.token(aud=form["resource"][0], scope=asked["scope"][0])
            told = {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": asked["scope"][0]}
            response = Response(orjson.dumps(told), media_type="application/json")
        else:
            await self.issuer.app(scope, receive, send)
            return
        await response(scope, receive, send)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_that_knows_only_the_url_finds_the_issuer_and_gets_in(side: Any, mode: str) -> None:
    """The SDK's own client: 401, protected resource metadata, issuer's metadata, registration, code, token, tools."""
    authorizing, kept, urls = Authorizing(side.issuer), Kept(), list[str]()

    async def to_browser(url: str) -> None:
        urls.append(url)

    async def back() -> AuthorizationCodeResult:
        return await authorizing.agreed(urls[-1])

    provider = OAuthClientProvider(
        RESOURCE,
        OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost:3030/callback")], client_name="agent"),
        kept,
        redirect_handler=to_browser,
        callback_handler=back,
    )
    mounts = {
        "http://localhost": httpx2.ASGITransport(side.world.app.asgi),
        ISSUER: httpx2.ASGITransport(authorizing.app),
    }
    async with (
        asyncio.timeout(BOUND_S),
        httpx2.AsyncClient(mounts=mounts, headers=side.world.headers(), auth=provider) as http,
        Client(streamable_http_client(RESOURCE, http_client=http), mode=mode) as client,
    ):
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert "get_jobs" in listed
        assert not (await client.call_tool("get_jobs", {"size": 1})).is_error
    assert len(urls) == 1
    asked = parse_qs(urlsplit(urls[0]).query)
    assert (asked["resource"], asked["scope"]) == ([RESOURCE], ["jobnimbus:read jobnimbus:write"])
    assert kept.tokens is not None
