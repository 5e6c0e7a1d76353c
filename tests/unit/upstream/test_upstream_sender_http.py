"""The HTTP driver: what it sends, what it refuses, and how it fails."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from jobnimbus_mcp.errors import (
    FeatureDisabled,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.upstream import sender_http
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Base, Request, fetch_request
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
    ("answering", "kind", "sent"),
    [
        (raising(httpx.ConnectTimeout("t")), UpstreamTimeout, False),
        (raising(httpx.PoolTimeout("t")), UpstreamTimeout, False),
        (raising(httpx.ReadTimeout("t")), UpstreamTimeout, True),
        (raising(httpx.WriteTimeout("t")), UpstreamTimeout, True),
        (raising(httpx.ConnectError("refused")), UpstreamUnreachable, False),
        (raising(httpx.ProxyError("proxy")), UpstreamUnreachable, False),
        (raising(httpx.ReadError("reset")), UpstreamUnreachable, True),
        (raising(httpx.WriteError("reset")), UpstreamUnreachable, True),
        (raising(httpx.RemoteProtocolError("gone")), UpstreamUnreachable, True),
        (
            lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.RemoteProtocolError("cut"))),
            UpstreamUnreadable,
            True,
        ),
        (lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.ReadError("cut"))), UpstreamUnreadable, True),
        (lambda _: httpx.Response(200, stream=Body(b"{", then=httpx.ReadTimeout("slow"))), UpstreamTimeout, True),
        (
            lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Body(b"no gzip")),
            UpstreamUnreadable,
            True,
        ),
    ],
)
async def test_each_failure_of_the_wire_has_its_error_and_tells_nobodys_data(
    answering: Answering, kind: type[UpstreamError], sent: bool
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await send(answering)
    assert (type(caught.value), caught.value.sent) == (kind, sent)
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
def test_a_root_that_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the API root must be"):
        HttpSender(url, max_connections=1)
    with pytest.raises(ValueError, match="upload service must be"):
        HttpSender("https://crm.example/api1", max_connections=1, upload_base_url=url)


# ---- methods, bodies and where they go


class Net:
    """A sender, and every request that went out."""

    def __init__(
        self,
        answering: Answering = lambda _: httpx.Response(200, json={}),
        *,
        api: str = "https://crm.example/api1",
        uploads: str | None = "https://up.example",
        hosts: tuple[str, ...] = ("files.example", "cdn.example:8443"),
    ) -> None:
        self.out: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            self.out.append(request)
            return answering(request)

        self.sender = HttpSender(
            api, max_connections=8, upload_base_url=uploads, file_hosts=hosts, transport=httpx.MockTransport(answer)
        )

    async def send(self, request: Request) -> RawAnswer:
        try:
            return await self.sender.send(request, KEY, 5.0)
        finally:
            await self.sender.aclose()


async def test_a_body_goes_out_as_it_is_with_its_media_type() -> None:
    net = Net()
    await net.send(Request("/jobs/j1", method="PUT", body=b'{"a":1}'))
    (request,) = net.out
    assert (request.method, str(request.url), request.read()) == ("PUT", "https://crm.example/api1/jobs/j1", b'{"a":1}')
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == "7"
    assert request.headers["authorization"] == f"bearer {KEY}"


async def test_a_request_without_a_body_names_no_media_type() -> None:
    net = Net()
    await net.send(Request("/files/f1", method="DELETE"))
    (request,) = net.out
    assert (request.method, request.read(), "content-type" in request.headers) == ("DELETE", b"", False)


@pytest.mark.parametrize(
    ("api", "uploads", "base", "url"),
    [
        ("https://crm.example/api1", "https://up.example", Base.API, "https://crm.example/api1/x"),
        ("https://crm.example/api1/", "https://up.example", Base.HOST, "https://crm.example/x"),
        ("https://crm.example/sub/api1", "https://up.example", Base.HOST, "https://crm.example/sub/x"),
        ("http://127.0.0.1:9000", None, Base.HOST, "http://127.0.0.1:9000/x"),
        ("https://crm.example/api1", "https://up.example/base/", Base.UPLOAD, "https://up.example/base/x"),
        ("http://127.0.0.1:9000/api1", None, Base.UPLOAD, "http://127.0.0.1:9000/x"),
    ],
)
async def test_each_base_is_where_it_should_be_and_gets_the_key(
    api: str, uploads: str | None, base: Base, url: str
) -> None:
    net = Net(api=api, uploads=uploads)
    await net.send(Request("/x", (("a", "1"),), method="POST", body=b"{}", base=base))
    (request,) = net.out
    assert str(request.url) == f"{url}?a=1"
    assert request.headers["authorization"] == f"bearer {KEY}"


# ---- places that JobNimbus names


def put(url: str) -> Request:
    return Request("", method="PUT", body=b"jpg", base=Base.ABSOLUTE, url=url, media="image/jpeg")


@pytest.mark.parametrize(
    "request_",
    [
        put("https://bucket.s3.us-east-1.amazonaws.com/a%2Fb?X-Amz-Signature=a%2Bb"),
        put("https://up.example/put?sig=1"),
        put("https://crm.example/put?sig=1"),
        put("https://files.example/put?sig=1"),
        fetch_request("https://files.example/roof.jpg?Signature=a%2Bb", bytes_max=100),
        fetch_request("https://FILES.example:443/roof.jpg", bytes_max=100),
        fetch_request("https://cdn.example:8443/roof.jpg", bytes_max=100),
    ],
)
async def test_a_place_for_files_is_visited_without_the_key(request_: Request) -> None:
    net = Net()
    await net.send(request_)
    (request,) = net.out
    assert "authorization" not in request.headers
    assert KEY not in str(request.url) + str(request.headers)
    assert str(request.url).lower() == request_.url.lower().replace(":443", "")
    assert request.method == request_.method
    if request_.body is not None:
        assert (request.read(), request.headers["content-type"]) == (b"jpg", "image/jpeg")
        assert request.headers["content-length"] == "3"


@pytest.mark.parametrize(
    "request_",
    [
        put("https://evil.example/put"),
        put("https://amazonaws.com/put"),
        put("https://amazonaws.com.evil.example/put"),
        put("https://evil-amazonaws.com/put"),
        put("http://bucket.s3.amazonaws.com/put"),
        put("http://crm.example/put"),
        put("https://u:p@files.example/put"),
        put("/relative"),
        put(""),
        fetch_request("https://bucket.s3.amazonaws.com/roof.jpg", bytes_max=100),
        fetch_request("https://crm.example/roof.jpg", bytes_max=100),
        fetch_request("https://files.example.evil.example/roof.jpg", bytes_max=100),
        fetch_request("https://sub.files.example/roof.jpg", bytes_max=100),
        fetch_request("https://files.example:444/roof.jpg", bytes_max=100),
        fetch_request("https://cdn.example/roof.jpg", bytes_max=100),
        fetch_request("http://files.example/roof.jpg", bytes_max=100),
        fetch_request("https://files.example@evil.example/roof.jpg", bytes_max=100),
        fetch_request("https://evil.example\\@files.example/roof.jpg", bytes_max=100),
        fetch_request("file:///etc/passwd", bytes_max=100),
    ],
)
async def test_no_other_place_is_visited(request_: Request) -> None:
    net = Net()
    with pytest.raises((FeatureDisabled, UpstreamUnreadable)) as caught:
        await net.send(request_)
    assert net.out == []
    assert caught.value.code in ("file_host_refused", "upstream_unreadable")


async def test_a_place_that_is_not_believed_is_named_with_the_setting_that_would_change_it() -> None:
    with pytest.raises(FeatureDisabled) as caught:
        await Net().send(put("https://evil.example/put?sig=s3cret"))
    assert "evil.example" in caught.value.public_message
    assert "JOBNIMBUS_FILES_HOSTS" in caught.value.public_message
    assert "s3cret" not in caught.value.public_message


async def test_an_api_without_tls_may_keep_its_files_without_it_too() -> None:
    """The simulator's files lie at its own host."""
    api = "http://127.0.0.1:9000/api1"
    for request in (put("http://127.0.0.1:9000/put"), fetch_request("http://127.0.0.1:9000/cdn/x", bytes_max=9)):
        net = Net(api=api, uploads=None, hosts=("127.0.0.1:9000",))
        await net.send(request)
        assert len(net.out) == 1
    for url in ("http://127.0.0.1:9001/put", "http://127.0.0.1/put", "http://files.example/put"):
        net = Net(api=api, uploads=None, hosts=("127.0.0.1:9000", "files.example", "127.0.0.1:9001"))
        with pytest.raises(FeatureDisabled):
            await net.send(put(url))
        assert net.out == []


