"""Who may call, as settings write it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.settings.clients import (
    CLIENTS_MOST,
    check_issuer,
    check_jwks_url,
    check_scope,
    oauth_mistakes,
    parse_clients,
    unknown_tools,
)
from jobnimbus_mcp.web.clients import Client

TOKEN = "desk-token-0123456789"
INSTANCES, TOOLSETS, TOKENS = ("stamford", "guilford"), ("default", "sales", "all"), ("mcp-token-0123456789ab",)
ISSUER, RESOURCE = "https://issuer.example.com", "https://crm.example.com/mcp"


def parsed(*clients: Any) -> tuple[Client, ...]:
    return parse_clients(json.dumps(clients), instances=INSTANCES, toolsets=TOOLSETS, tokens=TOKENS)


def test_a_client_needs_a_name_and_a_token_and_what_is_left_out_is_not_bounded() -> None:
    assert parsed({"name": "desk", "token": TOKEN}) == (Client(TOKEN, Access(client="desk")),)


def test_a_client_may_be_bounded_in_every_way() -> None:
    told = {
        "name": "field-2",
        "token": TOKEN,
        "instances": ["stamford"],
        "toolsets": ["default", "sales"],
        "tools": ["get_jobs"],
        "read_only": True,
        "requests_per_minute": 60,
    }
    assert parsed(told) == (
        Client(
            TOKEN,
            Access(
                client="field-2",
                instances=frozenset({"stamford"}),
                toolsets=frozenset({"default", "sales"}),
                tools=frozenset({"get_jobs"}),
                read_only=True,
                requests_per_minute=60,
            ),
        ),
    )


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_there_may_be_none(text: str) -> None:
    assert parse_clients(text, instances=INSTANCES, toolsets=TOOLSETS, tokens=TOKENS) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no JSON"),
        ("desk:desk-token-0123456789", "it is no JSON"),
        ("{}", "it must be a JSON array of objects"),
        ('["desk-token-0123456789"]', "it must be a JSON array of objects"),
        ("null", "it must be a JSON array of objects"),
    ],
)
def test_what_is_no_list_of_objects_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        parse_clients(text, instances=INSTANCES, toolsets=TOOLSETS, tokens=TOKENS)


@pytest.mark.parametrize("name", [None, "", "Desk", "desk_1", "d" * 41, 7, "caller-12345678", "désk", "oauth:1"])
def test_a_name_that_cannot_be_one_is_refused_by_its_place(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^client 2: \"name\" is 1 to 40 lower-case letters, digits or -") as caught:
        parsed({"name": "desk", "token": TOKEN}, {"name": name, "token": "other-token-0123456789"})
    assert "token-" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"token": None}, '"token" is missing'),
        ({"token": 7}, '"token" is missing'),
        ({"token": "short"}, '"token" must have at least 16 characters'),
        ({"token": "with a blank 0123456789"}, '"token" must be printable ASCII without blanks'),
        ({"token": "mcp-token-0123456789ab"}, 'its "token" is also another client\'s, or in MCP_AUTH_TOKENS'),
        ({"instances": ["elsewhere"]}, '"instances" must be among: stamford, guilford'),
        ({"toolsets": ["default", "x"]}, '"toolsets" must be among: default, sales, all'),
        ({"instances": []}, '"instances" must be a list of names, or be left out'),
        ({"toolsets": "default"}, '"toolsets" must be a list of names, or be left out'),
        ({"tools": [""]}, '"tools" must be a list of names, or be left out'),
        ({"tools": [7]}, '"tools" must be a list of names, or be left out'),
        ({"read_only": "yes"}, '"read_only" must be true or false'),
        ({"requests_per_minute": -1}, '"requests_per_minute" must be a whole number from 0'),
        ({"requests_per_minute": 1.5}, '"requests_per_minute" must be a whole number from 0'),
        ({"requests_per_minute": True}, '"requests_per_minute" must be a whole number from 0'),
        ({"requests_per_minute": 10**7}, '"requests_per_minute" must be a whole number from 0'),
        ({"readonly": True}, "a client has these fields and no others: name, token, instances, toolsets, tools,"),
    ],
)
def test_what_is_wrong_is_said_of_the_client_and_its_token_never(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^client desk: ") as caught:
        parsed({"name": "desk", "token": TOKEN} | changed)
    assert str(caught.value).startswith(f"client desk: {said}")
    for token in (TOKEN, "short", "with a blank", "mcp-token"):
        assert token not in str(caught.value)


def test_no_two_clients_have_one_name_or_one_token() -> None:
    with pytest.raises(ValueError, match=r"^client desk: there are two of this name$"):
        parsed({"name": "desk", "token": TOKEN}, {"name": "desk", "token": "other-token-0123456789"})
    with pytest.raises(ValueError, match=r"^client field: its \"token\" is also another client's"):
        parsed({"name": "desk", "token": TOKEN}, {"name": "field", "token": TOKEN})


def test_there_is_a_bound_on_clients() -> None:
    told = [{"name": f"c{number}", "token": f"token-0123456789-{number}"} for number in range(CLIENTS_MOST + 1)]
    assert len(parsed(*told[:-1])) == CLIENTS_MOST
    with pytest.raises(ValueError, match=r"^at most 1000 clients$"):
        parsed(*told)


def test_a_tool_that_is_none_is_told_with_the_client_that_names_it() -> None:
    clients = parsed(
        {"name": "desk", "token": TOKEN, "tools": ["get_jobs", "get_jbos"]},
        {"name": "field", "token": "other-token-0123456789", "tools": ["get_jobs"]},
        {"name": "free", "token": "third-token-0123456789"},
    )
    assert unknown_tools(clients, {"get_jobs"}) == [
        'MCP_CLIENTS: client desk: "tools" names get_jbos, which is no tool'
    ]


@pytest.mark.parametrize(
    "issuer", [ISSUER, f"{ISSUER}/", f"{ISSUER}/realms/crm", "http://127.0.0.1:9", "http://localhost"]
)
def test_an_issuer_is_kept_to_the_letter(issuer: str) -> None:
    assert check_issuer(issuer) == issuer


@pytest.mark.parametrize(
    "issuer", ["", "issuer", "http://issuer.example.com", f"{ISSUER}?x=1", "https://a@b", "ftp://a"]
)
def test_what_is_no_issuer_is_refused(issuer: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_issuer(issuer)


def test_keys_may_be_at_a_url_with_a_query_but_not_without_tls() -> None:
    assert check_jwks_url(f"{ISSUER}/keys?p=1") == f"{ISSUER}/keys?p=1"
    with pytest.raises(ValueError, match="must be https"):
        check_jwks_url("http://issuer.example.com/keys")


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "ä", "a\n", "x" * 201])
def test_what_is_no_scope_is_refused(scope: str) -> None:
    with pytest.raises(ValueError, match="one scope"):
        check_scope(scope)


def test_a_scope_may_be_a_url() -> None:
    assert check_scope("https://crm.example.com/jobnimbus.read") == "https://crm.example.com/jobnimbus.read"


@pytest.mark.parametrize(
    ("issuer", "resource", "jwks", "hosts", "said"),
    [
        (None, None, None, ("localhost",), []),
        (ISSUER, RESOURCE, None, ("crm.example.com",), []),
        (ISSUER, "https://crm.example.com:8443/mcp", None, ("crm.example.com:8443",), []),
        (None, RESOURCE, None, (), ["OAUTH_RESOURCE_URL: needs OAUTH_ISSUER_URL as well"]),
        (None, None, ISSUER, (), ["OAUTH_JWKS_URL: needs OAUTH_ISSUER_URL as well"]),
        (
            ISSUER,
            None,
            None,
            ("localhost",),
            ["OAUTH_ISSUER_URL: needs OAUTH_RESOURCE_URL, this server's public URL of /mcp, as well"],
        ),
        (
            ISSUER,
            RESOURCE,
            None,
            ("localhost",),
            ["OAUTH_RESOURCE_URL: its host must be in ALLOWED_HOSTS, or no request for it is answered"],
        ),
    ],
)
def test_what_is_missing_between_the_settings_is_said(
    issuer: str | None, resource: str | None, jwks: str | None, hosts: tuple[str, ...], said: list[str]
) -> None:
    assert oauth_mistakes(issuer, resource, jwks, hosts) == said
