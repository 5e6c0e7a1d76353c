"""The stdio server lets the calls in flight finish: when its input ends, and when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from jobnimbus_mcp.clock import SystemClock

START_BOUND_S, STOP_BOUND_S = 20.0, 5.0

HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Quiet(uvicorn.Server):
    """Signals are the business of the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


Start = Callable[[float], AbstractAsyncContextManager["asyncio.subprocess.Process"]]


@pytest.fixture
def start(stage: Any, tmp_path: Path) -> Start:
    """`start(latency_s)`: the process, its JobNimbus that much late."""
    stage.clock.now_of = SystemClock()
    stage.sim.reset()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}

    @asynccontextmanager
    async def started(latency_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
        async def late(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(latency_s)
            await stage.sim.app(scope, receive, send)

        listening = socket.create_server(("127.0.0.1", 0))
        server = Quiet(
            uvicorn.Config(late, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobnimbus_mcp", "stdio"),
            cwd=tmp_path,
            env={
                **kept,
                "JOBNIMBUS_API_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}/api1",
                "JOBNIMBUS_INSTANCES": "stamford",
                "JOBNIMBUS_API_KEY": stage.sim.keys["stamford"][0],
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1_000_000,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            server.should_exit = True
            await serving

    return started


async def test_what_was_asked_before_the_input_ended_is_answered(start: Start) -> None:
    calls = [request(number, "tools/call", name="get_jobs", arguments={"size": number}) for number in (2, 3)]
    async with start(1.0) as process, asyncio.timeout(START_BOUND_S):
        told, _ = await process.communicate(lines(request(1, "initialize", **HELLO), READY, *calls))
    answers = {answer["id"]: answer for answer in map(json.loads, told.splitlines()) if "id" in answer}
    assert answers.keys() == {1, 2, 3}
    assert [answers[number]["result"]["structuredContent"]["returned"] for number in (2, 3)] == [2, 3]
    assert process.returncode == 0


async def first_answer(process: asyncio.subprocess.Process) -> None:
    """Greets, asks for jobs, and waits until the call is in flight."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(lines(request(1, "initialize", **HELLO), READY))
    assert json.loads(await process.stdout.readline())["id"] == 1
    process.stdin.write(lines(request(2, "tools/call", name="get_jobs", arguments={"size": 2})))
    # answers come in any order; this one needs no JobNimbus, and was asked later
    process.stdin.write(lines(request(3, "tools/list")))
    assert json.loads(await process.stdout.readline())["id"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_at_a_signal_is_answered_and_then_the_process_ends(
    start: Start, number: signal.Signals
) -> None:
    async with start(1.0) as process, asyncio.timeout(START_BOUND_S):
        await first_answer(process)
        began = time.monotonic()
        process.send_signal(number)
        assert process.stdout is not None
        (answer,) = [json.loads(line) for line in (await process.stdout.read()).splitlines()]
        assert await process.wait() == 0
        took_s = time.monotonic() - began
    assert (answer["id"], answer["result"]["structuredContent"]["returned"]) == (2, 2)
    assert took_s < STOP_BOUND_S


async def test_a_call_that_takes_too_long_is_ended_with_an_error_and_holds_no_stop_up(start: Start) -> None:
    async with start(30.0) as process, asyncio.timeout(START_BOUND_S):
        await first_answer(process)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        (answer,) = [json.loads(line) for line in (await process.stdout.read()).splitlines()]
        assert await process.wait() == 0
        took_s = time.monotonic() - began
    assert answer["id"] == 2
    assert "error" in answer
    assert took_s < STOP_BOUND_S


async def test_a_call_that_the_client_cancelled_is_not_waited_for(start: Start) -> None:
    async with start(30.0) as process, asyncio.timeout(START_BOUND_S):
        await first_answer(process)
        assert process.stdin is not None
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        process.stdin.write(lines(cancelled))
        process.stdin.close()
        began = time.monotonic()
        assert await process.wait() == 0
        assert time.monotonic() - began < 2.5
