"""The invalidation rules, as a table: what a change renews, what it leaves alone, and which floors it raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.query import Is, Sort
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.crm.relations import floors_of_change, floors_of_read, tags_of_change, tags_of_read

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


def test_a_payment_renews_every_invoice() -> None:
    """What is paid and due of an invoice moves with its payments, without a word about the invoice."""
    change = Change(EntityRef(Entity.PAYMENTS, "p1"), Action.UPDATED, frozenset({JOB}))

    assert {"invoices:list", "invoices:search", "invoices:detail"} <= set(tags_of_change(change))


def test_every_read_carries_the_tags_that_admins_invalidate_by() -> None:
    for read in READS.values():
        entity, operation = read.entity.value, read.operation.value
        assert {entity, f"{entity}:{operation}", f"{entity}:{operation}:{read.identifier}"} <= set(tags_of_read(read))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.UPDATED, None, 1_790_000_000),
            {
                "jobs": 0,
                "jobs:mjob1": 1_790_000_000,
                "calendar": 0,
                "activities": 0,
                "attachments@mjob1": 0,
                "tasks@mjob1": 0,
                "estimates@mjob1": 0,
                "invoices@mjob1": 0,
                "payments@mjob1": 0,
                "workorders@mjob1": 0,
                "materialorders@mjob1": 0,
                "budgets@mjob1": 0,
            },
        ),
        (
            Change(EntityRef(Entity.JOBS, JOB), Action.CREATED, frozenset({CONTACT})),
            {"jobs": 0, "jobs:mjob1": 0, "calendar": 0, "activities": 0},
        ),
        (
            Change(EntityRef(Entity.ATTACHMENTS, "f1"), Action.UNKNOWN, None, 5),
            {"attachments": 0, "attachments:f1": 5, "activities": 0},
        ),
        (
            Change(EntityRef(Entity.PAYMENTS, "p1"), Action.CREATED, frozenset({JOB}), 6),
            {"payments": 0, "payments:p1": 6, "invoices": 0, "activities": 0},
        ),
        (
            Change(EntityRef(Entity.ACTIVITIES, "a1"), Action.DELETED, None, 7),
            {"activities": 0, "activities:a1": 7},
        ),
    ],
    ids=lambda value: f"{value.ref.entity} {value.action}" if isinstance(value, Change) else "",
)
def test_a_change_raises_exactly_these_floors(change: Change, expected: dict[str, int]) -> None:
    assert floors_of_change(change) == expected


@pytest.mark.parametrize(
    ("read", "floors"),
    [
        ("job", ()),
        ("jobs", ("jobs",)),
        ("job search", ("jobs",)),
        ("calendar", ("calendar",)),
        ("job's files", ("attachments", "attachments@mjob1")),
        ("users", ("users",)),
    ],
)
def test_lists_and_searches_settle_and_single_records_do_not(read: str, floors: tuple[str, ...]) -> None:
    assert floors_of_read(READS[read]) == floors


@pytest.mark.parametrize("entity", [Entity.ATTACHMENTS, Entity.PAYMENTS])
def test_a_record_that_only_lists_show_settles_after_its_own_change_and_no_other_s(entity: Entity) -> None:
    for action in Action:
        raised = floors_of_change(Change(EntityRef(entity, "one"), action)).keys()
        assert raised & set(floors_of_read(Read.record(entity, "one")))
        assert not raised & set(floors_of_read(Read.record(entity, "two")))


@given(
    st.builds(
        Change,
        st.builds(EntityRef, st.sampled_from(Entity), st.sampled_from([JOB, OTHER_JOB, CONTACT, "other"])),
        st.sampled_from(Action),
        st.none() | st.frozensets(st.sampled_from([JOB, CONTACT])),
        st.none() | st.integers(1, 2_000_000_000),
    ),
    st.builds(
        lambda entity, under, search: searched(entity) if search else listed(entity, under),
        st.sampled_from(Entity),
        st.none() | st.sampled_from([JOB, OTHER_JOB, CONTACT]),
        st.booleans(),
    ),
)
def test_a_list_that_a_change_renews_settles_after_it(change: Change, read: Read) -> None:
    if set(tags_of_change(change)) & set(tags_of_read(read)):
        assert floors_of_change(change).keys() & set(floors_of_read(read))
