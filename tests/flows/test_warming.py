"""Warming, from the event or the admin to the next caller: the gateway over the embedded store and a simulated
JobNimbus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from jobnimbus_mcp.cache.invalidate import Invalidator
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.read_through import ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.consumers.heat import MemoryHeat
from jobnimbus_mcp.consumers.rounds import Rounds, server_callers
from jobnimbus_mcp.consumers.settle import Settle
from jobnimbus_mcp.consumers.warm import Warm
from jobnimbus_mcp.consumers.warming import FIRST_READS, QUERIES_MOST, Warming
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import BudgetExhausted, CacheUnavailable, InvalidInput, Stopping
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.gateway.identity import Caller, Identities, Partitions
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.registry import read_tools
from jobnimbus_mcp.tools.toolbox import Toolbox
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.sender_http import HttpSender

INDEX_SETTLE_S, EVENTS_SETTLE_S = 6.0, 20.0
EVERY_S = 600.0


class Way(httpx.AsyncBaseTransport):
    """A way to JobNimbus that can be barred."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.open = asyncio.Event()
        self.open.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self.open.wait()
        return await self._inner.handle_async_request(request)


class Server:
    """What the composition root puts together, as far as warming goes."""

    def __init__(self, sim: Simulator, clock: ManualClock, *, rate_per_s: float = 0.0) -> None:
        self.sim, self.clock = sim, clock
        self.recorder, self.tally, self.logged = InMemoryRecorder(), Tally(), LogCapture()
        self.heat = MemoryHeat(clock)
        self.way = Way(httpx.ASGITransport(sim.app))
        self.sender = HttpSender("http://sim/api1", max_connections=8, transport=self.way)
        key = sim.keys["stamford"][0]
        self.identities = Identities(sim.instances, {"stamford": key}, Partitions())
        callers = server_callers(self.identities)
        self.me = callers["stamford"]
        budget = LocalBudget(rate_per_s, sim.instances, clock)
        client = JobNimbusClient(
            sender=self.sender,
            budget=budget,
            breakers=upstream_breakers(sim.instances, clock, self.recorder),
            clock=clock,
            random01=lambda: 0.5,
            recorder=self.recorder,
            on_call=lambda instance, entity: None,
            trusted=[("stamford", key)],
        )
        store = MemoryStore(clock)
        self.invalidator = Invalidator(store, clock=clock, recorder=self.recorder)
        self.cache = ReadThrough(
            store, L1(1_000_000), clock=clock, random01=lambda: 0.5, recorder=self.recorder, fill_grace_s=1.0
        )
        partitions = {name: caller.partition for name, caller in callers.items()}
        self.gateway = Gateway(
            self.cache, client, Policies(), self.tally, lambda _: "strict", self.heat.note, own_partitions=partitions
        )
        self.toolbox = self._toolbox(self.gateway, self.tally)
        quiet = self._toolbox(Gateway(self.cache, client, Policies(), Tally(), lambda _: "strict"), Tally())
        rounds = Rounds(self.gateway, clock=clock, share_left=budget.share_left, recorder=self.recorder)
        self.settle = Settle(self.bump, index_settle_s=INDEX_SETTLE_S)
        self.warm = Warm(
            rounds, self.heat, callers=callers, index_settle_s=INDEX_SETTLE_S, events_settle_s=EVENTS_SETTLE_S
        )
        self.warming = Warming(
            rounds,
            self.heat,
            instances=sim.instances,
            callers=callers,
            run_tool=quiet.call,
            check_tool=self.check,
            every_s=EVERY_S,
            clock=clock,
            ids=lambda: "warming-request",
            log=structlog.wrap_logger(None, processors=[self.logged]),
        )

    def _toolbox(self, gateway: Gateway, tally: Tally) -> Toolbox:
        async def get_webhooks(*_: Any) -> dict[str, Any]:
            return {}

        return Toolbox(
            read_tools(get_webhooks),
            gateway,
            self.clock,
            UTC,
            200_000,
            tally,
            self.recorder,
            structlog.wrap_logger(None, processors=[LogCapture()]),
            AnswerMemo(0),
        )

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        spec = self.toolbox.spec(name)
        if unknown := arguments.keys() - spec.argument_names:
            raise InvalidInput(f"no argument {unknown}", field="arguments")

    async def bump(self, instance: str, tags: Sequence[str]) -> None:
        notice = Notice("settle", "jobs", "", "webhook", self.clock.now(), "e")
        await self.invalidator.append_and_bump(instance, tags, notice, Call.begin(self.clock, "r"))

    async def ask(self, tool: str, caller: Caller | None = None, **arguments: Any) -> tuple[str, list[dict[str, Any]]]:
        """A call's cache status and its rows."""
        call = Call.begin(self.clock, "r")
        async with asyncio.timeout(10):
            told = await self.toolbox.call(tool, arguments, caller or self.me, call)
        return told.cache["status"], told.structured["results"]

    async def change(self, jnid: str, **fields: Any) -> Event:
        """A job changed in JobNimbus, and the webhook's event: its tags are renewed."""
        await self.sim.change("stamford", "jobs", jnid, fields, webhook=False)
        change = Change(EntityRef(Entity.JOBS, jnid), Action.UPDATED, frozenset())
        event = Event.of_change(
            change,
            event_id="e",
            instance="stamford",
            name="job.updated",
            tags=tags_of_change(change),
            source="webhook",
            received_at=self.clock.now(),
        )
        await self.bump("stamford", event.tags)
        return event

    async def done(self) -> dict[str, Any]:
        """The log line of the next round to end."""
        for _ in range(20_000):
            if self.logged.entries:
                return dict(self.logged.entries.pop(0))
            await asyncio.sleep(0)
        pytest.fail("no round ended")

    def counted(self) -> dict[str, int]:
        return {name: n for name, n in self.tally.since_start("stamford").items() if name in ("hits", "misses")}


