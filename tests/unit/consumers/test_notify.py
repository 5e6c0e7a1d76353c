"""Notify: which events it is told of, what it publishes, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from jobnimbus_mcp.consumers.notify import Notify
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import ACT_WITHIN_S, BATCH_MOST, EventsUnavailable
from jobnimbus_mcp.gateway.resources import PARENTS_MOST, RESOURCE_KINDS, any_list_of


class Told:
    """A bus and a cache that write down what happens, in order; accounts in `away` cannot be told, in `cold` neither
    known to be dirty everywhere."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, tuple[str, ...]]] = []
        self.away: set[str] = set()
        self.cold: set[str] = set()

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        if instance in self.away:
            raise EventsUnavailable("down")
        self.log.append(("published", instance, tuple(messages)))

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        raise AssertionError("a publisher does not listen")

    async def everywhere_dirty(self, instance: str) -> None:
        if instance in self.cold:
            raise CacheUnavailable("away")
        self.log.append(("dirty", instance, ()))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def notify(told: Told) -> Notify:
    return Notify(told, told.everywhere_dirty)


def event(
    record: str = "abc123",
    entity: str = "jobs",
    instance: str = "stamford",
    source: str = "webhook",
    parents: tuple[str, ...] | None = (),
    action: str = "updated",
) -> Event:
    return Event(
        event_id="0" * 32,
        instance=instance,
        name=f"{entity}.updated",
        entity=entity,
        record_id=record,
        action=action,
        tags=("jobs",),
        source=source,
        parents=parents,
        received_at=1_790_000_000.0,
    )


@pytest.mark.parametrize("source", ["webhook", "write", "catch_up", "admin"])
@pytest.mark.parametrize("kind", RESOURCE_KINDS)
def test_every_event_about_a_record_that_can_be_read_is_due_at_once(notify: Notify, kind: str, source: str) -> None:
    assert notify.delay_s(event(entity=str(kind), source=source)) == 0.0


@pytest.mark.parametrize(
    "nothing_to_it", [event(record=""), event(entity="calendar"), event(entity="settings"), event(entity="unheard-of")]
)
def test_an_event_about_no_such_record_is_nothing_to_it(notify: Notify, nothing_to_it: Event) -> None:
    assert notify.delay_s(nothing_to_it) is None


async def test_a_batch_is_one_publish_per_account_after_its_invalidations_hold_everywhere(
    notify: Notify, told: Told
) -> None:
    batch = [event("a1"), event("b2", "contacts"), event("c3", instance="guilford"), event("d4")]
    outcomes = await notify.act(batch, ["r"] * 4)
    assert [outcome.ok for outcome in outcomes] == [True] * 4
    published = {instance: uris for what, instance, uris in told.log if what == "published"}
    assert published == {
        "stamford": (
            "jobnimbus://stamford/jobs/a1",
            "jobnimbus://stamford/contacts/b2",
            "jobnimbus://stamford/jobs/d4",
        ),
        "guilford": ("jobnimbus://guilford/jobs/c3",),
    }
    for instance in published:
        assert [what for what, which, _ in told.log if which == instance] == ["dirty", "published"]


UNDER = "jobnimbus://stamford/{}/{}/{}"


@pytest.mark.parametrize("action", ["created", "updated", "deleted", "unknown"])
async def test_lists_under_the_records_it_hangs_on_are_told_too(notify: Notify, told: Told, action: str) -> None:
    await notify.act([event("t1", "tasks", parents=("p2", "p1"), action=action)], ["r"])
    assert told.log[-1] == (
        "published",
        "stamford",
        (
            "jobnimbus://stamford/tasks/t1",
            UNDER.format("jobs", "p1", "tasks"),
            UNDER.format("contacts", "p1", "tasks"),
            UNDER.format("jobs", "p2", "tasks"),
            UNDER.format("contacts", "p2", "tasks"),
        ),
    )


async def test_a_job_hangs_on_contacts_only_and_a_contact_on_nothing(notify: Notify, told: Told) -> None:
    await notify.act([event("j1", parents=("c1",)), event("c1", "contacts", parents=None)], ["r"] * 2)
    assert told.log[-1][2] == (
        "jobnimbus://stamford/jobs/j1",
        UNDER.format("contacts", "c1", "jobs"),
        "jobnimbus://stamford/contacts/c1",
    )


async def test_where_nobody_told_what_it_hangs_on_every_list_of_its_kind_is_told(notify: Notify, told: Told) -> None:
    await notify.act([event("t1", "tasks", parents=None), event("t2", "tasks", parents=None)], ["r"] * 2)
    assert told.log[-1][2] == (
        "jobnimbus://stamford/tasks/t1",
        any_list_of("stamford", Entity.TASKS),
        "jobnimbus://stamford/tasks/t2",
    )


async def test_a_record_that_hangs_on_very_many_is_told_as_if_nobody_knew(notify: Notify, told: Told) -> None:
    parents = tuple(f"p{number}" for number in range(PARENTS_MOST + 1))
    await notify.act([event("t1", "tasks", parents=parents)], ["r"])
    assert told.log[-1][2] == ("jobnimbus://stamford/tasks/t1", any_list_of("stamford", Entity.TASKS))


async def test_an_account_that_cannot_be_told_fails_its_own_events_only(notify: Notify, told: Told) -> None:
    told.away.add("guilford")
    told.cold.add("fairfield")
    batch = [event("a1", instance="guilford"), event("b2"), event("c3", instance="fairfield")]
    away, told_one, cold = await notify.act(batch, ["r"] * 3)
    assert told_one.ok
    assert (away.error, away.away) == ("events_unavailable", True)
    assert (cold.error, cold.away) == ("cache_unavailable", True)
    assert [which for what, which, _ in told.log if what == "published"] == ["stamford"]


def test_its_measures_are_within_what_the_stream_allows(notify: Notify) -> None:
    assert notify.name == "notify"
    assert 1 <= notify.batch_most <= BATCH_MOST
    assert notify.within_s <= ACT_WITHIN_S
