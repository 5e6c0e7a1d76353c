"""The kinds of record, what can happen to one, and how either is spelled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Action", "Change", "Entity", "EntityRef", "action_named", "entity_named", "is_jnid"]


class Entity(StrEnum):
    """The kinds of record as keys, tags and settings spell them."""

    JOBS = "jobs"
    CONTACTS = "contacts"
    ESTIMATES = "estimates"
    INVOICES = "invoices"
    PAYMENTS = "payments"
    ACTIVITIES = "activities"
    TASKS = "tasks"
    ATTACHMENTS = "attachments"
    USERS = "users"
    PRODUCTS = "products"
    WORKORDERS = "workorders"
    MATERIALORDERS = "materialorders"
    BUDGETS = "budgets"
    SETTINGS = "settings"
    CALENDAR = "calendar"


class Action(StrEnum):
    """What happened to a record. `UNKNOWN`: JobNimbus's own webhooks do not say, so all three may have."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class EntityRef:
    """One record: its kind and its jnid."""

    entity: Entity
    jnid: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to `ref`.

    `parents`: ids of the records it hangs on (`related`, `primary`), or None where we were not told.
    `occurred_at`: the record's `date_updated` in epoch seconds, or None.
    """

    ref: EntityRef
    action: Action
    parents: frozenset[str] | None = None
    occurred_at: int | None = None


_SPELLINGS: dict[str, Entity] = {
    "job": Entity.JOBS,
    "contact": Entity.CONTACTS,
    "estimate": Entity.ESTIMATES,
    "invoice": Entity.INVOICES,
    "payment": Entity.PAYMENTS,
    "activity": Entity.ACTIVITIES,
    "note": Entity.ACTIVITIES,
    "task": Entity.TASKS,
    "attachment": Entity.ATTACHMENTS,
    "file": Entity.ATTACHMENTS,
    "document": Entity.ATTACHMENTS,
    "photo": Entity.ATTACHMENTS,
    "user": Entity.USERS,
    "product": Entity.PRODUCTS,
    "workorder": Entity.WORKORDERS,
    "materialorder": Entity.MATERIALORDERS,
    "budget": Entity.BUDGETS,
    "setting": Entity.SETTINGS,
    **{entity.value: entity for entity in Entity},
}
_ACTIONS: dict[str, Action] = {
    "created": Action.CREATED,
    "create": Action.CREATED,
    "added": Action.CREATED,
    "updated": Action.UPDATED,
    "update": Action.UPDATED,
    "modified": Action.UPDATED,
    "changed": Action.UPDATED,
    "deleted": Action.DELETED,
    "delete": Action.DELETED,
    "removed": Action.DELETED,
}
_JNID = re.compile(r"[A-Za-z0-9]{1,64}")


def entity_named(text: str) -> Entity | None:
    """The kind a sender means: singular or plural, any case, `work order` = `work_order` = `workorders`."""
    word = re.sub(r"[\s_\-]+", "", text.strip().lower())
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    for ending, singular in (("ies", "y"), ("s", "")):
        if word.endswith(ending):
            return _SPELLINGS.get(word.removesuffix(ending) + singular)
    return None


def action_named(text: str) -> Action | None:
    """The action a sender means, or None when the word is none of ours."""
    return _ACTIONS.get(text.strip().lower())


def is_jnid(text: str) -> bool:
    """Whether `text` can be a JobNimbus id: letters and digits only, so it is safe in a path.

    Source: JobNimbus API documentation, identifiers; old accounts have 2 to 7 characters, newer ones about 24.
    """
    return _JNID.fullmatch(text) is not None
