"""How an agent is connected to this server: a block to paste for each host, made of the settings there are.

Sources, each host's own documentation: Claude Desktop (local servers only in its file, remote ones as connectors),
Claude Code (`claude mcp add`, `${VAR}` in .mcp.json), Cursor (`${env:VAR}`), VS Code (`servers` and `inputs`), Claude
API (MCP connector, beta mcp-client-2025-11-20: each server goes with one `mcp_toolset`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.gateway.identity import API_KEY_HEADER, INSTANCE_HEADER
from jobnimbus_mcp.settings import Settings

__all__ = ["KEY_VARIABLE", "TOKEN_VARIABLE", "Block", "Place", "blocks"]

TOKEN_VARIABLE = "JOBNIMBUS_MCP_TOKEN"
"""Where hosts that read variables find the token, so that no file holds it."""

KEY_VARIABLE = "JOBNIMBUS_API_KEY"
"""The same for a key of the caller's own, where the server holds none."""

_KEY_PLACEHOLDER = "<your JobNimbus API key>"
_HOST_PLACEHOLDER = "<YOUR-HOST>"
_BETA = "mcp-client-2025-11-20"

_CARRIED = ("jobnimbus_api_base_url", "account_timezone", "mcp_read_only", "mcp_toolsets")
"""What a server without the settings file must be told all the same: none is secret, all change what it does."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a block is made with. `command`: the absolute path of jobnimbus-mcp. `env_file`: the absolute path of a
    settings file, None where settings come from the environment. `url`: of the served /mcp on this machine. `public`:
    the host name by which the world reaches it, None unknown."""

    command: str
    env_file: str | None = None
    url: str = "http://127.0.0.1:8000/mcp"
    public: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """`host`: who reads it. `where`: the file it goes into, or where it is typed. `language`: json, sh or text."""

    host: str
    where: str
    language: str
    text: str


def blocks(settings: Settings, place: Place) -> tuple[Block, ...]:
    """One for each host that can be connected. They hold no secret: names of variables, or placeholders in angle
    brackets."""
    code, cursor = _http(settings, place, "${%s}"), _http(settings, place, "${env:%s}")
    del cursor["type"]  # it tells by the URL
    needed = " and ".join(name for name in (TOKEN_VARIABLE, KEY_VARIABLE) if name in json.dumps(code))
    needs = f", with {needed} in the environment" if needed else ""
    made = [
        Block("Claude Desktop", "claude_desktop_config.json", "json", _servers(_stdio(settings, place))),
        Block("Claude Code", f"a shell{needs}", "sh", _claude_code(code)),
        Block("Claude Code", f".mcp.json of a project{needs}", "json", _servers(code)),
        Block("Cursor", f"~/.cursor/mcp.json{needs}", "json", _servers(cursor)),
        Block("VS Code", ".vscode/mcp.json", "json", _vs_code(settings, place)),
    ]
    if settings.holds_api_key:  # it sends the token and no header
        where = f"a request's body, with the header anthropic-beta: {_BETA}"
        made.append(Block("the Claude API", where, "json", _json(_claude_api(settings, place))))
    if settings.oauth_resource_url is not None:
        where = "the settings, Connectors, Add custom connector"
        made.append(Block("claude.ai and the apps, by OAuth", where, "text", settings.oauth_resource_url))
    return tuple(made)


def _account(settings: Settings) -> str:
    """The account shown: one whose key the server holds, if there is one."""
    return next((one for one in settings.instances if one in settings.api_keys), settings.instances[0])


def _has_tokens(settings: Settings) -> bool:
    """Whether there are tokens that can be put into a header; an issuer's come and go, and hosts fetch them."""
    return bool(settings.mcp_auth_tokens or settings.mcp_clients)


