"""A world's app over sockets: streams, and what happens when one is closed, need real ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

BOUND_S = 10.0
MODERN = "2026-07-28"


class Quiet(uvicorn.Server):
    """Signals are the business of the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Connect = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def served(world: Any) -> AsyncIterator[Connect]:
    """`connect(key=..., instance=...)`: clients of the world's app over sockets, since streams need real ones."""
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    config = uvicorn.Config(
        world.app.asgi, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = Quiet(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))

    @asynccontextmanager
    async def connect(
        key: str | None = None, instance: str | None = "stamford", mode: str = MODERN
    ) -> AsyncIterator[Client]:
        headers = world.headers(key, instance or "stamford")
        if instance is None:
            del headers["X-JobNimbus-Instance"]
        async with (
            httpx2.AsyncClient(headers=headers, timeout=BOUND_S, trust_env=False) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            yield client

    try:
        yield connect
    finally:
        world.app.mcp.end_subscriptions()
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND_S)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not met():  # noqa: ASYNC110  what the server does when a socket closes sets no event of ours
            await asyncio.sleep(0.005)
