"""The blocks that connect an agent: what each says for the settings there are, and that none holds a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobnimbus_mcp.doctor.connect import Block, Place, blocks
from jobnimbus_mcp.settings import Settings

KEY, TOKEN = "k3y-of-the-account-0001", "t0ken-of-the-test-00001"
SERVER = {"JOBNIMBUS_API_KEY": KEY, "MCP_AUTH_TOKENS": TOKEN}
CLIENTS = json.dumps([{"name": "ana", "token": TOKEN}])
OAUTH = {
    "OAUTH_ISSUER_URL": "https://issuer.example.com",
    "OAUTH_RESOURCE_URL": "https://mcp.example.com/mcp",
    "ALLOWED_HOSTS": "mcp.example.com",
}
SEVERAL = {
    "JOBNIMBUS_INSTANCES": "stamford,new-haven",
    "JOBNIMBUS_API_KEY_NEW_HAVEN": KEY,
    "MCP_AUTH_TOKENS": TOKEN,
}
HERE = Place("/bin/jobnimbus-mcp")
FILED = Place("/bin/jobnimbus-mcp", env_file="/etc/jobnimbus.env")

DESKTOP = ("Claude Desktop", "claude_desktop_config.json")
SHELL = ("Claude Code", "a shell")
PROJECT = ("Claude Code", ".mcp.json of a project")
CURSOR = ("Cursor", "~/.cursor/mcp.json")
VS_CODE = ("VS Code", ".vscode/mcp.json")
API = ("the Claude API", "a request's body")
CONNECTOR = ("claude.ai and the apps, by OAuth", "the settings")


def made(env: dict[str, str], place: Place = HERE) -> dict[tuple[str, str], Block]:
    """By host and the file, without what else is said of where."""
    found = {(block.host, block.where.partition(",")[0]): block for block in blocks(Settings.from_env(env), place)}
    for block in found.values():
        assert block.language in ("json", "sh", "text")
        assert not [secret for secret in (KEY, TOKEN) if secret in repr(block)]
    return found


def parsed(env: dict[str, str], which: tuple[str, str], place: Place = HERE) -> Any:
    block = made(env, place)[which]
    assert block.language == "json"
    return json.loads(block.text)


def stdio(env: dict[str, str], place: Place) -> Any:
    return parsed(env, DESKTOP, place)["mcpServers"]["jobnimbus"]


def test_a_host_is_there_only_where_it_can_be_connected() -> None:
    usual = [DESKTOP, SHELL, PROJECT, CURSOR, VS_CODE]
    assert list(made({})) == usual
    assert list(made(SERVER)) == [*usual, API]
    assert list(made(SERVER | OAUTH)) == [*usual, API, CONNECTOR]
    assert list(made(OAUTH)) == [*usual, CONNECTOR]


def test_hosts_that_read_variables_are_told_their_names_and_which_to_set() -> None:
    url, bearer = "http://127.0.0.1:8000/mcp", "Bearer ${JOBNIMBUS_MCP_TOKEN}"
    assert parsed(SERVER, PROJECT) == {
        "mcpServers": {"jobnimbus": {"type": "http", "url": url, "headers": {"Authorization": bearer}}}
    }
    assert parsed(SERVER, CURSOR) == {
        "mcpServers": {"jobnimbus": {"url": url, "headers": {"Authorization": "Bearer ${env:JOBNIMBUS_MCP_TOKEN}"}}}
    }
    assert made(SERVER)[SHELL].text == (
        f"claude mcp add --transport http jobnimbus {url} \\\n"
        '  --header "Authorization: Bearer ${JOBNIMBUS_MCP_TOKEN}"'
    )
    for which in (SHELL, PROJECT, CURSOR):
        assert made(SERVER)[which].where.endswith(", with JOBNIMBUS_MCP_TOKEN in the environment")
        assert made(OAUTH | {"MCP_AUTH_TOKENS": TOKEN})[which].where.endswith(
            ", with JOBNIMBUS_MCP_TOKEN and JOBNIMBUS_API_KEY in the environment"
        )
    assert made(SERVER)[DESKTOP].where == "claude_desktop_config.json"


def test_vs_code_asks_for_what_is_secret() -> None:
    assert parsed({"MCP_CLIENTS": CLIENTS}, VS_CODE) == {
        "servers": {
            "jobnimbus": {
                "type": "http",
                "url": "http://127.0.0.1:8000/mcp",
                "headers": {
                    "Authorization": "Bearer ${input:JOBNIMBUS_MCP_TOKEN}",
                    "X-JobNimbus-Api-Key": "${input:JOBNIMBUS_API_KEY}",
                },
            }
        },
        "inputs": [
            {
                "type": "promptString",
                "id": "JOBNIMBUS_MCP_TOKEN",
                "description": "Token of the JobNimbus MCP server",
                "password": True,
            },
            {"type": "promptString", "id": "JOBNIMBUS_API_KEY", "description": "JobNimbus API key", "password": True},
        ],
    }


def test_a_server_open_to_its_own_machine_is_asked_without_headers() -> None:
    url = "http://127.0.0.1:8000/mcp"
    assert parsed({"JOBNIMBUS_API_KEY": KEY}, PROJECT) == {"mcpServers": {"jobnimbus": {"type": "http", "url": url}}}
    assert parsed({"JOBNIMBUS_API_KEY": KEY}, VS_CODE) == {"servers": {"jobnimbus": {"type": "http", "url": url}}}
    assert made({"JOBNIMBUS_API_KEY": KEY})[SHELL].text == f"claude mcp add --transport http jobnimbus {url}"
    assert "authorization_token" not in made({"JOBNIMBUS_API_KEY": KEY})[API].text


def test_by_oauth_alone_hosts_are_given_the_url_that_tokens_are_for() -> None:
    """A client refuses metadata of another resource than it asked. Source: MCP specification, authorization."""
    env = OAUTH | {"JOBNIMBUS_API_KEY": KEY}
    assert parsed(env, PROJECT) == {"mcpServers": {"jobnimbus": {"type": "http", "url": "https://mcp.example.com/mcp"}}}
    assert made(env)[CONNECTOR].text == "https://mcp.example.com/mcp"
    assert parsed(env, API)["mcp_servers"][0]["authorization_token"] == "<an access token of your issuer>"


@pytest.mark.parametrize(
    ("env", "place", "url", "token"),
    [
        (SERVER, HERE, "https://<YOUR-HOST>/mcp", "<one of MCP_AUTH_TOKENS>"),
        (SERVER, Place("x", public="mcp.example.com"), "https://mcp.example.com/mcp", "<one of MCP_AUTH_TOKENS>"),
        (
            SERVER | OAUTH,
            Place("x", public="other.example.com"),
            OAUTH["OAUTH_RESOURCE_URL"],
            "<one of MCP_AUTH_TOKENS>",
        ),
        (
            {"JOBNIMBUS_API_KEY": KEY, "MCP_CLIENTS": CLIENTS},
            HERE,
            "https://<YOUR-HOST>/mcp",
            "<a token of MCP_CLIENTS>",
        ),
        (SEVERAL, HERE, "https://<YOUR-HOST>/mcp", "<a token for one account only>"),
    ],
)
def test_the_claude_api_is_given_url_token_and_the_toolset_that_each_server_needs(
    env: dict[str, str], place: Place, url: str, token: str
) -> None:
    """Source: Claude API, MCP connector, mcp-client-2025-11-20: exactly one mcp_toolset for each server."""
    assert parsed(env, API, place) == {
        "mcp_servers": [{"type": "url", "name": "jobnimbus", "url": url, "authorization_token": token}],
        "tools": [{"type": "mcp_toolset", "mcp_server_name": "jobnimbus"}],
    }
    assert made(env, place)[API].where.endswith("anthropic-beta: mcp-client-2025-11-20")


def test_a_server_the_host_starts_reads_the_settings_file_where_there_is_one() -> None:
    filed = {"command": "/bin/jobnimbus-mcp", "args": ["stdio", "--env-file", "/etc/jobnimbus.env"]}
    key = {"JOBNIMBUS_API_KEY": "<your JobNimbus API key>"}
    assert stdio(SERVER, FILED) == filed
    assert stdio({"MCP_AUTH_TOKENS": TOKEN}, FILED) == filed | {"env": key}
    assert stdio(SERVER, HERE) == {"command": "/bin/jobnimbus-mcp", "args": ["stdio"], "env": key}
    named = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY_STAMFORD": KEY}
    assert stdio(named, HERE)["env"] == key | {"JOBNIMBUS_INSTANCES": "stamford"}


def test_of_several_accounts_a_server_the_host_starts_is_told_one_and_no_file_with_the_others_keys() -> None:
    told = {
        "command": "/bin/jobnimbus-mcp",
        "args": ["stdio"],
        "env": {"JOBNIMBUS_INSTANCES": "new-haven", "JOBNIMBUS_API_KEY_NEW_HAVEN": "<your JobNimbus API key>"},
    }
    assert stdio(SEVERAL, FILED) == told
    assert stdio(SEVERAL, HERE) == told
    assert parsed(SEVERAL, PROJECT)["mcpServers"]["jobnimbus"]["headers"]["X-JobNimbus-Instance"] == "new-haven"


def test_without_a_settings_file_what_changes_the_server_is_written_out() -> None:
    changed = {
        "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
        "ACCOUNT_TIMEZONE": "America/New_York",
        "MCP_READ_ONLY": "true",
        "MCP_TOOLSETS": "crm,work",
    }
    assert stdio(SERVER | changed, HERE)["env"] == {"JOBNIMBUS_API_KEY": "<your JobNimbus API key>"} | changed
    assert stdio(SERVER | changed, FILED).keys() == {"command", "args"}
