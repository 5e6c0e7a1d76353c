"""The MCP face of a running app with tools of a test's own, and ways to reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from jobnimbus_mcp.app import App
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.writes import Writer
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.server_mcp import McpFace
from jobnimbus_mcp.tools.spec import WRITE_OUTPUT, Effect, ToolSpec

BOUND_S = 10.0


class DropArgs(NoArgs):
    """drop"""

    what: str
    confirm: bool = False


class Dropper:
    """A tool that asks before it does anything, and what it did."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.stands_for = "two photos"

    async def drop(self, ctx: ToolContext, args: DropArgs) -> dict[str, Any]:
        ctx.confirm(args.confirm, f"Drop {args.what} with {self.stands_for}?")
        self.dropped.append(args.what)
        return {"done": "deleted", "jnid": args.what}

    def spec(self, output: Mapping[str, Any] = WRITE_OUTPUT) -> ToolSpec:
        return ToolSpec(
            "drop",
            "Drop something",
            "Drops it, once a person has agreed.",
            Entity.JOBS,
            DropArgs,
            dict(output),
            handler=self.drop,
            effect=Effect.DELETE,
        )


def face_of(app: App, *specs: ToolSpec) -> McpFace:
    """A face of the app's own toolbox with these tools added, which may write to nowhere."""
    toolbox = replace(app.toolbox, specs=(*app.toolbox.specs, *specs), writer=cast("Writer", object()))
    return McpFace(toolbox, app.identities, app.clock, version="0", request_id_of=lambda scope: "request")


class Doorkeeper:
    """Puts an access where the web layer puts that of the token."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "state": {"access": self._access}}, receive, send)


@asynccontextmanager
async def over_http(face: McpFace, *, mode: str, **of_client: Any) -> AsyncIterator[Client]:
    """A client over Streamable HTTP, in memory."""
    app = Doorkeeper(face.http_app(max_body_bytes=1_000_000), EVERYTHING)
    async with (
        face.http_running(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), timeout=BOUND_S) as http,
        Client(streamable_http_client("http://localhost/mcp", http_client=http), mode=mode, **of_client) as client,
    ):
        yield client
