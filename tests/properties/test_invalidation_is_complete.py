"""If a change alters JobNimbus's answer to a read, the change renews a tag that the read hangs on.

The truth is the simulated account: every read is asked before and after a random change, and what JobNimbus derives by
itself (roll-ups) is left out of the comparison, as the table of exceptions says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobnimbus_mcp import simulator
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.query import AnyOf, Between, Is, Not, OneOf, Sort, Where
from jobnimbus_mcp.crm.reads import Operation, Read, Shape
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS, tags_of_change, tags_of_read
from jobnimbus_mcp.events.envelope import parse_body
from jobnimbus_mcp.simulator import ROLLUP_FIELDS, Account, Simulator
from jobnimbus_mcp.simulator.shapes import BLANK
from jobnimbus_mcp.simulator.webhook_bodies import webhook_body
from jobnimbus_mcp.upstream.request import page_request

API_NAMES = {
    Entity.JOBS: "jobs",
    Entity.CONTACTS: "contacts",
    Entity.ESTIMATES: "estimates",
    Entity.TASKS: "tasks",
    Entity.ACTIVITIES: "activities",
    Entity.ATTACHMENTS: "files",
    Entity.WORKORDERS: "workorders",
    Entity.INVOICES: "invoices",
    Entity.PAYMENTS: "payments",
    Entity.PRODUCTS: "products",
    Entity.MATERIALORDERS: "materialorders",
    Entity.BUDGETS: "budgets",
}
CHANGED = tuple(API_NAMES.values())
CALENDAR_PARTS = (Entity.TASKS, Entity.JOBS, Entity.WORKORDERS)
ACTIONS = {"created": Action.CREATED, "updated": Action.UPDATED, "deleted": Action.DELETED}


@pytest.fixture(scope="module")
def account() -> Account:
    return Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")


def test_the_exceptions_are_those_the_upstream_derives() -> None:
    derived = {entity: ROLLUP_FIELDS[name] for entity, name in API_NAMES.items() if ROLLUP_FIELDS[name]}
    # The table has one set for all kinds with roll-ups; what a kind does not have at all, it need not derive.
    excepted = {entity: fields & set(BLANK[API_NAMES[entity]]) for entity, fields in DERIVED_FIELDS.items()}

    assert derived == excepted


def answer(account: Account, read: Read, exceptions: Mapping[Entity, frozenset[str]] = DERIVED_FIELDS) -> str:
    """What JobNimbus says now, `exceptions` left out, in a form that can be compared."""
    if read.entity is Entity.CALENDAR:
        return "".join(
            rows(
                account,
                part,
                (*read.where, Not(Is("hide_from_calendarview", True))),
                Sort("date_start", False),
                exceptions,
            )
            for part in CALENDAR_PARTS
        )
    if read.shape is Shape.RECORD:
        return shown(account.get(API_NAMES[read.entity], read.record_id), exceptions.get(read.entity, frozenset()))
    return rows(account, read.entity, read.where, read.sort, exceptions)


def rows(
    account: Account, entity: Entity, where: Where, sort: Sort, exceptions: Mapping[Entity, frozenset[str]]
) -> str:
    request = page_request(entity, where, sort, offset=0, size=100)
    count, found = account.list(API_NAMES[entity], dict(request.params))
    return json.dumps([count]) + "".join(shown(row, exceptions.get(entity, frozenset())) for row in found)


def shown(row: Mapping[str, Any] | None, left_out: frozenset[str]) -> str:
    if row is None:
        return "none"
    return json.dumps({key: value for key, value in row.items() if key not in left_out}, sort_keys=True)


def reads_about(record: Mapping[str, Any], others: list[str]) -> list[Read]:
    """Every kind of read this server makes, aimed at the record, at its parents, and at somebody else's."""
    parents = [link["id"] for link in record.get("related") or []]
    if record.get("primary"):
        parents.append(record["primary"]["id"])
    scopes = list(dict.fromkeys([*parents, record["jnid"], *others]))
    made = [
        Read.scan(Entity.CALENDAR, (Between("date_start", 1_780_000_000, 1_800_000_000),)),
        *(Read.record(entity, record["jnid"]) for entity in API_NAMES),
        *(Read.record(Entity.JOBS, scope) for scope in scopes),
    ]
    here = OneOf("jnid", (record["jnid"],))  # lists of the whole account, narrowed to where a difference would show
    for entity in API_NAMES:
        made.append(Read.block(entity, (), Sort("date_updated"), 0))
        made.append(Read.block(entity, (here,), Sort(), 0))
        made.append(Read.scan(entity, (here, Not(Is("is_archived", True))), operation=Operation.SEARCH))
        for scope in scopes:
            belongs = AnyOf((Is("primary.id", scope), Is("related.id", scope)))
            where: Where = (belongs,) if entity is Entity.JOBS else (Is("related.id", scope),)
            made.append(Read.block(entity, where, Sort(), 0, scope=frozenset({scope})))
    if record.get("number"):
        number = OneOf("number", (str(record["number"]),))
        made.append(Read.scan(Entity.JOBS, (number,), operation=Operation.SEARCH))
    return made


