"""The only module that speaks MCP as a server: tools, resources and subscriptions over the SDK's low-level server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Self, cast

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceTemplate,
    ResourceUpdatedNotification,
    ResourceUpdatedNotificationParams,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    TextResourceContents,
    Tool,
)
from starlette.applications import Starlette

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import (
    CallerError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    ProjectError,
    UnknownTool,
    UpstreamForbidden,
    UpstreamUnauthorized,
)
from jobnimbus_mcp.gateway.headers import sole_value
from jobnimbus_mcp.gateway.identity import API_KEY_HEADER, INSTANCE_HEADER, Identities
from jobnimbus_mcp.tools.resources import MIME_TYPE, READ, WATCH, Proof, Resources, templates
from jobnimbus_mcp.tools.subscriptions import RECHECK_S, Unwatchable, Watches
from jobnimbus_mcp.tools.toolbox import Toolbox

__all__ = ["CACHE_META", "STDIO_GRACE_S", "TAKEN_WITHIN_S", "McpFace"]

CACHE_META = "jobnimbus-mcp/cache"
STDIO_GRACE_S = 3.0
"""How long calls may still take after stdin has ended."""

TAKEN_WITHIN_S = 30.0
"""A subscriber that takes nothing for so long is gone, or might as well be: its place is another's."""

_INSTRUCTIONS = """\
Reads the CRM JobNimbus of a roofing or home-exterior contractor: contacts, jobs, estimates, activities (notes and the
change log), tasks, the calendar, files and users. Answers are cached and kept current by webhooks; as_of says when
JobNimbus was asked, and max_age_s: 0 asks it now. Use the search tools when you have words, the get tools when you
have filters or an id. Statuses and people are given by name. Lists come in pages: count says how many match in all,
next_cursor leads on. Ids (jnid) come from results; never make one up. A record in full is also the resource
jobnimbus://{instance}/{kind}/{jnid}; subscribe to it to be told when it changes, then read it again.
"""
_TOOLS_TTL_MS = 3_600_000  # the list of tools changes with a deploy, not in between
_SHOWN_OF_URI = 200

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
        recheck_s: float = RECHECK_S,
    ) -> None:
        """`recheck_s`: how long a subscription goes on before its credential is checked again."""
        self._toolbox = toolbox
        self._identities = identities
        self._clock = clock
        self._request_id_of = request_id_of
        self._resources = Resources(toolbox, identities)
        self._watches = Watches(self._resources, clock, toolbox.log, recheck_s=recheck_s)
        self._templates = [
            ResourceTemplate(
                uri_template=one.uri_template,
                name=one.name,
                title=one.title,
                description=one.description,
                mime_type=MIME_TYPE,
            )
            for one in templates()
        ]
        self._tools = [Tool.model_validate(shown) for shown in toolbox.listing()]
        names = frozenset(spec.name for spec in toolbox.specs)
        self.server: Server[Any] = Server(
            "jobnimbus-mcp",
            version=version,
            title="JobNimbus",
            instructions=_INSTRUCTIONS,
            cache_hints={
                "tools/list": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
                "resources/list": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
                "resources/templates/list": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
                "server/discover": CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public"),
            },
            # asked on every call, only to look for header annotations: there are none, and the walk costs 30 us
            get_tool_input_schema=lambda name: _NO_HEADERS if name in names else None,
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read,
            on_subscriptions_listen=self._listen,
        )

    def resource_updated(self, uri: str) -> None:
        """The record of this URI changed: every client that subscribed to it at this process is told so."""
        self._watches.tell(uri)

    @property
    def subscriptions(self) -> int:
        """How many are open at this process."""
        return self._watches.open_now

    def end_subscriptions(self) -> None:
        """End every subscription in good order and open none any more: the server is being stopped, and no connection
        with a stream on it would end by itself."""
        self._watches.close()

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
        """Entered by whoever serves `http_app`, for as long as it is served.

        A server that was told to stop leaves this only when its connections have ended, so the signal itself ends the
        subscriptions.
        """
        loop = asyncio.get_running_loop()
        with _also_on_signals(lambda: loop.call_soon_threadsafe(self.end_subscriptions)):
            async with self.server.session_manager.run():
                try:
                    yield
                finally:
                    self.end_subscriptions()

    async def run_stdio(self) -> None:
        """Serve stdin and stdout until the client hangs up; what it asked before is answered, within STDIO_GRACE_S."""
        async with stdio_server() as (incoming, outgoing):
            unanswered = _Unanswered()
            await self.server.run(
                _Incoming(incoming, unanswered, at_end=self.end_subscriptions),
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
        call = self._begin(ctx, params.name)
        try:
            proof = _proof_of(ctx)
            who = self._identities.identify(proof.api_key, proof.instance)
            answer = await self._toolbox.call(params.name, params.arguments or {}, who, call)
        except ProjectError as error:
            return _failed(error, call.request_id)
        return CallToolResult(
            content=[TextContent(type="text", text=answer.data.decode())],
            structured_content=answer.structured,
            _meta={CACHE_META: answer.cache},
        )

    async def _list_resources(self, ctx: _Ctx, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(resources=[])  # as many as the accounts have records: the templates tell

    async def _list_templates(self, ctx: _Ctx, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=self._templates)

    async def _read(self, ctx: _Ctx, params: ReadResourceRequestParams) -> ReadResourceResult:
        call = self._begin(ctx, READ)
        uri = str(params.uri)
        try:
            answer = await self._resources.read(uri, self._resources.caller(uri, _proof_of(ctx)), call)
        except ProjectError as error:
            raise _refusal(error, call.request_id, uri) from error
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type=MIME_TYPE, text=answer.data.decode())],
            ttl_ms=int(answer.cache["ttlSeconds"] * 1000),
            cache_scope="private",
            _meta={CACHE_META: answer.cache},
        )

    async def _listen(self, ctx: _Ctx, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """One stream: the acknowledgment, then a notification for each change, until either side ends it."""
        request_id = ctx.request_id
        if request_id is None:
            raise MCPError(code=INVALID_REQUEST, message="A subscription needs a request id.")
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: request_id}
        call = self._begin(ctx, WATCH)
        asked = params.notifications
        uris = tuple(dict.fromkeys(map(str, asked.resource_subscriptions or ())))

        async def tell(notification: ServerNotification) -> None:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                await ctx.session.send_notification(notification, related_request_id=request_id)

        try:
            async with self._watches.opened(uris, _proof_of(ctx), call) as watch:
                granted = SubscriptionFilter(
                    tools_list_changed=asked.tools_list_changed or None,
                    prompts_list_changed=asked.prompts_list_changed or None,
                    resources_list_changed=asked.resources_list_changed or None,
                    resource_subscriptions=list(uris) or None,
                )
                acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=granted, _meta=meta)
                await tell(SubscriptionsAcknowledgedNotification(params=acknowledged))
                while (uri := await watch.next()) is not None:
                    changed = ResourceUpdatedNotificationParams(uri=uri, _meta=meta)
                    await tell(ResourceUpdatedNotification(params=changed))
        except Unwatchable as refused:
            raise _refusal(refused.error, call.request_id, refused.uri, "Cannot subscribe to {uri}: ") from refused
        except ProjectError as error:
            raise _refusal(error, call.request_id) from error
        except TimeoutError as slow:
            raise MCPError(code=INTERNAL_ERROR, message="Nothing was taken for too long; subscribe again.") from slow
        return SubscriptionsListenResult(_meta=meta)

    def _begin(self, ctx: _Ctx, what: str) -> Call:
        scope = ctx.request.scope if ctx.request is not None else None
        return Call.begin(self._clock, self._request_id_of(scope), tool=what)


