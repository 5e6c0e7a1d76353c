"""The HTTP driver: what it sends, what it refuses, and how it fails."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from jobnimbus_mcp.errors import (
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.upstream import sender_http
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Request
from jobnimbus_mcp.upstream.sender_http import HttpSender

KEY = "k3yk3yk3yk3yk3yk"
REQUEST = Request("/contacts", (("size", "1"), ("filter", '{"must":[{"term":{"email":"dana@example.com"}}]}')))
Answering = Callable[[httpx.Request], httpx.Response]


async def send(answering: Answering, request: Request = REQUEST, key: str = KEY, timeout_s: float = 5.0) -> RawAnswer:
    sender = HttpSender("https://crm.example/api1", max_connections=8, transport=httpx.MockTransport(answering))
    try:
        return await sender.send(request, key, timeout_s)
    finally:
        await sender.aclose()


async def test_it_sends_one_get_with_key_and_once_encoded_parameters() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"count": 0}, headers={"X-Thing": "1"})

    got = await send(answer)
    assert (got.status, got.body) == (200, b'{"count":0}')
    assert got.headers["x-thing"] == "1"
    (request,) = sent
    assert request.method == "GET"
    assert request.url.path == "/api1/contacts"
    assert dict(request.url.params) == dict(REQUEST.params)
    assert b"%7B%22must%22" in request.url.query
    assert b"%25" not in request.url.query
    assert request.headers["authorization"] == f"bearer {KEY}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("jobnimbus-mcp/")


@pytest.mark.parametrize("status", [302, 404, 429, 500])
async def test_every_status_comes_back_and_no_redirect_is_followed(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(status, headers={"Location": "https://elsewhere.example/"})

    assert (await send(answer)).status == status
    assert asked == ["crm.example"]


async def test_a_cookie_given_to_one_key_never_travels_with_another() -> None:
    cookies: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        cookies.append(request.headers.get("cookie"))
        return httpx.Response(200, json={}, headers={"Set-Cookie": "session=first; Path=/"})

    sender = HttpSender("https://crm.example/api1", max_connections=None, transport=httpx.MockTransport(answer))
    for key in (KEY, "an0therkeyan0ther"):
        await sender.send(REQUEST, key, 5.0)
    await sender.aclose()
    assert cookies == [None, None]


class Body(httpx.AsyncByteStream):
    """Pieces, then an error when there is one."""

    def __init__(self, *pieces: bytes, then: Exception | None = None) -> None:
        self._pieces, self._then = pieces, then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            raise self._then


def raising(error: Exception) -> Answering:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answering", "kind"),
    [
        (raising(httpx.ConnectTimeout("t")), UpstreamTimeout),
        (raising(httpx.ReadTimeout("t")), UpstreamTimeout),
        (raising(httpx.PoolTimeout("t")), UpstreamTimeout),
        (raising(httpx.ConnectError("refused")), UpstreamUnreachable),
        (raising(httpx.ReadError("reset")), UpstreamUnreachable),
        (raising(httpx.RemoteProtocolError("gone")), UpstreamUnreachable),
        (raising(httpx.ProxyError("proxy")), UpstreamUnreachable),
        (lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.RemoteProtocolError("cut"))), UpstreamUnreadable),
        (lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.ReadError("cut"))), UpstreamUnreadable),
        (lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.ReadTimeout("slow"))), UpstreamTimeout),
        (
            lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Body(b"no gzip")),
            UpstreamUnreadable,
        ),
    ],
)
async def test_each_failure_of_the_wire_has_its_error_and_tells_nobodys_data(
    answering: Answering, kind: type[UpstreamError]
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await send(answering)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is not None
    told = "".join(traceback.format_exception(caught.value))
    assert KEY not in told
    assert "dana" not in caught.value.public_message + str(caught.value.__cause__)


async def test_an_answer_that_never_comes_is_a_timeout() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    sender = HttpSender("https://crm.example/api1", max_connections=8, transport=Silent())
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(sender.send(REQUEST, KEY, 0.01), 5)
    await sender.aclose()


async def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_http, "BODY_BYTES_MAX", 10_000)
    assert len((await send(lambda _: httpx.Response(200, stream=Body(*[b"x" * 1_000] * 10)))).body) == 10_000
    with pytest.raises(UpstreamUnreadable):
        await send(lambda _: httpx.Response(200, stream=Body(*[b"x" * 1_000] * 11)))


@pytest.mark.parametrize("key", ["k\r\nHost: evil", "schlüssel", "k\x00"])
async def test_a_key_that_cannot_be_a_header_is_refused_unsent(key: str) -> None:
    with pytest.raises(UpstreamUnauthorized) as caught:
        await send(raising(AssertionError("sent")), key=key)
    assert key not in str(caught.value)


async def test_nothing_of_a_request_is_logged_even_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await send(lambda _: httpx.Response(200, json={}))
    assert [record.getMessage() for record in caplog.records if "crm.example" in record.getMessage()] == []


@pytest.mark.parametrize(
    "url",
    ["", "crm.example/api1", "ftp://crm.example", "https://", "https://u:p@crm.example/", "https://crm.example/?a=1"],
)
def test_an_api_root_that_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="API root"):
        HttpSender(url, max_connections=1)
