"""The whole server as a user runs it: `serve` over `simulate`, spoken to by plain HTTP on connections kept open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rig import free_port, server_process

__all__ = [
    "ADMIN",
    "INSTANCE",
    "SECRET",
    "TOKEN",
    "Answer",
    "Connections",
    "Simulated",
    "command_of",
    "get_job",
    "settings_of",
    "simulated",
    "version_of",
    "webhook",
]

INSTANCE = "stamford"
TOKEN = "t0ken-of-the-benchmark-1"
ADMIN = "t0ken-of-the-admin-0001"
SECRET = "s3cret-of-the-webhooks-01"
ANSWER_BOUND_S = 20.0

_VERSION = re.compile(r"version (\d+)")


@dataclass(frozen=True)
class Simulated:
    """A simulated JobNimbus in a process of its own."""

    url: str
    key: str

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_sim/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def jobs(self, number: int) -> list[str]:
        """Ids of so many jobs, each made to say `version 0`."""
        request = urllib.request.Request(
            f"{self.url}/api1/jobs?size={number}", headers={"authorization": f"bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = [str(row["jnid"]) for row in json.load(answer)["results"]]
        for jnid in found:
            self.change(jnid, 0)
        return found

    def change(self, jnid: str, version: int) -> None:
        """Change the job in JobNimbus; nobody is told."""
        self.control("PUT", f"records/jobs/{jnid}?webhook=false", {"description": f"version {version}"})


@contextmanager
def simulated(latency_ms: int) -> Iterator[Simulated]:
    port = free_port()
    command = [sys.executable, "-m", "jobnimbus_mcp", "simulate", "--instances", INSTANCE, "--port", str(port)]
    with server_process([*command, "--latency-ms", str(latency_ms)], port, {}):
        made = Simulated(f"http://127.0.0.1:{port}", "")
        yield Simulated(made.url, made.control("GET", "keys")[INSTANCE][0])


def command_of(port: int) -> list[str]:
    return [sys.executable, "-m", "jobnimbus_mcp", "serve", "--port", str(port)]


def settings_of(simulator: Simulated, data_dir: Path, **variables: str) -> dict[str, str]:
    """Settings of a server without limits towards JobNimbus."""
    return {
        "JOBNIMBUS_INSTANCES": INSTANCE,
        "JOBNIMBUS_API_BASE_URL": f"{simulator.url}/api1",
        "JOBNIMBUS_API_KEY": simulator.key,
        "JOBNIMBUS_MAX_REQUESTS_PER_S": "0",
        "JOBNIMBUS_MAX_CONCURRENT": "0",
        "MCP_AUTH_TOKENS": TOKEN,
        "ADMIN_TOKEN": ADMIN,
        "WEBHOOK_SECRET": SECRET,
        "LOG_LEVEL": "warning",
        "DATA_DIR": str(data_dir),
        **variables,
    }


class Answer(NamedTuple):
    status: int
    body: bytes


class Connections:
    """Connections to one server, kept open; as many as are asked at once. Each serves `uses` requests at most."""

    def __init__(self, port: int, uses: int = 1 << 30) -> None:
        self._port = port
        self._uses = uses
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, int]] = []

    async def post(self, path: str, body: Mapping[str, Any], token: str = TOKEN) -> Answer:
        return await self._ask("POST", path, json.dumps(body).encode(), token)

    async def put(self, path: str, body: Mapping[str, Any]) -> Answer:
        return await self._ask("PUT", path, json.dumps(body).encode(), "")

    async def get(self, path: str, token: str = ADMIN) -> Answer:
        return await self._ask("GET", path, b"", token)

    def close(self) -> None:
        for _, writer, _ in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, method: str, path: str, body: bytes, token: str) -> Answer:
        """Raises OSError or TimeoutError when there is no whole answer."""
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer, uses = await self._connection()
        try:
            async with asyncio.timeout(ANSWER_BOUND_S):
                writer.write(head.encode() + body)
                answer = await _answered(reader)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, asyncio.IncompleteReadError | asyncio.LimitOverrunError):
                raise ConnectionResetError("the connection ended in the middle of an answer") from error
            raise
        if uses > 1:
            self._idle.append((reader, writer, uses - 1))
        else:
            writer.close()
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        while self._idle:
            reader, writer, uses = self._idle.pop()
            if not (reader.at_eof() or writer.transport.is_closing()):
                return reader, writer, uses
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        return reader, writer, self._uses


async def _answered(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    _, announced, rest = head.partition(b"content-length:")
    if announced:
        return Answer(status, await reader.readexactly(int(rest.partition(b"\r\n")[0])))
    parts = []
    while (size := int(await reader.readuntil(b"\r\n"), 16)) > 0:
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return Answer(status, b"".join(parts))


async def get_job(connections: Connections, jnid: str) -> Answer:
    question = {"name": "get_job", "arguments": {"job_id": jnid, "fields": "jnid,description"}}
    return await connections.post("/mcp/tools/call", question)


def version_of(answered: Any) -> int:
    """The version that an answer of `get_job` tells."""
    found = _VERSION.search(str(answered["data"]["record"]["description"]))
    if found is None:
        raise ValueError("the record tells no version")
    return int(found[1])


async def webhook(connections: Connections, jnid: str) -> tuple[int, dict[str, Any]]:
    """A delivery that says this job was updated; status 0 when there was no answer."""
    body = {"event": "job.updated", "resource_type": "job", "resource_id": jnid}
    with contextlib.suppress(OSError, TimeoutError):
        answer = await connections.post(f"/webhooks/jobnimbus?token={SECRET}&instance={INSTANCE}", body)
        told: dict[str, Any] = json.loads(answer.body)
        return answer.status, told
    return 0, {}