def _proof_of(ctx: _Ctx) -> Proof:
    if ctx.request is None:
        return Proof(None, None)
    headers = ctx.request.headers
    return Proof(
        sole_value(API_KEY_HEADER, headers.getlist(API_KEY_HEADER)),
        sole_value(INSTANCE_HEADER, headers.getlist(INSTANCE_HEADER)),
    )


@contextmanager
def _also_on_signals(act: Callable[[], Any]) -> Iterator[None]:
    """SIGINT and SIGTERM do this first, and then what they did before; outside the main thread they cannot be heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def told(number: int, frame: FrameType | None) -> None:
        act()
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)
        elif earlier is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            # whoever has put another one over it meanwhile keeps that
            if signal.getsignal(number) is told:
                signal.signal(number, handler)


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

    def __init__(self, stream: Any, unanswered: _Unanswered, *, at_end: Callable[[], None]) -> None:
        self._stream = stream
        self._unanswered = unanswered
        self._at_end = at_end

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
            self._at_end()
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


def _refusal(error: ProjectError, request_id: str, uri: str = "", says: str = "") -> MCPError:
    """A protocol error. -32602: what was asked for is not there, or is no such thing; -32600: not for this caller;
    -32603: not now. `data` has our stable code, and the URI where it is about one. `says`: what comes first."""
    data: dict[str, Any] = {"code": error.code, "requestId": request_id}
    if uri:
        data["uri"] = uri[:_SHOWN_OF_URI]
    if error.retry_after_s is not None:
        data["retryAfterSeconds"] = max(1, round(error.retry_after_s))
    if isinstance(error, NotAuthenticated | NotAllowed | UpstreamUnauthorized | UpstreamForbidden):
        code = INVALID_REQUEST
    else:
        code = INVALID_PARAMS if isinstance(error, CallerError) else INTERNAL_ERROR
    return MCPError(code=code, message=says.replace("{uri}", uri[:_SHOWN_OF_URI]) + _in_words(error), data=data)


def _in_words(error: ProjectError) -> str:
    if error.retry_after_s is None:
        return error.public_message
    return f"{error.public_message} Try again in {max(1, round(error.retry_after_s))} seconds."


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
