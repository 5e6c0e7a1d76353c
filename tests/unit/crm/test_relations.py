"""The invalidation rules, as a table: what a change renews, and what it leaves alone."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.crm.relations import tags_of_change, tags_of_read

JOB, OTHER_JOB, CONTACT = "mjob1", "mjob2", "mctc1"


def listed(entity: Entity, under: str | None = None) -> Read:
    scope = frozenset({under}) if under else frozenset()
    where = (Is("related.id", under),) if under else ()
    return Read.block(entity, where, Sort(), 0, scope=scope)


def searched(entity: Entity) -> Read:
    return Read.scan(entity, (), operation=Operation.SEARCH)


CALENDAR = Read.scan(Entity.CALENDAR, ())
READS = {
    "job": Read.record(Entity.JOBS, JOB),
    "other job": Read.record(Entity.JOBS, OTHER_JOB),
    "jobs": listed(Entity.JOBS),
    "job search": searched(Entity.JOBS),
    "calendar": CALENDAR,
    "activities": listed(Entity.ACTIVITIES),
    "job's activities": listed(Entity.ACTIVITIES, JOB),
    "job's files": listed(Entity.ATTACHMENTS, JOB),
    "job's tasks": listed(Entity.TASKS, JOB),
    "job's estimates": listed(Entity.ESTIMATES, JOB),
    "other job's files": listed(Entity.ATTACHMENTS, OTHER_JOB),
    "files": listed(Entity.ATTACHMENTS),
    "contact's jobs": listed(Entity.JOBS, CONTACT),
    "contacts": listed(Entity.CONTACTS),
    "users": Read.whole(Entity.USERS),
}
UNDER_JOB = {"job's activities", "job's files", "job's tasks", "job's estimates"}
JOB_LISTS = {"jobs", "job search", "calendar", "contact's jobs"}


def dirtied(change: Change) -> set[str]:
    tags = set(tags_of_change(change))
    return {name for name, read in READS.items() if tags & set(tags_of_read(read))}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.UPDATED),
            {"job", *JOB_LISTS, *UNDER_JOB, "activities"},
        ),
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.UNKNOWN, frozenset({CONTACT})),
            {"job", *JOB_LISTS, *UNDER_JOB, "activities"},
        ),
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.DELETED),
            {"job", *JOB_LISTS, *UNDER_JOB, "activities"},
        ),
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.CREATED),
            {"job", *JOB_LISTS, "activities", "job's activities"},
        ),
        (
            Change(EntityRef(Entity.ATTACHMENTS, "f1"), Action.CREATED, frozenset({OTHER_JOB})),
            {"files", "other job's files", "activities", "job's activities"},
        ),
        (
            Change(EntityRef(Entity.ATTACHMENTS, "f1"), Action.UPDATED, frozenset({OTHER_JOB})),
            {"files", "job's files", "other job's files", "activities", "job's activities"},
        ),
        (
            Change(EntityRef(Entity.TASKS, "t1"), Action.CREATED, frozenset({JOB})),
            {"job's tasks", "calendar", "activities", "job's activities"},
        ),
        (
            Change(EntityRef(Entity.CONTACTS, CONTACT), Action.UPDATED),
            {"contacts", "contact's jobs", "activities", "job's activities"},
        ),
        (
            Change(EntityRef(Entity.WORKORDERS, "w1"), Action.UPDATED),
            {"calendar", "activities", "job's activities"},
        ),
        (Change(EntityRef(Entity.USERS, "u1"), Action.UPDATED), {"users", "activities", "job's activities"}),
        (
            Change(EntityRef(Entity.USERS, "u1"), Action.CREATED, frozenset()),
            {"users", "activities", "job's activities"},
        ),
    ],
    ids=lambda value: f"{value.ref.entity} {value.action}" if isinstance(value, Change) else "",
)
def test_a_change_renews_exactly(change: Change, expected: set[str]) -> None:
    assert dirtied(change) == expected


def test_a_file_created_without_named_parents_renews_every_list_of_files() -> None:
    change = Change(EntityRef(Entity.ATTACHMENTS, "f1"), Action.CREATED, None)

    assert {"files", "job's files", "other job's files"} <= dirtied(change)


def test_every_read_carries_the_tags_that_admins_invalidate_by() -> None:
    for read in READS.values():
        entity, operation = read.entity.value, read.operation.value
        assert {entity, f"{entity}:{operation}", f"{entity}:{operation}:{read.identifier}"} <= set(tags_of_read(read))
