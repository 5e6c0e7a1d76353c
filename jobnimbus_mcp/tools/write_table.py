"""The write tools: one row per kind, from which create_X, update_X and delete_X are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from jobnimbus_mcp.crm.catalog import Deletion, facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.tools.inputs import JobId, NoArgs, RecordId, Truth
from jobnimbus_mcp.tools.spec import WRITE_OUTPUT, Effect, ToolSpec
from jobnimbus_mcp.tools.write_fields import ADDRESS, PEOPLE, PHONES, Argument, argument
from jobnimbus_mcp.tools.writing import create_handler, delete_handler, update_handler

__all__ = ["ROWS", "ConfirmArg", "KeyArg", "WriteRow", "create_model_of", "update_model_of", "write_tools"]

_MONEY_DOCUMENT = ("items", "document_status", "number", "note", "internal_note", "terms", *PEOPLE, "external_id")

KeyArg = Annotated[
    str | None,
    Field(
        min_length=8,
        max_length=100,
        description="Any unique text: repeating the call with it does not do it twice.",
    ),
]
ConfirmArg = Annotated[Truth, Field(description="true only when the person you work for has agreed.")]
RecordKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
"""An id; estimates of the embedded quoting product have hyphens in theirs."""


@dataclass(frozen=True, slots=True)
class WriteRow:
    """`word`: the kind as tool names have it. `arguments`: rows of `write_fields`. `required`: of them, for creation;
    `defaults`: what is set where nothing was said. `links`: job, contact or related, of which the record hangs on those
    given; `needs`: at least one of them. `only_create`, `only_update`: arguments of one of the two. `listed`: which of
    the tools are in the default set."""

    word: str
    entity: Entity
    toolset: str
    arguments: tuple[str, ...]
    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    links: tuple[str, ...] = ()
    needs: bool = False
    only_create: frozenset[str] = frozenset()
    only_update: frozenset[str] = frozenset()
    listed: frozenset[Effect] = frozenset()
    hint: str = ""
    create: bool = True

    @property
    def called(self) -> str:
        """For people: `work order`."""
        return self.word.replace("_", " ")

    @property
    def id_name(self) -> str:
        return f"{self.word}_id"


_C, _U, _D = Effect.CREATE, Effect.UPDATE, Effect.DELETE

ROWS: tuple[WriteRow, ...] = (
    WriteRow(
        "contact",
        Entity.CONTACTS,
        "crm",
        (
            *("first_name", "last_name", "display_name", "company", "email", *PHONES, *ADDRESS, "website"),
            *("description", "record_type", "status", "source", *PEOPLE, "tags", "external_id", "custom_fields"),
            "is_archived",
        ),
        required=("record_type", "status"),
        only_update=frozenset({"is_archived"}),
        listed=frozenset({_C, _U}),
        hint="Needs a first name, last name, display name or company; the display name must be new. Search first.",
    ),
    WriteRow(
        "job",
        Entity.JOBS,
        "crm",
        (
            *("name", "number", "description", "record_type", "status", "source", *PEOPLE, "subcontractors", *ADDRESS),
            *("date_start", "date_end", "all_day", "tags", "external_id", "custom_fields", "is_archived"),
        ),
        required=("name", "record_type", "status"),
        links=("contact",),
        only_update=frozenset({"is_archived"}),
        listed=frozenset({_C, _U}),
        hint="The name must be new. contact_id makes it that customer's job.",
    ),
    WriteRow(
        "task",
        Entity.TASKS,
        "work",
        (
            *("title", "task_type", "date_start", "date_end", "all_day", "description", "owners", "priority"),
            *("estimated_time", "hide_from_calendarview", "tags", "is_completed"),
        ),
        required=("title", "date_start"),
        defaults={"task_type": "Task"},
        links=("job", "contact", "related"),
        only_update=frozenset({"is_completed"}),
        listed=frozenset({_C, _U}),
        hint="Hangs on one record; is_completed: true ticks it off.",
    ),
    WriteRow(
        "activity",
        Entity.ACTIVITIES,
        "work",
        ("note", "activity_type", "date_created"),
        required=("note",),
        defaults={"activity_type": "Note"},
        links=("job", "contact", "related"),
        needs=True,
        only_create=frozenset({"activity_type", "date_created"}),
        listed=frozenset({_C}),
        hint="A note, call or e-mail written down at a job or contact.",
    ),
    WriteRow(
        "estimate",
        Entity.ESTIMATES,
        "sales",
        (*_MONEY_DOCUMENT, "date_estimate"),
        required=("items",),
        defaults={"document_status": "Draft"},
        links=("job", "contact"),
        needs=True,
        hint="items are all its lines, totals are computed.",
    ),
    WriteRow(
        "invoice",
        Entity.INVOICES,
        "sales",
        (*_MONEY_DOCUMENT, "date_invoice", "date_due"),
        required=("items",),
        defaults={"document_status": "Draft"},
        links=("job", "contact"),
        needs=True,
        hint="items are all its lines, totals are computed.",
    ),
    WriteRow(
        "payment",
        Entity.PAYMENTS,
        "sales",
        ("total", "date_payment", "method_id", "reference", "invoices"),
        required=("total", "date_payment"),
        links=("job", "contact"),
        needs=True,
        hint="Received money; invoices says what it pays. Cannot be changed or deleted afterwards.",
    ),
    WriteRow(
        "product",
        Entity.PRODUCTS,
        "sales",
        ("name", "description", "item_type", "uoms", "location_id", "tax_exempt", "external_id"),
        required=("name", "description", "uoms"),
        defaults={"item_type": "material", "location_id": 1, "tax_exempt": False},
    ),
    WriteRow(
        "work_order",
        Entity.WORKORDERS,
        "work",
        (
            *("name", "number", "record_type", "status", "items", "date_start", "date_end", "all_day"),
            *("customer_note", "internal_note", *PEOPLE, "subcontractors", "custom_fields"),
        ),
        required=("name", "record_type", "status"),
        links=("job", "contact"),
        needs=True,
    ),
    WriteRow(
        "material_order",
        Entity.MATERIALORDERS,
        "work",
        ("items", "number", "document_status", "date_materialorder", "owners"),
        required=("items",),
        defaults={"document_status": "Draft"},
        links=("job", "contact"),
        needs=True,
    ),
    WriteRow(
        "attachment",
        Entity.ATTACHMENTS,
        "files",
        ("description", "is_private"),
        create=False,
        hint="Changes what is said of a file; its content stays.",
    ),
)

_LINKS: Mapping[str, tuple[str, Any]] = {
    "job": ("job_id", Annotated[JobId, Field(description="Of this job: jnid or job number.")]),
    "contact": ("contact_id", Annotated[RecordId, Field(description="Of this contact: jnid.")]),
    "related": ("related_to", Annotated[RecordKey, Field(description="Of the record with this jnid, any kind.")]),
}


@cache
def create_model_of(row: WriteRow) -> type[BaseModel]:
    """Arguments of create_X: links, then the record's own. Made once, like all of these: it takes a while."""
    fields: dict[str, Any] = _link_fields(row)
    for key in row.arguments:
        if key in row.only_update:
            continue
        one = argument(key)
        if key in row.required:
            fields[one.name] = (one.type, ...)
        else:
            default = row.defaults.get(key)
            fields[one.name] = (one.type, default) if default is not None else (one.type | None, None)
    fields["idempotency_key"] = (KeyArg, None)
    return create_model(f"Create{_camel(row)}Args", __base__=NoArgs, **fields)


