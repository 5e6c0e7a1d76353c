"""The stdio server as a process of its own, against a simulated JobNimbus on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from jobnimbus_mcp.clock import SystemClock

START_BOUND_S, STOP_BOUND_S = 20.0, 5.0


class Server(uvicorn.Server):
    """Signals are the business of the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """`app` on a free port; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        for _ in range(int(START_BOUND_S / 0.01)):
            if server.started:
                break
            await asyncio.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def environment(stage: Any) -> dict[str, str]:
    """What the process is given, but where its JobNimbus is."""
    stage.clock.now_of = SystemClock()
    stage.sim.reset()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
    key = stage.sim.keys["stamford"][0]
    return {**kept, "JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": key, "LOG_LEVEL": "debug"}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_lists_and_calls_the_tools_of_the_process(
    stage: Any, environment: dict[str, str], tmp_path: Path, mode: str
) -> None:
    async with served(stage.sim.app) as url:
        environment["JOBNIMBUS_API_BASE_URL"] = f"{url}/api1"
        process = StdioServerParameters(
            command=sys.executable, args=["-m", "jobnimbus_mcp", "stdio"], env=environment, cwd=tmp_path
        )
        with (tmp_path / "stderr").open("w") as errors:
            async with asyncio.timeout(30), Client(stdio_client(process, errlog=errors), mode=mode) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools}
                assert {"get_jobs", "create_job", "find_tools", "use_tool"} <= listed
                assert len(listed) < 25
                statuses = []
                for _ in range(2):
                    result = await client.call_tool("get_jobs", {"size": 2})
                    assert not result.is_error, result.content
                    assert result.structured_content["count"] == len(
                        list(stage.sim.account("stamford").records("jobs"))
                    )
                    assert result.meta is not None
                    statuses.append(result.meta["jobnimbus-mcp/cache"]["status"])
                assert statuses == ["miss", "hit"]
                refused = await client.call_tool("get_job", {"job_id": "nope"})
                assert refused.is_error
                assert "[not_found," in refused.model_dump_json()
    logged = (tmp_path / "stderr").read_text()
    assert "tool call" in logged
    assert environment["JOBNIMBUS_API_KEY"] not in logged


async def test_stdout_carries_the_protocol_alone_and_a_signal_ends_the_process_in_time(
    stage: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    async with served(stage.sim.app) as url:
        environment["JOBNIMBUS_API_BASE_URL"] = f"{url}/api1"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobnimbus_mcp", "stdio"),
            cwd=tmp_path,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1_000_000,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            seen: list[dict[str, Any]] = []

            async def exchange(number: int, method: str, **params: Any) -> dict[str, Any]:
                assert process.stdin is not None
                assert process.stdout is not None
                request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                process.stdin.write(json.dumps(request).encode() + b"\n")
                async with asyncio.timeout(START_BOUND_S):
                    while True:
                        seen.append(json.loads(await process.stdout.readline()))
                        if seen[-1].get("id") == number:
                            return seen[-1]

            hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            await exchange(1, "initialize", **hello)
            process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
            answer = await exchange(2, "tools/call", name="get_contacts", arguments={"size": 1})
            assert answer["result"]["structuredContent"]["returned"] == 1
            await exchange(3, "tools/call", name="get_jobs", arguments={"status": "no such"})
            assert (await exchange(4, "tools/call", name="nope", arguments={}))["error"]["code"] == -32602

            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_BOUND_S):
                rest = await process.stdout.read()
                assert await process.wait() == 0
            assert time.monotonic() - began < STOP_BOUND_S
            seen += [json.loads(line) for line in rest.splitlines()]
            assert all(message["jsonrpc"] == "2.0" for message in seen)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_client_that_leaves_before_its_answer_ends_the_process_without_an_error(
    environment: dict[str, str], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobnimbus_mcp", "stdio"),
        cwd=tmp_path,
        env=environment | {"JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9/api1", "LOG_LEVEL": "error"},
        stdin=asyncio.subprocess.PIPE,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)  # nobody will read the answer
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    async with asyncio.timeout(START_BOUND_S):
        _, errors = await process.communicate(json.dumps(request).encode() + b"\n")
    assert "Traceback" not in errors.decode()
    assert process.returncode == 0
