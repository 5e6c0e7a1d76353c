"""Open subscriptions and the end of the process: over HTTP when a signal comes, on stdin when the client hangs up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobnimbus_mcp.simulator import Simulator

STOP_BOUND_S, START_BOUND_S, ANSWER_BOUND_S = 5.0, 20.0, 10.0
GRACEFUL_S = 2.5
"""Well below the grace that calls in flight are given: the streams ended because they were told to."""

INSTANCE = "stamford"
TOKEN = "t0ken-of-the-callers-01"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def listen(uri: str) -> dict[str, Any]:
    params = {"_meta": META, "notifications": {"resourceSubscriptions": [uri]}}
    return {"jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen", "params": params}


@pytest.fixture
def variables(jobnimbus: str, simulator: Simulator) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COV" in name}
    return kept | {
        "JOBNIMBUS_INSTANCES": INSTANCE,
        "JOBNIMBUS_API_BASE_URL": jobnimbus,
        "JOBNIMBUS_API_KEY": simulator.keys[INSTANCE][0],
        "MCP_AUTH_TOKENS": TOKEN,
        "LOG_LEVEL": "warning",
    }


@pytest.fixture
def uri(simulator: Simulator) -> str:
    return f"jobnimbus://{INSTANCE}/jobs/{next(iter(simulator.account(INSTANCE).records('jobs')))['jnid']}"


@asynccontextmanager
async def running(variables: dict[str, str], directory: Path, *arguments: str) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobnimbus_mcp", *arguments),
        cwd=directory,
        env=variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def subscribed(port: int, uri: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that has been acknowledged, from a client that reads what it likes."""
    body = json.dumps(listen(uri)).encode()
    head = [
        "POST /mcp HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        f"authorization: Bearer {TOKEN}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: subscriptions/listen",
        f"content-length: {len(body)}",
    ]
    async with asyncio.timeout(START_BOUND_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.05)
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    async with asyncio.timeout(ANSWER_BOUND_S):
        told = await reader.readuntil(b"acknowledged")
    assert told.startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_a_server_told_to_stop_ends_its_streams_and_itself(
    variables: dict[str, str], uri: str, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    async with running(variables, tmp_path, "serve", "--port", str(port)) as process:
        streams = [await subscribed(port, uri) for _ in range(3)]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_BOUND_S + 5):
                lasts = [await reader.read() for reader, _ in streams]
                await process.wait()
        finally:
            for _, writer in streams:
                writer.close()
        assert time.monotonic() - began < GRACEFUL_S
        for last in lasts:
            assert b'"result"' in last, "the stream broke off instead of ending"
            assert b'"mine"' in last


async def test_a_client_on_stdin_that_hangs_up_does_not_wait_for_its_own_subscription(
    variables: dict[str, str], uri: str, tmp_path: Path
) -> None:
    async with running(variables, tmp_path, "stdio") as process:
        process.stdin.write(json.dumps(listen(uri)).encode() + b"\n")
        async with asyncio.timeout(START_BOUND_S):
            acknowledged = json.loads(await process.stdout.readline())
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        began = time.monotonic()
        process.stdin.close()
        async with asyncio.timeout(STOP_BOUND_S + 5):
            last = json.loads(await process.stdout.readline())
            await process.wait()
        assert time.monotonic() - began < GRACEFUL_S
        assert last["id"] == "mine"
        assert "result" in last