@cache
def update_model_of(row: WriteRow) -> type[BaseModel]:
    """Arguments of update_X: the id, and whatever shall change."""
    fields: dict[str, Any] = {row.id_name: (_id_type(row), ...)}
    if row.links and row.entity is not Entity.ACTIVITIES:
        fields |= _link_fields(row)
    for key in row.arguments:
        if key not in row.only_create:
            one = argument(key)
            fields[one.name] = (one.type | None, None)
    return create_model(f"Update{_camel(row)}Args", __base__=NoArgs, **fields)


def _delete_model_of(row: WriteRow) -> type[BaseModel]:
    fields: dict[str, Any] = {row.id_name: (_id_type(row), ...), "confirm": (ConfirmArg, False)}
    return create_model(f"Delete{_camel(row)}Args", __base__=NoArgs, **fields)


@cache
def write_tools(rows: tuple[WriteRow, ...] = ROWS) -> tuple[ToolSpec, ...]:
    """create_X, update_X and delete_X of each kind, as far as JobNimbus has them."""
    made: list[ToolSpec] = []
    for row in rows:
        facts = facts_of(row.entity).writes
        hint = f" {row.hint}" if row.hint else ""
        if facts.create and row.create:
            made.append(
                _tool(
                    row,
                    Effect.CREATE,
                    f"Create a new {row.called}.{hint}",
                    create_model_of(row),
                    create_handler(row.entity, _arguments(row, row.only_update), row.links, needs=row.needs),
                )
            )
        if facts.update:
            made.append(
                _tool(
                    row,
                    Effect.UPDATE,
                    f"Change fields of one {row.called}; what is left out stays as it is."
                    + (hint if not row.create else ""),
                    update_model_of(row),
                    update_handler(row.entity, row.id_name, _arguments(row, row.only_create), row.links),
                )
            )
        if facts.delete is not Deletion.NONE:
            made.append(
                _tool(
                    row,
                    Effect.DELETE,
                    f"Delete one {row.called} for good. Asks the person first, or needs confirm: true.",
                    _delete_model_of(row),
                    delete_handler(row.entity, row.id_name, row.called),
                )
            )
    return tuple(made)


def _tool(row: WriteRow, effect: Effect, text: str, model: type[BaseModel], handler: Any) -> ToolSpec:
    return ToolSpec(
        f"{effect.value}_{row.word}",
        f"{effect.value.capitalize()} a{'n' if row.word[0] in 'aei' else ''} {row.called}",
        text,
        row.entity,
        model,
        WRITE_OUTPUT,
        handler=handler,
        effect=effect,
        toolset=row.toolset,
        default=effect in row.listed,
    )


def _arguments(row: WriteRow, without: frozenset[str]) -> tuple[Argument, ...]:
    return tuple(argument(key) for key in row.arguments if key not in without)


def _link_fields(row: WriteRow) -> dict[str, Any]:
    return {name: (kind | None, None) for name, kind in (_LINKS[link] for link in row.links)}


def _id_type(row: WriteRow) -> Any:
    """A job is found by its number too, as everywhere."""
    return JobId if row.entity is Entity.JOBS else RecordKey


def _camel(row: WriteRow) -> str:
    return row.word.title().replace("_", "")
