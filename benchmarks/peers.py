"""cashews, aiocache and dogpile.cache doing the same work by their documented means, each in a process of its own.

    python benchmarks/peers.py NAME REDIS_URL SOURCE_FILE

takes orders on stdin (see `rig.take_orders`). Read-through is each library's decorator (dogpile: `get_or_create`), a
record's invalidation its tag where the library has tags, else its key. Against stampedes: cashews `lock=True`, aiocache
`cached_stampede`, dogpile `distributed_lock`. dogpile is synchronous; where reads overlap it is given threads.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import uvloop
from aiocache import Cache as AioCache
from aiocache import cached, cached_stampede
from aiocache.serializers import StringSerializer
from cashews import Cache
from dogpile.cache import make_region
from redis.asyncio import Redis
from rig import take_orders
from scenarios import Load, Scenarios, Subject

__all__ = ["PEERS"]

LIFE_S = 3_600
LEASE_S = 5
THREADS = 256
CONNECTIONS = 1_000
"""More than ever ask at once; the client's own bound of 100 would fail the others."""


class BareRedis:
    """GET and SET of the plain client: what a hit is told in multiples of."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url, protocol=3)

    async def read(self, identifier: str, load: Load) -> str:
        kept = await self._client.get(f"bare:{identifier}")
        if kept is None:
            kept = load.begin().encode()
            await self._client.set(f"bare:{identifier}", kept, ex=LIFE_S)
        return str(kept)

    async def read_once(self, identifier: str, load: Load) -> str:
        return await self.read(identifier, load)  # it knows no way to share a load

    async def invalidate(self, identifier: str) -> None:
        await self._client.unlink(f"bare:{identifier}")


class Cashews:
    def __init__(self, url: str, **options: Any) -> None:
        self._cache = Cache()
        self._cache.setup(url, **options)
        self._loads: dict[str, Load] = {}
        told: dict[str, Any] = {"ttl": LIFE_S, "key": "record:{identifier}", "tags": ["of:{identifier}"]}
        self._read = self._cache(**told)(self._fetch)
        self._read_once = self._cache(**told, lock=True)(self._fetch)

    async def read(self, identifier: str, load: Load) -> str:
        self._loads[identifier] = load
        return str(await self._read(identifier=identifier))

    async def read_once(self, identifier: str, load: Load) -> str:
        self._loads[identifier] = load
        return str(await self._read_once(identifier=identifier))

    async def invalidate(self, identifier: str) -> None:
        await self._cache.delete_tags(f"of:{identifier}")

    async def _fetch(self, identifier: str) -> str:
        return await _loaded(self._loads[identifier])


class Aiocache:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options: dict[str, Any] = {
            "cache": AioCache.REDIS,
            "endpoint": parts.hostname,
            "port": parts.port,
            "serializer": StringSerializer(),
            "pool_max_size": CONNECTIONS,
            "ttl": LIFE_S,
            "namespace": "aiocache",
            "key_builder": lambda _function, identifier: identifier,
        }
        self._loads: dict[str, Load] = {}
        self._read = cached(**options)(self._fetch)
        self._read_once = cached_stampede(lease=LEASE_S, **options)(self._fetch)

    async def read(self, identifier: str, load: Load) -> str:
        self._loads[identifier] = load
        return str(await self._read(identifier))

    async def read_once(self, identifier: str, load: Load) -> str:
        self._loads[identifier] = load
        return str(await self._read_once(identifier))

    async def invalidate(self, identifier: str) -> None:
        await self._read.cache.delete(identifier)

    async def _fetch(self, identifier: str) -> str:
        return await _loaded(self._loads[identifier])


class Dogpile:
    def __init__(self, url: str) -> None:
        self._region = make_region().configure(
            "dogpile.cache.redis",
            expiration_time=LIFE_S,
            arguments={
                "url": url,
                "redis_expiration_time": 2 * LIFE_S,
                "distributed_lock": True,
                "thread_local_lock": False,
                "lock_timeout": LEASE_S,
                "connection_kwargs": {"max_connections": CONNECTIONS},
            },
        )
        self._threads = ThreadPoolExecutor(THREADS)

    async def read(self, identifier: str, load: Load) -> str:
        if not load.takes_s:
            return self._get_or_create(identifier, load)  # nothing to overlap: no thread to pay for
        return await self.read_once(identifier, load)

    async def read_once(self, identifier: str, load: Load) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._get_or_create, identifier, load)

    async def invalidate(self, identifier: str) -> None:
        self._region.delete(f"dogpile:{identifier}")

    def _get_or_create(self, identifier: str, load: Load) -> str:
        def create() -> str:
            value = load.begin()
            time.sleep(load.takes_s)
            return value

        return str(self._region.get_or_create(f"dogpile:{identifier}", create))


async def _loaded(load: Load) -> str:
    value = load.begin()
    await asyncio.sleep(load.takes_s)
    return value


PEERS: dict[str, Callable[[str], Subject]] = {
    "bare GET": BareRedis,
    "cashews": Cashews,
    "cashews client_side": lambda url: Cashews(url, client_side=True),
    "aiocache": Aiocache,
    "dogpile.cache": Dogpile,
}


async def main(name: str, url: str, source: str) -> None:
    subject: Subject = PEERS[name](url)
    await take_orders(Scenarios(subject, source).orders)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4]))
