"""What the headers of a request name: the JobNimbus key to ask with, and the account."""

from __future__ import annotations

from starlette.datastructures import Headers

from jobnimbus_mcp.gateway.headers import sole_value
from jobnimbus_mcp.gateway.identity import API_KEY_HEADER, INSTANCE_HEADER

__all__ = ["named_by"]


def named_by(headers: Headers) -> tuple[str | None, str | None]:
    """Key and account, None where it is not sent.

    Raises:
        InvalidInput: one of them is sent twice.
    """
    return (
        sole_value(API_KEY_HEADER, headers.getlist(API_KEY_HEADER)),
        sole_value(INSTANCE_HEADER, headers.getlist(INSTANCE_HEADER)),
    )