@pytest.fixture
async def server(stage: Any) -> AsyncIterator[Server]:
    clock = ManualClock()
    stage.clock.now_of = clock
    stage.sim.reset()
    made = Server(stage.sim, clock)
    yield made
    await made.warming.aclose()
    await made.cache.aclose()
    await made.sender.aclose()


async def test_after_a_change_the_next_caller_finds_what_was_hot_new_and_at_hand(server: Server) -> None:
    for _ in range(3):
        _, rows = await server.ask("get_jobs", size=50)
    await server.ask("get_contacts")
    event = await server.change(rows[0]["jnid"], name="Renamed")

    server.clock.advance(INDEX_SETTLE_S)
    assert server.settle.delay_s(event) == INDEX_SETTLE_S
    assert [told.ok for told in await server.settle.act([event], ["r"])] == [True]
    server.clock.advance(1.0)
    assert server.warm.delay_s(event) == INDEX_SETTLE_S + 1.0
    counted, heat = server.counted(), await server.heat.hottest("stamford")
    (told,) = await server.warm.act([event], ["r"])
    assert (told.error, told.answer) == ("", "read 1 of 1, 1 from JobNimbus")
    assert (server.counted(), await server.heat.hottest("stamford")) == (counted, heat)

    asked = server.sim.calls
    status, rows = await server.ask("get_jobs", size=50)
    assert (status, rows[0]["name"], server.sim.calls) == ("hit", "Renamed", asked)
    (again,) = await server.warm.act([event], ["r"])
    assert (again.answer, server.sim.calls) == ("read 1 of 1, 0 from JobNimbus", asked)


async def test_what_others_ask_with_keys_of_their_own_is_no_heat_but_the_server_s_own_key_is(server: Server) -> None:
    full, restricted = server.sim.keys["stamford"]
    guest = server.identities.identify(restricted, "stamford")
    for _ in range(3):
        await server.ask("get_jobs", guest)
    assert await server.heat.hottest("stamford") == []
    await server.ask("get_jobs", server.identities.identify(full, "stamford"))
    await server.ask("get_jobs", max_age_s=0)  # past the cache: nothing that is kept would have served it
    assert [round(hot.uses) for hot in await server.heat.hottest("stamford")] == [1]


async def test_what_cannot_be_fetched_is_noted_with_the_event_and_not_tried_again(server: Server) -> None:
    for _ in range(3):
        _, rows = await server.ask("get_jobs")
    event = await server.change(rows[0]["jnid"], name="Renamed")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.sim.app), base_url="http://sim") as client:
        (await client.post("/_sim/faults", json={"status": 403})).raise_for_status()
    (told,) = await server.warm.act([event], ["r"])

    assert told.ok
    assert told.answer.endswith("not read: upstream_forbidden")


async def test_where_nothing_is_known_the_first_jobs_and_the_active_ones_are_read_as_the_tool_reads_them(
    server: Server,
) -> None:
    assert await server.warming.start("stamford") == len(FIRST_READS) == 2
    line = await server.done()
    assert (line["event"], line["made"], line["fetched"], line["failed"]) == ("warmed", 2, 2, [])
    assert server.counted() == {}

    asked = server.sim.calls
    for arguments in ({"size": 50}, {"size": 100}, {}, {"is_archived": False}):
        status, rows = await server.ask("get_jobs", verbosity="raw", **arguments)
        assert (status, len(rows) > 0) == ("hit", True)
    assert server.sim.calls == asked


