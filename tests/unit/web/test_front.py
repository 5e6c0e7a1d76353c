"""What holds for every request: its id, hosts and origins, sizes and types, the shape of errors, the count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from jobnimbus_mcp.errors import InternalError
from jobnimbus_mcp.web import body as body_module
from jobnimbus_mcp.web.hosts import AllowedHosts

PATHS = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/cache/health"),
    ("GET", "/cache/stats"),
    ("GET", "/cache/entries"),
    ("GET", "/cache/invalidations"),
    ("GET", "/cache/invalidations/stats"),
    ("POST", "/cache/clear"),
    ("POST", "/cache/invalidate"),
    ("POST", "/mcp"),
    ("POST", "/mcp/tools/call"),
    ("POST", "/mcp/tools/list"),
    ("POST", "/webhooks/jobnimbus"),
]


@pytest.mark.parametrize(("method", "path"), [*PATHS, ("GET", "/nowhere"), ("PUT", "/health")])
async def test_every_answer_carries_the_callers_request_id(web: Any, method: str, path: str) -> None:
    response = await web.request(method, path, headers={"X-Request-ID": "trace.from_caller-1"})
    assert response.headers.get_list("x-request-id") == ["trace.from_caller-1"]


@pytest.mark.parametrize("given_id", [None, "short", "x" * 129, "has blank in it", "é-is-not-allowed", "<script>1"])
async def test_a_request_id_that_is_not_one_is_replaced(web: Any, given_id: str | None) -> None:
    headers = {} if given_id is None else {"X-Request-ID": given_id.encode()}
    response = await web.get("/health", headers=headers)
    assert response.headers["x-request-id"].startswith("made-id-")


@pytest.mark.parametrize("length", [8, 128])
async def test_a_request_id_of_the_shortest_and_the_longest_length_is_kept(web: Any, length: int) -> None:
    response = await web.get("/health", headers={"X-Request-ID": "a" * length})
    assert response.headers["x-request-id"] == "a" * length


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST:9", True),
        ("crm.example.com:8443", True),
        ("crm.example.com", False),
        ("crm.example.com:80", False),
        ("evil.example.com", False),
        ("localhost.evil.example.com", False),
        ("localhost@evil.example.com", False),
        ("", False),
        ("é", False),
    ],
)
async def test_a_host_that_is_not_ours_is_misdirected(web: Any, error_of: Any, host: str, answered: bool) -> None:
    response = await web.get("/cache/health", headers={"Host": host.encode()})
    if answered:
        assert response.status_code == 200
    else:
        assert error_of(response) == (421, "host_not_allowed")


@pytest.mark.parametrize(
    ("origin", "home"),
    [
        ("http://localhost", True),
        ("http://localhost:3000", True),
        ("https://localhost", True),
        ("https://crm.example.com:8443", True),
        ("https://crm.example.com", False),
        ("https://evil.example.com", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("localhost", False),
        ("http://localhost/path", False),
        ("http://é", False),
    ],
)
async def test_a_foreign_origin_is_refused(web: Any, error_of: Any, origin: str, home: bool) -> None:
    response = await web.get("/cache/health", headers={"Origin": origin.encode()})
    if home:
        assert response.status_code == 200
    else:
        assert error_of(response) == (403, "origin_not_allowed")


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_host_and_origin_are_checked_on_all_routes_but_the_probes(web: Any, method: str, path: str) -> None:
    foreign = await web.request(method, path, headers={"Origin": "https://evil.example.com"})
    elsewhere = await web.request(method, path, headers={"Host": "evil.example.com"})
    expected = (200, 200) if path in ("/health", "/ready") else (403, 421)
    assert (foreign.status_code, elsewhere.status_code) == expected


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/health", "GET, HEAD"),
        ("/cache/stats", "GET, HEAD"),
        ("/cache/invalidate", "DELETE, POST"),
        ("/mcp", "POST"),
        ("/mcp/tools/call", "POST"),
        ("/webhooks/jobnimbus", "POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(web: Any, error_of: Any, path: str, allow: str) -> None:
    response = await web.patch(path, content=b"{}")
    assert error_of(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/nowhere", "/health/", "/mcp/", "/cache", "/cache/dashboard", "/docs", "/MCP"])
async def test_an_unknown_path_is_not_found_and_never_redirected(web: Any, error_of: Any, path: str) -> None:
    for method in ("GET", "POST"):
        assert error_of(await web.request(method, path)) == (404, "not_found")


async def test_head_is_answered_where_get_is(web: Any) -> None:
    assert (await web.head("/health")).status_code == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
@pytest.mark.parametrize(
    "path", ["/mcp", "/mcp/tools/call", "/webhooks/jobnimbus", "/cache/clear", "/cache/invalidate"]
)
async def test_a_post_that_is_not_json_is_refused(
    web: Any, error_of: Any, admin: Any, caller: Any, path: str, content_type: str | None
) -> None:
    headers = dict(admin if path.startswith("/cache") else caller)
    if content_type is not None:
        headers["content-type"] = content_type
    assert error_of(await web.post(path, content=b"{}", headers=headers)) == (415, "unsupported_media_type")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_mcp_opens_no_stream_and_ends_no_session(
    inside: Any, web: Any, error_of: Any, caller: Any, method: str
) -> None:
    response = await web.request(method, "/mcp", headers=caller | {"accept": "text/event-stream"})
    assert error_of(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert inside.mcp_requests == []


async def test_a_delete_with_a_body_that_is_not_json_is_refused(web: Any, error_of: Any, admin: Any) -> None:
    response = await web.request("DELETE", "/cache/invalidate", content=b"{}", headers=admin)
    assert error_of(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_is_taken_with_and_without_parameters(web: Any, caller: Any, content_type: str) -> None:
    response = await web.post("/mcp/tools/list", content=b"{}", headers=caller | {"content-type": content_type})
    assert response.status_code == 200


def chunks(total: int, size: int = 65_536) -> AsyncIterator[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(0, total, size):
            yield b" " * size

    return stream()


@pytest.mark.parametrize("path", ["/mcp", "/mcp/tools/call", "/webhooks/jobnimbus", "/cache/invalidate"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_limit_is_refused_whether_declared_or_streamed(
    web: Any, error_of: Any, admin: Any, caller: Any, path: str, declared: bool
) -> None:
    headers = (admin if path.startswith("/cache") else caller) | {"content-type": "application/json"}
    content = b" " * 1_000_001 if declared else chunks(2_000_000)
    assert error_of(await web.post(path, content=content, headers=headers)) == (413, "payload_too_large")


async def test_a_body_of_exactly_the_limit_is_taken(web: Any, caller: Any) -> None:
    content = b"{}".ljust(1_000_000)
    headers = caller | {"content-type": "application/json"}
    assert (await web.post("/mcp/tools/list", content=content, headers=headers)).status_code == 200


async def test_a_body_that_stops_half_way_is_not_waited_for(
    inside: Any, error_of: Any, caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0.01)
    never = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with inside.client() as web:
        response = await web.post(
            "/mcp/tools/list", content=stalled(), headers=caller | {"content-type": "application/json"}
        )
    assert error_of(response) == (408, "request_timeout")


async def test_an_unexpected_exception_is_an_answer_of_the_one_shape_and_its_text_is_told_nobody(
    inside: Any, error_of: Any, caller: Any
) -> None:
    inside.tools.error = ValueError("Dana Whitfield, 5550100142")
    with capture_logs() as lines:
        async with inside.client() as web:
            response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert error_of(response) == (500, "internal_error")
    assert "Whitfield" not in response.text
    (line,) = lines
    assert line["error_type"] == "ValueError"
    assert line["request_id"] == response.headers["x-request-id"]
    assert "Whitfield" not in str(line)
    assert any("tools_http.py" in frame for frame in line["where"])


@pytest.mark.parametrize(("already_logged", "lines_expected"), [(True, 0), (False, 1)])
async def test_a_defect_that_was_logged_where_it_happened_is_not_logged_again(
    inside: Any, error_of: Any, caller: Any, already_logged: bool, lines_expected: int
) -> None:
    inside.tools.error = InternalError("A defect.")
    inside.tools.error.__cause__ = ValueError("Dana Whitfield") if already_logged else None
    with capture_logs() as lines:
        async with inside.client() as web:
            response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert error_of(response) == (500, "internal_error")
    assert len(lines) == lines_expected
    assert "Whitfield" not in str(lines)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(400, (400, "invalid_argument")), (404, (404, "not_found")), (503, (500, "internal_error"))],
)
async def test_what_the_http_library_raises_has_the_one_shape_too(
    inside: Any, error_of: Any, caller: Any, raised: int, expected: tuple[int, str]
) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        raise HTTPException(raised, detail="its own words")

    async with inside.client(mcp_app=refuse) as web:
        response = await web.post("/mcp", json={}, headers=caller)
    assert error_of(response) == expected
    assert "its own words" not in response.text


@pytest.mark.parametrize("host", ["", "https://crm.example.com", "a/b", "*"])
def test_an_allowed_host_that_is_not_one_is_refused_at_construction(host: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        AllowedHosts([host])


async def test_an_exception_after_the_answer_began_closes_the_connection(inside: Any, caller: Any) -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("too late")

    async with inside.client(mcp_app=half) as web:
        with pytest.raises(ValueError, match="too late"):
            await web.post("/mcp", json={}, headers=caller)


async def test_requests_are_counted_by_route_and_status(inside: Any, web: Any) -> None:
    await web.get("/health?secret=1")
    await web.get("/nowhere/123")
    await web.patch("/health")
    counted = {dict(labels)["route"] + " " + dict(labels)["status"] for _, labels in inside.recorder.counts}
    assert counted == {"/health 200", "unmatched 404", "/health 405"}


async def test_the_access_log_is_off_unless_switched_on_and_then_without_query_strings(inside: Any) -> None:
    with capture_logs() as silent:
        async with inside.client() as web:
            await web.get("/health")
    with capture_logs() as lines:
        async with inside.client(access_log=True) as web:
            await web.post("/webhooks/jobnimbus?token=hook-secret", json={})
    assert silent == []
    (line,) = lines
    assert (line["method"], line["route"], line["status"]) == ("POST", "/webhooks/jobnimbus", 401)
    assert "hook-secret" not in str(line)


async def test_answers_are_not_to_be_stored_or_sniffed(web: Any, caller: Any) -> None:
    for response in (await web.get("/health"), await web.get("/nowhere")):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
    mcp = await web.post("/mcp", json={}, headers=caller)
    assert "cache-control" not in mcp.headers


async def test_the_mcp_app_gets_the_request_as_it_came_with_its_own_headers_trimmed(inside: Any, caller: Any) -> None:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"mcp-name", b"get_jobs \t")]
    headers += [(name.encode(), value.encode()) for name, value in caller.items()]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages = [
        {"type": "http.request", "body": b'{"a":', "more_body": True},
        {"type": "http.request", "body": b"1}", "more_body": False},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": headers, "root_path": ""}
    await inside.app()(scope, receive, send)
    ((path, seen, body),) = inside.mcp_requests
    assert (path, body) == ("/mcp", b'{"a":1}')
    assert dict(seen)[b"mcp-name"] == b"get_jobs"
    assert sent[0]["status"] == 200


async def test_a_websocket_is_turned_away(inside: Any) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await inside.app()({"type": "websocket", "path": "/mcp", "headers": []}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_sender_that_goes_away_is_counted_and_not_answered(inside: Any, caller: Any) -> None:
    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in caller.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/mcp/tools/call",
        "query_string": b"",
        "headers": headers,
        "root_path": "",
    }
    await inside.app()(scope, receive, send)
    assert inside.recorder.counts["http_requests", (("route", "/mcp/tools/call"), ("status", "499"))] == 1


async def test_lifespans_are_entered_in_order_and_left_in_reverse(inside: Any) -> None:
    steps: list[str] = []

    def part(name: str) -> Any:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            steps.append(f"open {name}")
            yield
            steps.append(f"close {name}")

        return lifespan

    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        steps.append(message["type"])

    await inside.app(lifespans=(part("store"), part("mcp")))({"type": "lifespan"}, receive, send)
    assert steps == [
        "open store",
        "open mcp",
        "lifespan.startup.complete",
        "close mcp",
        "close store",
        "lifespan.shutdown.complete",
    ]


_HEADER = st.tuples(
    st.sampled_from(
        [
            "host",
            "origin",
            "authorization",
            "content-type",
            "content-length",
            "x-request-id",
            "x-webhook-token",
            "x-jobnimbus-signature",
            "x-jobnimbus-instance",
            "x-jobnimbus-api-key",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        ]
    ).map(str.encode),
    st.binary(max_size=30) | st.sampled_from([b"localhost", b"application/json", b"Bearer x", b"9" * 30, b"stamford"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([path for _, path in PATHS]),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    headers=st.lists(_HEADER, max_size=6),
    query=st.binary(max_size=20),
    content=st.binary(max_size=30),
)
async def test_no_headers_query_or_body_make_a_defect(
    inside: Any, path: str, method: str, headers: list[tuple[bytes, bytes]], query: bytes, content: bytes
) -> None:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "root_path": "",
    }
    await inside.app(mcp_tokens=())(scope, receive, send)
    assert len(statuses) == 1
    assert statuses[0] < 500
