"""What can be set of a record: one row per argument, with what it becomes in JobNimbus's own fields.

Agents write names, dates and ids as the read tools show them; rows turn them into what JobNimbus takes (ids with names,
epoch seconds, lists of objects). Whatever an argument means in more than one kind is one row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

from jobnimbus_mcp.crm.encoding import is_custom
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.lines import FRESH
from jobnimbus_mcp.crm.payloads import is_date_field
from jobnimbus_mcp.crm.query import NEWEST_FIRST
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.dates import first_second, is_date
from jobnimbus_mcp.tools.document_status import document_status
from jobnimbus_mcp.tools.inputs import Name, RecordId, Truth, Whole
from jobnimbus_mcp.tools.present import date_labels
from jobnimbus_mcp.tools.schedule import scheduled

__all__ = ["ADDRESS", "PEOPLE", "PHONES", "Argument", "Encode", "Item", "Known", "argument"]

Known = Mapping[str, Any]
"""What an argument may need to know beside its value: the record as it is ({} of a new one) and the other arguments."""

Encode = Callable[[ToolContext, Entity, Any, Known], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Argument:
    """`type`: as pydantic wants it, its description included. `encode`: value -> JobNimbus's fields."""

    name: str
    type: Any
    encode: Encode


Text = Annotated[str, Field(max_length=2_000)]
LongText = Annotated[str, Field(max_length=20_000)]
Money = Annotated[float, Strict(), Field(ge=-10_000_000, le=10_000_000, allow_inf_nan=False)]
Quantity = Annotated[float, Strict(), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Email = Annotated[str, Field(max_length=254, pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$")]
Phone = Annotated[str, Field(max_length=40, pattern=r"^[0-9 ()+.\-x/#]*$")]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=60)]], Field(max_length=50)]
Scalar = str | Whole | Annotated[float, Field(allow_inf_nan=False)] | Truth | None


_LINE = FRESH["items"]


