"""One row per kind of record: where JobNimbus keeps it, how its lists behave, and how it wants to be written.

Source of every row: JobNimbus API documentation, endpoint table and the section of the entity; paging windows from
production notes of its users (10,000 rows is Elasticsearch's own window; activities were seen to stop at 1,000), and so
are the forms in which each kind takes its links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from jobnimbus_mcp.crm.entities import Entity

__all__ = [
    "CATALOG",
    "SETTINGS_PARTS",
    "WHOLE_PARTS",
    "Deletion",
    "EntityFacts",
    "LinkForm",
    "SettingsPart",
    "WriteFacts",
    "facts_of",
]


class LinkForm(StrEnum):
    """How a kind takes the records it hangs on.

    PRIMARY: `primary: {"id"}` alone, of the first; JobNimbus derives `related` (jobs, activities; activities refuse a
    `related`). OBJECTS: `related: [{"id", "type"}]`. IDS: `related: ["<id>"]`, objects are a 500 (files). NONE: none.
    """

    PRIMARY = "primary"
    OBJECTS = "objects"
    IDS = "ids"
    NONE = "none"


class Deletion(StrEnum):
    """How a record is deleted: by `is_active: false`, by the DELETE method (files), or not at all."""

    FLAG = "flag"
    METHOD = "method"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class WriteFacts:
    """`create`: path of the POST relative to the API root, "" where there is none; with a leading `/api2` it is
    relative to the host instead. `update`: is there a PUT? `whole`: the PUT wants the `jnid` (and the `constants`) in
    the body and replaces lists whole. `required`: what JobNimbus's POST needs, links apart; `needs_link`: at least one
    link as well. `constants`: what every POST says. `later`: fields that a POST is known to refuse and a PUT right
    after it takes. `unique`: the field whose value no two records share ("" none)."""

    create: str = ""
    update: bool = False
    delete: Deletion = Deletion.NONE
    links: LinkForm = LinkForm.NONE
    whole: bool = False
    required: tuple[str, ...] = ()
    needs_link: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)
    later: tuple[str, ...] = ()
    unique: str = ""


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """`path` is relative to the API root; `envelope` names the array in a list answer; `window` bounds from + size.
    `type`: the record's own word for its kind. `title`: the field that names a record to people. `page_rows`: rows of
    one page when all are wanted, half of JobNimbus's default, which is several megabytes of wide records, or all of it
    where records are narrow (default and largest `size`: JobNimbus API documentation, list parameters)."""

    path: str
    envelope: str = "results"
    window: int = 10_000
    has_detail: bool = True
    type: str = ""
    title: str = "number"
    page_rows: int = 500
    writes: WriteFacts = WriteFacts()


CATALOG: Mapping[Entity, EntityFacts] = MappingProxyType(
    {
        Entity.JOBS: EntityFacts(
            "/jobs",
            type="job",
            title="name",
            writes=WriteFacts(
                create="/jobs",
                update=True,
                delete=Deletion.FLAG,
                links=LinkForm.PRIMARY,
                required=("name", "record_type_name", "status_name"),
                unique="name",
            ),
        ),
        Entity.CONTACTS: EntityFacts(
            "/contacts",
            type="contact",
            title="display_name",
            writes=WriteFacts(
                create="/contacts",
                update=True,
                delete=Deletion.FLAG,
                required=("record_type_name", "status_name"),
                # seen to fail with a key error of the data base when sent with the POST
                later=("sales_rep",),
                unique="display_name",
            ),
        ),
        Entity.TASKS: EntityFacts(
            "/tasks",
            type="task",
            title="title",
            page_rows=1_000,
            writes=WriteFacts(
                create="/tasks",
                update=True,
                delete=Deletion.FLAG,
                # the first alone is kept
                links=LinkForm.OBJECTS,
                required=("title", "date_start", "record_type_name"),
            ),
        ),
        # the array is called `activity`, and deep pages are refused early
        Entity.ACTIVITIES: EntityFacts(
            "/activities",
            envelope="activity",
            window=1_000,
            type="activity",
            title="record_type_name",
            page_rows=1_000,
            writes=WriteFacts(
                create="/activities",
                update=True,
                links=LinkForm.PRIMARY,
                required=("note", "record_type_name"),
                needs_link=True,
            ),
        ),
        # GET by id answers with the file's content, so metadata only comes from the list
        Entity.ATTACHMENTS: EntityFacts(
            "/files",
            envelope="files",
            has_detail=False,
            type="attachment",
            title="filename",
            page_rows=1_000,
            writes=WriteFacts(
                create="/files", update=True, delete=Deletion.METHOD, links=LinkForm.IDS, required=("filename", "type")
            ),
        ),
        Entity.ESTIMATES: EntityFacts(
            "/v2/estimates",
            type="estimate",
            writes=WriteFacts(
                create="/v2/estimates",
                update=True,
                delete=Deletion.FLAG,
                links=LinkForm.OBJECTS,
                whole=True,
                required=("status", "items"),
                needs_link=True,
                constants={"type": "estimate", "is_active": True},
            ),
        ),
        Entity.INVOICES: EntityFacts(
            "/v2/invoices",
            type="invoice",
            writes=WriteFacts(
                create="/v2/invoices",
                update=True,
                delete=Deletion.FLAG,
                links=LinkForm.OBJECTS,
                whole=True,
                required=("status", "items"),
                needs_link=True,
                constants={"type": "invoice", "is_active": True},
            ),
        ),
        Entity.PAYMENTS: EntityFacts(
            "/payments",
            has_detail=False,
            type="payment",
            title="reference",
            writes=WriteFacts(
                create="/api2/v2/payments",
                links=LinkForm.OBJECTS,
                required=("total", "date_payment"),
                needs_link=True,
                constants={"type": "payment", "is_active": True},
            ),
        ),
        Entity.PRODUCTS: EntityFacts(
            "/v2/products",
            type="product",
            title="name",
            writes=WriteFacts(
                create="/v2/products",
                update=True,
                delete=Deletion.FLAG,
                whole=True,
                required=("name", "description", "item_type", "location_id", "tax_exempt", "uoms"),
                constants={"is_active": True},
            ),
        ),
        Entity.WORKORDERS: EntityFacts(
            "/v2/workorders",
            type="workorder",
            title="name",
            writes=WriteFacts(
                create="/v2/workorders",
                update=True,
                delete=Deletion.FLAG,
                links=LinkForm.OBJECTS,
                whole=True,
                required=("name", "record_type_name", "status_name"),
                needs_link=True,
                constants={"type": "workorder"},
            ),
        ),
        Entity.MATERIALORDERS: EntityFacts(
            "/v2/materialorders",
            type="materialorder",
            writes=WriteFacts(
                create="/v2/materialorders",
                update=True,
                delete=Deletion.FLAG,
                links=LinkForm.OBJECTS,
                whole=True,
                required=("items",),
                needs_link=True,
                constants={"type": "materialorder", "is_active": True},
            ),
        ),
        Entity.BUDGETS: EntityFacts("/budgets", has_detail=False, type="budget"),
        Entity.USERS: EntityFacts("/account/users", envelope="users", has_detail=False, title="email"),
        Entity.SETTINGS: EntityFacts("/account/settings", envelope="", has_detail=False),
    }
)

WHOLE_PARTS: Mapping[tuple[Entity, str], tuple[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        (Entity.USERS, ""): ("/account/users", ()),
        (Entity.SETTINGS, ""): ("/account/settings", ()),
        # bare lists
        (Entity.SETTINGS, "groups"): ("/account/settings", (("field", "groups"),)),
        (Entity.PRODUCTS, "uoms"): ("/utility/uoms", ()),
    }
)
"""Documents that are no lists of records: (kind, part) -> path and parameters."""


@dataclass(frozen=True, slots=True)
class SettingsPart:
    """A piece of the account's settings that can be added to. POST only (GET is a 405), and JobNimbus answers with the
    existing one where the name exists. `path` may hold `{workflow_id}`. `name`: the field that holds its name.
    `id`: the field of the answer that holds its id."""

    path: str
    name: str
    id: str = "id"


SETTINGS_PARTS: Mapping[str, SettingsPart] = MappingProxyType(
    {
        "workflow": SettingsPart("/account/workflow", "name"),
        "status": SettingsPart("/account/workflow/{workflow_id}/status", "name"),
        "source": SettingsPart("/account/leadsource", "SourceName", "JobSourceId"),
        "custom_field": SettingsPart("/account/customfield", "title", "field"),
        "file_type": SettingsPart("/account/filetype", "TypeName", "FileTypeId"),
        "task_type": SettingsPart("/account/tasktype", "TypeName", "TaskTypeId"),
        "activity_type": SettingsPart("/account/activitytype", "TypeName", "ActivityTypeId"),
        "location": SettingsPart("/account/location", "name"),
    }
)


def facts_of(entity: Entity) -> EntityFacts:
    """The row of `entity`.

    Raises:
        KeyError: for kinds this server does not read.
    """
    return CATALOG[entity]
