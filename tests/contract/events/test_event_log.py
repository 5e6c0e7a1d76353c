"""Every kind of event log, asked the same: what is kept, who gets it when, and what is told of it afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from events_world import SLOW_TAKEOVER, VOLATILE, World

from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.ports import (
    ATTEMPTS_KEPT,
    Attempt,
    ConsumerTrace,
    EventLog,
    EventQuery,
    Fate,
    Settled,
    Subscription,
    Taken,
)

CONSUMERS = ("settle", "relay:crm")
SETTLE, RELAY = CONSUMERS
BOUND_S = 15.0
"""Within which everything happens, however slowly a group's members find one another."""
PAUSE_S = 0.3
"""For how long nothing must happen."""

_numbers: Iterator[int] = itertools.count(1)


def change(world: World, record_id: str = "j1", *, entity: str = "jobs", body: str = "") -> Event:
    """A change received now; its id sorts behind all made before."""
    now = world.clock.now()
    return Event(
        event_id=event_id_at(now, f"{next(_numbers):020x}"),
        instance=world.instance,
        name="job.updated",
        entity=entity,
        record_id=record_id,
        action="updated",
        tags=(entity, f"job:{record_id}"),
        source="webhook",
        received_at=now,
        body=body,
    )


async def opened(world: World, *, claim_idle_s: float = 30.0) -> EventLog:
    log = await world.log(claim_idle_s=claim_idle_s)
    await log.open(CONSUMERS)
    return log


async def kept(log: EventLog, *events: Event, consumers: Sequence[str] = CONSUMERS, delay_s: float = 0.0) -> None:
    for event in events:
        assert await log.append(event, dict.fromkeys(consumers, event.received_at + delay_s))


async def take(hand: Subscription, count: int = 1) -> list[Taken]:
    """Exactly so many, in the order they come, none of them settled in between."""
    found: list[Taken] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < count:
            found += await hand.take(count - len(found), wait_s=1.0)
    return found


async def take_one(hand: Subscription) -> Taken:
    return (await take(hand))[0]


async def nothing_comes(hand: Subscription, wait_s: float = PAUSE_S) -> None:
    assert [taken.event.record_id for taken in await hand.take(10, wait_s=wait_s)] == []


def tried(world: World, taken: Taken, error: str = "") -> Attempt:
    request_id = f"{taken.event.event_id}.{taken.attempts + 1}"
    return Attempt(
        at=world.clock.now(),
        request_id=request_id,
        duration_ms=12.5,
        status=503 if error else 200,
        error=error,
        answer="so said the target",
    )


def done(world: World, taken: Taken) -> Settled:
    return Settled(taken, Fate.DONE, tried(world, taken))


def again(world: World, taken: Taken, after_s: float = 0.0) -> Settled:
    return Settled(taken, Fate.RETRY, tried(world, taken, "http_503"), due_at=world.clock.now() + after_s)


def dead(world: World, taken: Taken, reason: str = "http_503") -> Settled:
    return Settled(taken, Fate.DEAD, tried(world, taken, reason), reason=reason)


async def all_done(world: World, log: EventLog, count: int, consumers: Sequence[str] = CONSUMERS) -> None:
    for consumer in consumers:
        hand = log.subscribe(consumer)
        for _ in range(count):
            await hand.settle([done(world, await take_one(hand))])
        await hand.aclose()


async def told(log: EventLog, event: Event, consumer: str = SETTLE) -> ConsumerTrace:
    traced = await log.show(event.instance, event.event_id)
    assert traced is not None
    return traced.consumers[consumer]


async def state(log: EventLog, event: Event) -> str:
    traced = await log.show(event.instance, event.event_id)
    assert traced is not None
    return traced.state


# -- keeping and handing out -----------------------------------------------------------------------------------------


