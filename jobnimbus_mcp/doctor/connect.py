"""How an agent is connected to this server: a block to paste for each host, made of the settings there are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.settings import Settings

__all__ = ["Block", "Place", "blocks"]

TOKEN_VARIABLE = "JOBNIMBUS_MCP_TOKEN"
"""Where hosts that read variables find the token, so that no file holds it."""

_KEY_PLACEHOLDER = "<your JobNimbus API key>"
_HOST_PLACEHOLDER = "<YOUR-HOST>"


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
    """`host`: who reads it. `where`: the file it goes into, or where it is typed. `language`: json or sh."""

    host: str
    where: str
    language: str
    text: str


def blocks(settings: Settings, place: Place) -> tuple[Block, ...]:
    """One for each host. They hold no secret: names of variables, or placeholders in angle brackets."""
    several = len(settings.instances) > 1
    token = bool(settings.mcp_auth_tokens or settings.mcp_clients)
    headers = _headers(settings, f"${{{TOKEN_VARIABLE}}}", token=token, several=several)
    local = {"type": "http", "url": place.url, **({"headers": headers} if headers else {})}
    cursor_headers = _headers(settings, f"${{env:{TOKEN_VARIABLE}}}", token=token, several=several)
    vs_code_headers = _headers(settings, "${input:jobnimbus-token}", token=token, several=several)
    vs_code: dict[str, Any] = {"servers": {"jobnimbus": {"type": "http", "url": place.url}}}
    if vs_code_headers:
        vs_code["servers"]["jobnimbus"]["headers"] = vs_code_headers
    if token:
        vs_code["inputs"] = [
            {
                "type": "promptString",
                "id": "jobnimbus-token",
                "description": "Token of the JobNimbus MCP server",
                "password": True,
            }
        ]
    cursor: dict[str, Any] = {"url": place.url, **({"headers": cursor_headers} if cursor_headers else {})}
    remote: dict[str, Any] = {
        "type": "url",
        "name": "jobnimbus",
        "url": f"https://{place.public or _HOST_PLACEHOLDER}/mcp",
        "authorization_token": f"${{{TOKEN_VARIABLE}}}",
    }
    return (
        Block(
            "Claude Desktop",
            "claude_desktop_config.json",
            "json",
            _json({"mcpServers": {"jobnimbus": _stdio(settings, place)}}),
        ),
        Block("Claude Code", "a shell", "sh", _claude_code(place, headers)),
        Block("Claude Code", ".mcp.json of a project", "json", _json({"mcpServers": {"jobnimbus": local}})),
        Block("Cursor", "~/.cursor/mcp.json", "json", _json({"mcpServers": {"jobnimbus": cursor}})),
        Block("VS Code", ".vscode/mcp.json", "json", _json(vs_code)),
        Block("a remote host", "mcp_servers of its request", "json", _json({"mcp_servers": [remote]})),
    )


def _stdio(settings: Settings, place: Place) -> dict[str, Any]:
    """Started by the host itself, for one account."""
    made: dict[str, Any] = {"command": place.command, "args": ["stdio"]}
    if place.env_file is not None:
        made["args"] += ["--env-file", place.env_file]
        if len(settings.instances) > 1:
            made["env"] = {"JOBNIMBUS_INSTANCES": settings.instances[0]}
        return made
    instance = settings.instances[0]
    env = {"JOBNIMBUS_API_KEY": _KEY_PLACEHOLDER}
    if settings.instances != ("default",):
        env["JOBNIMBUS_INSTANCES"] = instance
    made["env"] = env
    return made


def _headers(settings: Settings, token_word: str, *, token: bool, several: bool) -> dict[str, str]:
    made: dict[str, str] = {}
    if token:
        made["Authorization"] = f"Bearer {token_word}"
    if not settings.holds_api_key:
        made["X-JobNimbus-Api-Key"] = _KEY_PLACEHOLDER
    if several:
        made["X-JobNimbus-Instance"] = settings.instances[0]
    return made


def _claude_code(place: Place, headers: Mapping[str, str]) -> str:
    words = ["claude mcp add --transport http jobnimbus", place.url]
    for name, value in headers.items():
        # the shell is to fill the token's variable in, and nothing else
        quoted = f'"{name}: {value}"' if TOKEN_VARIABLE in value else shlex.quote(f"{name}: {value}")
        words.append(f"--header {quoted}")
    return " \\\n  ".join([" ".join(words[:2]), *words[2:]])


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
