"""What each tool may be asked: one model per tool, every argument described for an agent, unknown ones refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

__all__ = [
    "CalendarArgs",
    "JobArgs",
    "ListArgs",
    "NoArgs",
    "ReadingArgs",
    "SortedListArgs",
    "Verbosity",
    "schema_of",
]

Verbosity = Literal["summary", "compact", "detailed", "raw"]
Format = Literal["json", "table"]
SortBy = Literal["date_created", "date_updated", "date_start", "date_end", "date_status_change"]

_FIELD_NAME_MAX = 120
_FIELDS_MAX = 60
_ROWS_MOST = 10_000_000


def _split_fields(value: Any) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return value


Whole = Annotated[int, Strict()]
"""Whole numbers as JSON has them: neither "10" nor 10.0 nor true."""
Truth = Annotated[bool, Strict()]
Name = Annotated[str, Field(min_length=1, max_length=120)]
RecordId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")]
JobId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^[^/?#%\x00-\x1f\x7f-\x9f]+$",
        description="The job's jnid, or its job number such as 1042 or 22-1275.",
    ),
]
Day = Annotated[str, Field(min_length=10, max_length=40)]

FieldNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=_FIELD_NAME_MAX)]],
    # a comma-separated text is taken too; one way to say it is enough to tell
    BeforeValidator(_split_fields, json_schema_input_type=list[str]),
    Field(min_length=1, max_length=_FIELDS_MAX, description="Only these, e.g. primary.name"),
]
MaxAge = Annotated[
    Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)] | None,
    Field(description="0: ask JobNimbus now"),
]
KnownVersion = Annotated[
    Annotated[str, Field(min_length=1, max_length=40)] | None,
    Field(description="Tells changes since that version"),
]


class NoArgs(BaseModel):
    """A tool without arguments."""

    model_config = ConfigDict(extra="forbid")


class ReadingArgs(NoArgs):
    """What everything that shows records takes."""

    fields: FieldNames | None = None
    verbosity: Verbosity = "compact"
    max_age_s: MaxAge = None
    known_version: KnownVersion = None


class ListArgs(ReadingArgs):
    """What every list takes."""

    size: Annotated[Whole, Field(ge=1, le=200)] = 25
    cursor: Annotated[str | None, Field(max_length=4096, description="A next_cursor")] = None
    from_: Annotated[
        Annotated[Whole, Field(ge=0, le=_ROWS_MOST)] | None,
        Field(alias="from", description="Rows to skip"),
    ] = None
    format: Format = "json"


class SortedListArgs(ListArgs):
    """A list whose order can be chosen."""

    sort_by: SortBy = "date_created"
    order: Literal["asc", "desc"] = "desc"


Status = Annotated[Name | None, Field(description="Status name")]
RecordType = Annotated[Name | None, Field(description="Workflow name")]
SalesRep = Annotated[Name | None, Field(description="Name, e-mail or id")]
OwnerId = Annotated[RecordId | None, Field(description="Assignee's user id")]
ContactId = Annotated[RecordId | None, Field(description="Contact's jnid")]
RelatedTo = Annotated[
    # estimates made by the embedded quoting product have ids with hyphens
    Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None,
    Field(description="Any record's jnid"),
]
OfJob = Annotated[JobId | None, Field(description="Job's jnid or number")]
CreatedFrom = Annotated[Day | None, Field(description="Created from, e.g. 2026-11-01")]
CreatedTo = Annotated[Day | None, Field(description="Created until, inclusive")]
UpdatedSince = Annotated[Day | None, Field(description="Changed from")]


class JobArgs(ReadingArgs):
    """get_job"""

    job_id: JobId


class CalendarArgs(ListArgs):
    """get_calendar_activities"""

    date_from: Annotated[Day | None, Field(description="First day; default today.")] = None
    date_to: Annotated[Day | None, Field(description="Last day, included; default 30 days after the first.")] = None
    owner_id: OwnerId = None


_UNTOLD = frozenset({"minLength", "maxLength", "pattern", "minItems", "maxItems"})


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, as short as it can be for an agent that reads many of them.

    Without the titles pydantic adds and without lengths and patterns of text, which are checked all the same and told
    when they are not kept; refusing unknown arguments.
    """
    schema: dict[str, Any] = _slim(_without_titles(model.model_json_schema(by_alias=True)))
    schema.pop("description", None)
    schema["additionalProperties"] = False
    schema.setdefault("properties", {})
    return schema


def _slim(node: Any) -> Any:
    """Without the `or null` that optional arguments carry: an agent leaves out what it does not want, and without
    bounds that only senseless values reach. (An argument of such a name is an object here, and stays.)"""
    if isinstance(node, list):
        return [_slim(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _slim(value) for key, value in node.items() if isinstance(value, dict) or key not in _UNTOLD}
    for name, bound in (("minimum", 0), ("maximum", _ROWS_MOST)):
        if node.get(name) == bound:
            del node[name]
    choices = [choice for choice in node.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) < len(node.get("anyOf", ())):
        node.pop("anyOf")
        if node.get("default", ...) is None:
            node.pop("default")
        node = {**choices[0], **node} if len(choices) == 1 else {**node, "anyOf": choices}
    return node


def _without_titles(node: Any, *, names: bool = False) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_titles(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key != "title"
        }
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    return node
