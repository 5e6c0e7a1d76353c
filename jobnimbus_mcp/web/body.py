"""Reading a request's body: declared as JSON, within a size and a time, and only after its sender was let in."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from jobnimbus_mcp.web.refusals import BodyTimeout, PayloadTooLarge, UnsupportedMediaType

__all__ = ["BODY_TIMEOUT_S", "MAX_BODY_BYTES", "json_body", "refuse_declared_size", "replayed"]

MAX_BODY_BYTES = 1_000_000
"""A webhook or a tool call has a few kilobytes; a hundred of these at once still fit in a small machine's memory."""
BODY_TIMEOUT_S = 10.0
"""For senders that stop half way: without it they would hold a connection for ever."""


def refuse_declared_size(headers: Headers) -> None:
    """Refuse by Content-Length, before anything is read.

    Raises:
        PayloadTooLarge: more is announced than is taken.
    """
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES:
        raise PayloadTooLarge(MAX_BODY_BYTES)


async def json_body(scope: Scope, receive: Receive, headers: Headers) -> bytes:
    """The whole body of a request that may have one; b"" of one that has none. Not yet parsed.

    Raises:
        UnsupportedMediaType: a POST, or a body, that is not declared as application/json.
        PayloadTooLarge: its real length is above the limit.
        BodyTimeout: it did not arrive in time.
        ClientDisconnect: the sender went away.
    """
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return b""
    as_json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if scope["method"] == "POST" and not as_json:
        raise UnsupportedMediaType
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read(receive)
    except TimeoutError as late:
        raise BodyTimeout from late
    if body and not as_json:
        raise UnsupportedMediaType
    return body


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again


async def _read(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise PayloadTooLarge(MAX_BODY_BYTES)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