async def test_an_event_comes_out_as_it_went_in(world: World) -> None:
    log = await opened(world)
    event = replace(
        change(world, body='{"jnid": "j1", "name": "Grüße \\ud83d\\ude00 ' + "x" * 5_000 + '"}'),
        parents=("c1", "j9"),
        occurred_at=1_790_000_000,
        is_new=True,
        dedupe_key="dedupe:1",
        version_key="version:1",
        request_id="r-1",
    )
    await kept(log, event)
    for consumer in CONSUMERS:
        taken = await take_one(log.subscribe(consumer))
        assert taken.event == event
        assert taken.attempts == 0
        assert taken.due_at == pytest.approx(event.received_at, abs=0.002)
    traced = await log.show(world.instance, event.event_id)
    assert traced is not None
    assert traced.event == event


async def test_an_event_is_appended_once(world: World) -> None:
    log = await opened(world)
    other = await opened(world)
    event = change(world)
    routes = dict.fromkeys(CONSUMERS, event.received_at)
    assert await log.append(event, routes)
    assert not await log.append(event, routes)
    assert not await other.append(event, routes)
    hand = log.subscribe(SETTLE)
    await hand.settle([done(world, await take_one(hand))])
    await nothing_comes(hand)


async def test_who_is_not_named_gets_nothing(world: World) -> None:
    log = await opened(world)
    event = change(world)
    await kept(log, event, consumers=[SETTLE])
    await all_done(world, log, 1, [SETTLE])
    await nothing_comes(log.subscribe(RELAY))
    traced = await log.show(world.instance, event.event_id)
    assert traced is not None
    assert set(traced.consumers) == {SETTLE}
    assert traced.state == "done"


async def test_an_event_for_nobody_is_kept_for_the_trace(world: World) -> None:
    log = await opened(world)
    event = change(world)
    assert await log.append(event, {})
    assert await state(log, event) == "done"
    assert (await log.standing(world.instance, [event.event_id]))[1] == {event.event_id: False}


async def test_two_processes_do_each_event_once_and_each_record_in_order(world: World) -> None:
    logs = [await opened(world), await opened(world)]
    records = [f"j{number}" for number in range(10)]
    events = [change(world, record_id) for _ in range(4) for record_id in records]
    did: dict[str, list[Event]] = defaultdict(list)

    async def work(log: EventLog, consumer: str) -> None:
        hand = log.subscribe(consumer)
        while len(did[consumer]) < len(events):
            batch = await hand.take(7, wait_s=0.2)
            assert len({taken.event.record for taken in batch}) == len(batch) <= 7
            did[consumer] += [taken.event for taken in batch]
            await asyncio.sleep(0)
            await hand.settle([done(world, taken) for taken in batch])
        await hand.aclose()

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        for log, consumer in itertools.product(logs, CONSUMERS):
            group.create_task(work(log, consumer))
        await kept(logs[0], *events)
    for consumer in CONSUMERS:
        assert Counter(event.event_id for event in did[consumer]) == Counter(event.event_id for event in events)
        for record_id in records:
            ids = [event.event_id for event in did[consumer] if event.record_id == record_id]
            assert ids == sorted(ids)
    assert {await state(logs[1], event) for event in events} == {"done"}


async def test_a_batch_is_no_larger_than_asked_and_the_oldest_come_first(world: World) -> None:
    log = await opened(world)
    events = [change(world, f"j{number}") for number in range(6)]
    for number, event in enumerate(events):
        assert await log.append(event, {SETTLE: event.received_at - 1.0 + number / 100})
    hand = log.subscribe(SETTLE)
    batches: list[Sequence[Taken]] = []
    async with asyncio.timeout(BOUND_S):
        while sum(map(len, batches)) < 6:
            batches.append(await hand.take(2, wait_s=1.0))
    assert max(map(len, batches)) == 2
    assert {taken.event.event_id for batch in batches for taken in batch} == {event.event_id for event in events}
    assert all(list(batch) == sorted(batch, key=lambda taken: taken.due_at) for batch in batches)


