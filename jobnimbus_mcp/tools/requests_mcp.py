"""What a request says besides its parameters: who sends it, until when it may take, and whether progress is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from mcp.server.context import ServerRequestContext
from mcp.types import ClientCapabilities
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import NotAuthenticated
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.headers import sole_value
from jobnimbus_mcp.gateway.identity import API_KEY_HEADER, INSTANCE_HEADER
from jobnimbus_mcp.tools.context import Progress
from jobnimbus_mcp.tools.resources import Proof

__all__ = [
    "LISTS_TTL_MS",
    "LONG_CALL_S",
    "Calls",
    "Ctx",
    "access_of",
    "capabilities_of",
    "is_modern",
    "progress_of",
    "proof_of",
    "scope_of",
]

Ctx = ServerRequestContext[Any, Any]

LONG_CALL_S = 600.0
"""What a long tool may take where its caller hears of its progress; who hears nothing gives up far sooner."""

LISTS_TTL_MS = 3_600_000
"""What is offered changes with a deploy, not in between."""

_PROGRESS_WITHIN_S = 1.0


class Calls:
    """Begins calls; `request_id_of` finds the id the web layer gave a request, or makes one."""

    def __init__(self, clock: Clock, request_id_of: Callable[[Mapping[str, Any] | None], str]) -> None:
        self._clock = clock
        self._request_id_of = request_id_of

    def begin(self, ctx: Ctx, what: str, *, within_s: float = CALL_DEADLINE_S) -> Call:
        scope = ctx.request.scope if ctx.request is not None else None
        return Call.begin(self._clock, self._request_id_of(scope), tool=what, within_s=within_s)


def access_of(ctx: Ctx) -> Access:
    """What the token at the door allows; on stdio nobody needs any.

    Raises:
        NotAuthenticated: an HTTP request that came in by no door.
    """
    if ctx.request is None:
        return EVERYTHING
    state = ctx.request.scope.get("state")
    access = state.get("access") if isinstance(state, Mapping) else None
    if not isinstance(access, Access):
        raise NotAuthenticated("This request was let in by nobody.")
    return access


def proof_of(ctx: Ctx) -> Proof:
    """The two headers, and what the token at the door allows.

    Raises:
        InvalidInput: a header was sent twice.
        NotAuthenticated: as `access_of`.
    """
    if ctx.request is None:
        return Proof(None, None)
    headers = ctx.request.headers
    return Proof(
        sole_value(API_KEY_HEADER, headers.getlist(API_KEY_HEADER)),
        sole_value(INSTANCE_HEADER, headers.getlist(INSTANCE_HEADER)),
        access_of(ctx),
    )


def scope_of(access: Access) -> Literal["public", "private"]:
    """Who may share a list of what is offered: anybody, unless the token bounds it."""
    return "public" if access.allows_every_tool and not access.read_only else "private"


def is_modern(ctx: Ctx) -> bool:
    """Is it of the era in which a server asks by answering, and not by requests of its own?"""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def capabilities_of(ctx: Ctx) -> ClientCapabilities:
    """What the client said it can do; nothing where it did not say."""
    return ctx.session.client_capabilities or ClientCapabilities()


def progress_of(ctx: Ctx) -> Progress | None:
    """Tells the client how far its call got; None where it did not ask to hear that.

    Progress is news, not a result: a client that does not take it within a second hears no more of it, and the work
    goes on.
    """
    if (ctx.meta or {}).get("progress_token") is None:
        return None
    taken = True

    async def tell(done: float, total: float | None, text: str) -> None:
        nonlocal taken
        if not taken:
            return
        try:
            async with asyncio.timeout(_PROGRESS_WITHIN_S):
                await ctx.session.report_progress(done, total, text)
        except TimeoutError:
            taken = False

    return tell