async def test_an_admin_warms_what_is_hot(server: Server) -> None:
    await server.ask("get_contacts")
    await server.ask("get_jobs", is_archived=True)
    await server.bump("stamford", ["contacts:list"])
    assert await server.warming.start() == 2  # of the one account there is a key for
    line = await server.done()

    assert (line["instance"], line["made"], line["fetched"]) == ("stamford", 2, 1)
    assert (await server.ask("get_contacts"))[0] == "hit"


async def test_an_account_without_a_key_of_the_server_s_is_not_warmed(server: Server) -> None:
    assert await server.warming.start("guilford") == 0
    with pytest.raises(InvalidInput) as caught:
        await server.warming.start("nowhere")
    assert caught.value.field == "instance"


async def test_an_admin_s_queries_are_run_and_count_neither_as_calls_nor_as_heat(server: Server) -> None:
    queries = [
        {"name": "get_jobs", "arguments": {"is_archived": True}},
        {"name": "get_contacts"},
        {"name": "get_job", "arguments": {"job_id": "nosuchjob999999"}},
    ]
    assert await server.warming.start("stamford", queries) == 3
    line = await server.done()
    assert (line["made"], line["failed"]) == (3, ["not_found"])
    assert (server.counted(), await server.heat.hottest("stamford")) == ({}, [])

    asked = server.sim.calls
    assert (await server.ask("get_jobs", is_archived=True))[0] == "hit"
    assert (await server.ask("get_contacts"))[0] == "hit"
    assert server.sim.calls == asked


@pytest.mark.parametrize(
    "queries",
    [
        {},
        "get_jobs",
        ["get_jobs"],
        [{}],
        [{"name": 1}],
        [{"name": "get_jobs", "arguments": []}],
        [{"name": "get_jobs", "also": 1}],
        [{"name": "no_such_tool"}],
        [{"name": "get_jobs"}, {"name": "get_jobs", "arguments": {"colour": "red"}}],
        [{"name": "get_jobs"}] * (QUERIES_MOST + 1),
    ],
)
async def test_wrong_queries_are_refused_before_anything_begins(server: Server, queries: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await server.warming.start("stamford", queries)

    assert caught.value.field == "queries"
    assert (server.sim.calls, server.logged.entries) == (0, [])


async def test_the_schedule_reads_what_is_hot_and_not_fresh_again_and_again(server: Server) -> None:
    schedule = asyncio.create_task(server.warming.run_schedule())
    try:
        await server.ask("get_jobs")
        await server.ask("get_contacts")
        fetched = []
        for _ in range(4):
            for _ in range(50):
                await asyncio.sleep(0)
            server.clock.advance(EVERY_S)
            line = await server.done()
            assert (line["reason"], line["made"]) == ("schedule", 2)
            fetched.append(line["fetched"])
        # jobs lists live for half an hour, those of contacts for an hour
        assert (fetched[0], sum(fetched)) == (0, 1)
    finally:
        schedule.cancel()
        await asyncio.gather(schedule, return_exceptions=True)


async def test_no_schedule_ends_at_once(server: Server) -> None:
    server.warming._every_s = 0
    async with asyncio.timeout(1):
        await server.warming.run_schedule()


async def test_a_stop_gives_up_what_has_not_ended_and_begins_nothing_more(server: Server) -> None:
    server.way.open.clear()
    assert await server.warming.start("stamford") == 2
    for _ in range(50):
        await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await server.warming.aclose(within_s=0.05)
    with pytest.raises(Stopping):
        await server.warming.start("stamford")


async def test_a_schedule_survives_that_nobody_can_tell_what_is_hot(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [CacheUnavailable("away"), RuntimeError("a defect")]
    hottest = server.heat.hottest

    async def failing(instance: str, **options: Any) -> Any:
        if failures:
            raise failures.pop(0)
        return await hottest(instance, **options)

    monkeypatch.setattr(server.heat, "hottest", failing)
    schedule = asyncio.create_task(server.warming.run_schedule())
    try:
        events = []
        for _ in range(3):
            for _ in range(50):
                await asyncio.sleep(0)
            server.clock.advance(EVERY_S)
            events.append((await server.done())["event"])
        assert events == ["warming failed", "warming failed", "warmed"]
    finally:
        schedule.cancel()
        await asyncio.gather(schedule, return_exceptions=True)


async def test_rounds_that_have_not_ended_are_bounded(server: Server) -> None:
    server.way.open.clear()
    for _ in range(8):
        assert await server.warming.start("stamford") == 2
    with pytest.raises(BudgetExhausted) as caught:
        await server.warming.start("stamford")
    assert caught.value.code == "warming_busy"
    server.way.open.set()
    made = []
    for _ in range(8):
        made.append((await server.done())["made"])
        server.clock.advance(0.1)  # those that waited for their turn look again
    assert made == [2] * 8
    await asyncio.sleep(0)
    assert await server.warming.start("stamford") == 2
    await server.done()