async def test_a_record_waits_for_its_retry_and_no_other_does(world: World) -> None:
    log = await opened(world)
    first, second, other = change(world, "j1"), change(world, "j1"), change(world, "j2")
    await kept(log, first, second, other)
    hand = log.subscribe(SETTLE)
    batch = {taken.event.event_id: taken for taken in await take(hand, 2)}
    assert set(batch) == {first.event_id, other.event_id}
    retry_at = world.clock.now() + 2 * PAUSE_S
    await hand.settle(
        [done(world, batch[other.event_id]), again(world, batch[first.event_id], retry_at - world.clock.now())]
    )
    await nothing_comes(hand)
    late = change(world, "j2")
    await kept(log, late)
    arrived = await take_one(hand)
    assert arrived.event.event_id == late.event_id
    retried = await take_one(hand)
    assert world.clock.now() >= retry_at - 0.01
    assert (retried.event.event_id, retried.attempts) == (first.event_id, 1)
    await hand.settle([done(world, retried), done(world, arrived)])
    assert (await take_one(hand)).event.event_id == second.event_id


async def test_a_delayed_event_comes_at_its_time_and_holds_back_its_record_alone(world: World) -> None:
    log = await opened(world)
    delayed, behind, other = change(world, "j1"), change(world, "j1"), change(world, "j2")
    due_at = delayed.received_at + 3 * PAUSE_S
    assert await log.append(delayed, {SETTLE: due_at, RELAY: delayed.received_at})
    await kept(log, behind, other)
    hand, prompt = log.subscribe(SETTLE), log.subscribe(RELAY)
    first = await take_one(hand)
    assert first.event.event_id == other.event_id
    await hand.settle([done(world, first)])
    await nothing_comes(hand, PAUSE_S / 2)
    at_once = await take(prompt, 2)
    assert {taken.event.event_id for taken in at_once} == {delayed.event_id, other.event_id}
    second = await take_one(hand)
    assert world.clock.now() >= due_at - 0.01
    assert second.event.event_id == delayed.event_id
    assert second.due_at == pytest.approx(due_at, abs=0.002)
    await hand.settle([done(world, second)])
    assert (await take_one(hand)).event.event_id == behind.event_id


async def test_one_consumer_that_never_settles_holds_back_no_other(world: World) -> None:
    log = await opened(world)
    events = [change(world, f"j{number % 5}") for number in range(20)]
    await kept(log, *events)
    hanging = log.subscribe(RELAY)
    await take(hanging, 5)
    await all_done(world, log, 20, [SETTLE])
    lag = await log.lag(world.instance)
    assert (lag[SETTLE].due, lag[RELAY].due) == (0, 20)
    await nothing_comes(hanging)


async def test_waiting_ends_when_something_is_appended(world: World) -> None:
    log, other = await opened(world), await opened(world)
    hand = log.subscribe(SETTLE)
    await nothing_comes(hand, 0.1)
    began = world.clock.monotonic()
    waiting = asyncio.create_task(hand.take(10, wait_s=BOUND_S))
    await asyncio.sleep(0)
    event = change(world)
    await kept(other, event)
    async with asyncio.timeout(BOUND_S):
        taken = await waiting
    assert [each.event.event_id for each in taken] == [event.event_id]
    assert world.clock.monotonic() - began < BOUND_S / 5