def _stdio(settings: Settings, place: Place) -> dict[str, Any]:
    """Started by the host itself, for one account: a settings file for several names keys that one alone may not."""
    made: dict[str, Any] = {"command": place.command, "args": ["stdio"]}
    if place.env_file is not None and len(settings.instances) == 1:
        made["args"] += ["--env-file", place.env_file]
        if not settings.holds_api_key:
            made["env"] = {KEY_VARIABLE: _KEY_PLACEHOLDER}
        return made
    account = _account(settings)
    if len(settings.instances) > 1:
        env = {"JOBNIMBUS_INSTANCES": account, f"{KEY_VARIABLE}_{account.upper().replace('-', '_')}": _KEY_PLACEHOLDER}
    else:
        env = {KEY_VARIABLE: _KEY_PLACEHOLDER}
        if account != "default":
            env["JOBNIMBUS_INSTANCES"] = account
    made["env"] = env | _carried(settings)
    return made


def _carried(settings: Settings) -> dict[str, str]:
    """Variables as they are set, where they are not as they would be anyway."""
    made = {}
    for name in _CARRIED:
        field, value = Settings.model_fields[name], getattr(settings, name)
        if value == field.default:
            continue
        match value:
            case bool():
                said = "true" if value else "false"
            case tuple():
                said = ",".join(value)
            case _:
                said = str(value)
        made[str(field.alias)] = said
    return made


def _http(settings: Settings, place: Place, variable: str) -> dict[str, Any]:
    """A server that runs already. `variable`: how this host writes the value of one, `%s` being its name."""
    made: dict[str, Any] = {"type": "http", "url": place.url}
    headers: dict[str, str] = {}
    if _has_tokens(settings):
        headers["Authorization"] = f"Bearer {variable % TOKEN_VARIABLE}"
    elif settings.oauth_resource_url is not None:
        # the host fetches a token itself, and only for the URL that the server says it has
        made["url"] = settings.oauth_resource_url
    if not settings.holds_api_key:
        headers[API_KEY_HEADER] = variable % KEY_VARIABLE
    if len(settings.instances) > 1:
        headers[INSTANCE_HEADER] = _account(settings)
    return made | ({"headers": headers} if headers else {})


def _claude_code(server: Mapping[str, Any]) -> str:
    words = [f"claude mcp add --transport http jobnimbus {shlex.quote(server['url'])}"]
    for name, value in server.get("headers", {}).items():
        # in double quotes, so that the shell fills the variables in; nothing else in these values is special to it
        words.append(f'--header "{name}: {value}"')
    return " \\\n  ".join(words)


def _vs_code(settings: Settings, place: Place) -> str:
    """VS Code asks for what is secret when the server is first started, and keeps it itself."""
    asked = {TOKEN_VARIABLE: "Token of the JobNimbus MCP server", KEY_VARIABLE: "JobNimbus API key"}
    server = _http(settings, place, "${input:%s}")
    inputs = [
        {"type": "promptString", "id": name, "description": description, "password": True}
        for name, description in asked.items()
        if f"${{input:{name}}}" in json.dumps(server)
    ]
    return _json({"servers": {"jobnimbus": server}} | ({"inputs": inputs} if inputs else {}))


def _claude_api(settings: Settings, place: Place) -> dict[str, Any]:
    server: dict[str, Any] = {
        "type": "url",
        "name": "jobnimbus",
        "url": settings.oauth_resource_url or f"https://{place.public or _HOST_PLACEHOLDER}/mcp",
    }
    if settings.has_doors:
        server["authorization_token"] = _token_words(settings)
    return {"mcp_servers": [server], "tools": [{"type": "mcp_toolset", "mcp_server_name": "jobnimbus"}]}


def _token_words(settings: Settings) -> str:
    """Which token, for a host that cannot say which account it means."""
    if len(settings.instances) > 1:
        return "<a token for one account only>"
    if settings.mcp_auth_tokens:
        return "<one of MCP_AUTH_TOKENS>"
    return "<a token of MCP_CLIENTS>" if settings.mcp_clients else "<an access token of your issuer>"


def _servers(server: Mapping[str, Any]) -> str:
    return _json({"mcpServers": {"jobnimbus": server}})


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
