"""Another client altogether, the MCP Inspector's command line, lists the tools and calls each of them once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from node_tools import NodeTools, installed

START_BOUND_S = 30.0
CALL_BOUND_S = 60.0
CALLER = "t0ken-of-the-callers-01"
INSTANCE = "stamford"
COMMAND = (sys.executable, "-m", "jobnimbus_mcp")

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
    """A simulated JobNimbus, and what is in it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.key: str = httpx.get(f"{root}/_sim/keys", trust_env=False).json()[INSTANCE][0]

    def has(self, path: str) -> Any:
        response = httpx.get(
            f"{self.root}/api1{path}", headers={"Authorization": f"bearer {self.key}"}, trust_env=False
        )
        return response.raise_for_status().json()

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "JOBNIMBUS_INSTANCES": INSTANCE,
            "JOBNIMBUS_API_BASE_URL": f"{self.root}/api1",
            "JOBNIMBUS_API_KEY": self.key,
            "MCP_AUTH_TOKENS": CALLER,
            "LOG_LEVEL": "error",
        }

    def arguments(self) -> dict[str, dict[str, Any]]:
        """What each tool that needs something is called with."""
        job, contact, task = (self.has(f"/{kind}?size=1")["results"][0] for kind in ("jobs", "contacts", "tasks"))
        flows = self.has("/account/settings")["workflows"]
        first = {
            kind: next(
                {"record_type": flow["name"], "status": flow["status"][0]["name"]}
                for flow in flows
                if flow["object_type"] == kind and flow.get("is_active") is not False
            )
            for kind in ("job", "contact")
        }
        return {
            "get_job": {"job_id": job["jnid"]},
            "get_contact": {"contact_id": contact["jnid"]},
            "search_jobs": {"query": job["name"].split()[0]},
            "search_contacts": {"query": contact["last_name"]},
            "create_contact": {"display_name": "Inspected Contact", **first["contact"]},
            "update_contact": {"contact_id": contact["jnid"], "company": "Inspected"},
            "create_job": {"name": "Inspected job", "contact_id": contact["jnid"], **first["job"]},
            "update_job": {"job_id": job["jnid"], "description": "Inspected"},
            "create_task": {"title": "Inspect", "date_start": "2026-12-01", "job_id": job["jnid"]},
            "update_task": {"task_id": task["jnid"], "title": "Inspected"},
            "create_activity": {"note": "Inspected", "job_id": job["jnid"]},
            "find_tools": {"query": "invoice"},
            "use_tool": {"name": "get_products", "arguments": {"size": 1}},
        }


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


def inspected(inspector: Inspector, account: Account) -> None:
    listed = inspector.run("--method", "tools/list", "--strict")["tools"]
    names = [tool["name"] for tool in listed]
    arguments = account.arguments()
    assert set(arguments) <= set(names), "a tool of the table is not listed"
    needing = {tool["name"] for tool in listed if tool["inputSchema"].get("required")}
    assert needing <= set(arguments), "a tool was added: say what to call it with"
    for name in names:
        result = inspector.call(name, arguments.get(name, {}))
        assert result.get("isError") is not True, (name, result)
        assert result["structuredContent"] == json.loads(result["content"][0]["text"]), name
    job = account.arguments()["get_job"]["job_id"]
    read = inspector.run("--method", "resources/read", "--uri", f"jobnimbus://{INSTANCE}/jobs/{job}")
    assert json.loads(read["contents"][0]["text"])["jnid"] == job
    prompts = inspector.run("--method", "prompts/list")["prompts"]
    assert "job_briefing" in {prompt["name"] for prompt in prompts}


def test_every_listed_tool_works_from_the_inspector_over_http(
    tools: NodeTools, account: Account, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        root = stack.enter_context(running(tmp_path, "serve", free_port(), "serve", **account.settings))
        header = ("--header", f"Authorization: Bearer {CALLER}")
        inspected(Inspector(tools, tmp_path, f"{root}/mcp", given=header), account)


def test_every_listed_tool_works_from_the_inspector_over_stdio(
    tools: NodeTools, account: Account, tmp_path: Path
) -> None:
    settings = {**environment(tmp_path), **account.settings}
    given = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    inspected(Inspector(tools, tmp_path, *COMMAND, "stdio", given=given), account)
