"""The invalidation rules, all of them: which tags a read hangs on, and which tags a change renews.

The one law: if a change can alter the answer to a read, `tags_of_change` and `tags_of_read` share a tag.

Tags, from coarse to fine, for a kind of record E:

    E                       everything about E (nothing here renews it: it is for admins)
    E:list  E:search        every list, every search
    E:list:<identifier>     one question (the key's last segment), for admins; E:detail:<jnid> is a record's own
    E@any                   lists and searches over the whole account
    E@<id>                  lists limited to what hangs on the record <id>

A created record can only add itself to lists of the whole account and to those of the parents it names, so that is all
that is renewed when the parents are known. A changed or deleted one may have hung on a parent that nobody names any
more: every list of its kind goes. JobNimbus's own webhooks name no action, and are read as all three at once.

Floors, beside the tags: what is fetched after a change may still be older than it, because lists and searches come from
an index that lags behind the records. Names of floors, for a kind of record E:

    E            lists and searches of E may lag
    E@<id>       those limited to what hangs on the record <id> may
    E:<jnid>     this record is at least of the version told

Source: JobNimbus API documentation, hints of the back end (lists are an Elasticsearch index, a record by its id is
current; observed to lag by up to about 6 s).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Change, Entity
from jobnimbus_mcp.crm.reads import Read, Shape

__all__ = [
    "ACCOUNT_WIDE",
    "CALENDAR_KINDS",
    "CHILDREN",
    "DERIVED_FIELDS",
    "floors_of_change",
    "floors_of_read",
    "record_floor",
    "tags_of_change",
    "tags_of_read",
]

ACCOUNT_WIDE = "any"

CALENDAR_KINDS = frozenset({Entity.JOBS, Entity.TASKS, Entity.WORKORDERS})
"""What a calendar is made of: scheduled tasks, jobs and work orders."""

_UNDER_A_RECORD = (
    Entity.ATTACHMENTS,
    Entity.ACTIVITIES,
    Entity.TASKS,
    Entity.ESTIMATES,
    Entity.INVOICES,
    Entity.PAYMENTS,
    Entity.WORKORDERS,
    Entity.MATERIALORDERS,
    Entity.BUDGETS,
)

CHILDREN: Mapping[Entity, tuple[Entity, ...]] = MappingProxyType(
    {
        Entity.JOBS: _UNDER_A_RECORD,
        Entity.CONTACTS: (*_UNDER_A_RECORD, Entity.JOBS),
        Entity.ESTIMATES: (Entity.ATTACHMENTS,),
        Entity.INVOICES: (Entity.ATTACHMENTS, Entity.PAYMENTS),
        Entity.MATERIALORDERS: (Entity.ATTACHMENTS,),
        Entity.WORKORDERS: (Entity.ATTACHMENTS, Entity.TASKS),
    }
)
"""Kinds whose lists under a record are renewed when that record itself changes: they show its name and number, and a
restricted key's view of them may follow its owners."""

_ROLLUPS = frozenset(
    {
        "task_count",
        "attachment_count",
        "approved_estimate_total",
        "last_estimate",
        "last_estimate_jnid",
        "last_estimate_number",
        "last_estimate_date_created",
        "last_estimate_date_estimate",
        "approved_invoice_total",
        "approved_invoice_due",
        "last_invoice",
        "last_invoice_jnid",
        "last_invoice_number",
        "last_invoice_date_created",
        "last_invoice_date_invoice",
        "last_budget_revenue",
        "last_budget_gross_profit",
        "last_budget_gross_margin",
        "parent_approved_estimate_total",
        "parent_approved_invoice_total",
        "parent_approved_invoice_due",
        "parent_last_estimate",
        "parent_last_invoice",
    }
)

_PAID = frozenset({"total_paid", "due", "date_paid_in_full", "first_payment_date", "payments"})
"""Of an invoice, as payments come in. A payment that is told of renews all that is kept about invoices too."""

DERIVED_FIELDS: Mapping[Entity, frozenset[str]] = MappingProxyType(
    {Entity.JOBS: _ROLLUPS, Entity.CONTACTS: _ROLLUPS, Entity.WORKORDERS: _ROLLUPS, Entity.INVOICES: _PAID}
)
"""The exceptions to the law: fields that JobNimbus computes from a record's children without touching the record (no
webhook, no `date_updated`). They may lag until the entry's lifetime ends. Source: JobNimbus API documentation, shared
record conventions ("rollups")."""


def tags_of_read(read: Read) -> tuple[str, ...]:
    """Every tag whose renewal makes the kept answer to this read worthless."""
    entity, operation = read.entity.value, read.operation.value
    tags = [entity, f"{entity}:{operation}", f"{entity}:{operation}:{read.identifier}"]
    if read.shape is not Shape.RECORD:
        tags += [f"{entity}@{parent}" for parent in sorted(read.scope)] or [f"{entity}@{ACCOUNT_WIDE}"]
    return tuple(tags)


def tags_of_change(change: Change) -> tuple[str, ...]:
    """Every tag that this change renews, in a fixed order, without repeats."""
    entity, jnid = change.ref.entity, change.ref.jnid
    tags = [f"{entity}:detail:{jnid}"]
    if change.action is Action.CREATED and change.parents is not None:
        tags.append(f"{entity}@{ACCOUNT_WIDE}")
        tags += [f"{entity}@{parent}" for parent in sorted(change.parents)]
    else:
        tags += [f"{entity}:list", f"{entity}:search"]
    if entity in CALENDAR_KINDS:
        tags.append(f"{Entity.CALENDAR}:list")
    if change.action is not Action.CREATED:
        tags += [f"{child}@{jnid}" for child in CHILDREN.get(entity, ())]
    if entity is Entity.PAYMENTS:
        # What is paid and due of an invoice moves with its payments, without a word about the invoice itself, and what
        # is told of a payment does not name its invoices.
        tags += [f"{Entity.INVOICES}:list", f"{Entity.INVOICES}:search", f"{Entity.INVOICES}:detail"]
    # whatever happens to a record is also written to its activity log, and to that of the records it hangs on
    tags.append(f"{Entity.ACTIVITIES}:list")
    return tuple(dict.fromkeys(tags))


def floors_of_change(change: Change) -> dict[str, int]:
    """What answers fetched from now on must not fall behind: name -> version in epoch seconds, 0 when it is not known
    or when the name stands for more than the one record.

    The law: a list or search that shares a tag with the change shares a floor with it.
    """
    entity, jnid = change.ref.entity, change.ref.jnid
    floors = {entity.value: 0, record_floor(entity, jnid): change.occurred_at or 0}
    if entity in CALENDAR_KINDS:
        floors[Entity.CALENDAR.value] = 0
    if change.action is not Action.CREATED:
        floors |= {f"{child}@{jnid}": 0 for child in CHILDREN.get(entity, ()) if child is not Entity.ACTIVITIES}
    if entity is Entity.PAYMENTS:
        floors[Entity.INVOICES.value] = 0
    floors[Entity.ACTIVITIES.value] = 0
    return floors


def floors_of_read(read: Read) -> tuple[str, ...]:
    """The floors whose recent change makes an answer out of the index worth little for a while: of a list or a search,
    and of a single record that JobNimbus shows nowhere but in its lists. Any other record does not come from there."""
    if read.shape is Shape.RECORD:
        return () if facts_of(read.entity).has_detail else (record_floor(read.entity, read.record_id),)
    return (read.entity.value, *(f"{read.entity}@{parent}" for parent in sorted(read.scope)))


def record_floor(entity: Entity, jnid: str) -> str:
    """The floor of one record's version."""
    return f"{entity}:{jnid}"
