"""What tags tell of the records behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.relations import tags_of_change, tags_of_read
from jobnimbus_mcp.crm.told import Told, told_of


def tags(
    entity: Entity, jnid: str, action: Action = Action.UNKNOWN, parents: frozenset[str] | None = None
) -> list[str]:
    return list(tags_of_change(Change(EntityRef(entity, jnid), action, parents)))


def under(entity: Entity, parent: str) -> Read:
    return Read.block(entity, (Is("related.id", parent),), Sort(), 0, scope=frozenset({parent}))


JOBS = Read.scan(Entity.JOBS, ())
TASKS = under(Entity.TASKS, "j1")
ENTRIES = under(Entity.ACTIVITIES, "j1")
INVOICES = Read.scan(Entity.INVOICES, ())
PARENT = frozenset({EntityRef(Entity.JOBS, "j1")})


@pytest.mark.parametrize(
    ("read", "changes", "told"),
    [
        (JOBS, [], Told()),
        (JOBS, [tags(Entity.JOBS, "j1"), tags(Entity.JOBS, "j2", Action.DELETED)], Told(frozenset({"j1", "j2"}))),
        (JOBS, [tags(Entity.TASKS, "t1")], Told()),
        (TASKS, [tags(Entity.TASKS, "t1", Action.CREATED, frozenset({"j1"}))], Told(frozenset({"t1"}))),
        (TASKS, [tags(Entity.TASKS, "t1", Action.CREATED, frozenset({"j2"}))], Told()),
        (TASKS, [tags(Entity.JOBS, "j2")], Told()),
        (TASKS, [tags(Entity.JOBS, "j1", Action.CREATED, frozenset())], Told()),
        # what its rows hang on has changed
        (TASKS, [tags(Entity.JOBS, "j1")], Told(parents=PARENT)),
        (TASKS, [tags(Entity.TASKS, "t1") + tags(Entity.JOBS, "j1")], Told(frozenset({"t1"}), parents=PARENT)),
        (TASKS, [tags(Entity.JOBS, "j1"), tags(Entity.TASKS, "t1")], Told(frozenset({"t1"}), parents=PARENT)),
        (TASKS, [[*tags(Entity.JOBS, "j1"), "tasks:list"]], None),
        # renewed by a tag and not by a name
        (JOBS, [["jobs"]], None),
        (JOBS, [["jobs:list"]], None),
        (TASKS, [tags(Entity.TASKS, "t1"), ["tasks@j1"]], None),
        (Read.record(Entity.JOBS, "j1"), [["jobs:detail"]], None),
        (Read.record(Entity.JOBS, "j1"), [tags(Entity.JOBS, "j2")], Told()),
        # a payment moves what its invoices say
        (INVOICES, [tags(Entity.PAYMENTS, "p1", Action.UNKNOWN, frozenset({"i1"}))], None),
        (INVOICES, [tags(Entity.PAYMENTS, "p1") + tags(Entity.INVOICES, "i1")], None),
        # whatever happens anywhere is written to the activity log, by itself
        (ENTRIES, [tags(Entity.JOBS, "j2")], Told(logged=True)),
        (ENTRIES, [tags(Entity.TASKS, "t1"), tags(Entity.ACTIVITIES, "a1")], Told(frozenset({"a1"}), logged=True)),
        (ENTRIES, [tags(Entity.JOBS, "j1")], Told(logged=True, parents=PARENT)),
        (ENTRIES, [tags(Entity.JOBS, "j1", Action.CREATED, frozenset())], Told(logged=True, parents=PARENT)),
        (ENTRIES, [tags(Entity.TASKS, "t1"), ["activities:list"]], None),
    ],
)
def test_tags_name_the_records_that_changed_or_tell_that_something_did(
    read: Read, changes: list[list[str]], told: Told | None
) -> None:
    assert told_of((read,), changes) == told


def test_what_concerns_one_of_two_reads_concerns_what_is_made_of_both() -> None:
    every = Read.scan(Entity.TASKS, ())
    assert told_of((every,), [tags(Entity.JOBS, "j1")]) == Told()
    assert told_of((every, TASKS), [tags(Entity.JOBS, "j1")]) == Told(parents=PARENT)
    assert told_of((every, TASKS), [["tasks@j1"]]) is None


KINDS = st.sampled_from(
    [Entity.JOBS, Entity.CONTACTS, Entity.TASKS, Entity.PAYMENTS, Entity.INVOICES, Entity.ACTIVITIES]
)
CHANGES = st.builds(
    Change,
    st.builds(EntityRef, KINDS, st.sampled_from(["x1", "x2", "x3"])),
    st.sampled_from(Action),
    st.none() | st.frozensets(st.sampled_from(["x1", "x2"])),
)


@given(CHANGES, KINDS, st.sampled_from(["x1", "x2"]))
def test_a_change_that_renews_a_list_is_never_told_as_nothing(change: Change, entity: Entity, parent: str) -> None:
    for read in (Read.scan(entity, ()), under(entity, parent), Read.record(entity, parent)):
        told = told_of((read,), [tags_of_change(change)])
        if told == Told():
            assert set(tags_of_change(change)).isdisjoint(tags_of_read(read))
        elif told is not None and change.ref.entity is entity:
            assert change.ref.jnid in told.named
        elif told is not None and f"{entity}@{change.ref.jnid}" in {*tags_of_read(read)} & {*tags_of_change(change)}:
            assert change.ref in told.parents
