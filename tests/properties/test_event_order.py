"""Whatever happens in between: one record's events are acted on in their order, one at a time, and none is lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.events.log_memory import MemoryEvents
from jobnimbus_mcp.events.ports import Attempt, EventQuery, Fate, Settled, Subscription, Taken

CONSUMERS = ("settle", "notify")
HANDS = 2

_CONSUMER = st.sampled_from(CONSUMERS)
_HAND = st.integers(0, HANDS - 1)
_STEPS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(["j1", "j2", "j3"]), st.sampled_from([0.0, 0.0, 3.0])),
    st.tuples(st.just("take"), _CONSUMER, _HAND, st.integers(1, 3)),
    st.tuples(
        st.just("settle"), _CONSUMER, st.integers(0, 5), st.sampled_from(list(Fate)), st.sampled_from([0.0, 2.0])
    ),
    st.tuples(st.just("close"), _CONSUMER, _HAND, st.none() | st.sampled_from(list(Fate))),
    st.tuples(st.just("replay"), st.integers(0, 10)),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 5.0])),
)


class _History:
    """A log, the hands in it, and what a reader of the log may rely on."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryEvents(self.clock, token="t")
        self.hands = {(name, at): self.log.subscribe(name) for name in CONSUMERS for at in range(HANDS)}
        self.out: dict[str, list[tuple[Subscription, Taken]]] = defaultdict(list)
        self.lost: dict[str, list[Taken]] = defaultdict(list)
        # by consumer and record: what is neither done nor dead, in the order in which it has to come out
        self.waiting: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.tries: dict[tuple[str, str], int] = defaultdict(int)
        self.events: list[Event] = []
        self.dead: set[tuple[str, str]] = set()

    async def append(self, record_id: str, delay_s: float) -> None:
        now = self.clock.now()
        event = Event(
            event_id=event_id_at(now, f"{len(self.events):020x}"),
            instance="acme",
            name="job.updated",
            entity="jobs",
            record_id=record_id,
            action="updated",
            tags=("jobs",),
            source="webhook",
            received_at=now,
        )
        assert await self.log.append(event, dict.fromkeys(CONSUMERS, now + delay_s))
        self.events.append(event)
        for name in CONSUMERS:
            self.waiting[name, record_id].append(event.event_id)

    async def take(self, name: str, at: int, most: int) -> None:
        hand = self.hands[name, at]
        batch = await hand.take(most, wait_s=0.0)
        assert len(batch) <= most
        for taken in batch:
            event = taken.event
            assert self.waiting[name, event.record_id][0] == event.event_id, "out of order"
            assert all(other.event.record_id != event.record_id for _, other in self.out[name]), "two at once"
            assert taken.due_at <= self.clock.now(), "before its time"
            assert taken.attempts == self.tries[name, event.event_id]
            self.out[name].append((hand, taken))

    async def settle(self, name: str, which: int, fate: Fate, after_s: float) -> None:
        if not self.out[name]:
            return
        hand, taken = self.out[name].pop(which % len(self.out[name]))
        await hand.settle([self._result(taken, fate, after_s)])
        key = (name, taken.event.event_id)
        self.tries[key] += 1
        if fate is not Fate.RETRY:
            self.waiting[name, taken.event.record_id].remove(taken.event.event_id)
        if fate is Fate.DEAD:
            self.dead.add(key)

    async def close(self, name: str, at: int, late: Fate | None) -> None:
        """The process ends and another one comes; the first may tell, too late, what came of all it ever lost."""
        hand = self.hands[name, at]
        await hand.aclose()
        self.lost[name] += [taken for other, taken in self.out[name] if other is hand]
        self.out[name] = [(other, taken) for other, taken in self.out[name] if other is not hand]
        if late is not None:
            await hand.settle([self._result(taken, late, 0.0) for taken in self.lost[name]])
        self.hands[name, at] = self.log.subscribe(name)

    async def replay(self, which: int) -> None:
        if which >= len(self.events):
            return
        event = self.events[which]
        names = await self.log.replay("acme", event.event_id)
        assert set(names) == {name for name in CONSUMERS if (name, event.event_id) in self.dead}
        for name in names:
            self.dead.discard((name, event.event_id))
            self.tries[name, event.event_id] = 0
            self.waiting[name, event.record_id].append(event.event_id)

    async def look(self) -> None:
        """The lag is that of what waits."""
        lags = await self.log.lag("acme")
        for name in CONSUMERS:
            waiting = sum(len(ids) for (consumer, _), ids in self.waiting.items() if consumer == name)
            lag = lags.get(name, (0, 0, 0.0, 0))
            assert lag[0] + lag[1] == waiting
            assert lag[3] == sum(consumer == name for consumer, _ in self.dead)

    async def drain(self) -> None:
        for name in CONSUMERS:
            while self.out[name]:
                await self.settle(name, 0, Fate.DONE, 0.0)
            self.clock.advance(10.0)
            while any(ids for (consumer, _), ids in self.waiting.items() if consumer == name):
                await self.take(name, 0, 3)
                assert self.out[name], "lost"
                while self.out[name]:
                    await self.settle(name, 0, Fate.DONE, 0.0)

    def _result(self, taken: Taken, fate: Fate, after_s: float) -> Settled:
        now = self.clock.now()
        return Settled(taken, fate, Attempt(now, "r", 1.0), due_at=now + after_s, reason="why")


async def _lived(steps: list[tuple[Any, ...]]) -> None:
    history = _History()
    for what, *details in steps:
        if what == "pass":
            history.clock.advance(*details)
        else:
            await getattr(history, what)(*details)
        await history.look()
    await history.drain()
    await history.look()
    page = await history.log.find("acme", EventQuery(limit=1_000))
    assert len(page.events) == len(history.events)
    assert {traced.state for traced in page.events} <= {"done", "dead"}


@given(st.lists(_STEPS, max_size=10) | st.lists(_STEPS, min_size=40, max_size=80))
def test_every_event_is_handed_out_in_its_records_order_until_it_is_over(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_lived(steps))
