"""Asking the person at the client before something is done: by an answer that asks, or by a request of our own.

Since 2026-07-28 a server asks by answering "input required"; the client calls again with what its person said, and with
a state that we gave it. That state is two digests: of the caller, the tool and its arguments, and of the question. So
an answer counts for the very question it was given to, at whichever process the second call arrives: another call is
refused, and where the question has become another one meanwhile it is asked anew. The state is no secret and needs
none: whoever could make one up could as well say `confirm: true`.

Older clients are sent a request where the connection has a way back, which stateless HTTP has not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
)

from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.requests_mcp import Ctx, capabilities_of, is_modern
from jobnimbus_mcp.tools.spec import ToolSpec

__all__ = ["ANSWERED_WITHIN_S", "Verdict", "ask", "declined"]

ANSWERED_WITHIN_S = 600.0
"""A person that has not answered by then is not asked any more."""

_ASKED = "confirm"
_FORM: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "confirm": {
            "type": "boolean",
            "title": "Go ahead",
            "description": "Yes: it is done now. No: nothing is done.",
            "default": False,
        }
    },
    "required": ["confirm"],
}


class Verdict(Enum):
    """What came of asking."""

    AGREED = "agreed"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    UNASKABLE = "unaskable"
    """This client cannot ask its person."""


async def ask(ctx: Ctx, params: CallToolRequestParams, who: Caller, question: str) -> Verdict | InputRequiredResult:
    """The person's answer to this question about this call; or the result by which the client is to ask it.

    Raises:
        MCPError: the state that came with the answer is not of this call.
    """
    if not _can_ask(ctx):
        return Verdict.UNASKABLE
    if is_modern(ctx):
        about = _about_call(params, who)
        state = f"{about}.{_digest(question)}"
        given = params.request_state
        if given is not None and given.partition(".")[0] != about:
            raise MCPError(INVALID_PARAMS, "Invalid or expired requestState", data={"reason": "invalid_request_state"})
        answer = (params.input_responses or {}).get(_ASKED)
        if given == state and isinstance(answer, ElicitResult):
            return _verdict(answer)
        form = ElicitRequestFormParams(message=question, requested_schema=dict(_FORM))
        return InputRequiredResult(input_requests={_ASKED: ElicitRequest(params=form)}, request_state=state)
    if not ctx.session.can_send_request:
        return Verdict.UNASKABLE
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            return _verdict(await ctx.session.elicit_form(question, dict(_FORM), ctx.request_id))
    except TimeoutError:
        return Verdict.UNANSWERED
    except MCPError:
        return Verdict.UNASKABLE  # it said that it can, and cannot: the agent is left to ask


def declined(verdict: Verdict, spec: ToolSpec) -> CallToolResult:
    """Nothing was done, which is what the person wanted: no error, where the tool has a way to say so."""
    why = "the person declined" if verdict is Verdict.DECLINED else "the person gave no answer"
    text = f"Nothing was done: {why}."
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    needed = set((spec.output or {}).get("required", ()))
    if needed <= {"done"}:
        return CallToolResult(content=content, structured_content={"done": "unchanged", "note": text})
    return CallToolResult(content=content, is_error=True)


def _can_ask(ctx: Ctx) -> bool:
    """A bare `elicitation: {}`, the only form before there were two, means forms."""
    told = capabilities_of(ctx).elicitation
    return told is not None and (told.form is not None or told.url is None)


def _verdict(answer: ElicitResult) -> Verdict:
    if answer.action == "cancel":
        return Verdict.UNANSWERED
    agreed = answer.action == "accept" and (answer.content or {}).get("confirm") is True
    return Verdict.AGREED if agreed else Verdict.DECLINED


def _about_call(params: CallToolRequestParams, who: Caller) -> str:
    return _digest(who.instance, who.partition, params.name, params.arguments or {})


def _digest(*what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
