"""Keys declared to share an access profile share what was cached, and nothing of each other's standing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.read_through import ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import UpstreamUnauthorized
from jobnimbus_mcp.gateway.answers import Answer, Status
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally

GOOD, REVOKED = "g" * 32, "r" * 32
RECHECK_S = 300.0


class JobNimbus:
    """Answers every accepted key alike, and notes who asked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.loaded_by: list[str] = []
        self.checked: list[str] = []

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        self.loaded_by.append(credential)
        await asyncio.sleep(0)
        self._accept(credential)
        return {"jnid": read.identifier}

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None:
        self.checked.append(credential)
        self._accept(credential)

    def _accept(self, credential: str) -> None:
        if credential in self.revoked:
            raise UpstreamUnauthorized("JobNimbus refuses this key.")


class World:
    """One gateway, and two keys of one group."""

    def __init__(self) -> None:
        plain = Partitions()
        group = "+".join(plain.digest("stamford", key) for key in (REVOKED, GOOD))
        self.identities = Identities(["stamford"], {}, Partitions(None, [group]))
        self.clock, self.upstream = ManualClock(), JobNimbus()
        self.cache = ReadThrough(
            MemoryStore(self.clock),
            L1(1 << 20),
            clock=self.clock,
            random01=lambda: 0.5,
            recorder=InMemoryRecorder(),
            admission_s=RECHECK_S,
        )
        self.gateway = Gateway(self.cache, self.upstream, Policies(), Tally(), lambda _: "strict")

    async def get(self, key: str, jnid: str = "mjob1") -> Answer:
        caller = self.identities.identify(key, None)
        return await self.gateway.get(Read.record(Entity.JOBS, jnid), caller, Call.begin(self.clock, "r"))

    async def admitted(self, key: str) -> None:
        await self.gateway.admitted(self.identities.identify(key, None), Call.begin(self.clock, "r"))


async def test_a_revoked_key_of_a_group_is_refused_after_the_recheck_though_the_good_one_keeps_reading() -> None:
    world = World()
    await world.get(REVOKED)
    await world.get(GOOD)
    world.upstream.revoked.add(REVOKED)
    for elapsed_s in (100, 100):
        world.clock.advance(elapsed_s)
        assert (await world.get(GOOD)).outcome.status is Status.HIT
        await world.get(GOOD, f"mjob-after-{world.clock.now()}")  # a load, which is an acceptance of the good key only
    world.clock.advance(RECHECK_S - 200)

    for _ in range(3):
        with pytest.raises(UpstreamUnauthorized):
            await world.get(REVOKED)
        with pytest.raises(UpstreamUnauthorized):
            await world.admitted(REVOKED)
        loads = len(world.upstream.loaded_by)
        assert (await world.get(GOOD)).outcome.status is Status.HIT
        await world.admitted(GOOD)
        assert len(world.upstream.loaded_by) == loads
    assert world.upstream.checked.count(GOOD) == 1  # before its first hit on what the other had loaded


async def test_a_group_still_shares_what_one_of_its_keys_loaded() -> None:
    world = World()
    await world.get(REVOKED)
    assert (await world.get(GOOD)).outcome.status is Status.HIT
    assert world.upstream.loaded_by == [REVOKED]


async def test_keys_of_a_group_that_ask_at_once_get_each_its_own_answer() -> None:
    world = World()
    world.upstream.revoked.add(REVOKED)
    results = await asyncio.gather(*(world.get(key) for key in (REVOKED, GOOD, REVOKED, GOOD)), return_exceptions=True)
    assert [type(result) for result in results] == [UpstreamUnauthorized, Answer] * 2
    assert sorted(set(world.upstream.loaded_by)) == [GOOD, REVOKED]
