"""POST /mcp/tools/call and /mcp/tools/list: shapes, bad input, and what each error becomes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobnimbus_mcp import errors
from jobnimbus_mcp.gateway.access import EVERYTHING
from jobnimbus_mcp.web import tools_http


async def test_a_call_answers_the_structured_result_and_the_cache_envelope(inside: Any, web: Any, caller: Any) -> None:
    body = {"name": "echo", "arguments": {"size": 2}}
    response = await web.post("/mcp/tools/call", json=body, headers=caller | {"x-request-id": "request-77"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "success": True,
        "data": {"results": [{"size": 2}]},
        "cache": {"status": "miss", "tier": "upstream"},
    }
    ((name, arguments, who, call),) = inside.tools.calls
    assert (name, arguments) == ("echo", {"size": 2})
    assert (who.instance, who.credential, who.own_key) == ("stamford", "key-0123456789abcdef", True)
    assert call.request_id == "request-77"
    assert call.deadline == inside.clock.monotonic() + 14


async def test_arguments_may_be_left_out(inside: Any, web: Any, caller: Any) -> None:
    assert (await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)).status_code == 200
    assert inside.tools.calls[0][1] == {}


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"NaN", None),
        (b"[" * 100_000, None),
        (b"[]", None),
        (b'"echo"', None),
        (b"null", None),
        (b"{}", "name"),
        (b'{"name": 7}', "name"),
        (b'{"name": ""}', "name"),
        (b'{"name": null, "arguments": {}}', "name"),
        (b'{"name": "echo", "arguments": []}', "arguments"),
        (b'{"name": "echo", "arguments": "{}"}', "arguments"),
        (b'{"name": "echo", "arguments": null}', "arguments"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(
    inside: Any, web: Any, error_of: Any, caller: Any, content: bytes, field: str | None
) -> None:
    headers = caller | {"content-type": "application/json"}
    response = await web.post("/mcp/tools/call", content=content, headers=headers)
    assert error_of(response) == (400, "invalid_argument")
    assert response.json().get("field") == field
    assert inside.tools.calls == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"x-jobnimbus-api-key": None}, (401, "missing_credential")),
        ({"x-jobnimbus-api-key": "short"}, (400, "invalid_argument")),
        ({"x-jobnimbus-api-key": "é" * 20}, (400, "invalid_argument")),
        ({"x-jobnimbus-api-key": "x" * 257}, (400, "invalid_argument")),
        ({"x-jobnimbus-instance": None}, (400, "invalid_argument")),
        ({"x-jobnimbus-instance": "nowhere"}, (400, "invalid_argument")),
    ],
)
async def test_the_credential_and_the_account_are_needed(
    web: Any, error_of: Any, caller: Any, changed: dict[str, str | None], expected: tuple[int, str]
) -> None:
    headers = {name: value.encode() for name, value in (caller | changed).items() if value is not None}
    response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=headers)
    assert error_of(response) == expected


@pytest.mark.parametrize("path", ["/mcp/tools/call", "/mcp/tools/list"])
@pytest.mark.parametrize("name", ["X-JobNimbus-Api-Key", "X-JobNimbus-Instance"])
async def test_a_key_or_an_account_that_is_named_twice_is_refused_even_if_both_are_the_same(
    inside: Any, web: Any, error_of: Any, caller: Any, path: str, name: str
) -> None:
    headers = [*caller.items(), (name, caller[name.lower()])]
    response = await web.post(path, json={"name": "echo"}, headers=headers)
    assert error_of(response) == (400, "invalid_argument")
    assert response.json()["field"] == name
    assert inside.tools.calls == []


async def test_an_unknown_tool_is_a_404(web: Any, error_of: Any, caller: Any) -> None:
    response = await web.post("/mcp/tools/call", json={"name": "nothing"}, headers=caller)
    assert error_of(response) == (404, "unknown_tool")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x", field="size"), 400),
        (errors.RecordNotFound("x"), 404),
        (errors.UpstreamNotFound("x"), 404),
        (errors.UpstreamUnauthorized("x"), 401),
        (errors.UpstreamForbidden("x"), 403),
        (errors.UpstreamServerError("x"), 502),
        (errors.UpstreamTimeout("x"), 502),
        (errors.UpstreamUnreadable("x"), 502),
        (errors.UpstreamUnreachable("x"), 502),
        (errors.UpstreamRejected("x"), 502),
        (errors.UpstreamCircuitOpen("x"), 502),
        (errors.CacheUnavailable("x"), 503),
        (errors.InternalError("x"), 500),
    ],
)
async def test_each_error_has_its_status_code_and_field(
    inside: Any, web: Any, error_of: Any, caller: Any, error: errors.ProjectError, status: int
) -> None:
    inside.tools.error = error
    response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert error_of(response) == (status, error.code)
    assert response.json().get("field") == error.field


@pytest.mark.parametrize("kind", [errors.UpstreamRateLimited, errors.BudgetExhausted])
@pytest.mark.parametrize(("retry_after_s", "header"), [(2.1, "3"), (0.0, "1"), (7, "7"), (None, None)])
async def test_too_many_requests_say_when_to_come_again(
    inside: Any, web: Any, caller: Any, kind: Any, retry_after_s: float | None, header: str | None
) -> None:
    inside.tools.error = kind("Later.", retry_after_s=retry_after_s)
    response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert response.status_code == 429
    assert response.headers.get("retry-after") == header


async def test_a_call_that_overruns_its_deadline_is_answered_all_the_same(
    inside: Any, web: Any, error_of: Any, caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools_http, "_LAST_RESORT_S", 0.01)

    async def hang(*args: Any) -> None:
        await asyncio.Event().wait()

    inside.tools.call = hang
    response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert error_of(response) == (502, "upstream_timeout")


@pytest.mark.parametrize("content", [b"", b"{}"])
async def test_the_list_is_that_of_the_tools_and_needs_no_credential(
    inside: Any, web: Any, caller: Any, content: bytes
) -> None:
    headers = {"authorization": caller["authorization"], "content-type": "application/json"}
    response = await web.post("/mcp/tools/list", content=content, headers=headers)
    assert response.status_code == 200
    assert response.json() == {"tools": inside.tools.listing(EVERYTHING)}
