"""What doctor asks of an issuer of access tokens, over a real socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from oauth_issuer import PRIVATE, Issuer
from served import BOUND_S, Quiet

from jobnimbus_mcp.app import doctor_probes
from jobnimbus_mcp.doctor import IssuerAway, Probes
from jobnimbus_mcp.settings import Settings


@asynccontextmanager
async def asking(url: str, **more: str) -> AsyncIterator[Probes]:
    env = {"OAUTH_ISSUER_URL": url, "OAUTH_RESOURCE_URL": "http://localhost/mcp", **more}
    async with asyncio.timeout(BOUND_S), doctor_probes(Settings.from_env(env)) as probes:
        yield probes


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    listening = socket.create_server(("127.0.0.1", 0))
    issuer = Issuer(time.time, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
    server = Quiet(uvicorn.Config(issuer.app, log_config=None, access_log=False, lifespan="off", interface="asgi3"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield issuer
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND_S)


async def test_an_issuer_s_keys_are_found_by_its_metadata_and_each_counted_once() -> None:
    async with issuing() as issuer, asking(issuer.url) as probes:
        assert await probes.issuer() == 1
        issuer.keys["two"] = PRIVATE["ES256"]
        assert await probes.issuer() == 2
        issuer.keys.clear()
        assert await probes.issuer() == 0


async def test_the_keys_are_asked_for_where_the_settings_say_that_they_are() -> None:
    async with issuing() as issuer, asking(issuer.url, OAUTH_JWKS_URL=f"{issuer.url}/keys") as probes:
        assert await probes.issuer() == 1
        assert issuer.asked == ["/keys"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"down": True}, "status 503"),
        ({"metadata": {"issuer": "https://another.example.com"}}, "its metadata names another issuer"),
    ],
)
async def test_why_an_issuer_s_keys_cannot_be_had_is_told(changed: dict[str, Any], why: str) -> None:
    async with issuing() as issuer, asking(issuer.url) as probes:
        for name, value in changed.items():
            setattr(issuer, name, value)
        with pytest.raises(IssuerAway, match=f"^{why}$"):
            await probes.issuer()


async def test_an_issuer_that_nobody_serves_or_that_tells_no_keys_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with asking(url) as probes:
        with pytest.raises(IssuerAway, match=r"^no connection, or none to the end$"):
            await probes.issuer()
    async with issuing() as issuer:
        elsewhere = f"{issuer.url}/.well-known/openid-configuration"
        async with asking(issuer.url, OAUTH_JWKS_URL=elsewhere) as probes:
            with pytest.raises(IssuerAway, match=r"^what it told is no JWK set$"):
                await probes.issuer()
