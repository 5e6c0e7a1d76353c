"""Another client altogether, the MCP Inspector's command line, lists all tools and calls each of them once.

What each is called with is its row of `tool_cases`. Every command is a Node process, and over stdio a server as well,
so those that do not depend on each other are run side by side.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from node_tools import NodeTools, installed
from tool_cases import BY_TOOL, NOWHERE, Case, Findings, Json, Place, id_argument_of

START_BOUND_S = 30.0
CALL_BOUND_S = 60.0
CONNECT_BOUND_S = 45.0
"""Over stdio this is a server's start, on a machine that may be busy with others."""
CALLER = "t0ken-of-the-callers-01"
INSTANCE = "stamford"
SIDE_BY_SIDE = 3
COMMAND = (sys.executable, "-m", "jobnimbus_mcp")

SECOND_VERSION = frozenset({"estimates", "invoices", "materialorders", "products", "workorders"})
"""Of JobNimbus's API, whose path these kinds are under."""
ROWS_UNDER = {"activities": "activity", "files": "files"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@contextmanager
def running(home: Path, name: str, port: int, *arguments: str, **variables: str) -> Iterator[str]:
    """A command of ours that serves HTTP: its root, once it answers."""
    log = home / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--port", str(port)],
            cwd=home,
            env={**environment(home), **variables},
            stdout=out,
            stderr=out,
        )
    root = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_BOUND_S
        while True:
            assert process.poll() is None, log.read_text()
            try:
                httpx.get(f"{root}/health", trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield root
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path) -> dict[str, str]:
    """Of this process, without settings that it may hold."""
    kept = ("PATH", "HOME", "LANG", "SYSTEMROOT", "COVERAGE_PROCESS_START")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "DATA_DIR": str(home / "data")}


class Account:
    """A simulated JobNimbus, and what is in it: the world of a `Place`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.key: str = self._get("/_sim/keys")[INSTANCE][0]

    def has(self, kind: str) -> list[Json]:
        path = f"v2/{kind}" if kind in SECOND_VERSION else kind
        told = self._get(f"/api1/{path}?size=1000", Authorization=f"bearer {self.key}")
        rows: list[Json] = told[ROWS_UNDER.get(kind, "results")]
        assert len(rows) == told["count"], kind
        return rows

    def users(self) -> list[Json]:
        users: list[Json] = self._get("/api1/account/users", Authorization=f"bearer {self.key}")["users"]
        return users

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": f"{self.root}/api1",
            "JOBNIMBUS_API_KEY": self.key,
            "MCP_AUTH_TOKENS": CALLER,
            "MCP_TOOLSETS": "all",
            "LOG_LEVEL": "error",
        }

    def _get(self, path: str, **headers: str) -> Any:
        return httpx.get(f"{self.root}{path}", headers=headers, trust_env=False).raise_for_status().json()


@pytest.fixture(scope="module")
def tools() -> NodeTools:
    return installed()


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with running(tmp_path, "simulate", free_port(), "simulate") as root:
        yield Account(root)


class Inspector:
    """The command line at one server; `given`: options about it, before the rest."""

    def __init__(self, tools: NodeTools, home: Path, *server: str, given: Sequence[str] = ()) -> None:
        self._tools = tools
        self._home = home
        self._server = server
        self._given = given

    def run(self, *arguments: str) -> Any:
        """The result; it must be one."""
        done = subprocess.run(
            [
                *self._tools.inspector,
                *self._given,
                *("--format", "json", "--protocol-era", "modern"),
                *("--connect-timeout", f"{CONNECT_BOUND_S * 1000:.0f}"),
                *(*arguments, "--", *self._server),
            ],
            cwd=self._home,
            env=self._tools.environment,
            capture_output=True,
            text=True,
            timeout=CALL_BOUND_S,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)["result"]

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        pairs = [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()
        ]
        given = [word for pair in pairs for word in ("--tool-arg", pair)]
        return self.run("--method", "tools/call", "--tool-name", tool, *given)


def goes_second(case: Case) -> bool:
    """It is about what an earlier call made, or changes a record that one changes."""
    return case.tool.startswith("delete_") or case.tool in ("resume_bulk_run", "bulk_update_records")


def arguments_of(case: Case, place: Place, made: Mapping[str, str]) -> Json:
    """Of its row. What is deleted is what was created for it; `made`: the tool -> the record's id."""
    given = case.good(place, "inspected")
    if case.tool.startswith("delete_"):
        return {**given, id_argument_of(case): made.get(case.tool.replace("delete_", "create_"), NOWHERE)}
    return given


def inspected(inspector: Inspector, account: Account) -> None:
    names = [tool["name"] for tool in inspector.run("--method", "tools/list", "--strict")["tools"]]
    assert [name for name in names if name not in BY_TOOL] == [], "a tool was added: say what to call it with"
    assert [name for name in BY_TOOL if name not in names] == [], "a tool with a row is not listed"
    place = Place(account)
    made: dict[str, str] = {}
    found = Findings()
    cases = [BY_TOOL[name] for name in names]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for second in (False, True):
            called = [
                (case.tool, pool.submit(inspector.call, case.tool, arguments_of(case, place, made)))
                for case in cases
                if goes_second(case) is second
            ]
            for tool, answer in called:
                with found.of(tool, "from the Inspector"):
                    told = answered(answer.result())
                    made[tool] = str(told.get("jnid", ""))
    found.none()
    for case in cases:
        if case.tool.startswith("delete_"):
            gone = made[case.tool]
            assert gone not in {row["jnid"] for row in account.has(case.kind)}, case.tool
    read = inspector.run("--method", "resources/read", "--uri", f"jobnimbus://{INSTANCE}/jobs/{place.job}")
    assert json.loads(read["contents"][0]["text"])["jnid"] == place.job
    prompts = inspector.run("--method", "prompts/list")["prompts"]
    assert "job_briefing" in {prompt["name"] for prompt in prompts}


def answered(result: Mapping[str, Any]) -> Json:
    """What a call that went well told, as data and as text."""
    assert result.get("isError") is not True, result
    told: Json = result["structuredContent"]
    assert told == json.loads(result["content"][0]["text"])
    return told


def test_every_tool_works_from_the_inspector_over_http(tools: NodeTools, account: Account, tmp_path: Path) -> None:
    with running(tmp_path, "serve", free_port(), "serve", **account.settings) as root:
        header = ("--header", f"Authorization: Bearer {CALLER}")
        inspected(Inspector(tools, tmp_path, f"{root}/mcp", given=header), account)


def test_every_tool_works_from_the_inspector_over_stdio(
    tools: NodeTools, account: Account, tmp_path: Path, redis_url: str
) -> None:
    """Each call has a server of its own; a bulk run is resumed by another than began it, so they share a store."""
    settings = {**environment(tmp_path), **account.settings, "REDIS_URL": redis_url}
    given = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    inspected(Inspector(tools, tmp_path, *COMMAND, "stdio", given=given), account)