async def test_retries_are_counted_and_the_last_tries_are_told(world: World) -> None:
    log = await opened(world)
    event = change(world)
    await kept(log, event, consumers=[SETTLE])
    hand = log.subscribe(SETTLE)
    tries = ATTEMPTS_KEPT + 2
    for number in range(tries):
        taken = await take_one(hand)
        assert taken.attempts == number
        await hand.settle([again(world, taken)])
    now = await told(log, event)
    assert (now.state, now.attempts, len(now.tried)) == ("pending", tries, ATTEMPTS_KEPT)
    assert [attempt.request_id for attempt in now.tried] == [
        f"{event.event_id}.{number}" for number in range(3, tries + 1)
    ]
    attempt = now.tried[-1]
    assert (attempt.status, attempt.error, attempt.answer) == (503, "http_503", "so said the target")
    assert attempt.duration_ms == pytest.approx(12.5)
    assert attempt.at == pytest.approx(world.clock.now(), abs=5.0)
    await hand.settle([done(world, await take_one(hand))])
    last = await told(log, event)
    assert (last.state, last.attempts, last.tried[-1].status) == ("done", tries + 1, 200)
    assert last.done_at == pytest.approx(world.clock.now(), abs=5.0)


async def test_what_is_given_up_is_dead_lets_its_record_go_on_and_can_be_replayed(world: World) -> None:
    log = await opened(world)
    event, behind = change(world), change(world)
    await kept(log, event, behind, consumers=[SETTLE])
    hand = log.subscribe(SETTLE)
    await hand.settle([again(world, await take_one(hand))])
    await hand.settle([dead(world, await take_one(hand), "http_500")])
    given_up = await told(log, event)
    assert (given_up.state, given_up.reason, given_up.attempts) == ("dead", "http_500", 2)
    assert (await log.lag(world.instance))[SETTLE].dead == 1
    following = await take_one(hand)
    assert following.event.event_id == behind.event_id
    await hand.settle([done(world, following)])
    await nothing_comes(hand)

    assert await log.replay(world.instance, event.event_id, RELAY) == ()
    assert await log.replay(world.instance, event.event_id) == (SETTLE,)
    assert await log.replay(world.instance, event.event_id) == ()
    waiting = await log.lag(world.instance)
    assert (waiting[SETTLE].due, waiting[SETTLE].dead) == (1, 0)
    replayed = await take_one(hand)
    assert (replayed.event, replayed.attempts) == (event, 0)
    await hand.settle([done(world, replayed)])
    traced = await told(log, event)
    assert traced.state == "done"
    assert [attempt.error for attempt in traced.tried] == ["http_503", "http_500", ""]
    assert await log.replay(world.instance, event.event_id) == ()
    assert await log.replay(world.instance, "0" * 32) == ()


async def test_one_dead_consumer_of_two_is_replayed_alone(world: World) -> None:
    log = await opened(world)
    event = change(world)
    await kept(log, event)
    hand, other = log.subscribe(SETTLE), log.subscribe(RELAY)
    await hand.settle([done(world, await take_one(hand))])
    await other.settle([dead(world, await take_one(other))])
    assert await state(log, event) == "dead"
    assert await log.replay(world.instance, event.event_id) == (RELAY,)
    assert (await take_one(other)).event.event_id == event.event_id
    await nothing_comes(hand)


# -- more than one process -------------------------------------------------------------------------------------------


async def test_what_is_given_back_comes_to_another_at_once_and_a_late_word_of_it_is_passed_over(world: World) -> None:
    log, other = await opened(world), await opened(world)
    event = change(world)
    await kept(log, event, consumers=[SETTLE])
    hand = log.subscribe(SETTLE)
    lost = await take_one(hand)
    await hand.aclose()
    second = other.subscribe(SETTLE)
    taken = await take_one(second)
    assert (taken.event.event_id, taken.attempts) == (event.event_id, 0)
    await hand.settle([dead(world, lost, "too_late")])
    now = await told(other, event)
    assert (now.state, now.attempts) == ("pending", 0)
    await second.settle([done(world, taken)])
    assert (await told(other, event)).attempts == 1
    await hand.settle([again(world, lost)])
    assert (await told(log, event)).state == "done"


