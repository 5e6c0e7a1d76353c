"""The server as the protocol's SDK sees it: what it offers, calls of its tools, and the ways it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    RequestParams,
    TextContent,
    Tool,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import ConfirmationNeeded, ProjectError, UnknownTool
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import Identities
from jobnimbus_mcp.tools.asking_mcp import Verdict, ask, declined
from jobnimbus_mcp.tools.completions import Completions
from jobnimbus_mcp.tools.extras_mcp import Extras
from jobnimbus_mcp.tools.listening_mcp import Listening
from jobnimbus_mcp.tools.offers_mcp import CACHE_META, Offers
from jobnimbus_mcp.tools.prompt_table import PROMPTS
from jobnimbus_mcp.tools.prompts import Prompts
from jobnimbus_mcp.tools.refusals_mcp import failed
from jobnimbus_mcp.tools.requests_mcp import (
    LISTS_TTL_MS,
    LONG_CALL_S,
    Calls,
    Ctx,
    access_of,
    progress_of,
    proof_of,
    scope_of,
)
from jobnimbus_mcp.tools.resources import Resources
from jobnimbus_mcp.tools.signals import also_on_signals
from jobnimbus_mcp.tools.stdio_mcp import serve_stdio
from jobnimbus_mcp.tools.subscriptions import RECHECK_S, Watches
from jobnimbus_mcp.tools.toolbox import Toolbox

__all__ = ["CACHE_META", "INSTRUCTIONS", "INSTRUCTIONS_UNHEARD", "McpFace"]

INSTRUCTIONS = """\
Reads and writes the CRM JobNimbus of a roofing or home-exterior contractor: contacts, jobs, tasks, activities (notes
and the change log), the calendar, estimates, invoices, payments, products, work and material orders, files, people.

Finding: search_ tools when you have words, get_ tools when you have filters or an id. Statuses and people are given
by name. Ids (jnid) come from results; never make one up. Not every tool is listed: find_tools finds the others,
use_tool calls them.

Freshness: answers are cached and kept current by webhooks and by your own writes. as_of is when the oldest
part of an answer came from JobNimbus; max_age_s: 0 asks it now, which is rarely needed. Lists come in pages: count says
how many match, next_cursor leads on.

Writing: read the record first and change only what you were asked to. What deletes, or changes much, asks for
confirmation: your client shows the question, or the answer tells you to ask the person and to call again with
confirm: true. Give creations an idempotency_key, and repeat a call whose outcome is unknown with the same one.

