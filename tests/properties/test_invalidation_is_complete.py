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

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.query import AnyOf, Between, Is, Not, OneOf, Sort, Where
from jobnimbus_mcp.crm.reads import Operation, Read, Shape
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS, tags_of_change, tags_of_read
from jobnimbus_mcp.events.envelope import parse_body
from jobnimbus_mcp.simulator import ROLLUP_FIELDS, Account, Simulator
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
}
CHANGED = ("jobs", "contacts", "estimates", "tasks", "activities", "files", "workorders")
CALENDAR_PARTS = (Entity.TASKS, Entity.JOBS, Entity.WORKORDERS)
ACTIONS = {"created": Action.CREATED, "updated": Action.UPDATED, "deleted": Action.DELETED}


@pytest.fixture(scope="module")
def account() -> Account:
    return Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")


def test_the_exceptions_are_those_the_upstream_derives() -> None:
    derived = {entity: ROLLUP_FIELDS[API_NAMES[entity]] for entity in API_NAMES if ROLLUP_FIELDS[API_NAMES[entity]]}

    assert derived == dict(DERIVED_FIELDS)


def answer(account: Account, read: Read) -> str:
    """What JobNimbus says now, roll-ups left out, in a form that can be compared."""
    if read.entity is Entity.CALENDAR:
        return "".join(
            rows(account, part, (*read.where, Not(Is("hide_from_calendarview", True))), Sort("date_start", False))
            for part in CALENDAR_PARTS
        )
    if read.shape is Shape.RECORD:
        return shown(read.entity, account.get(API_NAMES[read.entity], read.record_id))
    return rows(account, read.entity, read.where, read.sort)


def rows(account: Account, entity: Entity, where: Where, sort: Sort) -> str:
    request = page_request(entity, where, sort, offset=0, size=100)
    count, found = account.list(API_NAMES[entity], dict(request.params))
    return json.dumps([count]) + "".join(shown(entity, row) for row in found)


def shown(entity: Entity, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "none"
    derived = DERIVED_FIELDS.get(entity, frozenset())
    return json.dumps({key: value for key, value in row.items() if key not in derived}, sort_keys=True)


def reads_about(record: Mapping[str, Any], others: list[str]) -> list[Read]:
    """Every kind of read this server makes, aimed at the record, at its parents, and at somebody else's."""
    parents = [link["id"] for link in record.get("related") or []]
    if record.get("primary"):
        parents.append(record["primary"]["id"])
    scopes = list(dict.fromkeys([*parents, record["jnid"], *others]))
    made = [
        Read.scan(Entity.CALENDAR, (Between("date_start", 1_780_000_000, 1_800_000_000),)),
        *(Read.record(entity, record["jnid"]) for entity in (Entity.JOBS, Entity.CONTACTS)),
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
    },
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
    primary = changed.record.get("primary")
    links = [*(changed.record.get("related") or []), *([primary] if primary else [])]
    told = Change(
        EntityRef(body.change.ref.entity, changed.record["jnid"]),
        ACTIONS[changed.action],
        frozenset(link["id"] for link in links),
    )

    bare_tags, told_tags = set(tags_of_change(body.change)), set(tags_of_change(told))
    for read in reads_about(record, [other]) + reads_about(changed.record, [other]):
        tags = set(tags_of_read(read))
        if tags & bare_tags and tags & told_tags:
            continue  # renewed, whether or not it had to be
        assert answer(account, read) == answer(after, read), f"a {kind} {action} leaves {read} as it was"
