"""Who may come in where: every route, with every kind of token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.web.auth import Bearers

ADMIN_ROUTES = [
    ("GET", "/metrics", None),
    ("GET", "/cache/stats", None),
    ("GET", "/cache/entries", None),
    ("GET", "/cache/invalidations", None),
    ("GET", "/cache/invalidations/stats", None),
    ("POST", "/cache/clear", {}),
    ("POST", "/cache/invalidate", {"entity": "jobs"}),
    ("DELETE", "/cache/invalidate", {"entity": "jobs"}),
]
CALLER_ROUTES = [
    ("POST", "/mcp", {}),
    ("POST", "/mcp/tools/list", {}),
    ("POST", "/mcp/tools/call", {"name": "echo"}),
]
OPEN_ROUTES = ["/health", "/ready", "/cache/health"]
BAD = [
    [],
    [""],
    ["Bearer"],
    ["Bearer "],
    ["Bearer wrong-token-0123456789"],
    ["Bearer admin-token-012345678"],
    ["Bearer admin-token-01234567890"],
    ["Basic admin-token-0123456789"],
    ["admin-token-0123456789"],
    ["Bearer hook-secret-0123456789"],
    ["Bearer é\x80"],
    ["Bearer admin-token-0123456789", "Bearer admin-token-0123456789"],
]


def authorization(values: list[str]) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize("bad", [*BAD, ["Bearer mcp-token-0123456789ab"]])
@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ROUTES)
async def test_an_admin_route_refuses_whoever_lacks_the_token_and_does_nothing(
    inside: Any, web: Any, error_of: Any, method: str, path: str, body: Any, bad: list[str]
) -> None:
    response = await web.request(method, path, json=body, headers=authorization(bad))
    assert error_of(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert inside.invalidator.asked == []


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ROUTES)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_an_admin_route_lets_the_admin_in(web: Any, method: str, path: str, body: Any, scheme: str) -> None:
    headers = {"authorization": f"{scheme} admin-token-0123456789"}
    assert (await web.request(method, path, json=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ROUTES)
async def test_without_an_admin_token_nobody_is_the_admin(
    inside: Any, error_of: Any, admin: Any, method: str, path: str, body: Any
) -> None:
    async with inside.client(admin_token=None) as web:
        assert error_of(await web.request(method, path, json=body, headers=admin)) == (503, "admin_disabled")


async def test_a_stranger_is_refused_before_type_or_content_of_the_body_is_looked_at(web: Any, error_of: Any) -> None:
    assert error_of(await web.post("/cache/clear", content=b"{")) == (401, "unauthorized")


@pytest.mark.parametrize("bad", [*BAD, ["Bearer admin-token-0123456789"]])
@pytest.mark.parametrize(("method", "path", "body"), CALLER_ROUTES)
async def test_a_callers_route_needs_one_of_the_tokens_once_there_are_any(
    inside: Any, web: Any, error_of: Any, caller: Any, method: str, path: str, body: Any, bad: list[str]
) -> None:
    del caller["authorization"]
    headers = authorization(bad) + [(name.encode(), value.encode()) for name, value in caller.items()]
    response = await web.request(method, path, json=body, headers=headers)
    assert error_of(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert inside.tools.calls == inside.mcp_requests == []


@pytest.mark.parametrize(("method", "path", "body"), CALLER_ROUTES)
@pytest.mark.parametrize("token", ["mcp-token-0123456789ab", "another-token-012345678"])
async def test_each_token_opens_the_callers_routes(
    web: Any, caller: Any, method: str, path: str, body: Any, token: str
) -> None:
    headers = caller | {"authorization": f"Bearer {token}"}
    assert (await web.request(method, path, json=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), CALLER_ROUTES)
async def test_without_tokens_the_callers_routes_are_open(
    inside: Any, caller: Any, method: str, path: str, body: Any
) -> None:
    del caller["authorization"]
    async with inside.client(mcp_tokens=()) as web:
        assert (await web.request(method, path, json=body, headers=caller)).status_code == 200


@pytest.mark.parametrize("path", OPEN_ROUTES)
async def test_the_probes_are_open(inside: Any, path: str) -> None:
    async with inside.client(admin_token=None) as web:
        assert (await web.get(path)).status_code == 200


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=3))
def test_no_header_raises_and_none_but_the_token_is_admitted(values: list[str]) -> None:
    assert not Bearers(["the-only-token-01234567890123456789012345"]).admits(values)


def test_a_token_of_any_letters_is_admitted_as_its_utf8_bytes_arrive() -> None:
    assert Bearers(["schlüssel-0123456789"]).admits(["Bearer " + "schlüssel-0123456789".encode().decode("latin-1")])