class Item(BaseModel):
    """A line of an estimate, an invoice or an order. What is left out is `crm.lines`' to fill in."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    quantity: Quantity = _LINE["quantity"]
    price: Annotated[Money, Field(description="Per unit; negative is a discount.")] = _LINE["price"]
    cost: Money = _LINE["cost"]
    uom: Annotated[str, Field(max_length=20, description="Unit, see get_units.")] = _LINE["uom"]
    item_type: Literal["material", "labor", "labor+material"] = _LINE["item_type"]
    description: Text = ""
    product_id: Annotated[RecordId | None, Field(description="jnid of the product.")] = None
    color: Annotated[str, Field(max_length=60)] = ""

    def sent(self) -> dict[str, Any]:
        """What was said, as JobNimbus takes it: `amount` is its own to compute."""
        told = self.model_dump(exclude={"product_id"}, exclude_unset=True)
        if self.product_id is not None:
            told["jnid"] = self.product_id
        return told


class Uom(BaseModel):
    """A unit in which a product is sold."""

    model_config = ConfigDict(extra="forbid")

    uom: Annotated[str, Field(min_length=1, max_length=20)]
    material_price: Money = 0
    material_cost: Money = 0
    labor_price: Money = 0
    labor_cost: Money = 0

    def sent(self) -> dict[str, Any]:
        """What was said, as JobNimbus takes it."""
        told: dict[str, Any] = {"uom": self.uom}
        for name in ("material_cost", "material_price", "labor_cost", "labor_price"):
            if name in self.model_fields_set:
                part, _, which = name.partition("_")
                told.setdefault(part, {})[which] = getattr(self, name)
        return told


class InvoicePaid(BaseModel):
    """What a payment pays of an invoice."""

    model_config = ConfigDict(extra="forbid")

    invoice_id: RecordId
    amount: Annotated[float, Strict(), Field(gt=0, le=10_000_000)]


def _as_is(name: str) -> Encode:
    async def encode(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
        return {name: value}

    return encode


def _moment(name: str) -> Encode:
    """A date of the account's zone -> epoch seconds of its first second; "" takes it away (0 is how JobNimbus says
    none)."""

    async def encode(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
        return {name: first_second(value, ctx.zone, field=name) if value else 0}

    return encode


async def _when(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    # start, end and "all day" are told by what the others are; whichever was given says the same of all
    return scheduled(known.get("arguments", {}), known, ctx.zone)


def _dumped(name: str) -> Encode:
    async def encode(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
        return {name: [one.sent() for one in value]}

    return encode


async def _status(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    # the workflow that is set at the same time, else the one the record is in
    return await ctx.directory.status_fields(entity, value, known.get("arguments", {}).get("record_type"), known)


async def _workflow(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    if known.get("arguments", {}).get("status") is not None:
        return {}  # the status brings its workflow with it
    raise InvalidInput("To change the record_type give the status in the new workflow as well.", field="status")


def _type(name: str) -> Encode:
    async def encode(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
        return await ctx.directory.type_fields(entity, value, argument=name)

    return encode


async def _document_status(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return await document_status(ctx, entity, value)


async def _source(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return await ctx.directory.source_fields(value)


async def _sales_rep(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return {"sales_rep": await ctx.directory.user_id(value, "sales_rep")}


async def _owners(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return {"owners": [{"id": await ctx.directory.user_id(name, "owners")} for name in value]}


async def _subcontractors(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return {"subcontractors": [{"id": jnid} for jnid in value]}


async def _custom(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    """Fields of the account's own, by label or storage key. A name that is spelled as JobNimbus's own are is refused:
    that has an argument of its own, or is not for setting."""
    told: dict[str, Any] = {}
    for name, given in value.items():
        if not name.strip() or not is_custom(name):
            raise InvalidInput(
                f"{name!r} is no custom field, or is called as if it were one of JobNimbus's own: give its storage key "
                "(cf_...), or set it by an argument of its own.",
                field="custom_fields",
            )
        told[name] = given
        if isinstance(given, str) and await _holds_dates(ctx, entity, name, given, known):
            told[name] = first_second(given, ctx.zone, field="custom_fields") if given else 0
    return told


async def _holds_dates(ctx: ToolContext, entity: Entity, name: str, given: str, known: Known) -> bool:
    """Whether a custom field is a date, which JobNimbus keeps as a number; of a label the account's records tell."""
    if is_date_field(name):
        return True
    if name.startswith("cf_") or not is_date(given):
        return False
    if name in date_labels(known):
        return True
    rows = (await ctx.look_up(Read.block(entity, (), NEWEST_FIRST, 0))).value()["rows"]
    return any(name in date_labels(row) for row in rows)


async def _paid(ctx: ToolContext, entity: Entity, value: Any, known: Known) -> Mapping[str, Any]:
    return {"invoices": [one.model_dump() for one in value]}


Owners = Annotated[
    list[Name], Field(max_length=20, description="Assignees: full names, e-mails or user ids; replaces all.")
]
_ALL = "All of them: those left out go. Of one that stays, what you do not say stays."
_DATE = Annotated[str, Field(max_length=40, description="2026-11-23 or RFC 3339; '' removes.")]


def _texts(*names: str) -> dict[str, Argument]:
    return {name: Argument(name, Text, _as_is(name)) for name in names}


def _dates(*names: str) -> dict[str, Argument]:
    return {name: Argument(name, _DATE, _moment(name)) for name in names}


ADDRESS = ("address_line1", "address_line2", "city", "state_text", "zip", "country_name")
PHONES = ("mobile_phone", "home_phone", "work_phone", "fax_number")
PEOPLE = ("sales_rep", "owners")