@pytest.mark.parametrize(
    ("told", "absolute"),
    [
        ("https://files.example/x?sig=1", "https://files.example/x?sig=1"),
        ("/cdn/x?sig=1", "https://crm.example/cdn/x?sig=1"),
        ("//files.example/x", "https://files.example/x"),
    ],
)
async def test_a_redirect_comes_back_unfollowed_with_its_whole_address(told: str, absolute: str) -> None:
    net = Net(lambda _: httpx.Response(302, headers={"Location": told}))
    answer = await net.send(Request("/files/f1", bytes_max=0))
    assert (answer.status, answer.headers["location"]) == (302, absolute)
    assert len(net.out) == 1


async def test_a_file_is_asked_for_whatever_its_type() -> None:
    net = Net()
    await net.send(Request("/files/f1", bytes_max=10))
    assert net.out[0].headers["accept"] == "*/*"


@pytest.mark.parametrize(
    ("response", "too_large", "body"),
    [
        (lambda: httpx.Response(200, content=b"x" * 10), None, b"x" * 10),
        (lambda: httpx.Response(200, content=b"x" * 11), 11, b""),
        (lambda: httpx.Response(200, stream=Body(b"x" * 5, b"x" * 5)), None, b"x" * 10),
        (lambda: httpx.Response(200, stream=Body(*[b"x" * 5] * 3, then=AssertionError())), 15, b""),
        (
            lambda: httpx.Response(200, headers={"Content-Length": "99"}, stream=Body(b"x", then=AssertionError())),
            99,
            b"",
        ),
        (lambda: httpx.Response(404, content=b"Not Found, twelve"), None, b"Not Found, twelve"),
    ],
)
async def test_a_file_larger_than_wanted_is_not_read(
    response: Callable[[], httpx.Response], too_large: int | None, body: bytes
) -> None:
    answer = await Net(lambda _: response()).send(Request("/files/f1", bytes_max=10))
    assert (answer.too_large, answer.body) == (too_large, body)


@pytest.mark.parametrize(
    "request_",
    [
        put("https://bucket.s3.amazonaws.com/x?sig=s3cret"),
        fetch_request("https://files.example/x?sig=s3cret", bytes_max=9),
    ],
)
async def test_a_failure_at_such_a_place_tells_no_signature(
    request_: Request, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    net = Net(raising(httpx.ReadError("reset")))
    with pytest.raises(UpstreamUnreachable) as caught:
        await net.send(request_)
    assert "s3cret" not in repr(request_) + caught.value.public_message + caplog.text