edits = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["Renamed job", "Another name"]),
        "title": st.just("Another title"),
        "note": st.just("Another note"),
        "description": st.sampled_from(["hail", "wind"]),
        "status_name": st.sampled_from(["Approved", "Lead", "In Production"]),
        "is_completed": st.booleans(),
        "is_archived": st.booleans(),
        "date_start": st.integers(1_790_000_000, 1_795_000_000),
        "number": st.sampled_from(["9999", "22-1275"]),
        "move": st.just(True),
        "status": st.sampled_from([1, 2, 4]),
        "total": st.sampled_from([0, 4711]),
        "refunded_amount": st.just(100),
        "revenue": st.just(9000),
        "items": st.just([{"name": "Ridge vent", "quantity": 3, "price": 11, "cost": 5}]),
    },
)


def told_of(changed: simulator.Change) -> Change:
    """The change as our own write tells it."""
    primary = changed.record.get("primary")
    links = [*(changed.record.get("related") or []), *([primary] if primary else [])]
    ref = parse_body(webhook_body(changed.record, lambda user: None)).change.ref
    return Change(
        EntityRef(ref.entity, changed.record["jnid"]),
        ACTIONS[changed.action],
        frozenset(link["id"] for link in links),
    )


@settings(max_examples=50)
@given(st.data())
def test_a_change_that_alters_an_answer_renews_one_of_its_tags(account: Account, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(CHANGED), label="kind")
    live = [record["jnid"] for record in account.records(kind)]
    jobs = [record["jnid"] for record in account.records("jobs")]
    jnid = data.draw(st.sampled_from(live), label="record")
    other = data.draw(st.sampled_from(jobs), label="other job")
    action = data.draw(st.sampled_from(["create", "update", "update", "delete"]), label="action")
    record = account.get(kind, jnid)
    assert record is not None
    fields: dict[str, Any] = dict(data.draw(edits, label="edits"))
    if fields.pop("move", False):
        link = {"id": other, "type": "job", "name": "elsewhere"}
        fields |= {"primary": link} if kind in ("activities", "jobs") else {"related": [link]}

    after = copy.copy(account)
    match action:
        case "create":
            unlike = {"jnid", "recid", "number", "display_name", "name", "date_created", "date_updated"}
            copied = {key: value for key, value in record.items() if key not in unlike}
            fresh = {"name": "A new job", "display_name": "A new contact", "number": "77001"}
            changes = after.create(kind, {**copied, **{key: fresh[key] for key in fresh if key in record}, **fields})
        case "update":
            changes = after.update(kind, jnid, fields)
        case _:
            changes = after.delete(kind, jnid)
    if not changes:
        return
    changed = changes[0]
    body = parse_body(webhook_body(changed.record, lambda user: None))
    bare_tags, told_tags = set(tags_of_change(body.change)), set(tags_of_change(told_of(changed)))
    for read in dict.fromkeys(reads_about(record, [other]) + reads_about(changed.record, [other])):
        tags = set(tags_of_read(read))
        if tags & bare_tags and tags & told_tags:
            continue  # renewed, whether or not it had to be
        assert answer(account, read) == answer(after, read), f"a {kind} {action} leaves {read} as it was"


@pytest.mark.parametrize("action", ["create", "update", "delete"])
def test_what_comes_in_renews_what_is_paid_and_due_of_the_invoice(account: Account, action: str) -> None:
    """Roll-ups may lag, but an invoice is read for what is due: here the exceptions do not count."""
    payment = next(row for row in account.records("payments") if row["invoices"] and not row["refunded_amount"])
    invoice_id, links = payment["invoices"][0]["invoice_id"], [link["id"] for link in payment["related"]]
    after = copy.copy(account)
    match action:
        case "create":
            entries = [{"invoice_id": invoice_id, "amount": 5}]
            changed = after.create("payments", {"total": 5, "related": payment["related"], "invoices": entries})[0]
        case "update":
            changed = after.update("payments", payment["jnid"], {"refunded_amount": 50})[0]
        case _:
            changed = after.delete("payments", payment["jnid"])[0]
    body = parse_body(webhook_body(changed.record, lambda user: None))
    reads = [
        Read.record(Entity.INVOICES, invoice_id),
        Read.block(Entity.INVOICES, (OneOf("jnid", (invoice_id,)),), Sort(), 0),
        Read.scan(Entity.INVOICES, (OneOf("jnid", (invoice_id,)),), operation=Operation.SEARCH),
        *(Read.block(Entity.INVOICES, (Is("related.id", link),), Sort(), 0, scope=frozenset({link})) for link in links),
    ]
    altered = [read for read in reads if answer(account, read, {}) != answer(after, read, {})]

    assert altered == reads
    for change in (body.change, told_of(changed)):
        renewed = set(tags_of_change(change))
        assert [read for read in altered if renewed.isdisjoint(tags_of_read(read))] == []


@pytest.mark.parametrize("parents", [None, frozenset[str]()])
def test_an_added_setting_renews_the_settings(parents: frozenset[str] | None) -> None:
    added = Change(EntityRef(Entity.SETTINGS, "7"), Action.CREATED, parents)

    assert set(tags_of_change(added)) & set(tags_of_read(Read.whole(Entity.SETTINGS)))
