"""Whatever happens to processes and store: what an acknowledged invalidation has named is served from no L1."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.barrier import Barrier
from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.key import CacheKey, system_key
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import Ears, Heard, Standing, StoreTimeout
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.telemetry.recorder import NullRecorder

T = "stamford"
KEY = CacheKey(T, "p1", "jobs", "detail", "j1")
TAGS = ("jobs", "job:j1")
REPLICAS = 3


class Way:
    """A process's way to the store, which can be cut, slow to answer, or deaf to what is told."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.state = "well"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def listen(self, ears: Mapping[str, Ears], *, block_s: float) -> Mapping[str, Heard]:
        if self.state in ("deaf", "cut"):
            await self.clock.sleep(block_s)
            return {}
        heard = await self.store.listen(ears, block_s=block_s)
        return {} if self.state == "cut" else heard

    async def renew_l1(self, tenant: str, instance: str, applied: str, *, register: bool, call: Call) -> Standing:
        if self.state == "cut":
            raise StoreTimeout
        standing = await self.store.renew_l1(tenant, instance, applied, register=register, call=call)
        if self.state == "slow":
            await self.clock.sleep(0.7)
        return standing


class Replica:
    def __init__(self, world: World, name: str) -> None:
        self.way = Way(world.store, world.clock)
        self.coherence = Coherence(
            self.way,
            clock=world.clock,
            recorder=NullRecorder(),
            instance=name,
            tenants=(T,),
            follow=True,
            register=True,
        )
        self.since, self.version = -1, 0

    @property
    def serves(self) -> bool:
        return self.coherence.holds(T) and self.coherence.clean(T, self.since, TAGS, "p1")


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.replicas = [Replica(self, f"r{number}") for number in range(REPLICAS)]
        self.invalidator = Invalidator(
            self.store,
            clock=self.clock,
            recorder=NullRecorder(),
            barrier=Barrier(self.store, clock=self.clock, recorder=NullRecorder()),
        )
        self.version = self.acknowledged = self.served = 0
        self.webhooks: set[asyncio.Task[None]] = set()

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    async def read(self, replica: Replica) -> None:
        """A READ goes out, and what it brings to L1 comes a little later."""
        since = replica.coherence.mark(T)
        await self.store.read(KEY, TAGS, "", want=False, call=self.call())
        version = self.version
        await ticks(3)
        replica.since, replica.version = since, version

    async def change(self, how: str) -> None:
        """The record changes, and its webhook comes in; the answer waits in the background."""
        self.version += 1
        version, notice = self.version, Notice("job.updated", "job", "j1", "webhook", self.clock.now(), "e1")

        async def webhook() -> None:
            if how == "epoch":
                await self.invalidator.renew_epoch(T, self.call(), reason="admin")
            else:
                await self.invalidator.append_and_bump(T, (how,), notice, self.call())
            self.acknowledged = max(self.acknowledged, version)

        task = asyncio.ensure_future(webhook())
        self.webhooks.add(task)
        await asyncio.sleep(0)

    def check(self) -> None:
        for replica in self.replicas:
            if replica.serves:
                self.served += 1
                assert replica.version >= self.acknowledged, "an L1 serves what an acknowledged webhook has named"

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            await ticks()
            self.check()

    async def step(self, what: str, which: int) -> None:
        replica = self.replicas[which]
        match what:
            case "read":
                if replica.way.state != "cut":
                    await self.read(replica)
            case "jobs" | "job:j1" | "epoch":
                await self.change(what)
            case "well" | "cut" | "deaf" | "slow":
                replica.way.state = what
            case "flush":
                self.store.flush()
            case "evict":
                self.store.evict(system_key(T, "epoch"))
            case "moment" | "while" | "long":
                await self.pass_time({"moment": 0.05, "while": 0.6, "long": 2.6}[what])
        self.check()
        await ticks()
        self.check()


async def ticks(number: int = 40) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


HAPPENINGS = {"read": 2, "moment": 2, "while": 1, "long": 1, "jobs": 1, "job:j1": 1, "epoch": 1, "flush": 1, "evict": 1}
HAPPENINGS |= {"well": 1, "cut": 1, "deaf": 1, "slow": 1}
STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(Counter(HAPPENINGS).elements())), st.integers(0, REPLICAS - 1)), max_size=25
)


async def played(steps: list[tuple[str, int]]) -> int:
    """Play them, and end well: how often an L1 served."""
    world = World()
    for replica in world.replicas:
        await world.read(replica)
        await replica.coherence.start()
    await ticks()
    for replica in world.replicas:
        await world.read(replica)
    try:
        await world.pass_time(2.6)
        for what, which in steps:
            await world.step(what, which)
        for replica in world.replicas:
            replica.way.state = "well"
        await world.pass_time(5.0)
        assert all(task.done() for task in world.webhooks), "a webhook waits longer than a lease"
        for task in world.webhooks:
            task.result()
        await world.read(world.replicas[0])
        await world.pass_time(1.2)
        for replica in world.replicas:
            await world.read(replica)
        assert all(replica.serves for replica in world.replicas), "with nothing wrong any more, L1 is served again"
    finally:
        for replica in world.replicas:
            await replica.coherence.aclose()
        for task in world.webhooks:
            task.cancel()
        await asyncio.gather(*world.webhooks, return_exceptions=True)
    return world.served


@given(STEPS)
def test_no_l1_serves_what_an_acknowledged_invalidation_has_named(steps: list[tuple[str, int]]) -> None:
    asyncio.run(played(steps))


def test_the_players_do_serve_from_l1_meanwhile() -> None:
    """Else the law above would hold of processes that serve nothing."""
    assert asyncio.run(played([("jobs", 0), ("read", 1), ("while", 0), ("cut", 1), ("moment", 0)])) > 100
