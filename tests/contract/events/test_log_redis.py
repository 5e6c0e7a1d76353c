"""The event log in Redis: who has which part, what is left behind, and what it stands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from events_world_redis import PACKAGE, RedisWorld, world

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.notice import Notice, Parcel
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.events import keys_redis, subscription_redis
from jobnimbus_mcp.events.event import PARTITIONS, Event, event_id_at, partition_of
from jobnimbus_mcp.events.log_redis import RedisEvents
from jobnimbus_mcp.events.ownership_redis import HOLD_S
from jobnimbus_mcp.events.ports import Attempt, EventQuery, EventsUnavailable, Fate, Settled, Taken, Traced

NOW = 1_790_000_000.0
SYS = "jobnimbus-sys:{acme}:"
BOUND_S = 10.0


def change(number: int, record_id: str = "", *, at: float = NOW, body: str = "{}", instance: str = "acme") -> Event:
    return Event(
        event_id=event_id_at(at + number / 1000, f"{number:020x}"),
        instance=instance,
        name="job.updated",
        entity="jobs",
        record_id=record_id or f"j{number}",
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=at + number / 1000,
        body=body,
    )


def with_fate(world: RedisWorld, taken: Taken, fate: Fate, **more: Any) -> Settled:
    return Settled(taken, fate, Attempt(world.clock.now(), "r", 1.0), **more)


def done(world: RedisWorld, taken: Taken) -> Settled:
    return with_fate(world, taken, Fate.DONE)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not met():  # noqa: ASYNC110 - it becomes so in other tasks and processes
            await asyncio.sleep(0.01)


@pytest.fixture
async def acme(request: pytest.FixtureRequest) -> AsyncIterator[RedisWorld]:
    async with world(request) as made:
        yield made


@pytest.fixture
def server(redis_server: Any) -> Any:
    with redis_server.client() as client:
        yield client


def owners(server: Any, consumer: str) -> Mapping[int, str]:
    """Partition -> who has it."""
    leases: Any = server.hgetall(SYS + "events-owners")
    found = {}
    for field, value in leases.items():
        if matched := re.fullmatch(rf"p:(\d):{consumer}", field.decode()):
            found[int(matched[1])] = value.decode().partition("|")[2].partition(".")[0]
    return found


def shares(server: Any, consumer: str) -> list[int]:
    found = list(owners(server, consumer).values())
    return sorted(found.count(one) for one in set(found))


async def test_workers_share_the_partitions_and_those_of_one_that_leaves_are_taken_by_the_others(
    acme: RedisWorld, server: Any
) -> None:
    hands = [(await acme.log(claim_idle_s=1.0)).subscribe("settle") for _ in range(3)]
    await hands[0].take(1, wait_s=0)
    assert shares(server, "settle") == [PARTITIONS]
    for hand in hands[1:]:
        await hand.take(1, wait_s=0)
    await until(lambda: shares(server, "settle") == [2, 3, 3])
    await hands[1].aclose()
    assert sum(shares(server, "settle")) < PARTITIONS
    await until(lambda: shares(server, "settle") == [4, 4])


async def test_consumers_are_shared_among_the_workers_that_serve_them_alone(acme: RedisWorld, server: Any) -> None:
    first, second = await acme.log(claim_idle_s=1.0), await acme.log(claim_idle_s=1.0)
    for log, consumer in ((first, "settle"), (first, "warm"), (second, "warm")):
        await log.subscribe(consumer).take(1, wait_s=0)
    await until(lambda: shares(server, "warm") == [4, 4])
    assert shares(server, "settle") == [PARTITIONS]


async def test_a_partition_is_kept_until_nothing_of_it_is_in_hand(acme: RedisWorld, server: Any) -> None:
    first, second = await acme.log(claim_idle_s=1.0), await acme.log(claim_idle_s=1.0)
    events = [change(number) for number in range(60)]
    for event in events:
        await first.append(event, {"settle": event.received_at})
    hand = first.subscribe("settle")
    taken = await hand.take(60, wait_s=1.0)
    assert len({partition_of(one.event.record) for one in taken}) == PARTITIONS
    other = second.subscribe("settle")
    assert await other.take(1, wait_s=0.5) == ()
    assert shares(server, "settle") == [PARTITIONS]
    await hand.settle([done(acme, one) for one in taken])
    await until(lambda: shares(server, "settle") == [4, 4])
    assert {one.event.event_id for one in taken} == {event.event_id for event in events}


async def test_whoever_lost_a_partition_changes_nothing(acme: RedisWorld, server: Any) -> None:
    log, event = await acme.log(), change(1)
    await log.append(event, {"settle": NOW})
    hand = log.subscribe("settle")
    (taken,) = await hand.take(1, wait_s=1.0)
    field = f"p:{partition_of(event.record)}:settle"
    server.hset(SYS + "events-owners", field, "9999999999999|another.1")
    await hand.settle([done(acme, taken)])
    traced = await log.show("acme", event.event_id)
    assert traced is not None
    assert (traced.state, traced.attempts) == ("pending", 0)
    server.hset(SYS + "events-owners", field, "1|another.1")
    hand._ownership.hurry()  # type: ignore[attr-defined]  # the other one is gone
    (again,) = await hand.take(1, wait_s=BOUND_S)
    assert again.event == taken.event


async def test_nothing_is_begun_that_could_outlast_the_lease(acme: RedisWorld) -> None:
    log = await acme.log(claim_idle_s=0.5)
    hand = log.subscribe("settle")
    assert await hand.take(1, wait_s=0) == ()
    (runner,) = acme.runners
    run = runner.run
    silent = True

    async def without_beats(name: str, keys: Any, args: Any, *, tenant: str = "") -> Any:
        if silent and name == "event_beat":
            raise EventsUnavailable("TimeoutError")
        return await run(name, keys, args, tenant=tenant)

    runner.run = without_beats  # type: ignore[method-assign]  # one step replaced
    with pytest.raises(EventsUnavailable):
        await hand.take(1, wait_s=BOUND_S)
    await until(lambda: not log._ownership.lasts("acme"))
    await log.append(change(1), {"settle": NOW})
    with pytest.raises(EventsUnavailable):
        await hand.take(1, wait_s=BOUND_S)
    silent = False
    await until(lambda: log._ownership.failing is None)
    assert len(await hand.take(1, wait_s=BOUND_S)) == 1


async def test_finished_events_leave_the_live_keys_and_are_whole_in_the_archive(acme: RedisWorld, server: Any) -> None:
    log, event = await acme.log(), change(1, body='{"jnid": "j1"}')
    await log.append(event, {"settle": NOW, "warm": NOW})
    for consumer in ("settle", "warm"):
        hand = log.subscribe(consumer)
        (taken,) = await hand.take(1, wait_s=1.0)
        await hand.settle([done(acme, taken)])
    stream = f"{SYS}events:{partition_of(event.record)}"
    assert (server.xlen(stream), server.exists(f"{SYS}event:{event.event_id}")) == (0, 0)
    assert [group["pending"] for group in server.xinfo_groups(stream)] == [0, 0]
    assert (server.zcard(SYS + "events-live"), server.xlen(SYS + "archive")) == (0, 1)
    traced = await log.show("acme", event.event_id)
    assert traced is not None
    assert (traced.event, traced.state) == (event, "done")
    assert [(told.state, told.attempts) for told in traced.consumers.values()] == [("done", 1)] * 2
    assert not await log.append(event, {"settle": NOW})
    assert await log.clean(archived_before=acme.clock.now() + 1, dead_before=0) == 1
    assert (server.xlen(SYS + "archive"), server.zcard(SYS + "archived")) == (0, 0)
    assert await log.show("acme", event.event_id) is None


async def test_an_event_for_nobody_goes_to_the_archive_when_it_is_seen(acme: RedisWorld, server: Any) -> None:
    log = await acme.log()
    await log.append(change(1), {})
    assert await log.subscribe("settle").take(1, wait_s=0) == ()
    assert (server.xlen(SYS + "archive"), server.zcard(SYS + "events-live")) == (1, 0)
    (traced,) = (await log.find("acme", EventQuery(state="done"))).events
    assert dict(traced.consumers) == {}


async def test_what_the_server_has_lost_is_made_again_and_the_rest_goes_on(acme: RedisWorld, server: Any) -> None:
    log = await acme.log(claim_idle_s=1.0)
    hand = log.subscribe("settle")
    await log.append(change(1), {"settle": NOW})
    token, kept = await log.standing("acme", [change(1).event_id])
    assert kept == {change(1).event_id: True}
    assert len(await hand.take(1, wait_s=1.0)) == 1
    server.flushall()
    another, kept = await log.standing("acme", [change(1).event_id])
    assert (another != token, kept) == (True, {change(1).event_id: False})
    await log.append(change(2), {"settle": NOW})
    (taken,) = await hand.take(1, wait_s=BOUND_S)
    assert taken.event == change(2)
    await hand.settle([done(acme, taken)])
    assert (await log.lag("acme"))["settle"].due == 0


async def test_an_event_that_lost_its_hash_or_cannot_be_read_holds_up_nothing(acme: RedisWorld, server: Any) -> None:
    log = await acme.log()
    events = [change(number, "j1") for number in range(3)]
    for event in events:
        await log.append(event, {"settle": NOW})
    server.delete(f"{SYS}event:{events[0].event_id}")
    keys, args = log.parcel(change(9, "j1"), {"settle": NOW})
    args[0] = b"{}"
    server.eval(APPEND, len(keys), *keys, change(9).event_id, *args)
    hand = log.subscribe("settle")
    found: list[Event] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < 2:
            for taken in await hand.take(5, wait_s=1.0):
                found.append(taken.event)
                await hand.settle([done(acme, taken)])
    assert found == events[1:]
    traced = await log.show("acme", change(9).event_id)
    assert traced is not None
    assert (traced.state, traced.consumers["settle"].reason) == ("dead", "unreadable")
    lag = (await log.lag("acme"))["settle"]
    assert (lag.due, lag.delayed, lag.dead) == (0, 0, 1)
    assert [one["pending"] for one in server.xinfo_groups(f"{SYS}events:{partition_of('jobs:j1')}")] == [0]


APPEND = """
local entry = redis.call('XADD', KEYS[2], '*', 'id', ARGV[1], 'e', ARGV[2], 'to', ARGV[4])
redis.call('HSET', KEYS[1], 'e', ARGV[2], 'b', ARGV[3], 'to', ARGV[4], 'x', entry, 'left', #KEYS - 2)
for i = 3, #KEYS do redis.call('ZADD', KEYS[i], ARGV[i + 2], ARGV[1]) end
"""


async def test_what_a_broken_connection_swallowed_is_read_again(acme: RedisWorld, server: Any) -> None:
    log = await acme.log()
    hand = log.subscribe("settle")
    assert await hand.take(1, wait_s=0) == ()
    (runner,) = acme.runners
    run = runner.run
    swallowed: list[Any] = []

    async def swallow(name: str, keys: Any, args: Any, *, tenant: str = "") -> Any:
        reply = await run(name, keys, args, tenant=tenant)
        if name == "event_read" and not swallowed:
            swallowed.append(reply)
            raise EventsUnavailable("ConnectionError")
        return reply

    runner.run = swallow  # type: ignore[method-assign]  # one step replaced
    for number in range(3):
        await log.append(change(number, "j1"), {"settle": NOW})
    with pytest.raises(EventsUnavailable):
        await hand.take(5, wait_s=BOUND_S)
    found = []
    for _ in range(3):
        (taken,) = await hand.take(5, wait_s=BOUND_S)
        found.append(taken.event)
        await hand.settle([done(acme, taken)])
    assert found == [change(number, "j1") for number in range(3)]


async def test_no_more_is_held_in_memory_than_there_is_room_for(
    acme: RedisWorld, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_redis, "HELD_MOST", 10)
    log = await acme.log()
    for number in range(50):
        await log.append(change(number), {"settle": NOW})
    hand = log.subscribe("settle")
    taken = [*await hand.take(50, wait_s=1.0)]
    found = {one.event.event_id for one in taken}
    pending = sum(
        group["pending"]
        for partition in range(PARTITIONS)
        if server.exists(f"{SYS}events:{partition}")
        for group in server.xinfo_groups(f"{SYS}events:{partition}")
    )
    assert len(taken) <= pending <= 17
    async with asyncio.timeout(BOUND_S):
        while len(found) < 50:
            await hand.settle([done(acme, one) for one in taken])
            taken = [*await hand.take(50, wait_s=1.0)]
            found |= {one.event.event_id for one in taken}


async def test_a_pending_list_longer_than_a_page_is_taken_over_whole_and_in_order(
    acme: RedisWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_redis, "_READ_MOST", 8)
    dead, log = await acme.log(claim_idle_s=0.5), await acme.log(claim_idle_s=0.5)
    events = [change(number, "j1") for number in range(30)]
    for event in events:
        await dead.append(event, {"settle": NOW})
    assert len(await dead.subscribe("settle").take(1, wait_s=1.0)) == 1
    await acme.crash(dead)
    hand = log.subscribe("settle")
    found: list[str] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < 30:
            for taken in await hand.take(5, wait_s=1.0):
                found.append(taken.event.event_id)
                await hand.settle([done(acme, taken)])
    assert found == [event.event_id for event in events]


async def test_while_nothing_comes_nothing_is_asked_but_the_beat(acme: RedisWorld) -> None:
    log = await acme.log()
    hand = log.subscribe("settle")
    assert await hand.take(1, wait_s=0.05) == ()
    (runner,) = acme.runners
    runner.ran.clear()
    assert await hand.take(1, wait_s=0.6) == ()
    assert set(runner.ran) <= {"event_beat"}
    assert len(runner.ran) <= 1


async def test_a_parcel_in_the_bump_leaves_what_append_leaves(acme: RedisWorld, server: Any) -> None:
    log, routes = await acme.log(), {"settle": NOW, "relay:crm": NOW + 20}
    event = change(1, body='{"jnid": "é"}')

    def left() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in ("events:*", f"event:{event.event_id}", "due:*", "events-live"):
            for key in server.scan_iter(SYS + part):
                kind = server.type(key)
                if kind == b"stream":
                    found[key.decode()] = [fields for _, fields in server.xrange(key)]
                elif kind == b"hash":
                    fields: Any = server.hgetall(key)
                    found[key.decode()] = {name: value for name, value in fields.items() if name != b"x"}
                    (entry,) = server.xrange(f"{SYS}events:{partition_of(event.record)}")
                    assert fields[b"x"] == entry[0]
                else:
                    found[key.decode()] = server.zrange(key, 0, -1, withscores=True)
        return found

    await log.append(event, routes)
    appended = left()
    assert len(appended) == 5
    server.flushall()
    keys, args = log.parcel(event, routes)
    texts = tuple(arg.decode() if isinstance(arg, bytes) else str(arg) for arg in args)
    client = connect(acme.url)
    notice = Notice(event.name, "jobs", "j1", "webhook", NOW, event.event_id, parcel=Parcel(tuple(keys), texts))
    await RedisStore(client).append_and_bump("acme", ("jobs",), notice, Call.begin(acme.clock, "r"))
    await client.aclose()
    assert left() == appended


async def bumped(world: RedisWorld, log: Any, event: Event, *, late: bool) -> None:
    """The event, appended in the step of an invalidation; `late`: out of a journal."""
    keys, args = log.parcel(event, {"settle": NOW})
    texts = tuple(arg.decode() if isinstance(arg, bytes) else str(arg) for arg in args)
    client = connect(world.url)
    notice = Notice(
        event.name, "jobs", "j1", "webhook", NOW, event.event_id, parcel=Parcel(tuple(keys), texts), late=late
    )
    await RedisStore(client).append_and_bump("acme", ("jobs",), notice, Call.begin(world.clock, "r"))
    await client.aclose()


async def handled(world: RedisWorld, hand: Any, number: int) -> list[str]:
    """Ids of the next events, each done before another of its record comes."""
    found: list[str] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < number:
            for taken in await hand.take(5, wait_s=1.0):
                found.append(taken.event.event_id)
                await hand.settle([done(world, taken)])
    return found


async def test_what_comes_out_of_a_journal_goes_before_what_has_overtaken_it(acme: RedisWorld) -> None:
    log = await acme.log()
    first, second, third = (change(number, "j1") for number in (1, 2, 3))
    for event, late in ((second, False), (third, False), (first, True)):
        await bumped(acme, log, event, late=late)
    assert await handled(acme, log.subscribe("settle"), 3) == [first.event_id, second.event_id, third.event_id]


async def test_after_the_server_was_away_nothing_is_handed_out_before_the_journals_had_their_time(
    acme: RedisWorld, server: Any
) -> None:
    log = await acme.log()
    first, second = (change(number, "j1") for number in (1, 2))
    hand = log.subscribe("settle")
    assert await hand.take(1, wait_s=0) == ()
    # the wait for news has begun when it is there to be cut
    async with asyncio.timeout(BOUND_S):
        while not server.client_kill_filter(_type="normal", skipme=True):  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.01)
    cut_at = acme.clock.monotonic()
    await bumped(acme, log, second, late=False)
    assert await hand.take(1, wait_s=0.5) == ()
    await bumped(acme, log, first, late=True)
    assert await handled(acme, hand, 2) == [first.event_id, second.event_id]
    assert acme.clock.monotonic() - cut_at >= HOLD_S - 0.5


async def test_pages_show_the_latest_first_from_the_live_ones_and_the_archive(acme: RedisWorld) -> None:
    log = await acme.log()
    events = [change(number, f"j{number % 3}") for number in range(12)]
    for event in events:
        await log.append(event, {"settle": NOW if event.record_id == "j1" else NOW + 1e9})
    hand = log.subscribe("settle")
    for _ in range(4):
        await hand.settle([done(acme, taken) for taken in await hand.take(12, wait_s=1.0)])
    found: list[Traced] = []
    before: str | None = None
    while True:
        page = await log.find("acme", EventQuery(limit=5, before=before))
        found += page.events
        if (before := page.next_before) is None:
            break
    assert [one.event.event_id for one in found] == sorted((event.event_id for event in events), reverse=True)
    assert [one.state for one in found] == ["delayed", "done", "delayed"] * 4
    page = await log.find("acme", EventQuery(record_id="j1", since=NOW + 0.004))
    assert [one.event.event_id for one in page.events] == [events[number].event_id for number in (10, 7, 4)]
    with pytest.raises(InvalidInput):
        await log.find("acme", EventQuery(state="gone"))


async def test_accounts_of_one_store_are_kept_apart_and_served_together(acme: RedisWorld, server: Any) -> None:
    log = await acme.log(instances=("acme", "stamford"))
    events = [change(1), change(1, instance="stamford")]
    for event in events:
        await log.append(event, {"settle": NOW})
    hand = log.subscribe("settle")
    found: list[Event] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < 2:
            taken = await hand.take(5, wait_s=1.0)
            found += [one.event for one in taken]
            await hand.settle([done(acme, one) for one in taken])
    assert sorted(found, key=lambda event: event.instance) == events
    keys = [key.decode() for key in server.scan_iter("*:archive")]
    assert sorted(keys) == ["jobnimbus-sys:{acme}:archive", "jobnimbus-sys:{stamford}:archive"]


async def test_an_effect_is_not_begun_while_the_server_refuses_writes(acme: RedisWorld, server: Any) -> None:
    log = await acme.log()
    for number in range(2):
        await log.append(change(number, "j1"), {"settle": NOW})
    hand = log.subscribe("settle")
    (first,) = await hand.take(5, wait_s=1.0)
    await hand.settle([done(acme, first)])
    server.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(EventsUnavailable):
            await hand.take(5, wait_s=0.2)
    finally:
        server.config_set("min-replicas-to-write", 0)
    (second,) = await hand.take(5, wait_s=BOUND_S)
    assert (second.event, second.attempts) == (change(1, "j1"), 0)


async def test_what_was_done_is_noted_in_a_full_server_and_not_done_again(acme: RedisWorld, server: Any) -> None:
    log = await acme.log(claim_idle_s=1.0)
    for number in range(3):
        await log.append(change(number, "j1"), {"settle": NOW})
    hand, found = log.subscribe("settle"), []
    assert await hand.take(5, wait_s=0) != ()
    await hand.aclose()
    server.config_set("maxmemory", "1mb")
    try:
        hand = log.subscribe("settle")
        for _ in range(3):
            (taken,) = await hand.take(5, wait_s=BOUND_S)
            found.append(taken.event)
            await hand.settle([done(acme, taken)])
    finally:
        server.config_set("maxmemory", "0")
    assert found == [change(number, "j1") for number in range(3)]
    assert (await log.lag("acme"))["settle"].due == 0


async def test_a_consumer_that_another_process_serves_is_not_retired(acme: RedisWorld) -> None:
    log, elsewhere = await acme.log(), await acme.log()
    hand = elsewhere.subscribe("relay:crm")
    assert await hand.take(1, wait_s=0) == ()
    await log.append(change(1), {"relay:crm": NOW})
    assert await log.retire(["settle"]) == 0
    (taken,) = await hand.take(1, wait_s=BOUND_S)
    assert taken.event == change(1)
    await hand.aclose()
    assert await log.retire(["settle"]) == 1


async def test_what_is_appended_while_its_consumer_is_retired_is_given_up_too(acme: RedisWorld, server: Any) -> None:
    log, older = await acme.log(), await acme.log()
    await older.append(change(1), {"ghost": NOW})
    await older.lag("acme")
    runner = acme.runners[0]
    run = runner.run

    async def meanwhile(name: str, keys: Any, args: Any, *, tenant: str = "") -> Any:
        if name == "event_retire" and server.zcard(SYS + "due:ghost") == 0 and not server.exists(SYS + "dead:two"):
            server.set(SYS + "dead:two", "")
            await older.append(change(2), {"ghost": NOW})
        return await run(name, keys, args, tenant=tenant)

    runner.run = meanwhile  # type: ignore[method-assign]  # one step replaced
    assert await log.retire(["settle"]) == 2
    traced = await log.show("acme", change(2).event_id)
    assert traced is not None
    assert traced.state == "dead"


async def test_a_consumer_that_events_are_still_routed_to_is_known_again_after_it_was_retired(acme: RedisWorld) -> None:
    log, older = await acme.log(), await acme.log()
    await older.open(["ghost"])
    assert await log.retire(["settle"]) == 0
    assert "ghost" not in await log.lag("acme")
    await older.append(change(1), {"ghost": NOW})
    await older.lag("acme")
    assert (await log.lag("acme"))["ghost"].due == 1
    assert await log.retire(["settle"]) == 1


async def test_events_since_a_time_are_those_received_no_earlier_within_a_millisecond_too(acme: RedisWorld) -> None:
    log = await acme.log()
    events = [replace(change(number, at=NOW), received_at=NOW + 0.0003 * number) for number in range(3)]
    events = [replace(one, event_id=event_id_at(one.received_at, one.event_id[12:])) for one in events]
    for event in events:
        await log.append(event, {"settle": NOW})
    page = await log.find("acme", EventQuery(since=events[1].received_at))
    assert [traced.event.event_id for traced in page.events] == [events[2].event_id, events[1].event_id]


async def test_keys_without_expiry_are_those_that_are_told(acme: RedisWorld, server: Any) -> None:
    log = await acme.log()
    await log.open(["settle", "warm"])
    await log.ping()
    for number, fate in enumerate((Fate.DONE, Fate.DEAD, Fate.RETRY)):
        await log.append(change(number), {"settle": NOW})
        hand = log.subscribe("settle")
        for taken in await hand.take(1, wait_s=1.0):
            await hand.settle([with_fate(acme, taken, fate, due_at=NOW * 2, reason="no")])
        await hand.aclose()
    await log.subscribe("warm").take(1, wait_s=0)
    told = {
        re.sub("<[^>]*>", "*", line.split()[0])
        for line in re.split(r"\n *(?=jobnimbus-sys)", keys_redis.__doc__ or "")[1:]
        if "No expiry" in line
    }
    ever = {key.decode() for key in server.keys(SYS + "*") if server.ttl(key) == -1}
    patterns = [re.compile(re.escape(one.replace("{T}", "{acme}")).replace(r"\*", ".+")) for one in told]
    untold = {key for key in ever if not any(pattern.fullmatch(key) for pattern in patterns)}
    assert untold <= {SYS + name for name in ("epoch", "run", "log", "fleet")}
    assert {SYS + "archive", SYS + "dead:settle", SYS + "events-token"} <= ever


async def test_one_consumer_has_one_subscription_in_a_process(acme: RedisWorld) -> None:
    log = await acme.log()
    hand = log.subscribe("settle")
    with pytest.raises(ValueError, match="already"):
        log.subscribe("settle")
    await hand.aclose()
    await log.subscribe("settle").aclose()


async def test_without_a_server_everything_says_so(acme: RedisWorld) -> None:
    client = connect("redis://127.0.0.1:1/0")
    log = RedisEvents(Scripts(client, package=PACKAGE), clock=acme.clock, tenants=["acme"])
    for asked in (
        log.append(change(1), {"settle": NOW}),
        log.subscribe("settle").take(1, wait_s=0.1),
        log.lag("acme"),
        log.durable(),
        log.ping(),
    ):
        with pytest.raises(EventsUnavailable):
            await asked
    await log.aclose()
    await client.aclose()
