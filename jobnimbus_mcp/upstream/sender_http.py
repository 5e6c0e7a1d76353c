"""The one place that opens a connection to JobNimbus: one pooled HTTP/1.1 client for all accounts and keys.

Keys go to the API and to the upload service. Where the bytes of files lie is named by JobNimbus in signed URLs: no key
goes there, and only known hosts are believed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from jobnimbus_mcp import __version__
from jobnimbus_mcp.errors import (
    FeatureDisabled,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Base, Request

__all__ = ["BODY_BYTES_MAX", "HttpSender"]

BODY_BYTES_MAX = 32 * 1024 * 1024
"""Largest answer, decompressed: several times a page of 500 of the widest records."""

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
"""Between two pieces of an answer; `timeout_s` bounds the whole."""

_UNREADABLE_AFTER_HEADERS = (httpx.DecodingError, httpx.RemoteProtocolError, httpx.ReadError)

_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Failures before the first byte of the request went out."""

_STORAGE_SUFFIX = ".amazonaws.com"
"""Where the upload service has files put. Source: JobNimbus API documentation, files (pre-signed URLs)."""


class HttpSender:
    """Implements `Sender`. Whoever makes it closes it.

    Proxies and certificate authorities of the environment are honoured. URLs hold filters, which hold what customers
    are called, or signatures, so neither they nor headers are ever logged or part of an error's message.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_connections: int | None,
        upload_base_url: str | None = None,
        file_hosts: Iterable[str] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base_url`: the API root; its neighbours (`/api2`) lie beside its last segment. `upload_base_url`: of the
        upload service, None for the API's host. `file_hosts`: host names, with the port where it is none of the
        usual, at which the content of files may lie. `max_connections`: of all accounts together, None for no bound.

        Raises:
            ValueError: `base_url` or `upload_base_url` is no plain http(s) URL.
        """
        self._api = _plain_url(base_url, "the API root")
        uploads = str(self._api.join("/")) if upload_base_url is None else upload_base_url
        upload_root = _plain_url(uploads, "the root of the upload service")
        above = self._api.path.rstrip("/").rpartition("/")[0]
        self._roots = {
            Base.API: str(self._api).rstrip("/"),
            Base.HOST: str(self._api.copy_with(path=above or "/")).rstrip("/"),
            Base.UPLOAD: str(upload_root).rstrip("/"),
        }
        self._download_hosts = frozenset(host.lower() for host in file_hosts)
        self._upload_hosts = self._download_hosts | {_host_of(self._api), _host_of(upload_root)}
        # at INFO httpx logs every URL, and at DEBUG its transport logs headers
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            headers={"Accept": "application/json", "User-Agent": f"jobnimbus-mcp/{__version__}"},
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            follow_redirects=False,
            # a session cookie given to one key must never travel with another
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
        )

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        url, headers = self._target(request, credential)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(request, url, headers, timeout_s)
        except _NOTHING_SENT as error:
            if isinstance(error, httpx.TimeoutException):
                raise UpstreamTimeout("JobNimbus did not answer in time.").unsent() from error
            raise UpstreamUnreachable("There is no connection to JobNimbus.").unsent() from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamTimeout("JobNimbus did not answer in time.") from error
        except httpx.TransportError as error:
            raise UpstreamUnreachable("The connection to JobNimbus broke.") from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _target(self, request: Request, credential: str) -> tuple[httpx.URL, dict[str, str]]:
        headers = {} if request.body is None else {"Content-Type": request.media}
        if request.bytes_max is not None or request.base is Base.ABSOLUTE:
            headers["Accept"] = "*/*"
        if request.base is Base.ABSOLUTE:
            return self._checked_place(request), headers
        if not (credential.isascii() and credential.isprintable()):
            # the transport's own complaint would quote it
            raise UpstreamUnauthorized("The JobNimbus API key holds characters that no key has.").unsent()
        url = httpx.URL(self._roots[request.base] + request.path)
        if request.params:
            url = url.copy_merge_params(request.params)
        return url, headers | {"Authorization": f"bearer {credential}"}

    def _checked_place(self, request: Request) -> httpx.URL:
        """The URL that JobNimbus named, when a file's bytes may go there, or come from there.

        Source: JobNimbus API documentation, files: downloads redirect to one host, over https.
        """
        try:
            url = httpx.URL(request.url)
        except httpx.InvalidURL as error:
            raise UpstreamUnreadable("JobNimbus named an address for the file that is none.").unsent() from error
        host = _host_of(url)
        as_the_api = url.scheme == self._api.scheme and host == _host_of(self._api)
        if url.userinfo or not (url.scheme == "https" or as_the_api):
            raise _not_trusted("The address that JobNimbus named for the file is not an https one.")
        if request.method == "GET":
            trusted = host in self._download_hosts
        else:
            trusted = host in self._upload_hosts or host.endswith(_STORAGE_SUFFIX)
        if not trusted:
            raise _not_trusted(
                f"JobNimbus keeps the file at {host}, where this server may neither fetch nor put files; its operator "
                "can add that host to JOBNIMBUS_FILES_HOSTS."
            )
        return url

    async def _send(self, request: Request, url: httpx.URL, headers: dict[str, str], timeout_s: float) -> RawAnswer:
        async with self._client.stream(
            request.method,
            url,
            content=request.body,
            headers=headers,
            timeout=httpx.Timeout(
                min(READ_TIMEOUT_S, timeout_s),
                connect=min(CONNECT_TIMEOUT_S, timeout_s),
                pool=timeout_s,
            ),
        ) as response:
            told = {name.lower(): value for name, value in response.headers.items()}
            if "location" in told:
                told["location"] = _absolute(url, told["location"])
            try:
                return await _answer_of(response, told, request.bytes_max)
            except _UNREADABLE_AFTER_HEADERS as error:
                raise UpstreamUnreadable("JobNimbus's answer was cut short.") from error


async def _answer_of(response: httpx.Response, headers: dict[str, str], bytes_max: int | None) -> RawAnswer:
    status = response.status_code
    if bytes_max is None or status >= 400:
        return RawAnswer(status, headers, await _body_of(response))
    size = _declared_size(headers)
    body = bytearray()
    async for piece in response.aiter_bytes():
        size = max(size, len(body) + len(piece))
        if size > bytes_max:
            return RawAnswer(status, headers, b"", too_large=size)
        body += piece
    return RawAnswer(status, headers, bytes(body))


async def _body_of(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        if len(body) + len(piece) > BODY_BYTES_MAX:
            raise UpstreamUnreadable("JobNimbus's answer is larger than anything it should send.")
        body += piece
    return bytes(body)


def _declared_size(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _absolute(asked: httpx.URL, location: str) -> str:
    try:
        return str(asked.join(location))
    except httpx.InvalidURL:
        return location


def _host_of(url: httpx.URL) -> str:
    """The host in lower case, with its port where it is not the scheme's own."""
    return url.netloc.decode("ascii").lower()


def _plain_url(text: str, what: str) -> httpx.URL:
    url = httpx.URL(text)
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise ValueError(f"{what} must be an http(s) URL without user, query and fragment")
    return url


def _not_trusted(message: str) -> FeatureDisabled:
    return FeatureDisabled(message, code="file_host_refused")
