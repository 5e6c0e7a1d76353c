"""The limit on a caller's requests, as its answers tell it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.web.clients import Client

DESK = Client("desk-token-0123456789", Access(client="desk", requests_per_minute=2))
FIELD = Client("field-token-0123456789", Access(client="field", requests_per_minute=2))
FREE = Client("free-token-0123456789", Access(client="free", requests_per_minute=0))
KEY = "key-0123456789abcdef"
OTHER_KEY = "key-fedcba9876543210"


def by(client: Client) -> dict[str, str]:
    return {
        "authorization": f"Bearer {client.token}",
        "x-jobnimbus-api-key": KEY,
        "x-jobnimbus-instance": "stamford",
    }


def limit_of(response: Any) -> tuple[str | None, ...]:
    return tuple(response.headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset"))


async def ask(web: Any, headers: dict[str, str], path: str = "/mcp/tools/list") -> Any:
    return await web.post(path, json={"name": "echo"}, headers=headers)


async def test_each_answer_tells_what_is_left_and_one_too_many_is_a_429_that_passes(inside: Any, error_of: Any) -> None:
    async with inside.client(clients=(DESK,)) as web:
        assert limit_of(await ask(web, by(DESK))) == ("2", "1", "30")
        inside.tools.error = InvalidInput("x")
        refused = await ask(web, by(DESK), "/mcp/tools/call")
        assert error_of(refused) == (400, "invalid_argument")
        assert limit_of(refused) == ("2", "0", "60")
        inside.tools.error = None

        limited = await ask(web, by(DESK), "/mcp/tools/call")
        assert error_of(limited) == (429, "rate_limited")
        assert (limit_of(limited), limited.headers["retry-after"]) == (("2", "0", "60"), "30")
        assert inside.tools.calls == []
        assert inside.recorder.counts["rate_limited", (("client", "desk"),)] == 1

        inside.clock.advance(29)
        assert (await ask(web, by(DESK))).headers["retry-after"] == "1"
        inside.clock.advance(1)
        assert limit_of(await ask(web, by(DESK), "/mcp/tools/call")) == ("2", "0", "60")
    assert len(inside.tools.calls) == 1


async def test_the_roads_share_one_limit_and_over_mcp_the_refusal_is_the_protocol_s(inside: Any) -> None:
    message = {"jsonrpc": "2.0", "id": "abc", "method": "tools/list"}
    async with inside.client(clients=(DESK,)) as web:
        await ask(web, by(DESK))
        reached = await web.post("/mcp", json=message, headers=by(DESK))
        assert (reached.status_code, limit_of(reached)) == (200, ("2", "0", "60"))
        limited = await web.post("/mcp", json=message, headers=by(DESK))
        assert (limited.status_code, limit_of(limited)) == (429, ("2", "0", "60"))
        assert limited.headers["retry-after"] == "30"
        assert limited.json() == {
            "jsonrpc": "2.0",
            "id": "abc",
            "error": {
                "code": -32603,
                "message": "You may make 2 requests a minute, and have made them. Try again in 30 seconds.",
                "data": {
                    "code": "rate_limited",
                    "requestId": limited.headers["x-request-id"],
                    "retryAfterSeconds": 30,
                },
            },
        }
    assert len(inside.mcp_requests) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"id":7}', 7),
        (b'{"id":true}', None),
        (b'{"id":null}', None),
        (b'{"id":[1]}', None),
        (b'[{"id":7}]', None),
        (b"{", None),
        (b"", None),
    ],
)
async def test_the_refusal_over_mcp_names_the_message_where_it_can(inside: Any, content: bytes, told: Any) -> None:
    one = Client(DESK.token, replace(DESK.access, requests_per_minute=1))
    async with inside.client(clients=(one,)) as web:
        await ask(web, by(one))
        headers = by(one) | {"content-type": "application/json"}
        assert (await web.post("/mcp", content=content, headers=headers)).json()["id"] == told


async def test_clients_do_not_share_a_limit(inside: Any) -> None:
    async with inside.client(clients=(DESK, FIELD)) as web:
        for client in (DESK, FIELD):
            assert [(await ask(web, by(client))).status_code for _ in range(3)] == [200, 200, 429]


async def test_without_a_limit_nothing_is_counted_or_told(inside: Any) -> None:
    async with inside.client(clients=(FREE,), requests_per_minute=1) as web:
        assert {limit_of(await ask(web, by(FREE))) for _ in range(5)} == {(None, None, None)}
    async with inside.client(clients=()) as web:
        headers = by(DESK) | {"authorization": "Bearer mcp-token-0123456789ab"}
        assert {limit_of(await ask(web, headers)) for _ in range(5)} == {(None, None, None)}


async def test_the_server_s_own_number_is_that_of_tokens_without_one(inside: Any) -> None:
    async with inside.client(clients=(DESK,), requests_per_minute=1) as web:
        headers = by(DESK) | {"authorization": "Bearer mcp-token-0123456789ab"}
        assert [(await ask(web, headers)).status_code for _ in range(2)] == [200, 429]
        headers["authorization"] = "Bearer another-token-012345678"
        assert [(await ask(web, headers)).status_code for _ in range(2)] == [200, 429]
        assert limit_of(await ask(web, by(DESK))) == ("2", "1", "30")


async def test_callers_without_a_token_are_known_by_their_jobnimbus_key_and_account(inside: Any) -> None:
    async with inside.client(mcp_tokens=(), requests_per_minute=1) as web:
        one = {"x-jobnimbus-api-key": KEY, "x-jobnimbus-instance": "stamford"}
        for headers in (one, one | {"x-jobnimbus-api-key": OTHER_KEY}, one | {"x-jobnimbus-instance": "guilford"}):
            assert [(await ask(web, headers)).status_code for _ in range(2)] == [200, 429]
    assert inside.recorder.counts["rate_limited", (("client", "key"),)] == 3


async def test_all_who_name_no_key_or_a_bad_one_are_one_caller(inside: Any, error_of: Any) -> None:
    async with inside.client(mcp_tokens=(), requests_per_minute=2) as web:
        assert (await ask(web, {})).status_code == 200
        bad = await ask(web, {"x-jobnimbus-api-key": "short", "x-jobnimbus-instance": "stamford"}, "/mcp/tools/call")
        assert error_of(bad) == (400, "invalid_argument")
        assert error_of(await ask(web, {})) == (429, "rate_limited")
    assert inside.recorder.counts["rate_limited", (("client", "nobody"),)] == 1


async def test_who_is_not_let_in_is_not_counted_and_other_routes_have_no_limit(inside: Any, admin: Any) -> None:
    async with inside.client(clients=(DESK,), requests_per_minute=1) as web:
        for _ in range(3):
            stranger = await ask(web, {"authorization": "Bearer wrong-token-0123456789"})
            assert (stranger.status_code, limit_of(stranger)) == (401, (None, None, None))
            probe = await web.get("/health")
            assert (probe.status_code, limit_of(probe)) == (200, (None, None, None))
            assert (await web.get("/cache/stats", headers=admin)).status_code == 200
