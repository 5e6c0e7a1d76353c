"""One replica's engine: store behind its guard, L1 with its coherence, reads and invalidations. Also as a process.

`python benchmarks/replica.py <JSON of Wiring>` takes orders on stdin (see `rig.take_orders`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import uvloop
from rig import record, take_orders
from scenarios import HIT_BYTES, Load, Scenarios, timed_us

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.guarded import GuardedStore
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.outcome import Loaded
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.cache.read_through import Question, ReadThrough
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy
from jobnimbus_mcp.telemetry.recorder import NullRecorder, Recorder

__all__ = ["Replica", "Wiring", "notice", "replica"]


@dataclass(frozen=True)
class Wiring:
    """How a replica is put together. `barrier` False: an invalidation is acknowledged before L1s have applied it.
    `source`: the file that `Scenarios` reads and writes."""

    url: str
    tenants: tuple[str, ...] = ("stamford",)
    l1_bytes: int = 64 << 20
    command_timeout_s: float = 0.1
    breaker_open_s: float = 1.0
    barrier: bool = True
    source: str = "/dev/null"

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Wiring:
        fields = json.loads(text)
        return cls(**{**fields, "tenants": tuple(fields["tenants"])})


@dataclass(frozen=True)
class Replica:
    """A running engine."""

    store: Store
    cache: ReadThrough
    invalidator: Invalidator
    coherence: Coherence
    clock: Clock

    async def in_step(self, within_s: float = 5.0) -> None:
        """Return when L1 may be served for every tenant asked for."""
        async with asyncio.timeout(within_s):
            while not self.coherence.holds("stamford"):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)


@asynccontextmanager
async def replica(
    wiring: Wiring, *, recorder: Recorder | None = None, random01: Callable[[], float] | None = None
) -> AsyncIterator[Replica]:
    clock, chance = SystemClock(), random01 or random.Random().random
    counted = recorder or NullRecorder()
    names = itertools.count()
    instance = uuid.uuid4().hex
    client = connect(wiring.url, connect_timeout_s=1.0)
    breaker = BreakerBox(BreakerPolicy(window_s=120, open_s=wiring.breaker_open_s, failures=5), clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        store = await stack.enter_async_context(
            GuardedStore(RedisStore(client), breaker, clock, wiring.command_timeout_s, counted, tenants=wiring.tenants)
        )
        coherence = Coherence(
            store,
            clock=clock,
            recorder=counted,
            instance=instance,
            tenants=wiring.tenants,
            follow=wiring.l1_bytes > 0,
            register=wiring.l1_bytes > 0,
            distrusted=lambda tenant: tenant in store.indebted,
        )
        await coherence.start()
        stack.push_async_callback(coherence.aclose)
        cache = ReadThrough(
            store,
            L1(wiring.l1_bytes),
            clock=clock,
            random01=chance,
            recorder=counted,
            coherence=coherence,
            token=lambda: f"{instance}.{next(names)}",
        )
        stack.push_async_callback(cache.aclose)
        barrier = Barrier(store, clock=clock, recorder=counted) if wiring.barrier else None
        invalidator = Invalidator(store, clock=clock, recorder=counted, barrier=barrier)
        yield Replica(store, cache, invalidator, coherence, clock)


def notice(clock: Clock, identifier: str = "x") -> Notice:
    return Notice("job.updated", "job", identifier, "webhook", clock.now(), uuid.uuid4().hex)


def question(identifier: str, mode: Mode = Mode.BARRIER, tenant: str = "stamford") -> Question:
    tags = ("jobs", "jobs:detail", f"jobs:detail:{identifier}", f"job:{identifier}")
    return Question(CacheKey(tenant, "0f" * 8, "jobs", "detail", identifier), tags, Policy(3600), mode=mode)


# -- as a process ----------------------------------------------------------------------------------------------------


class Ours:
    """The engine as the subject of what peers do too. Every read shares its load: there is no other way."""

    def __init__(self, own: Replica) -> None:
        self._own = own

    async def read(self, identifier: str, load: Load) -> str:
        async def loader(_call: Call) -> Loaded:
            value = load.begin().encode()
            await asyncio.sleep(load.takes_s)
            return Loaded(value)

        call = Call.begin(self._own.clock, "benchmark")
        return (await self._own.cache.read(question(identifier), loader, call=call)).value.decode()

    async def read_once(self, identifier: str, load: Load) -> str:
        return await self.read(identifier, load)

    async def invalidate(self, identifier: str) -> None:
        await bump(self._own, "stamford", identifier)


async def bump(own: Replica, tenant: str, identifier: str) -> None:
    call = Call.begin(own.clock, "benchmark")
    tags = (f"jobs:detail:{identifier}", f"job:{identifier}")
    await own.invalidator.append_and_bump(tenant, tags, notice(own.clock, identifier), call)


class Orders:
    """What only our engine is asked."""

    def __init__(self, own: Replica) -> None:
        self._own = own

    async def in_step(self) -> None:
        await self._own.in_step()

    async def bumps(self, tenant: str, rounds: int) -> list[float]:
        """Microseconds of invalidations, each until it is acknowledged."""
        return [await timed_us(lambda: bump(self._own, tenant, "x")) for _ in range(rounds)]

    async def mode_hits(self, rounds: int, mode: str) -> list[float]:
        """Microseconds of reads of what is kept."""
        asked = question("hit", Mode(mode))

        async def loader(_call: Call) -> Loaded:
            return Loaded(record(HIT_BYTES))

        async def hit() -> object:
            return await self._own.cache.read(asked, loader, call=Call.begin(self._own.clock, "hit"))

        await hit()
        return [await timed_us(hit) for _ in range(rounds)]


async def main(wiring: Wiring) -> None:
    async with replica(wiring) as own:
        orders: dict[str, Any] = Scenarios(Ours(own), wiring.source).orders
        special = Orders(own)
        orders |= {name: getattr(special, name) for name in ("in_step", "bumps", "mode_hits")}
        await take_orders(orders)


if __name__ == "__main__":
    uvloop.run(main(Wiring.parse(sys.argv[1])))
