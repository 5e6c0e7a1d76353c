"""Whatever JobNimbus answers and however often a call is repeated: one key, one record, and none that was told of is
missing."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from writes_world import CALLER, World

from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.writes import Link, Write
from jobnimbus_mcp.errors import ProjectError

FATES = ["ok", "lost", "lost_5xx", "lost_html", "broken", "empty", "timeout", "5xx", "unsent", "429", "refused"]

asked = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),  # the key
        st.lists(st.sampled_from(FATES), max_size=2),  # what becomes of the next writes
        st.sampled_from([0.0, 1.0, 5.0, 30.0, 100.0]),  # time until the next call
        st.booleans(),  # by another process
    ),
    min_size=1,
    max_size=8,
)


def task(key: str) -> Write:
    """The same but for the title: JobNimbus has no other way to tell two apart."""
    fields = {"title": f"Call {key}", "date_start": 1_790_000_000, "record_type_name": "Call"}
    return Write(Entity.TASKS, Action.CREATED, fields=fields, links=(Link("mjob1", Entity.JOBS),))


def job(key: str) -> Write:
    fields = {"name": f"Roof {key}", "record_type_name": "Roofing", "status_name": "Lead"}
    return Write(Entity.JOBS, Action.CREATED, fields=fields, links=(Link("mctc1", Entity.CONTACTS),))


@given(asked, st.sampled_from([0.0, 2.0, 5.9]), st.sampled_from([task, job]))
async def test_one_key_makes_one_record_and_what_was_told_is_there(
    calls: list[tuple[str, list[str], float, bool]], lag_s: float, write_of: object
) -> None:
    assert callable(write_of)
    world = World()
    world.jobnimbus.lag_s = lag_s
    told: dict[str, str] = {}
    for key, fates, pause_s, elsewhere in calls:
        world.jobnimbus.script.clear()
        world.jobnimbus.script.extend(fates)
        if elsewhere:
            world.writes = world.another()
        write = write_of(key)
        try:
            made = await world.driven(world.writes.write(write, CALLER, world.call(), idempotency_key=key), step_s=0.5)
        except ProjectError:
            pass
        else:
            assert told.setdefault(key, made.jnid) == made.jnid
        world.clock.advance(pause_s)
        rows = world.jobnimbus.of(write.entity)
        named = [row.get("title") or row.get("name") for row in rows]
        assert len(named) == len(set(named))
        assert set(told.values()) <= {row["jnid"] for row in rows}
        await asyncio.sleep(0)


@given(asked)
async def test_a_change_that_was_told_as_done_holds_and_one_that_was_refused_was_not_told(
    calls: list[tuple[str, list[str], float, bool]],
) -> None:
    world = World()
    world.jobnimbus.put(Entity.JOBS, "mjob1", name="Whitfield", type="job")
    for number, (_, fates, pause_s, _) in enumerate(calls):
        world.jobnimbus.script.clear()
        world.jobnimbus.script.extend(fates)
        name, before = f"Roof {number}", len(world.told.written)
        write = Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": name})
        try:
            await world.driven(world.writes.write(write, CALLER, world.call()), step_s=0.5)
        except ProjectError as error:
            was_sent_in_doubt = error.code == "write_outcome_unknown"
            assert len(world.told.written) - before == int(was_sent_in_doubt)
            if not was_sent_in_doubt:
                assert world.jobnimbus.records[Entity.JOBS, "mjob1"]["name"] != name
        else:
            assert len(world.told.written) - before == 1
            assert world.jobnimbus.records[Entity.JOBS, "mjob1"]["name"] == name
        world.clock.advance(pause_s)