async def test_what_a_dead_process_had_in_hand_comes_to_another_after_a_while_and_not_before(world: World) -> None:
    log = await opened(world, claim_idle_s=1.0)
    event, behind = change(world), change(world)
    await kept(log, event, behind, consumers=[SETTLE])
    assert (await take_one(log.subscribe(SETTLE))).event.event_id == event.event_id
    if VOLATILE in world.limits:
        # a log that is this process has no survivors to take over
        assert not await log.durable()
        assert await world.log() is log
        return
    await world.crash(log)
    other = await opened(world, claim_idle_s=1.0)
    hand = other.subscribe(SETTLE)
    await nothing_comes(hand)
    began = world.clock.monotonic()
    taken = await take_one(hand)
    assert taken.event.event_id == event.event_id
    assert SLOW_TAKEOVER in world.limits or world.clock.monotonic() - began < 5.0
    await hand.settle([done(world, taken)])
    assert (await take_one(hand)).event.event_id == behind.event_id


async def test_what_was_delayed_or_to_be_tried_again_is_not_lost_with_its_process(world: World) -> None:
    log = await opened(world, claim_idle_s=1.0)
    retried, delayed = change(world, "j1"), change(world, "j2")
    await kept(log, retried, consumers=[SETTLE])
    await kept(log, delayed, consumers=[SETTLE], delay_s=1.2)
    hand = log.subscribe(SETTLE)
    await hand.settle([again(world, await take_one(hand), 1.2)])
    if VOLATILE in world.limits:
        assert not await log.durable()
        await hand.aclose()
    else:
        await world.crash(log)
    other = await opened(world, claim_idle_s=1.0)
    taken = {each.event.event_id: each.attempts for each in await take(other.subscribe(SETTLE), 2)}
    assert taken == {retried.event_id: 1, delayed.event_id: 0}


async def test_logs_say_whether_they_are_durable_and_answer(world: World) -> None:
    log = await opened(world)
    assert await log.durable() is not (VOLATILE in world.limits)
    await log.ping()


async def test_opening_again_loses_nothing(world: World) -> None:
    log = await opened(world)
    event = change(world)
    await kept(log, event)
    await log.open(CONSUMERS)
    await (await opened(world)).open([*CONSUMERS, "later"])
    assert (await take_one(log.subscribe(SETTLE))).event.event_id == event.event_id


# -- looking ---------------------------------------------------------------------------------------------------------


async def test_states_are_those_of_all_consumers_together(world: World) -> None:
    log = await opened(world)
    pending, delayed, given_up, finished = (change(world, f"j{number}") for number in range(4))
    both = change(world, "j4")
    hand, other = log.subscribe(SETTLE), log.subscribe(RELAY)
    for event, fate in ((finished, done), (given_up, dead), (both, dead)):
        later_s = 60.0 if event is both else 0.0
        assert await log.append(event, {SETTLE: event.received_at, RELAY: event.received_at + later_s})
        await hand.settle([fate(world, await take_one(hand))])
        if event is not both:
            await other.settle([done(world, await take_one(other))])
    assert await log.append(delayed, {SETTLE: delayed.received_at, RELAY: delayed.received_at + 60.0})
    await hand.settle([done(world, await take_one(hand))])
    await kept(log, pending)
    expected = {
        pending.event_id: "pending",
        delayed.event_id: "delayed",
        given_up.event_id: "dead",
        finished.event_id: "done",
        both.event_id: "delayed",
    }
    page = await log.find(world.instance, EventQuery())
    assert {traced.event.event_id: traced.state for traced in page.events} == expected
    assert {event_id: await state(log, replace(pending, event_id=event_id)) for event_id in expected} == expected
    for wanted in ("pending", "delayed", "dead", "done"):
        found = await log.find(world.instance, EventQuery(state=wanted))
        assert {traced.event.event_id for traced in found.events} == {
            event_id for event_id, each in expected.items() if each == wanted
        }


