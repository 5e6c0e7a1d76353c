"""What whoever builds the server may offer besides: consulted first, for what the server itself would not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerMiddleware
from mcp.types import Prompt, Resource, ResourceTemplate, Tool
from pydantic import BaseModel

from jobnimbus_mcp.tools.requests_mcp import Ctx

__all__ = ["Extras", "Handler"]

Handler = Callable[[Ctx, Any], Awaitable[Any]]
"""Of (context, parameters): the result, or None to leave the request to the server."""


@dataclass(frozen=True)
class Extras:
    """`handlers`: by method. `methods`: parameters of those that the server has no handler for. `sessions`: clients of
    the older protocols get a session each, so that a tool can ask them something; the server does without."""

    tools: Sequence[Tool] = ()
    resources: Sequence[Resource] = ()
    templates: Sequence[ResourceTemplate] = ()
    prompts: Sequence[Prompt] = ()
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    methods: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    middleware: Sequence[ServerMiddleware[Any]] = ()
    sessions: bool = False

    def over(self, method: str, handler: Handler) -> Handler:
        """The server's own handler of a method, with what there is besides before it."""
        first = self.handlers.get(method)
        if first is None:
            return handler

        async def either(ctx: Ctx, params: Any) -> Any:
            result = await first(ctx, params)
            return await handler(ctx, params) if result is None else result

        return either
