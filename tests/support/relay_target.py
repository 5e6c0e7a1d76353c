"""A system that events are relayed to, for tests: a real HTTP server that answers as it was told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from standardwebhooks.webhooks import Webhook

__all__ = ["DROP", "HANG", "Answer", "Received", "Target", "refusing_url", "relay_target"]


@dataclass(frozen=True)
class Answer:
    """One scripted answer. `cut`: the head is sent, with a length, and as much of the body as there is, then nothing
    more ever. `hang`: no byte at all. `drop`: the connection is closed instead."""

    status: int = 200
    body: bytes = b"thanks"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    hang: bool = False
    drop: bool = False


HANG = Answer(hang=True)
DROP = Answer(drop=True)


@dataclass(frozen=True)
class Received:
    """One request as it came; header names in lower case. `connection`: which one it came on, counted from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def verify(self, key: bytes) -> None:
        """As a receiver does; raises when the signature is not by this key, or is old."""
        Webhook(key).verify(self.body, self.headers)


@dataclass
class Target:
    """`answers`: what is still to be answered, the first next; after them, 200. `server_names`: what TLS clients asked
    for."""

    host: str
    port: int
    secure: bool
    answers: list[Answer] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    connections: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/hook", *, host: str | None = None) -> str:
        return f"{'https' if self.secure else 'http'}://{host or self.host}:{self.port}{path}"

    async def arrived(self, count: int, *, within_s: float = 5.0) -> None:
        """Return when so many requests have come."""
        async with asyncio.timeout(within_s):
            while len(self.received) < count:
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def relay_target(
    answers: Sequence[Answer | int] = (), *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Target]:
    """A server on a free port of `host`. `answers`: a number is a status."""
    target = Target(host, 0, tls is not None)
    target.answers.extend(Answer(status=answer) if isinstance(answer, int) else answer for answer in answers)
    open_now: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        target.connections += 1
        try:
            await _connection(target, target.connections, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            open_now.discard(task)
            writer.transport.abort()

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: target.server_names.append(name)
    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()
        for task in tuple(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        await server.wait_closed()


def refusing_url(*, host: str = "127.0.0.1") -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"http://{host}:{probe.getsockname()[1]}/hook"


async def _connection(target: Target, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await _head(reader):
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        answer = target.answers.pop(0) if target.answers else Answer()
        target.received.append(Received(method, path, headers, body, number))
        target.came.set()
        if answer.drop:
            return
        if answer.hang:
            await asyncio.Event().wait()
        length = len(answer.body) + (1 if answer.cut else 0)
        told = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        writer.write(f"HTTP/1.1 {answer.status} Word\r\nContent-Length: {length}\r\n{told}\r\n".encode() + answer.body)
        await writer.drain()
        if answer.cut:
            await asyncio.Event().wait()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
