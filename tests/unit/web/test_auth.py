"""Who may come in where: every route, with every kind of token."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.errors import ConfirmationNeeded, NotAllowed, NotAuthenticated, ProjectError
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.web import clients as clients_module
from jobnimbus_mcp.web.auth import CallersOnly
from jobnimbus_mcp.web.clients import Client, KnownTokens, bearer_of, client_of_token

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


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/mcp/tools/call", "This is none of this server's tokens. "),
        ("/cache/clear", "This is not the admin token. "),
    ],
)
async def test_a_wrong_token_is_told_from_none(web: Any, caller: Any, path: str, wrong: str) -> None:
    del caller["authorization"]
    for token, told in (({}, False), ({"authorization": "Bearer wrong-token-0123456789"}, True)):
        response = await web.post(path, json={}, headers=caller | token)
        said = response.json()["error"]
        assert (response.status_code, said.startswith(wrong)) == (401, told)
        assert "Authorization: Bearer <" in said


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
    assert bearer_of(values) != "the-only-token-01234567890123456789012345"
    known = KnownTokens([Client.unnamed("the-only-token-01234567890123456789012345")])
    assert all(known.access_of(value) is None for value in values)


def test_a_token_of_any_letters_is_known_as_its_utf8_bytes_arrive() -> None:
    client = Client.unnamed("schlüssel-0123456789")
    arrived = bearer_of(["Bearer " + "schlüssel-0123456789".encode().decode("latin-1")])
    assert arrived is not None
    assert KnownTokens([client]).access_of(arrived) == client.access


def test_whoever_holds_a_token_has_a_name_that_stays_and_says_nothing_of_the_token() -> None:
    assert client_of_token("mcp-token-0123456789ab") == "caller-" + sha256(b"mcp-token-0123456789ab").hexdigest()[:8]
    assert Client.unnamed("mcp-token-0123456789ab").access == Access(client=client_of_token("mcp-token-0123456789ab"))
    assert "mcp-token-0123456789ab" not in repr(Client.unnamed("mcp-token-0123456789ab"))


@pytest.mark.parametrize("at", range(5))
def test_each_token_is_compared_with_all_wherever_it_stands(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [Client(f"token-number-{number}-0123456789", Access(client=f"c{number}")) for number in range(5)]
    known = KnownTokens(clients)
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(clients_module.hmac, "compare_digest", compare)
    assert known.access_of(clients[at].token) == clients[at].access
    assert compared == [sha256(client.token.encode()).digest() for client in clients]


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [([], "no_token"), (["Basic abc"], "unknown_token"), (["Bearer wrong-token-0123456789"], "unknown_token")],
)
async def test_who_is_not_let_in_is_counted_by_the_reason(authorization: list[str], reason: str) -> None:
    recorder = InMemoryRecorder()
    door = CallersOnly([Client.unnamed("mcp-token-0123456789ab")], recorder)
    with pytest.raises(NotAuthenticated):
        await door.admit(authorization)
    assert recorder.counts == {("auth_refusals", (("reason", reason),)): 1}


async def test_what_a_token_allows_reaches_the_tools_by_either_road(inside: Any, caller: Any) -> None:
    desk = Client("desk-token-0123456789", Access(client="desk", instances=frozenset({"guilford"}), read_only=True))
    headers = caller | {"authorization": f"Bearer {desk.token}", "x-jobnimbus-instance": "guilford"}
    async with inside.client(clients=(desk,)) as web:
        assert (await web.post("/mcp", json={}, headers=headers)).status_code == 200
        assert (await web.post("/mcp/tools/list", json={}, headers=headers)).status_code == 200
        assert (await web.post("/mcp/tools/call", json={"name": "echo"}, headers=headers)).status_code == 200
        assert (await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)).status_code == 200
    assert inside.mcp_access == inside.tools.listed_for == [desk.access]
    named, unnamed = (who.access for _, _, who, _ in inside.tools.calls)
    assert (named, unnamed) == (desk.access, Access(client=client_of_token("mcp-token-0123456789ab")))


async def test_a_client_s_only_account_is_meant_where_none_is_named_and_any_other_is_refused(
    inside: Any, caller: Any, error_of: Any
) -> None:
    desk = Client("desk-token-0123456789", Access(client="desk", instances=frozenset({"guilford"})))
    headers = caller | {"authorization": f"Bearer {desk.token}"}
    async with inside.client(clients=(desk,)) as web:
        response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=headers)
        assert error_of(response) == (403, "instance_not_allowed")
        del headers["x-jobnimbus-instance"]
        assert (await web.post("/mcp/tools/call", json={"name": "echo"}, headers=headers)).status_code == 200
    assert [who.instance for _, _, who, _ in inside.tools.calls] == ["guilford"]


async def test_without_tokens_everybody_may_do_everything(inside: Any, caller: Any) -> None:
    async with inside.client(mcp_tokens=()) as web:
        await web.post("/mcp", json={}, headers=caller)
        await web.post("/mcp/tools/list", json={}, headers=caller)
    assert inside.mcp_access == inside.tools.listed_for == [EVERYTHING]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAllowed("x", code="tool_not_allowed", field="name"), 403),
        (NotAllowed("x", code="read_only"), 403),
        (ConfirmationNeeded("Delete it?"), 400),
    ],
)
async def test_what_a_caller_may_not_do_or_must_ask_first_is_told_by_its_code(
    inside: Any, web: Any, caller: Any, error_of: Any, error: ProjectError, status: int
) -> None:
    inside.tools.error = error
    response = await web.post("/mcp/tools/call", json={"name": "echo"}, headers=caller)
    assert error_of(response) == (status, error.code)
    assert response.json().get("field") == error.field
