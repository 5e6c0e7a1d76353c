"""Delivers changes as webhooks: one queue, in order, no retries (the service's retries are undocumented)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import httpx
import orjson

__all__ = ["WebhookSender"]

# Bounds the memory a dead receiver can cost; what comes on top counts as failed.
_MOST_WAITING = 10_000
_DELIVERY_TIMEOUT_S = 5.0


class WebhookSender:
    """Posts bodies to `url`, adding `instance=<name>` to its query unless it is there. None: sends nothing.

    The task that sends lives only while something waits to be sent. `transport` is for tests.
    """

    def __init__(self, url: str | None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = None if url is None else httpx.URL(url)
        self._transport = transport
        self._waiting: deque[tuple[str, bytes, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self.delivered = 0
        self.failed = 0

    @property
    def enabled(self) -> bool:
        return self._url is not None

    def post(self, instance: str, bodies: Sequence[dict[str, Any]]) -> list[asyncio.Future[None]]:
        """Queue deliveries, in order; each future is done when its own was answered or given up."""
        if self._url is None:
            return []
        loop = asyncio.get_running_loop()
        futures = []
        for body in bodies:
            if len(self._waiting) >= _MOST_WAITING:
                self.failed += 1
                continue
            done: asyncio.Future[None] = loop.create_future()
            self._waiting.append((instance, orjson.dumps(body), done))
            futures.append(done)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(self._url), name="simulator-webhooks")
        return futures

    async def post_and_wait(self, instance: str, bodies: Sequence[dict[str, Any]]) -> None:
        """Queue deliveries and wait until they are done, for at most 5 s; later they go on by themselves."""
        futures = self.post(instance, bodies)
        if futures:
            await asyncio.wait(futures, timeout=_DELIVERY_TIMEOUT_S)

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Stop sending; what still waits is dropped."""
        self.forget()
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_DELIVERY_TIMEOUT_S)

    def forget(self) -> None:
        """Drop what waits and start counting anew."""
        while self._waiting:
            _, _, done = self._waiting.popleft()
            if not done.done():
                done.cancel()
        self.delivered = self.failed = 0

    async def _run(self, url: httpx.URL) -> None:
        # No proxy from the environment: the receiver is on this machine or on none.
        async with httpx.AsyncClient(transport=self._transport, timeout=_DELIVERY_TIMEOUT_S, trust_env=False) as client:
            while self._waiting:
                instance, body, done = self._waiting.popleft()
                try:
                    await self._deliver(client, url, instance, body)
                finally:
                    if not done.done():
                        done.set_result(None)

    async def _deliver(self, client: httpx.AsyncClient, url: httpx.URL, instance: str, body: bytes) -> None:
        target = url if "instance" in url.params else url.copy_add_param("instance", instance)
        try:
            # httpx bounds each read and write; a receiver that trickles is bounded here.
            async with asyncio.timeout(_DELIVERY_TIMEOUT_S):
                answer = await client.post(target, content=body, headers={"content-type": "application/json"})
        except Exception:
            # The boundary to the receiver, which in process may raise anything. Failures are counted, never retried.
            self.failed += 1
            return
        if answer.is_success:
            self.delivered += 1
        else:
            self.failed += 1
