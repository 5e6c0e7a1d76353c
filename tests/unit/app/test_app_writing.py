"""The event of a write: what it renews, what it is known by, and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from jobnimbus_mcp.app.writing import WriteTeller, event_of_write
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.envelope import version_key
from jobnimbus_mcp.events.event import Event, decode, encode
from jobnimbus_mcp.events.found import deletion_key
from jobnimbus_mcp.events.ports import Appended
from jobnimbus_mcp.gateway.carrier import Written

CALL = Call.begin(ManualClock(), "req-1", tool="create_task")
TASK = {
    "jnid": "mtsk1",
    "date_updated": 1_790_000_005,
    "related": [{"id": "mjob1", "type": "job"}],
    "primary": {"id": "mctc1"},
}


def written(entity: Entity, jnid: str, action: Action, record: dict[str, Any] | None = None) -> Written:
    return Written("stamford", EntityRef(entity, jnid), action, record or {}, '{"by": "crew-bot"}')


def event(told: Written) -> Event:
    return event_of_write(told, event_id="e" * 32, at=1_790_000_006.5, call=CALL)


def test_a_new_record_renews_the_lists_of_what_it_hangs_on() -> None:
    made = event(written(Entity.TASKS, "mtsk1", Action.CREATED, TASK))

    change = Change(
        EntityRef(Entity.TASKS, "mtsk1"), Action.CREATED, frozenset({"mjob1", "mctc1"}), occurred_at=1_790_000_005
    )
    assert made == Event.of_change(
        change,
        event_id="e" * 32,
        instance="stamford",
        name="task.created",
        tags=tags_of_change(change),
        source="write",
        received_at=1_790_000_006.5,
        version_key=version_key("stamford", "tasks", "mtsk1", 1_790_000_005),
        request_id="req-1",
        body='{"by": "crew-bot"}',
    )
    assert "tasks@mjob1" in made.tags
    assert decode(encode(made), made.body) == made


def test_a_record_whose_links_are_not_told_renews_every_list_of_its_kind() -> None:
    made = event(written(Entity.TASKS, "mtsk1", Action.CREATED, {"jnid": "mtsk1"}))

    assert (made.parents, made.occurred_at, made.version_key) == (None, None, "")
    assert {"tasks:list", "tasks:search"} <= set(made.tags)


def test_it_is_never_a_duplicate_and_catch_up_knows_its_version() -> None:
    made = event(written(Entity.TASKS, "mtsk1", Action.UPDATED, TASK))

    assert made.dedupe_key == ""
    assert made.version_key == version_key("stamford", "tasks", "mtsk1", 1_790_000_005)


def test_a_deletion_is_what_the_sweep_would_find() -> None:
    made = event(written(Entity.JOBS, "mjob1", Action.DELETED, TASK))

    assert (made.name, made.action, made.occurred_at, made.parents) == ("job.deleted", "deleted", None, None)
    assert made.version_key == deletion_key("stamford", Entity.JOBS, "mjob1")


@pytest.mark.parametrize("value", ["soon", 0, 1e300, float("inf"), None])
def test_a_date_that_is_none_is_no_version(value: Any) -> None:
    made = event(written(Entity.TASKS, "mtsk1", Action.UPDATED, TASK | {"date_updated": value}))
    assert (made.occurred_at, made.version_key) == (None, "")


def test_what_may_have_been_made_renews_everything_it_could_stand_in() -> None:
    made = event(written(Entity.TASKS, "", Action.UNKNOWN))

    assert made.tags == ("tasks:list", "tasks:search", "calendar:list", "activities:list")
    assert (made.name, made.change, made.version_key) == ("task.changed", None, "")


def test_what_may_have_been_changed_renews_the_record_too() -> None:
    made = event(written(Entity.INVOICES, "minv1", Action.UNKNOWN))

    assert {"invoices:detail:minv1", "invoices:list", "invoices:search"} <= set(made.tags)
    assert made.change == Change(EntityRef(Entity.INVOICES, "minv1"), Action.UNKNOWN)


def test_settings_are_renewed_as_one_document() -> None:
    made = event(written(Entity.SETTINGS, "all", Action.UPDATED, {"id": 7}))

    assert {"settings:list", "settings:detail:all"} <= set(made.tags)
    assert (made.record_id, made.change, made.name) == ("", None, "settings.updated")


async def test_the_teller_appends_and_lets_a_refusal_through() -> None:
    appended: list[tuple[Event, Call]] = []
    clock = ManualClock()

    async def append(event: Event, call: Call) -> Appended:
        appended.append((event, call))
        if len(appended) > 1:
            raise CacheUnavailable("away")
        return Appended(event.event_id, False, 0.0)

    tell = WriteTeller(append, event_id=lambda: "e" * 32, clock=clock)
    told = written(Entity.TASKS, "mtsk1", Action.CREATED, TASK)
    await tell(told, CALL)
    with pytest.raises(CacheUnavailable):
        await tell(told, CALL)

    assert appended[0] == (event_of_write(told, event_id="e" * 32, at=clock.now(), call=CALL), CALL)
