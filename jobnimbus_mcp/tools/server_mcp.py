"""The only module that speaks MCP as a server: the registry's tools over the SDK's low-level server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, cast

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from starlette.applications import Starlette

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InvalidInput, ProjectError, UnknownTool
from jobnimbus_mcp.gateway.headers import sole_value
from jobnimbus_mcp.gateway.identity import API_KEY_HEADER, INSTANCE_HEADER, Caller, Identities
from jobnimbus_mcp.tools.registry import Toolbox

__all__ = ["CACHE_META", "STDIO_GRACE_S", "McpFace"]

CACHE_META = "jobnimbus-mcp/cache"
STDIO_GRACE_S = 3.0
"""How long calls may still take after stdin has ended."""

_INSTRUCTIONS = """\
Reads the CRM JobNimbus of a roofing or home-exterior contractor: contacts, jobs, estimates, activities (notes and the
change log), tasks, the calendar, files and users. Answers are cached and kept current by webhooks; as_of says when
JobNimbus was asked, and max_age_s: 0 asks it now. Use the search tools when you have words, the get tools when you
have filters or an id. Statuses and people are given by name. Lists come in pages: count says how many match in all,
next_cursor leads on. Ids (jnid) come from results; never make one up.
"""
_TOOLS_TTL_MS = 3_600_000  # the list of tools changes with a deploy, not in between

_NO_HEADERS: Mapping[str, Any] = {"type": "object"}

_Ctx = ServerRequestContext[Any, Any]


class McpFace:
    """The SDK's server over the toolbox; `request_id_of` finds the id the web layer gave a request, or makes one."""

    def __init__(
        self,
        toolbox: Toolbox,
        identities: Identities,
        clock: Clock,
        *,
        version: str,
        request_id_of: Callable[[Mapping[str, Any] | None], str],
    ) -> None:
        self._toolbox = toolbox
        self._identities = identities
        self._clock = clock
        self._request_id_of = request_id_of
        self._tools = [Tool.model_validate(shown) for shown in toolbox.listing()]
        names = frozenset(spec.name for spec in toolbox.specs)
        self.server: Server[Any] = Server(
            "jobnimbus-mcp",
            version=version,
            title="JobNimbus",
            instructions=_INSTRUCTIONS,
            cache_hints={
                "tools/list": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
                "server/discover": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
            },
            # asked on every call, only to look for header annotations: there are none, and the walk costs 30 us
            get_tool_input_schema=lambda name: _NO_HEADERS if name in names else None,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    def http_app(self, *, max_body_bytes: int) -> Starlette:
        """The Streamable HTTP endpoint at /mcp. Host and Origin are checked by the web layer in front of it."""
        return self.server.streamable_http_app(
            stateless_http=True,
            json_response=False,
            max_request_body_size=max_body_bytes,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

    @asynccontextmanager
    async def http_running(self) -> AsyncIterator[None]:
        """Entered by whoever serves `http_app`, for as long as it is served."""
        async with self.server.session_manager.run():
            yield

    async def run_stdio(self) -> None:
        """Serve stdin and stdout until the client hangs up; what it asked before is answered, within STDIO_GRACE_S."""
        async with stdio_server() as (incoming, outgoing):
            unanswered = _Unanswered()
            await self.server.run(
                _Incoming(incoming, unanswered),
                _Outgoing(outgoing, unanswered),
                self.server.create_initialization_options(),
            )

    async def _list(self, ctx: _Ctx, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def _call(self, ctx: _Ctx, params: CallToolRequestParams) -> CallToolResult:
        try:
            self._toolbox.spec(params.name)
        except UnknownTool as unknown:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name[:100]}") from unknown
        scope = ctx.request.scope if ctx.request is not None else None
        call = Call.begin(self._clock, self._request_id_of(scope), tool=params.name)
        try:
            who = self._who(ctx)
            answer = await self._toolbox.call(params.name, params.arguments or {}, who, call)
        except ProjectError as error:
            return _failed(error, call.request_id)
        return CallToolResult(
            content=[TextContent(type="text", text=answer.data.decode())],
            structured_content=answer.structured,
            _meta={CACHE_META: answer.cache},
        )

    def _who(self, ctx: _Ctx) -> Caller:
        if ctx.request is None:
            return self._identities.identify(None, None)
        headers = ctx.request.headers
        return self._identities.identify(
            sole_value(API_KEY_HEADER, headers.getlist(API_KEY_HEADER)),
            sole_value(INSTANCE_HEADER, headers.getlist(INSTANCE_HEADER)),
        )


class _Unanswered:
    """The requests of one connection that wait for their answers, by id."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._none = asyncio.Event()
        self._none.set()

    def asked(self, message: object) -> None:
        """Note what the client sent; one that it cancels gets no answer."""
        if isinstance(message, JSONRPCRequest):
            self._ids.add(str(message.id))
            self._none.clear()
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._settle((message.params or {}).get("requestId"))

    def answered(self, message: object) -> None:
        """Note what went to the client."""
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._settle(message.id)

    async def none_left(self, bound_s: float) -> None:
        """Wait until all are answered, `bound_s` at most."""
        try:
            async with asyncio.timeout(bound_s):
                await self._none.wait()
        except TimeoutError:
            return  # what is not answered by now is cancelled, and the client told so

    def _settle(self, request_id: object) -> None:
        self._ids.discard(str(request_id))
        if not self._ids:
            self._none.set()


class _Incoming:
    """The SDK's stream of messages; its end is held back while requests are unanswered, because it cancels them."""

    def __init__(self, stream: Any, unanswered: _Unanswered) -> None:
        self._stream = stream
        self._unanswered = unanswered

    async def receive(self) -> SessionMessage | Exception:
        async for item in self:
            return item
        return cast("SessionMessage", await self._stream.receive())  # which says in its own way that it has ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            item: SessionMessage | Exception = await anext(self._stream)
        except StopAsyncIteration:
            await self._unanswered.none_left(STDIO_GRACE_S)
            raise
        if isinstance(item, SessionMessage):
            self._unanswered.asked(item.message)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()


class _Outgoing:
    """The SDK's stream of answers, which are noted as they leave."""

    def __init__(self, stream: Any, unanswered: _Unanswered) -> None:
        self._stream = stream
        self._unanswered = unanswered

    async def send(self, item: SessionMessage, /) -> None:
        await self._stream.send(item)
        self._unanswered.answered(item.message)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()


def _failed(error: ProjectError, request_id: str) -> CallToolResult:
    """An error the model can read and act on."""
    text = error.public_message
    if isinstance(error, InvalidInput) and error.field:
        text += f" (argument: {error.field})"
    if error.retry_after_s is not None:
        text += f" Try again in {max(1, round(error.retry_after_s))} seconds."
    return CallToolResult(
        content=[TextContent(type="text", text=f"{text} [{error.code}, request {request_id}]")], is_error=True
    )
