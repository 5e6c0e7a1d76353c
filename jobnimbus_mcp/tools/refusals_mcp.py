"""Errors as the protocol tells them: to the model as a failed call it can act on, to the client as a protocol error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, CallToolResult, TextContent

from jobnimbus_mcp.errors import (
    CallerError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    ProjectError,
    UpstreamForbidden,
    UpstreamUnauthorized,
)

__all__ = ["NEXT_STEPS", "failed", "refusal"]

_SHOWN_OF_URI = 200

_LATER = "Try again in a minute; if it goes on, say that JobNimbus cannot be reached at present."

NEXT_STEPS: Mapping[str, str] = {
    "not_found": "Look for it with a search tool; ids come from results.",
    "unknown_tool": "",
    "invalid_argument": "",
    "missing_credential": "",
    "confirmation_needed": "",
    "unauthorized": "Only whoever set up this connection can mend that: say so.",
    "forbidden": "Only whoever set up this connection can mend that: say so.",
    "tool_not_allowed": "find_tools tells which tools may be used.",
    "read_only": "Say what you would have changed, so that the person can do it.",
    "instance_not_allowed": "Name another account, or say that this connection is not for it.",
    "write_refused": "Mend what it says and call again; nothing was changed.",
    "duplicate_record": "Search for the existing one and update that, or choose another name.",
    "write_in_progress": "Call again with the same idempotency_key: it answers with the outcome.",
    "write_outcome_unknown": "Read the record before trying again, so that nothing is done twice.",
    "rate_limited": "Ask for more at once rather than often: larger pages, fewer calls.",
    "request_budget_exhausted": "",
    "upstream_unauthorized": "Only the owner of the key can mend that: say so.",
    "upstream_forbidden": "An administrator of the JobNimbus account can give the right: say so.",
    "upstream_rate_limited": "",
    "upstream_rejected": "Ask another way: other filters, a smaller page, or the record by its id.",
    "upstream_error": _LATER,
    "upstream_timeout": "Ask for less at once (a smaller size, a narrower filter), or try again in a minute.",
    "upstream_unreachable": _LATER,
    "upstream_unreadable": _LATER,
    "upstream_circuit_open": _LATER,
    "cache_unavailable": "Try again in a minute.",
    "stopping": "Try again.",
    "internal_error": "Do not repeat it; go on another way, and report the request id.",
}
"""What to do about an error of this code, for a model that has nothing but the text; "" where the message says it."""


def failed(error: ProjectError, request_id: str) -> CallToolResult:
    """An error the model can read and act on."""
    text = error.public_message
    if isinstance(error, InvalidInput) and error.field:
        text += f" (argument: {error.field})"
    if next_step := NEXT_STEPS.get(error.code, ""):
        text += f" {next_step}"
    if error.retry_after_s is not None:
        text += f" Try again in {max(1, round(error.retry_after_s))} seconds."
    return CallToolResult(
        content=[TextContent(type="text", text=f"{text} [{error.code}, request {request_id}]")], is_error=True
    )


def refusal(error: ProjectError, request_id: str, uri: str = "", says: str = "") -> MCPError:
    """A protocol error. -32602: what was asked for is not there, or is no such thing; -32600: not for this caller;
    -32603: not now. `data` has our stable code, and the URI where it is about one. `says`: what comes first."""
    data: dict[str, Any] = {"code": error.code, "requestId": request_id}
    if uri:
        data["uri"] = uri[:_SHOWN_OF_URI]
    if error.field:
        data["field"] = error.field
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
