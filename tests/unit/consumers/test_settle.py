"""settle: which events are renewed a second time, when, and with which tags."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jobnimbus_mcp.consumers.settle import TAGS_MOST, Settle
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import Consumer, Outcome


class Cache:
    """Notes what is renewed; accounts in `away` cannot be told."""

    def __init__(self) -> None:
        self.bumps: list[tuple[str, tuple[str, ...]]] = []
        self.away: set[str] = set()
        self.broken = False

    async def bump(self, instance: str, tags: Sequence[str]) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise RuntimeError("a defect")
        if instance in self.away:
            raise CacheUnavailable("away")
        self.bumps.append((instance, tuple(tags)))


def event(jnid: str, tags: Sequence[str], instance: str = "stamford") -> Event:
    ref = EntityRef(Entity.JOBS, jnid)
    change = Change(ref, Action.UPDATED)
    name = "job.updated"
    return Event.of_change(
        change, event_id=jnid, instance=instance, name=name, tags=tags, source="webhook", received_at=1.0
    )


@pytest.mark.parametrize(
    ("tags", "settle_s", "delay_s"),
    [
        (("jobs:detail:a", "jobs:list"), 6.0, 6.0),
        (("jobs@any",), 6.0, 6.0),
        (("jobs",), 2.5, 2.5),
        (("jobs:detail:a",), 6.0, None),
        (("jobs:detail",), 6.0, None),
        ((), 6.0, None),
        (("jobs:list",), 0.0, None),
    ],
)
def test_an_event_is_due_when_the_index_has_caught_up_unless_it_is_about_single_records_alone(
    tags: tuple[str, ...], settle_s: float, delay_s: float | None
) -> None:
    consumer: Consumer = Settle(Cache().bump, index_settle_s=settle_s)
    assert consumer.delay_s(event("a", tags)) == delay_s


def test_every_change_of_a_record_is_settled() -> None:
    consumer = Settle(Cache().bump, index_settle_s=6.0)
    for action in Action:
        tags = tags_of_change(Change(EntityRef(Entity.TASKS, "t1"), action, frozenset({"j1"})))
        assert consumer.delay_s(event("t1", tags)) == 6.0


async def test_all_events_of_an_account_are_renewed_in_one_step_but_for_the_records_themselves() -> None:
    cache = Cache()
    consumer = Settle(cache.bump, index_settle_s=6.0)
    batch = [
        event("a", ("jobs:detail:a", "jobs:list", "tasks@a")),
        event("b", ("jobs:detail:b", "jobs:list", "tasks@b")),
        event("c", ("jobs:detail:c", "jobs:list"), "guilford"),
    ]

    assert await consumer.act(batch, ["1", "2", "3"]) == [Outcome()] * 3
    assert sorted(cache.bumps) == [("guilford", ("jobs:list",)), ("stamford", ("jobs:list", "tasks@a", "tasks@b"))]


async def test_more_tags_than_one_step_may_have_are_renewed_in_several() -> None:
    cache = Cache()
    consumer = Settle(cache.bump, index_settle_s=6.0)
    batch = [event(f"j{number}", ("jobs:list", f"tasks@j{number}")) for number in range(450)]
    await consumer.act(batch, [""] * 450)

    assert [len(tags) for _, tags in cache.bumps] == [TAGS_MOST, TAGS_MOST, 51]
    renewed = {tag for _, tags in cache.bumps for tag in tags}
    assert renewed == {tag for one in batch for tag in one.tags}


async def test_the_store_of_one_account_being_away_fails_its_events_alone() -> None:
    cache = Cache()
    cache.away = {"stamford"}
    batch = [event("a", ("jobs:list",)), event("b", ("jobs:list",), "guilford"), event("c", ("jobs@any",))]
    told = await Settle(cache.bump, index_settle_s=6.0).act(batch, ["1", "2", "3"])

    failed = Outcome("cache_unavailable", away=True)
    assert told == [failed, Outcome(), failed]


async def test_a_defect_fails_the_batch() -> None:
    cache = Cache()
    cache.broken = True
    batch = [event("a", ("jobs:list",)), event("b", ("jobs:list",), "guilford")]
    with pytest.raises(RuntimeError):
        await Settle(cache.bump, index_settle_s=6.0).act(batch, ["1", "2"])