A record in full is the resource jobnimbus://{instance}/{kind}/{jnid}, what hangs on a job
jobnimbus://{instance}/jobs/{jnid}/{kind}; subscribe to hear of changes, then read again. Prompts hold whole reviews.
"""

INSTRUCTIONS_UNHEARD = INSTRUCTIONS.replace("; subscribe to hear of changes, then read again", "")
"""For clients of the protocols with a handshake, which are offered no subscriptions."""

_NO_HEADERS: Mapping[str, Any] = {"type": "object"}

_HINTED: Sequence[CacheableMethod] = (
    *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
    "server/discover",
)


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
        extras: Extras | None = None,
    ) -> None:
        """`recheck_s`: how long a subscription goes on before its credential is checked again."""
        self._toolbox = toolbox
        self._identities = identities
        self._clock = clock
        self._calls = Calls(clock, request_id_of)
        self._extras = extras or Extras()
        self._tools = {spec.name: Tool.model_validate(spec.listing) for spec in toolbox.specs}
        resources = Resources(toolbox, identities)
        self._watches = Watches(resources, clock, toolbox.log, recheck_s=recheck_s)
        self._offers = Offers(resources, Prompts(toolbox, PROMPTS), Completions(toolbox), identities, self._calls)
        self.listening = Listening(self._watches, self._calls)
        self.server = self._built(version)

    def _built(self, version: str) -> Server[Any]:
        offers, over = self._offers, self._extras.over
        server: Server[Any] = Server(
            "jobnimbus-mcp",
            version=version,
            title="JobNimbus",
            instructions=INSTRUCTIONS_UNHEARD,  # the others' are `_discover`'s
            # of what an answer does not say itself
            cache_hints={method: CacheHint(ttl_ms=LISTS_TTL_MS, scope="public") for method in _HINTED},
            # asked on every call, only to look for header annotations: there are none, and the walk costs 30 us
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list,
            on_call_tool=over("tools/call", self._call),
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=over("resources/read", offers.read),
            on_list_prompts=self._list_prompts,
            on_get_prompt=over("prompts/get", offers.get_prompt),
            on_completion=over("completion/complete", offers.complete),
            on_subscriptions_listen=over("subscriptions/listen", self.listening.listen),
        )
        server.add_request_handler("server/discover", RequestParams, partial(_discover, server))
        for method, params_type in self._extras.methods.items():
            server.add_request_handler(method, params_type, self._extras.handlers[method])
        server.middleware += self._extras.middleware
        return server

    def resource_updated(self, uri: str) -> None:
        """What has this URI changed: every client that subscribed to it at this process is told so."""
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
            stateless_http=not self._extras.sessions,
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
        with also_on_signals(lambda: loop.call_soon_threadsafe(self.end_subscriptions)):
            async with self.server.session_manager.run():
                try:
                    yield
                finally:
                    self.end_subscriptions()

    async def run_stdio(self) -> None:
        """Serve stdin and stdout until the client hangs up."""
        await serve_stdio(self.server, at_end=self.end_subscriptions)

    async def _list(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListToolsResult:
        access = access_of(ctx)
        shown = [self._tools[spec.name] for spec in self._toolbox.shown(access)]
        return ListToolsResult(tools=[*shown, *self._extras.tools], ttl_ms=LISTS_TTL_MS, cache_scope=scope_of(access))

    async def _call(self, ctx: Ctx, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        try:
            outer = self._toolbox.spec(params.name)
        except UnknownTool as unknown:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name[:100]}") from unknown
        call, progress = self._calls.begin(ctx, params.name), progress_of(ctx)
        try:
            name, arguments = self._toolbox.unwrapped(params.name, params.arguments or {})
            proof = proof_of(ctx)
            who = self._identities.identify(proof.api_key, proof.instance, proof.access)
            if progress is not None and self._toolbox.spec(name).long:
                call.deadline = call.started + LONG_CALL_S
            try:
                return _answered(await self._toolbox.call(name, arguments, who, call, progress=progress))
            except ConfirmationNeeded as needed:
                verdict = await ask(ctx, params, who, needed.question)
                if isinstance(verdict, InputRequiredResult):
                    return verdict
                if verdict is Verdict.UNASKABLE:
                    raise
                if verdict is not Verdict.AGREED:
                    return declined(verdict, outer)
                # what a person took to answer is not the call's
                again = self._again(call)
                return _answered(
                    await self._toolbox.call(name, arguments, who, again, confirmed=True, progress=progress)
                )
        except ProjectError as error:
            return failed(error, call.request_id)

    def _again(self, call: Call) -> Call:
        now = self._clock.monotonic()
        return replace(call, started=now, deadline=now + call.deadline - call.started)

    async def _list_resources(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListResourcesResult:
        result = await self._offers.list_resources(ctx, params)
        return result.model_copy(update={"resources": [*result.resources, *self._extras.resources]})

    async def _list_templates(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        result = await self._offers.list_templates(ctx, params)
        both = [*result.resource_templates, *self._extras.templates]
        return result.model_copy(update={"resource_templates": both})

    async def _list_prompts(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListPromptsResult:
        result = await self._offers.list_prompts(ctx, params)
        return result.model_copy(update={"prompts": [*result.prompts, *self._extras.prompts]})

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        extra = next((tool for tool in self._extras.tools if tool.name == name), None)
        if extra is not None:
            return extra.input_schema
        return _NO_HEADERS if name in self._tools else None


async def _discover(server: Server[Any], ctx: Ctx, params: RequestParams) -> DiscoverResult:
    """As the SDK tells it, but that there are subscriptions, and no changes of what is offered while a server runs."""
    can = server.get_capabilities(protocol_version=ctx.protocol_version)
    for offered in (can.tools, can.prompts, can.resources):
        if offered is not None:
            offered.list_changed = False
    return DiscoverResult(
        supported_versions=list(MODERN_PROTOCOL_VERSIONS), capabilities=can, instructions=INSTRUCTIONS
    )


def _answered(answer: ToolAnswer) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=answer.data.decode())],
        structured_content=answer.structured,
        _meta={CACHE_META: answer.cache},
    )
