"""A TCP proxy that breaks, silences and redirects links, as a process that takes orders (see `rig.take_orders`).

A link is a port of its own with its targets; connections take the targets in turns and go on to the next where one
refuses. What was silenced is delivered late, as after a pause of the network.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import cast

import uvloop
from rig import take_orders

__all__: list[str] = []


class Link:
    def __init__(self, targets: list[int]) -> None:
        self.targets = targets
        self.port = 0
        self._turn = 0
        self._silent = 0
        self._ends: set[End] = set()

    async def start(self) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: End(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection there is."""
        for end in tuple(self._ends):
            end.abort()

    async def silence(self, seconds: float) -> None:
        """Deliver nothing for so long, in either direction."""
        self._silent += 1
        await asyncio.sleep(seconds)
        self._silent -= 1
        if not self._silent:
            for end in tuple(self._ends):
                end.deliver()

    @property
    def silent(self) -> bool:
        return self._silent > 0

    def join(self, end: End) -> None:
        self._ends.add(end)

    def leave(self, end: End) -> None:
        self._ends.discard(end)

    def in_turn(self) -> Iterable[int]:
        self._turn += 1
        first = self._turn % len(self.targets)
        return [*self.targets[first:], *self.targets[:first]]


class End(asyncio.Protocol):
    """One end of a connection; `peer` is the other, once there is one."""

    def __init__(self, link: Link, peer: End | None = None) -> None:
        self._link = link
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._link.join(self)
        if self._peer is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        self._held.append(data)
        self.deliver()

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.leave(self)
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def deliver(self) -> None:
        """Hand over what came, unless the link is silent or has no other end yet."""
        if self._peer is not None and self._peer._transport is not None and not self._link.silent:
            for data in self._held:
                self._peer._transport.write(data)
            self._held.clear()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self._link.in_turn():
            with contextlib.suppress(OSError):
                _, far = await loop.create_connection(lambda: End(self._link, self), "127.0.0.1", port)
                assert self._transport is not None
                if self._transport.is_closing():
                    far.abort()
                    return
                self._peer = far
                self.deliver()
                return
        self.abort()


class Proxy:
    def __init__(self) -> None:
        self._links: list[Link] = []

    async def open(self, targets: list[int]) -> int:
        """The port of a new link."""
        link = Link(targets)
        await link.start()
        self._links.append(link)
        return link.port

    async def cut(self, link: int) -> None:
        self._links[link].cut()

    async def silence(self, link: int, seconds: float) -> None:
        await self._links[link].silence(seconds)

    async def switch(self, targets: list[int]) -> None:
        """All links lead there from now on; what was connected is reset."""
        for link in self._links:
            link.targets = targets
            link.cut()


async def main() -> None:
    proxy = Proxy()
    await take_orders({name: getattr(proxy, name) for name in ("open", "cut", "silence", "switch")})


if __name__ == "__main__":
    uvloop.run(main())
