"""OAuth at the door: challenges, the document that leads to the issuer, and tokens beside the server's own."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from oauth_issuer import ISSUER, RESOURCE, Issuer
from structlog.testing import capture_logs

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.web.clients import Client, client_of_token
from jobnimbus_mcp.web.jwks_http import JwksHttp
from jobnimbus_mcp.web.keyring import KeyRing
from jobnimbus_mcp.web.oauth import Rules
from jobnimbus_mcp.web.resource_server import ResourceServer

METADATA = 'resource_metadata="http://localhost/.well-known/oauth-protected-resource/mcp"'
ROADS = ["/mcp", "/mcp/tools/list", "/mcp/tools/call"]
DESK = Client("desk-token-0123456789", Access(client="desk"))


@pytest.fixture
def issuer(inside: Any) -> Issuer:
    return Issuer(inside.clock.now)


def server_of(inside: Any, issuer: Issuer, resource: str = RESOURCE) -> ResourceServer:
    rules = Rules(
        issuer=ISSUER,
        resource=resource,
        read_scope="jobnimbus:read",
        write_scope="jobnimbus:write",
        instances=frozenset({"stamford", "guilford"}),
        toolsets=frozenset({"default"}),
        instances_claim="jobnimbus_instances",
    )
    ring = KeyRing(JwksHttp(ISSUER, transport=issuer.transport), inside.clock, structlog.get_logger())
    return ResourceServer(rules, ring, inside.clock)


async def ask(web: Any, caller: Any, token: str | None, path: str = "/mcp/tools/call") -> Any:
    headers = {name: value for name, value in caller.items() if name != "authorization"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return await web.post(path, json={"name": "echo"}, headers=headers)


@pytest.fixture
async def web(inside: Any, issuer: Issuer) -> Any:
    async with inside.client(oauth=server_of(inside, issuer), clients=(DESK,)) as client:
        yield client


@pytest.mark.parametrize("path", ROADS)
async def test_who_brings_no_token_is_told_where_they_come_from(
    web: Any, caller: Any, error_of: Any, path: str
) -> None:
    response = await ask(web, caller, None, path)
    assert error_of(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == f"Bearer {METADATA}"


@pytest.mark.parametrize("path", ROADS)
async def test_a_token_that_does_not_hold_is_told_so(
    inside: Any, issuer: Issuer, web: Any, caller: Any, error_of: Any, path: str
) -> None:
    for token, reason in ((issuer.token(exp=1), "expired"), ("wrong-token-0123456789", "malformed")):
        response = await ask(web, caller, token, path)
        assert error_of(response) == (401, "unauthorized")
        said = response.json()["error"]
        assert response.headers["www-authenticate"] == (
            f'Bearer error="invalid_token", error_description="{said}", {METADATA}'
        )
        assert inside.recorder.counts["auth_refusals", (("reason", reason),)] == 1
        assert token not in response.text + str(response.headers)
    assert inside.tools.calls == inside.mcp_requests == []


async def test_a_header_that_is_no_bearer_is_told_so(web: Any, caller: Any) -> None:
    response = await web.post("/mcp", json={}, headers={"authorization": "Basic abc"})
    assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


async def test_a_token_without_the_scope_to_read_is_a_403_that_names_it(
    inside: Any, issuer: Issuer, web: Any, caller: Any, error_of: Any
) -> None:
    response = await ask(web, caller, issuer.token(scope="jobnimbus:write"))
    assert error_of(response) == (403, "insufficient_scope")
    assert response.headers["www-authenticate"] == (
        f'Bearer error="insufficient_scope", scope="jobnimbus:read", {METADATA}'
    )
    assert inside.recorder.counts["auth_refusals", (("reason", "scope"),)] == 1


async def test_what_a_token_allows_reaches_the_tools(inside: Any, issuer: Issuer, web: Any, caller: Any) -> None:
    token = issuer.token(scope="jobnimbus:read", jobnimbus_instances=["stamford"])
    assert (await ask(web, caller, token)).status_code == 200
    assert (await ask(web, caller, token, "/mcp")).status_code == 200
    (access,) = inside.mcp_access
    assert access == inside.tools.calls[0][2].access
    assert (access.instances, access.read_only) == ({"stamford"}, True)
    assert issuer.asked.count("/keys") == 1


async def test_the_server_s_own_tokens_go_on_beside_it_and_ask_no_issuer(
    inside: Any, issuer: Issuer, web: Any, caller: Any
) -> None:
    issuer.down = True
    for token in (DESK.token, "mcp-token-0123456789ab"):
        assert (await ask(web, caller, token)).status_code == 200
    clients = [who.access.client for _, _, who, _ in inside.tools.calls]
    assert clients == ["desk", client_of_token("mcp-token-0123456789ab")]
    assert issuer.asked == []


async def test_an_issuer_that_was_never_reached_is_a_503_and_one_that_went_away_changes_nothing(
    inside: Any, issuer: Issuer, web: Any, caller: Any, error_of: Any
) -> None:
    issuer.down = True
    with capture_logs() as logged:
        response = await ask(web, caller, issuer.token())
        assert error_of(response) == (503, "authorization_unavailable")
    assert response.headers["retry-after"] == "5"
    assert inside.recorder.counts["auth_refusals", (("reason", "issuer_away"),)] == 1
    assert [line["event"] for line in logged] == ["issuer's keys not fetched"]
    issuer.down = False
    inside.clock.advance(5)
    assert (await ask(web, caller, issuer.token())).status_code == 200
    issuer.down = True
    inside.clock.advance(4000)
    assert (await ask(web, caller, issuer.token())).status_code == 200


@pytest.mark.parametrize("path", ["/mcp", ""])
async def test_the_document_that_leads_to_the_issuer_is_open_to_anyone(web: Any, path: str) -> None:
    response = await web.get(f"/.well-known/oauth-protected-resource{path}")
    assert response.status_code == 200
    assert response.json() == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["jobnimbus:read", "jobnimbus:write"],
        "bearer_methods_supported": ["header"],
        "resource_name": "JobNimbus",
    }


async def test_behind_a_proxy_s_path_the_document_is_where_the_standard_puts_it(
    inside: Any, issuer: Issuer, caller: Any
) -> None:
    """RFC 9728, section 3.1: between host and path of the resource."""
    server = server_of(inside, issuer, "https://crm.example.com:8443/team/mcp")
    async with inside.client(oauth=server) as web:
        challenge = (await ask(web, caller, None)).headers["www-authenticate"]
        assert challenge == (
            'Bearer resource_metadata="https://crm.example.com:8443/.well-known/oauth-protected-resource/team/mcp"'
        )
        assert (await web.get("/.well-known/oauth-protected-resource/team/mcp")).status_code == 200


async def test_without_an_issuer_there_is_no_such_document(inside: Any, error_of: Any) -> None:
    async with inside.client() as web:
        assert error_of(await web.get("/.well-known/oauth-protected-resource/mcp")) == (404, "not_found")


async def test_people_of_an_issuer_have_limits_of_their_own_and_one_name_in_the_metrics(
    inside: Any, issuer: Issuer, caller: Any
) -> None:
    async with inside.client(oauth=server_of(inside, issuer), requests_per_minute=1) as web:
        for sub in ("ana", "bob"):
            # another token of the same person counts with the first
            tokens = [issuer.token(sub=sub, exp=inside.clock.now() + left) for left in (100, 200)]
            assert [(await ask(web, caller, token)).status_code for token in tokens] == [200, 429]
    assert inside.recorder.counts["rate_limited", (("client", "oauth"),)] == 2


@pytest.mark.parametrize("path", ROADS)
async def test_an_issuer_alone_closes_the_door_as_well(
    inside: Any, issuer: Issuer, caller: Any, error_of: Any, path: str
) -> None:
    async with inside.client(oauth=server_of(inside, issuer), mcp_tokens=(), clients=()) as web:
        assert error_of(await ask(web, caller, None, path)) == (401, "unauthorized")
        assert (await ask(web, caller, issuer.token(), path)).status_code == 200
