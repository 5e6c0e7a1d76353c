"""With every webhook lost: what changes in JobNimbus is told, and no kept answer survives it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import orjson
import pytest
import structlog

from jobnimbus_mcp.cache.codec import Entry, encode
from jobnimbus_mcp.cache.key import CacheKey
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import Verdict
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.system_keys import seen_key
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock, ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.relations import tags_of_change, tags_of_read
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError
from jobnimbus_mcp.events.background_memory import MemoryBackground
from jobnimbus_mcp.events.catch_up import CatchUp
from jobnimbus_mcp.events.envelope import parse_body, version_key
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.ports import Appended
from jobnimbus_mcp.events.sweep import Sweep, SweptKind
from jobnimbus_mcp.gateway.changes_poll import ChangesPoll
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.sender_http import HttpSender

ACCOUNT = "stamford"
INTERVAL_S = 60.0
SIMULATED = {kind: "files" if kind is Entity.ATTACHMENTS else kind.value for kind in Entity}


class _Clocked(Protocol):
    now_of: Clock


class _Staged(Protocol):
    """The simulator of the session; `conftest.Stage`."""

    @property
    def sim(self) -> Simulator: ...
    @property
    def clock(self) -> _Clocked: ...


@dataclass
class Server:
    """What this server is made of between JobNimbus and its cache, as far as changes go."""

    sim: Simulator
    clock: ManualClock
    rate_per_s: float = 0.0
    key: str = ""
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        full, self.restricted = self.sim.keys[ACCOUNT]
        self.store = MemoryStore(self.clock)
        self.budget = LocalBudget(self.rate_per_s, [ACCOUNT], self.clock)
        self.keeper = MemoryBackground(self.clock, lambda tenant, key: seen_key(tenant, key) in self.store.names())
        self.sender = HttpSender("http://sim/api1", max_connections=None, transport=httpx.ASGITransport(self.sim.app))
        self.use(self.key or full)

    def use(self, key: str) -> None:
        """Poll and sweep with this key from now on, as a server that is started anew."""
        recorder = InMemoryRecorder()
        self.client = JobNimbusClient(
            sender=self.sender,
            budget=self.budget,
            breakers=upstream_breakers([ACCOUNT], self.clock, recorder),
            clock=self.clock,
            random01=lambda: 0.5,
            recorder=recorder,
            on_call=lambda instance, entity: None,
            trusted=[(ACCOUNT, key)],
        )
        identities = Identities([ACCOUNT], {ACCOUNT: key}, Partitions())
        parts: dict[str, Any] = {
            "ask": ChangesPoll(self.client, identities, self.budget, clock=self.clock, ids=self.new_id),
            "tell": self.tell,
            "known": self.keeper,
            "keeper": self.keeper,
            "instances": (ACCOUNT,),
            "clock": self.clock,
            "ids": self.new_id,
            "random01": lambda: 0.5,
            "recorder": recorder,
            "log": structlog.get_logger(),
        }
        self.catch_up = CatchUp(**parts, longest_s=INTERVAL_S)
        self.sweeper = Sweep(**parts, every_s=86_400.0)

    def new_id(self) -> str:
        return event_id_at(self.clock.now(), secrets.token_hex(10))

    def call(self) -> Call:
        return Call.begin(self.clock, "test")

    async def tell(self, event: Event, call: Call) -> Appended:
        notice = Notice(
            event.name,
            event.entity,
            event.record_id,
            event.source,
            event.received_at,
            event.event_id,
            event.dedupe_key,
            version_key=event.version_key,
        )
        applied = await self.store.append_and_bump(event.instance, event.tags, notice, call)
        if not applied.duplicate:
            self.events.append(event)
        return Appended(applied.event_id, applied.duplicate, applied.latency_ms)

    async def webhook(self, body: dict[str, Any]) -> None:
        """A delivery that arrived."""
        parsed = parse_body(body)
        at = parsed.change.occurred_at
        assert at is not None
        await self.tell(
            Event.of_change(
                parsed.change,
                event_id=self.new_id(),
                instance=ACCOUNT,
                name=parsed.name,
                tags=tags_of_change(parsed.change),
                source="webhook",
                received_at=self.clock.now(),
                version_key=version_key(ACCOUNT, parsed.change.ref.entity, parsed.change.ref.jnid, at),
            ),
            self.call(),
        )

    def take(self) -> set[tuple[str, str]]:
        told = {(event.name, event.record_id) for event in self.events}
        self.events.clear()
        return told

    async def keep(self, *reads: Read) -> None:
        """Have an answer to each in the cache."""
        for read in reads:
            key, tags = _key(read), tags_of_read(read)
            seen = await self.store.read(key, tags, "", want=True, call=self.call())
            value = encode(
                Entry(b"{}", False, 1.0, "0123456789abcdef"),
                key_text=key.text,
                vector=seen.vector,
                tags=tags,
                compress=False,
            )
            assert await self.store.fill(key, tags, seen, value, ttl_s=9e9, admission_s=60, call=self.call())
        assert await self.kept(*reads) == [True] * len(reads)

    async def kept(self, *reads: Read) -> list[bool]:
        """Which would be answered from the cache."""
        found = [
            await self.store.read(_key(read), tags_of_read(read), "", want=True, call=self.call()) for read in reads
        ]
        return [one.verdict is Verdict.HIT for one in found]

    async def pass_time(self, seconds: float, step_s: float = 5.0) -> None:
        await self.rest()
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            await self.rest()

    async def rest(self) -> None:
        """Long enough for a whole round of questions, which takes no time on this clock."""
        for _ in range(1_200):
            await asyncio.sleep(0)

    async def fault(self, **body: Any) -> None:
        transport = httpx.ASGITransport(self.sim.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sim") as client:
            (await client.post("/_sim/faults", json=body)).raise_for_status()

    def some(self, kind: Entity, at: int = 0) -> dict[str, Any]:
        return list(self.sim.account(ACCOUNT).records(SIMULATED[kind]))[at]

    async def change(self, kind: Entity, jnid: str, **fields: Any) -> dict[str, Any]:
        return await self.sim.change(ACCOUNT, SIMULATED[kind], jnid, fields, webhook=False)

    async def delete(self, kind: Entity, *jnids: str) -> None:
        for jnid in jnids:
            await self.sim.delete(ACCOUNT, SIMULATED[kind], jnid, webhook=False)

    async def swept(self, **how: Any) -> dict[Entity, SweptKind]:
        task = asyncio.ensure_future(self.sweeper.sweep(ACCOUNT, **how))
        while not task.done():
            await self.rest()
            self.clock.advance(1)
        done = task.result()
        assert done is not None
        return dict(done)


def _key(read: Read) -> CacheKey:
    return CacheKey(ACCOUNT, "p", read.entity.value, read.operation.value, read.identifier)


OpenServer = Callable[..., Any]


@pytest.fixture
def start(stage: _Staged) -> OpenServer:
    @asynccontextmanager
    async def started(**how: Any) -> AsyncIterator[Server]:
        clock = ManualClock()
        stage.clock.now_of = clock
        stage.sim.reset()
        server = Server(stage.sim, clock, **how)
        yield server
        await server.sender.aclose()

    return started


@pytest.fixture
async def server(start: OpenServer) -> AsyncIterator[Server]:
    """Polling for a while already, and idle."""
    async with start() as opened:
        yield opened


def reads_of(kind: Entity, jnid: str, parents: Sequence[str] = ()) -> list[Read]:
    return [
        Read.record(kind, jnid),
        Read.scan(kind, ()),
        *(Read.scan(kind, (Is("related.id", parent),), scope=frozenset({parent})) for parent in parents),
    ]


async def test_every_lost_change_is_told_within_one_interval_and_nothing_twice(server: Server) -> None:
    kinds = (Entity.JOBS, Entity.CONTACTS, Entity.TASKS, Entity.ESTIMATES, Entity.ATTACHMENTS, Entity.WORKORDERS)
    changed = {kind: server.some(kind, 3)["jnid"] for kind in kinds}
    reads = [read for kind, jnid in changed.items() for read in reads_of(kind, jnid)]
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        assert server.take() == set()
        await server.keep(*reads)
        for kind, jnid in changed.items():
            await server.change(kind, jnid, description=f"changed {kind}")
        await server.pass_time(INTERVAL_S)
        assert {(f"{kind.value.removesuffix('s')}.updated", jnid) for kind, jnid in changed.items()} <= server.take()
        assert await server.kept(*reads) == [False] * len(reads)
        await server.pass_time(10 * INTERVAL_S)
        assert server.take() == set()
    loss = await server.catch_up.loss(ACCOUNT)
    assert loss["missed"] == len(kinds) + 2  # and what the log says of the job and the contact
    assert loss["rate"] == 1.0


async def test_a_lost_creation_is_told_with_what_it_hangs_on(server: Server) -> None:
    job = server.some(Entity.JOBS)["jnid"]
    under = Read.scan(Entity.TASKS, (), scope=frozenset({job}))
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        await server.keep(under)
        made = await server.sim.create(
            ACCOUNT, "tasks", {"title": "Inspect", "related": [{"id": job, "type": "job"}]}, webhook=False
        )
        await server.pass_time(INTERVAL_S)
        (event,) = [event for event in server.events if event.record_id == made["jnid"]]
        assert (event.name, event.is_new) == ("task.created", True)
        assert event.parents is not None
        assert job in event.parents
        assert orjson.loads(event.body)["jnid"] == made["jnid"]
        assert await server.kept(under) == [False]


async def test_what_webhooks_tell_of_is_not_told_again_and_the_loss_is_measured(server: Server) -> None:
    jobs = [server.some(Entity.TASKS, n)["jnid"] for n in range(10)]
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        for n, jnid in enumerate(jobs):
            record = await server.change(Entity.TASKS, jnid, description=f"changed {n}")
            if n != 4:
                await server.webhook(record)
        server.take()
        await server.pass_time(2 * INTERVAL_S)
        assert server.take() == {("task.updated", jobs[4])}
    assert await server.catch_up.loss(ACCOUNT) == {"missed": 1, "heard": 9, "rate": 0.1}


async def test_the_log_tells_of_lost_deletions_of_jobs_and_contacts(server: Server) -> None:
    job, contact = server.some(Entity.JOBS, 5)["jnid"], server.some(Entity.CONTACTS, 5)["jnid"]
    reads = [*reads_of(Entity.JOBS, job, [contact]), *reads_of(Entity.CONTACTS, contact)]
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        await server.keep(*reads)
        await server.delete(Entity.JOBS, job)
        await server.delete(Entity.CONTACTS, contact)
        await server.pass_time(INTERVAL_S)
        assert {("job.deleted", job), ("contact.deleted", contact)} <= server.take()
        assert await server.kept(*reads) == [False] * len(reads)
        await server.pass_time(10 * INTERVAL_S)
        assert server.take() == set()


async def test_a_sweep_finds_the_other_deletions_and_only_those(server: Server) -> None:
    stored = await server.swept()
    for kind, one in stored.items():
        there = frozenset(record["jnid"] for record in server.sim.account(ACCOUNT).records(SIMULATED[kind]))
        assert (one.outcome, one.ids, await server.keeper.ids(ACCOUNT, kind)) == ("stored", len(there), there), kind
    gone = {
        kind: server.some(kind, 2)["jnid"]
        for kind in (Entity.TASKS, Entity.ATTACHMENTS, Entity.ESTIMATES, Entity.WORKORDERS, Entity.JOBS)
    }
    await server.keep(*(Read.record(kind, jnid) for kind, jnid in gone.items()))
    for kind, jnid in gone.items():
        await server.delete(kind, jnid)
    await server.sim.create(ACCOUNT, "tasks", {"title": "New"}, webhook=False)
    compared = await server.swept()
    assert {kind: one.deleted for kind, one in compared.items() if one.deleted} == dict.fromkeys(gone, 1)
    assert server.take() == {(f"{kind.value.removesuffix('s')}.deleted", jnid) for kind, jnid in gone.items()}
    assert not any(await server.kept(*(Read.record(kind, jnid) for kind, jnid in gone.items())))
    assert sum(one.deleted for one in (await server.swept()).values()) == 0


async def test_what_the_log_told_of_is_not_told_again_by_the_sweep(server: Server) -> None:
    await server.swept()
    job = server.some(Entity.JOBS, 5)["jnid"]
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        await server.delete(Entity.JOBS, job)
        await server.pass_time(INTERVAL_S)
        assert ("job.deleted", job) in server.take()
    assert (await server.swept())[Entity.JOBS].deleted == 0
    assert server.take() == set()


@pytest.mark.parametrize("status", [500, 503, 403, 429, 200])
async def test_nothing_but_a_404_proves_a_deletion(server: Server, status: int) -> None:
    await server.swept()
    task = server.some(Entity.TASKS, 2)["jnid"]
    await server.delete(Entity.TASKS, task)
    await server.fault(path=f"/tasks/{task}", status=status)
    with suppress(UpstreamError):
        await server.swept()
    assert server.take() == set()
    assert task in (await server.keeper.ids(ACCOUNT, "tasks") or ())
    server.sim._faults.clear()
    server.clock.advance(60)  # the breaker's rest
    assert (await server.swept())[Entity.TASKS].deleted == 1


async def test_a_key_that_may_see_less_than_before_deletes_nothing(server: Server) -> None:
    await server.swept()
    server.use(server.restricted)
    swept = await server.swept()
    assert swept[Entity.JOBS].outcome == "stopped"
    assert swept[Entity.CONTACTS].outcome == "stopped"
    assert server.take() == set()


async def test_the_background_leaves_the_budget_to_callers(start: OpenServer) -> None:
    async with start(rate_per_s=4.0) as server:
        served = 0

        async def callers() -> None:
            nonlocal served
            while True:
                await server.budget.take(ACCOUNT, server.call())
                served += 1

        busy = asyncio.create_task(callers())
        await server.rest()
        polling = asyncio.create_task(server.catch_up.poll(ACCOUNT))
        await server.pass_time(20, step_s=0.25)
        assert served >= 20 * 4
        assert server.sim.calls == 0
        busy.cancel()
        await asyncio.wait({busy})
        await server.pass_time(8, step_s=0.25)
        assert polling.done()
        assert polling.result() is not None
        assert server.sim.calls == 12


async def test_a_round_for_which_callers_leave_no_room_is_given_up(start: OpenServer) -> None:
    async with start(rate_per_s=4.0) as server:

        async def callers() -> None:
            while True:
                await server.budget.take(ACCOUNT, server.call())

        busy = asyncio.create_task(callers())
        await server.rest()
        polling = asyncio.create_task(server.catch_up.poll(ACCOUNT))
        await server.pass_time(31, step_s=0.25)
        busy.cancel()
        await asyncio.wait({busy})
        assert polling.done()
        assert isinstance(polling.exception(), BudgetExhausted)
        assert server.sim.calls == 0


async def test_jobnimbus_away_costs_time_and_no_change(server: Server) -> None:
    job = server.some(Entity.JOBS, 3)["jnid"]
    async with server.catch_up.running():
        await server.pass_time(INTERVAL_S + 5)
        await server.fault(path="/", status=503)
        await server.change(Entity.JOBS, job, description="while it was away")
        await server.pass_time(4 * INTERVAL_S)
        assert server.catch_up.status(ACCOUNT)["state"] == "upstream_away"
        assert server.take() == set()
        server.sim._faults.clear()
        await server.pass_time(2 * INTERVAL_S)
        assert ("job.updated", job) in server.take()
        assert server.catch_up.status(ACCOUNT)["state"] == "polling"


async def test_a_round_without_changes_is_one_request_a_kind(server: Server) -> None:
    await server.catch_up.poll(ACCOUNT)
    before = server.sim.calls
    server.clock.advance(INTERVAL_S)
    await server.catch_up.poll(ACCOUNT)
    assert server.sim.calls - before == 12
