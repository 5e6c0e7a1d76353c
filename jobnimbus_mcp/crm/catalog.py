"""One row per kind of record: where JobNimbus keeps it and how its lists behave.

Source of every row: JobNimbus API documentation, endpoint table and the section of the entity; paging windows from
production notes of its users (10,000 rows is Elasticsearch's own window; activities were seen to stop at 1,000).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jobnimbus_mcp.crm.entities import Entity

__all__ = ["CATALOG", "EntityFacts", "facts_of"]


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """`path` is relative to the API root; `envelope` names the array in a list answer; `window` bounds from + size."""

    path: str
    envelope: str = "results"
    window: int = 10_000
    has_detail: bool = True


CATALOG: Mapping[Entity, EntityFacts] = MappingProxyType(
    {
        Entity.JOBS: EntityFacts("/jobs"),
        Entity.CONTACTS: EntityFacts("/contacts"),
        Entity.ESTIMATES: EntityFacts("/v2/estimates"),
        Entity.TASKS: EntityFacts("/tasks"),
        # the array is called `activity`, and deep pages are refused early
        Entity.ACTIVITIES: EntityFacts("/activities", envelope="activity", window=1_000),
        # GET by id answers with the file's content, so metadata only comes from the list
        Entity.ATTACHMENTS: EntityFacts("/files", envelope="files", has_detail=False),
        Entity.WORKORDERS: EntityFacts("/v2/workorders"),
        Entity.USERS: EntityFacts("/account/users", envelope="users", has_detail=False),
        Entity.SETTINGS: EntityFacts("/account/settings", envelope="", has_detail=False),
    }
)


def facts_of(entity: Entity) -> EntityFacts:
    """The row of `entity`.

    Raises:
        KeyError: for kinds this server does not read.
    """
    return CATALOG[entity]