async def test_events_are_found_by_what_they_are_about_and_when_they_came(world: World) -> None:
    log = await opened(world)
    events = [
        change(world, "j1", body='{"jnid": "j1"}'),
        change(world, "j2"),
        change(world, "c1", entity="contacts"),
        change(world, "j1"),
    ]
    late = replace(change(world, "j3"), received_at=world.clock.now() + 100.0)
    late = replace(late, event_id=event_id_at(late.received_at, "f" * 20))
    await kept(log, *events)
    assert await log.append(late, {SETTLE: world.clock.now()})

    async def found(**query: object) -> list[str]:
        page = await log.find(world.instance, EventQuery(**query))  # type: ignore[arg-type]  # names as tests give them
        assert all(traced.event.body == "" for traced in page.events)
        assert page.next_before is None
        return [traced.event.event_id for traced in page.events]

    first, second, contact, again_first = (event.event_id for event in events)
    assert await found() == [late.event_id, again_first, contact, second, first]
    assert await found(record_id="j1") == [again_first, first]
    assert await found(entity="contacts") == [contact]
    assert await found(entity="contacts", record_id="j1") == []
    assert await found(since=late.received_at - 1.0) == [late.event_id]
    assert await found(state="pending", record_id="j2") == [second]
    traced = await log.show(world.instance, first)
    assert traced is not None
    assert traced.event.body == '{"jnid": "j1"}'
    assert await log.show(world.instance, "0" * 32) is None
    assert await log.show(world.instance, "no id") is None


async def test_pages_follow_one_another_through_what_lives_and_what_is_archived(world: World) -> None:
    log = await opened(world)
    events = [change(world, f"j{number}") for number in range(12)]
    await kept(log, *events[:6], consumers=[SETTLE])
    await all_done(world, log, 6, [SETTLE])
    await kept(log, *events[6:])
    found: list[str] = []
    before: str | None = None
    for _ in range(10):
        page = await log.find(world.instance, EventQuery(limit=5, before=before))
        assert len(page.events) <= 5
        found += [traced.event.event_id for traced in page.events]
        before = page.next_before
        if before is None:
            break
    assert before is None
    assert found == [event.event_id for event in reversed(events)]


async def test_lag_tells_due_delayed_and_dead_ones_and_the_oldest(world: World) -> None:
    log = await opened(world)
    empty = await log.lag(world.instance)
    assert {empty[consumer] for consumer in CONSUMERS} == {(0, 0, 0.0, 0)}
    old, fresh, later = change(world, "j1"), change(world, "j2"), change(world, "j3")
    await kept(log, old, delay_s=-5.0)
    await kept(log, fresh)
    await kept(log, later, delay_s=60.0)
    lag = (await log.lag(world.instance))[SETTLE]
    assert (lag.due, lag.delayed, lag.dead) == (2, 1, 0)
    assert 4.9 <= lag.oldest_s < 5.0 + BOUND_S
    hand = log.subscribe(SETTLE)
    batch = {taken.event.event_id: taken for taken in await take(hand, 2)}
    assert (await log.lag(world.instance))[SETTLE].due == 2
    await hand.settle([dead(world, batch[old.event_id]), again(world, batch[fresh.event_id], 60.0)])
    assert (await log.lag(world.instance))[SETTLE] == (0, 2, 0.0, 1)
    assert (await log.lag(world.instance))[RELAY][:2] == (2, 1)


async def test_rates_count_tries_that_went_well_and_that_failed(world: World) -> None:
    log, other = await opened(world), await opened(world)
    assert not any(rates.ok or rates.failed for rates in (await log.rates(world.instance)).values())
    for record_id in ("j1", "j2"):
        await kept(log, change(world, record_id), consumers=[SETTLE], delay_s=-2.0)
    hand = log.subscribe(SETTLE)
    first, second = await take(hand, 2)
    await hand.settle([done(world, first), again(world, second)])
    await hand.settle([done(world, await take_one(hand))])
    rates = (await other.rates(world.instance))[SETTLE]
    assert (rates.ok, rates.failed) == (2, 1)
    assert 0.9 <= rates.latency_s < 2.0 + BOUND_S


