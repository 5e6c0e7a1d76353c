"""The log in memory, beyond what every log does: its bounds, its clock; and the bus beside it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import pytest
from structlog.testing import capture_logs

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.events.bus_memory import MemoryBus
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import (
    Attempt,
    Bus,
    EventLog,
    EventQuery,
    EventsUnavailable,
    Fate,
    Settled,
    Subscription,
    Taken,
)

_numbers: Iterator[int] = itertools.count(1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def change(clock: ManualClock, record_id: str = "j1", instance: str = "acme") -> Event:
    return Event(
        event_id=event_id_at(clock.now(), f"{next(_numbers):020x}"),
        instance=instance,
        name="job.updated",
        entity="jobs",
        record_id=record_id,
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=clock.now(),
    )


def result(clock: ManualClock, taken: Taken, fate: Fate, due_at: float = 0.0) -> Settled:
    return Settled(taken, fate, Attempt(clock.now(), "r", 1.0), due_at=due_at, reason="why")


async def act(clock: ManualClock, log: EventLog, fate: Fate, consumer: str = "settle") -> Event:
    hand = log.subscribe(consumer)
    (taken,) = await hand.take(1, wait_s=0.0)
    await hand.settle([result(clock, taken, fate)])
    await hand.aclose()
    return taken.event


async def waiting(hand: Subscription, wait_s: float) -> asyncio.Task[Sequence[Taken]]:
    task = asyncio.create_task(hand.take(10, wait_s=wait_s))
    await quiet()
    assert not task.done()
    return task


async def quiet() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_full_log_refuses_and_takes_again_when_something_is_done(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t", live_most=2)
    for _ in range(2):
        event = change(clock)
        assert await log.append(event, {"settle": clock.now()})
    refused = change(clock)
    with pytest.raises(EventsUnavailable):
        await log.append(refused, {"settle": clock.now()})
    assert not await log.append(event, {"settle": clock.now()})
    assert await log.show("acme", refused.event_id) is None
    await act(clock, log, Fate.DONE)
    assert await log.append(refused, {"settle": clock.now()})


@pytest.mark.parametrize("fate", [Fate.DONE, Fate.DEAD])
async def test_the_oldest_of_what_is_over_makes_room(clock: ManualClock, fate: Fate) -> None:
    log = MemoryEvents(clock, token="t", archive_most=3)
    events = [change(clock) for _ in range(5)]
    for event in events:
        await log.append(event, {"settle": clock.now()})
        await act(clock, log, fate)
    page = await log.find("acme", EventQuery())
    assert [traced.event.event_id for traced in page.events] == [event.event_id for event in events[:1:-1]]
    assert (await log.lag("acme")).get("settle", (0, 0, 0.0, 0))[3] == (3 if fate is Fate.DEAD else 0)


async def test_rejected_ones_are_bounded_too(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t", archive_most=3)
    for _ in range(5):
        await log.reject(change(clock), "unknown_payload")
    assert len((await log.find("acme", EventQuery())).events) == 3


async def test_waiting_ends_with_its_time_by_the_clock_given(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    take = await waiting(log.subscribe("settle"), 5.0)
    clock.advance(4.9)
    await quiet()
    assert not take.done()
    clock.advance(0.2)
    await quiet()
    assert take.done()
    assert await take == []


async def test_waiting_ends_when_a_delayed_event_is_due(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    event = change(clock)
    await log.append(event, {"settle": clock.now() + 20.0})
    take = await waiting(log.subscribe("settle"), 100.0)
    clock.advance(19.9)
    await quiet()
    assert not take.done()
    clock.advance(0.2)
    await quiet()
    assert take.done()
    assert [taken.event for taken in await take] == [event]


async def test_waiting_ends_when_another_hand_gives_back_and_when_its_own_is_closed(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    event = change(clock)
    await log.append(event, {"settle": clock.now()})
    first, second, third = (log.subscribe("settle") for _ in range(3))
    assert [taken.event for taken in await first.take(10, wait_s=0.0)] == [event]
    take, closed = await waiting(second, 100.0), await waiting(third, 100.0)
    await third.aclose()
    await first.aclose()
    await quiet()
    assert take.done()
    assert closed.done()
    assert [taken.event for taken in await take] == [event]
    assert list(await closed) == []
    assert list(await third.take(10, wait_s=100.0)) == []


async def test_accounts_know_nothing_of_one_another(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    ours, theirs = change(clock), change(clock, instance="other")
    for event in (ours, theirs):
        await log.append(event, {"settle": clock.now()})
    assert await log.show("other", ours.event_id) is None
    assert [traced.event for traced in (await log.find("other", EventQuery())).events] == [theirs]
    # the same record id of two accounts is two records
    assert len(await log.subscribe("settle").take(10, wait_s=0.0)) == 2
    assert (await log.lag("acme"))["settle"].due == 1
    assert await log.replay("other", ours.event_id) == ()


async def test_tries_are_forgotten_after_five_minutes(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    for _ in range(10):
        await log.append(change(clock), {"settle": clock.now()})
        await act(clock, log, Fate.DONE)
        clock.advance(60.0)
    assert (await log.rates("acme"))["settle"].ok in (4, 5)
    clock.advance(400.0)
    assert (await log.rates("acme")).get("settle") is None


async def test_an_archived_event_is_known_by_its_id(clock: ManualClock) -> None:
    log = MemoryEvents(clock, token="t")
    event = change(clock)
    await log.append(event, {"settle": clock.now()})
    await act(clock, log, Fate.DONE)
    assert not await log.append(event, {"settle": clock.now()})
    assert await log.standing("acme", [event.event_id]) == ("t", {event.event_id: False})


async def test_everybody_who_listens_hears_a_message_once() -> None:
    bus: Bus = MemoryBus()
    heard: list[tuple[str, str, str]] = []

    def fail(instance: str, message: str) -> None:
        raise RuntimeError(message)

    stop_failing = bus.listen(fail)
    stop = bus.listen(lambda instance, message: heard.append(("one", instance, message)))
    bus.listen(lambda instance, message: heard.append(("two", instance, message)))
    with capture_logs() as lines:
        await bus.publish("acme", ["a", "b"])
    assert sorted(heard) == [(who, "acme", message) for who in ("one", "two") for message in ("a", "b")]
    assert [line["error_type"] for line in lines] == ["RuntimeError", "RuntimeError"]
    heard.clear()
    stop()
    stop()
    stop_failing()
    await bus.publish("other", ["c"])
    assert heard == [("two", "other", "c")]
