"""A stranger's first minutes: every block that README and doctor show is started as its host would start it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from jobnimbus_mcp.doctor.connect import Place, blocks
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

BOUND_S = 30.0
README = (Path(__file__).parents[2] / "README.md").read_text().split("\n## Connect an agent\n")[1].split("\n## ")[0]
COMMAND = str(Path(sys.executable).parent / "jobnimbus-mcp")
TOKEN = "t0ken-of-a-stranger-0001"
SERVED = "http://127.0.0.1:8000"
"""Where the blocks say that the server is; here it gets a free port."""

Json = dict[str, Any]


class Account:
    """A simulated JobNimbus on a port of its own, in a thread of its own."""

    def __init__(self) -> None:
        self.sim: Simulator
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/api1"
        self._made = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self.sim = Simulator()
        config = uvicorn.Config(self.sim.app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._made.set()
        await self._server.serve(sockets=[self._listening])
        await self.sim.aclose()

    def __enter__(self) -> Account:
        self._thread.start()
        assert self._made.wait(BOUND_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()

    def leads(self, instance: str) -> set[str]:
        """The jobs in status Lead, by jnid."""
        return {job["jnid"] for job in self.sim.account(instance).records("jobs") if job["status_name"] == "Lead"}


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with Account() as served:
        yield served


@dataclass(frozen=True)
class Onboarded:
    """`url`: of the served server. `directory`: where its settings file is. `blocks`: what doctor printed, by host and
    where it goes, in order."""

    url: str
    directory: Path
    blocks: Mapping[tuple[str, str], str]


def kept(**more: str) -> dict[str, str]:
    """What a process needs to run at all, and what measures coverage."""
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name} | more


@pytest.fixture(scope="module")
def onboarded(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Onboarded]:
    """As README's start says: a settings file, `serve`, `doctor`."""
    directory = tmp_path_factory.mktemp("stranger")
    (directory / ".env").write_text(
        f"JOBNIMBUS_API_BASE_URL={account.url}\n"
        f"JOBNIMBUS_API_KEY={account.sim.keys['stamford'][0]}\n"
        f"MCP_AUTH_TOKENS={TOKEN}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([COMMAND, "serve", "--port", str(port)], cwd=directory, env=kept(LOG_LEVEL="error"))
    try:
        told = subprocess.run(
            [COMMAND, "doctor"], cwd=directory, env=kept(), capture_output=True, text=True, timeout=BOUND_S
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert TOKEN not in told.stdout
        assert account.sim.keys["stamford"][0] not in told.stdout
        found = re.findall(
            r"^To connect ([^\n]+?), in ([^\n]+):\n\n(.*?)\n(?=\nTo connect |\Z)", told.stdout, re.M | re.S
        )
        until_it_answers(f"{url}/health", server)
        yield Onboarded(url, directory, {(host, where): text for host, where, text in found})
    finally:
        server.terminate()
        try:
            server.wait(BOUND_S)
        finally:
            server.kill()


def until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BOUND_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)


def block_of(onboarded: Onboarded, host: str, where: str) -> str:
    (text,) = (text for (named, at), text in onboarded.blocks.items() if named == host and at.startswith(where))
    return text


async def answered(client: Client) -> set[str]:
    """The tools are listed, and the question that README tells to ask is answered with these jobs."""
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert {"get_jobs", "create_job", "find_tools", "use_tool"} <= names
    result = await client.call_tool("get_jobs", {"status": "Lead", "size": 100})
    assert not result.is_error, result.content
    assert result.structured_content is not None
    found = {job["jnid"] for job in result.structured_content["results"]}
    assert result.structured_content["count"] == len(found)
    return found


def test_the_readme_shows_what_doctor_prints(onboarded: Onboarded) -> None:
    shown = re.findall(r"```\w+\n(.*?)\n```", README.partition("\n### ")[0], re.S)
    env_file = str(onboarded.directory / ".env")
    shown = [text.replace("/path/to/jobnimbus-mcp", COMMAND).replace("/path/to/.env", env_file) for text in shown]
    assert shown == list(onboarded.blocks.values())


# -- started by the host ---------------------------------------------------------------------------------------------


async def started(server: Json, directory: Path) -> set[str]:
    """What a server that is started as a block says answers. `directory`: where the host happens to be."""
    assert server.keys() <= {"command", "args", "env"}
    environment = {name: value for name, value in os.environ.items() if "COV" in name} | server.get("env", {})
    process = StdioServerParameters(command=server["command"], args=server["args"], env=environment, cwd=directory)
    with (directory / "stderr").open("w") as errors:
        async with asyncio.timeout(BOUND_S), Client(stdio_client(process, errlog=errors), mode="auto") as client:
            return await answered(client)


async def test_claude_desktop_starts_the_server(onboarded: Onboarded, account: Account, tmp_path: Path) -> None:
    config = json.loads(block_of(onboarded, "Claude Desktop", "claude_desktop_config.json"))
    assert await started(config["mcpServers"]["jobnimbus"], tmp_path) == account.leads("stamford")


async def test_of_several_accounts_the_one_whose_key_is_put_in_is_served(account: Account, tmp_path: Path) -> None:
    """The settings file has the other account's key as well, which a server of one account does not understand."""
    stamford, guilford = (account.sim.keys[name][0] for name in ("stamford", "guilford"))
    env_file = tmp_path / ".env"
    env_file.write_text(
        f"JOBNIMBUS_INSTANCES=guilford,stamford\nJOBNIMBUS_API_BASE_URL={account.url}\nMCP_AUTH_TOKENS={TOKEN}\n"
        f"JOBNIMBUS_API_KEY_STAMFORD={stamford}\nJOBNIMBUS_API_KEY_GUILFORD={guilford}\n"
    )
    desktop = blocks(Settings.from_env({}, env_file=env_file), Place(COMMAND, env_file=str(env_file)))[0]
    assert guilford not in desktop.text
    config = json.loads(desktop.text.replace("<your JobNimbus API key>", guilford))
    (tmp_path / "elsewhere").mkdir()
    told = await started(config["mcpServers"]["jobnimbus"], tmp_path / "elsewhere")
    assert told == account.leads("guilford") != account.leads("stamford")


# -- served ----------------------------------------------------------------------------------------------------------


def filled_in(value: Any, variable: str) -> Any:
    """What a host makes of its file: `variable` is how it writes that of the token."""
    return json.loads(json.dumps(value).replace(variable, TOKEN))


def typed(text: str, program: str) -> Sequence[str]:
    """The words that a shell gives to `program`, where a line is typed that begins with it."""
    script = f"{program}() {{ printf '%s\\0' \"$@\"; }}\n{text}\n"
    ran = subprocess.run(
        ["sh", "-eu", "-c", script],
        env=kept(JOBNIMBUS_MCP_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    return ran.stdout.split("\0")[:-1]


def by_command(text: str) -> tuple[str, Mapping[str, str]]:
    *words, url, flag, header = typed(text, "claude")
    assert words == ["mcp", "add", "--transport", "http", "jobnimbus"]
    assert flag == "--header"
    name, _, value = header.partition(": ")
    return url, {name: value}


def by_project_file(text: str) -> tuple[str, Mapping[str, str]]:
    server = filled_in(json.loads(text)["mcpServers"]["jobnimbus"], "${JOBNIMBUS_MCP_TOKEN}")
    assert server["type"] == "http"
    return server["url"], server["headers"]


def by_cursor(text: str) -> tuple[str, Mapping[str, str]]:
    server = filled_in(json.loads(text)["mcpServers"]["jobnimbus"], "${env:JOBNIMBUS_MCP_TOKEN}")
    return server["url"], server["headers"]


def by_vs_code(text: str) -> tuple[str, Mapping[str, str]]:
    config = json.loads(text)
    (asked,) = config["inputs"]
    assert (asked["type"], asked["password"]) == ("promptString", True)
    server = filled_in(config["servers"]["jobnimbus"], "${input:%s}" % asked["id"])  # noqa: UP031  braces of its own
    assert server["type"] == "http"
    return server["url"], server["headers"]


def by_claude_api(text: str) -> tuple[str, Mapping[str, str]]:
    """Whoever asks by it sends the token as a bearer's. Source: Claude API, MCP connector."""
    request = filled_in(json.loads(text), "<one of MCP_AUTH_TOKENS>")
    (server,), (toolset,) = request["mcp_servers"], request["tools"]
    assert (server["type"], toolset) == ("url", {"type": "mcp_toolset", "mcp_server_name": server["name"]})
    url = server["url"].replace("https://<YOUR-HOST>", SERVED)
    return url, {"Authorization": f"Bearer {server['authorization_token']}"}


@pytest.mark.parametrize(
    ("host", "where", "understood"),
    [
        ("Claude Code", "a shell", by_command),
        ("Claude Code", ".mcp.json", by_project_file),
        ("Cursor", "~/.cursor/mcp.json", by_cursor),
        ("VS Code", ".vscode/mcp.json", by_vs_code),
        ("the Claude API", "a request's body", by_claude_api),
    ],
)
async def test_a_host_that_is_given_url_and_token_is_served_and_without_the_token_is_not(
    onboarded: Onboarded, account: Account, host: str, where: str, understood: Any
) -> None:
    said, headers = understood(block_of(onboarded, host, where))
    assert said == f"{SERVED}/mcp"
    url = said.replace(SERVED, onboarded.url)
    assert headers == {"Authorization": f"Bearer {TOKEN}"}
    async with (
        asyncio.timeout(BOUND_S),
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode="auto") as client,
    ):
        assert await answered(client) == account.leads("stamford")
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with httpx2.AsyncClient(timeout=BOUND_S, trust_env=False) as nobody:
        for stranger in ({}, {"Authorization": "Bearer ${JOBNIMBUS_MCP_TOKEN}"}):
            accepted = {"Accept": "application/json, text/event-stream", **stranger}
            assert (await nobody.post(url, json=hello, headers=accepted)).status_code == 401


async def test_the_call_by_plain_http_is_answered(onboarded: Onboarded, account: Account) -> None:
    (shown,) = (text for text in re.findall(r"```sh\n(.*?)\n```", README, re.S) if text.startswith("curl"))
    silent, url, *flags = typed(shown, "curl")
    assert silent == "-s"
    given = list(zip(flags[::2], flags[1::2], strict=True))
    headers = dict(value.split(": ", 1) for flag, value in given if flag == "-H")
    (body,) = (value for flag, value in given if flag == "-d")
    assert len(headers) == len(given) - 1
    async with httpx2.AsyncClient(timeout=BOUND_S, trust_env=False) as http:
        asked = url.replace(SERVED, onboarded.url)
        answer = await http.post(asked, content=body, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["data"]["count"] == len(account.leads("stamford"))
        del headers["Authorization"]
        assert (await http.post(asked, content=body, headers=headers)).status_code == 401
