"""The one place that opens a connection to JobNimbus: one pooled HTTP/1.1 client for all accounts and keys."""

from __future__ import annotations

import asyncio
import logging
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from jobnimbus_mcp import __version__
from jobnimbus_mcp.errors import UpstreamTimeout, UpstreamUnauthorized, UpstreamUnreachable, UpstreamUnreadable
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Request

__all__ = ["BODY_BYTES_MAX", "HttpSender"]

BODY_BYTES_MAX = 32 * 1024 * 1024
"""Largest answer, decompressed: several times a page of 500 of the widest records."""

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
"""Between two pieces of an answer; `timeout_s` bounds the whole."""

_UNREADABLE_AFTER_HEADERS = (httpx.DecodingError, httpx.RemoteProtocolError, httpx.ReadError)


class HttpSender:
    """Implements `Sender`. Whoever makes it closes it.

    Proxies and certificate authorities of the environment are honoured. URLs hold filters, which hold what customers
    are called, so neither they nor headers are ever logged or part of an error's message.
    """

    def __init__(
        self, base_url: str, *, max_connections: int | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`base_url`: the API root. `max_connections`: of all accounts together, None for no bound.

        Raises:
            ValueError: `base_url` is no plain http(s) URL.
        """
        url = httpx.URL(base_url)
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
            raise ValueError("the API root must be an http(s) URL without user, query and fragment")
        # at INFO httpx logs every URL, and at DEBUG its transport logs headers
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Accept": "application/json", "User-Agent": f"jobnimbus-mcp/{__version__}"},
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            follow_redirects=False,
            # a session cookie given to one key must never travel with another
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
        )

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        if not (credential.isascii() and credential.isprintable()):
            # the transport's own complaint would quote it
            raise UpstreamUnauthorized("The JobNimbus API key holds characters that no key has.")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(request, credential, timeout_s)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamTimeout("JobNimbus did not answer in time.") from error
        except httpx.TransportError as error:
            raise UpstreamUnreachable("There is no connection to JobNimbus.") from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        async with self._client.stream(
            "GET",
            request.path,
            params=request.params,
            headers={"Authorization": f"bearer {credential}"},
            timeout=httpx.Timeout(
                min(READ_TIMEOUT_S, timeout_s),
                connect=min(CONNECT_TIMEOUT_S, timeout_s),
                pool=timeout_s,
            ),
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            try:
                body = await _body_of(response)
            except _UNREADABLE_AFTER_HEADERS as error:
                raise UpstreamUnreadable("JobNimbus's answer was cut short.") from error
            return RawAnswer(response.status_code, headers, body)


async def _body_of(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        if len(body) + len(piece) > BODY_BYTES_MAX:
            raise UpstreamUnreadable("JobNimbus's answer is larger than anything it should send.")
        body += piece
    return bytes(body)