_ARGUMENTS: Mapping[str, Argument] = {
    **_texts("first_name", "last_name", "display_name", "company", "website", "name", "title", "number"),
    **_texts(*ADDRESS, "external_id", "reference", "filename"),
    **{name: Argument(name, Phone, _as_is(name)) for name in PHONES},
    **{
        name: Argument(name, LongText, _as_is(name))
        for name in ("description", "note", "internal_note", "customer_note", "terms")
    },
    "date_start": Argument("date_start", _DATE, _when),
    "date_end": Argument(
        "date_end", Annotated[str, Field(max_length=40, description="As date_start; a day counts in full.")], _when
    ),
    "all_day": Argument("all_day", Truth, _when),
    **_dates("date_estimate", "date_invoice", "date_due", "date_payment"),
    **_dates("date_materialorder", "date_created"),
    **{
        name: Argument(name, Truth, _as_is(name))
        for name in ("is_completed", "is_archived", "hide_from_calendarview", "tax_exempt", "is_private")
    },
    "email": Argument("email", Email, _as_is("email")),
    "tags": Argument("tags", Annotated[Tags, Field(description="Replaces all tags.")], _as_is("tags")),
    "priority": Argument("priority", Annotated[Whole, Field(ge=0, le=5, description="0 is none.")], _as_is("priority")),
    "estimated_time": Argument(
        "estimated_time", Annotated[Whole, Field(ge=0, le=100_000, description="Minutes.")], _as_is("estimated_time")
    ),
    "status": Argument("status", Annotated[Name, Field(description="Status name, any case.")], _status),
    "record_type": Argument("record_type", Annotated[Name, Field(description="Workflow name.")], _workflow),
    "task_type": Argument(
        "record_type", Annotated[Name, Field(description="Task type, e.g. Phone Call.")], _type("record_type")
    ),
    "activity_type": Argument(
        "activity_type", Annotated[Name, Field(description="Note, Phone Call, ...")], _type("activity_type")
    ),
    "file_type": Argument("file_type", Annotated[Name, Field(description="Document, Photo, ...")], _type("file_type")),
    "document_status": Argument("status", Annotated[Name, Field(description="E.g. Draft, Sent.")], _document_status),
    "source": Argument("source", Annotated[Name, Field(description="Lead source, see get_settings.")], _source),
    "sales_rep": Argument("sales_rep", Annotated[Name, Field(description="Full name, e-mail or user id.")], _sales_rep),
    "owners": Argument("owners", Owners, _owners),
    "subcontractors": Argument(
        "subcontractors",
        Annotated[list[RecordId], Field(max_length=20, description="Contact jnids; replaces all.")],
        _subcontractors,
    ),
    "items": Argument("items", Annotated[list[Item], Field(max_length=200, description=_ALL)], _dumped("items")),
    "uoms": Argument(
        "uoms", Annotated[list[Uom], Field(min_length=1, max_length=20, description=_ALL)], _dumped("uoms")
    ),
    "item_type": Argument("item_type", Literal["material", "labor", "labor+material"], _as_is("item_type")),
    "location_id": Argument("location_id", Annotated[Whole, Field(ge=1)], _as_is("location_id")),
    "total": Argument("total", Annotated[float, Strict(), Field(gt=0, le=10_000_000)], _as_is("total")),
    "method_id": Argument(
        "method_id",
        Annotated[Whole, Field(ge=0, le=100, description="As other payments of the account have it.")],
        _as_is("method_id"),
    ),
    "invoices": Argument("invoices", Annotated[list[InvoicePaid], Field(max_length=50)], _paid),
    "custom_fields": Argument(
        "custom_fields",
        Annotated[
            dict[Annotated[str, Field(max_length=120)], Scalar],
            Field(max_length=60, description="By label as records show them, e.g. {'Claim Number:': 'CLM-1'}."),
        ],
        _custom,
    ),
}


def argument(name: str) -> Argument:
    """The row of this name.

    Raises:
        KeyError: there is none.
    """
    return _ARGUMENTS[name]