async def test_an_event_stands_until_its_last_consumer_is_done_and_is_told_of_afterwards(world: World) -> None:
    log = await opened(world)
    event = change(world, body='{"jnid": "j1"}')
    await kept(log, event)
    ids = [event.event_id, "0" * 32]
    token, standing = await log.standing(world.instance, ids)
    assert token
    assert standing == {event.event_id: True, "0" * 32: False}
    await all_done(world, log, 1, [SETTLE])
    assert (await log.standing(world.instance, ids))[1][event.event_id]
    assert await state(log, event) == "pending"
    await all_done(world, log, 1, [RELAY])
    assert await log.standing(world.instance, ids) == (token, dict.fromkeys(ids, False))
    traced = await log.show(world.instance, event.event_id)
    assert traced is not None
    assert (traced.state, traced.event, traced.attempts) == ("done", event, 2)
    assert (await log.standing(world.instance, []))[0] == token


async def test_cleaning_forgets_what_is_old_enough_and_nothing_that_waits(world: World) -> None:
    log = await opened(world)
    finished, given_up, waiting = (change(world, f"j{number}") for number in range(3))
    await kept(log, finished, consumers=[SETTLE])
    await all_done(world, log, 1, [SETTLE])
    await kept(log, given_up, consumers=[SETTLE])
    hand = log.subscribe(SETTLE)
    await hand.settle([dead(world, await take_one(hand))])
    await kept(log, waiting)
    now = world.clock.now()
    assert await log.clean(archived_before=now - 3600.0, dead_before=now - 3600.0) == 0
    assert await state(log, finished) == "done"
    assert await log.clean(archived_before=now + 60.0, dead_before=now - 3600.0) == 1
    assert await log.show(world.instance, finished.event_id) is None
    assert await state(log, given_up) == "dead"
    assert await log.clean(archived_before=now + 60.0, dead_before=now + 60.0) == 1
    assert await log.show(world.instance, given_up.event_id) is None
    page = await log.find(world.instance, EventQuery())
    assert [traced.event.event_id for traced in page.events] == [waiting.event_id]
    assert (await log.lag(world.instance))[SETTLE][:2] == (1, 0)
    assert (await log.lag(world.instance))[SETTLE].dead == 0


async def test_what_is_kept_for_a_consumer_that_is_no_more_is_given_up(world: World) -> None:
    log = await opened(world)
    await log.open(["ghost"])
    last, shared = change(world, "j1"), change(world, "j2")
    await kept(log, last, consumers=["ghost"])
    await kept(log, shared, consumers=["ghost", SETTLE])
    assert await log.retire(CONSUMERS) == 2
    assert await log.retire(CONSUMERS) == 0
    for event in (last, shared):
        ghost = await told(log, event, "ghost")
        assert (ghost.state, ghost.reason) == ("dead", "no_such_consumer")
    assert await state(log, last) == "dead"
    assert await state(log, shared) == "pending"
    assert (await take_one(log.subscribe(SETTLE))).event.event_id == shared.event_id
    ghost_lag = (await log.lag(world.instance)).get("ghost")
    assert ghost_lag is None or (ghost_lag.due, ghost_lag.delayed) == (0, 0)


async def test_what_could_not_be_understood_is_kept_for_the_trace_alone(world: World) -> None:
    log = await opened(world)
    event = change(world, body="no json")
    await log.reject(event, "unknown_payload")
    traced = await log.show(world.instance, event.event_id)
    assert traced is not None
    assert (traced.state, traced.event) == ("dead", event)
    assert [each.reason for each in traced.consumers.values()] == ["unknown_payload"]
    page = await log.find(world.instance, EventQuery(state="dead"))
    assert [each.event.event_id for each in page.events] == [event.event_id]
    await nothing_comes(log.subscribe(SETTLE))
    assert await log.replay(world.instance, event.event_id) == ()
    assert not any(lag.due or lag.delayed for lag in (await log.lag(world.instance)).values())
