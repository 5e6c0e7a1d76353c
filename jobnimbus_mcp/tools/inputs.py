"""What each tool may be asked: one model per tool, every argument described for an agent, unknown ones refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

__all__ = [
    "ActivitiesArgs",
    "AttachmentsArgs",
    "CalendarArgs",
    "ContactsArgs",
    "EstimatesArgs",
    "JobArgs",
    "JobsArgs",
    "ListArgs",
    "NoArgs",
    "SearchContactsArgs",
    "SearchJobsArgs",
    "SortedListArgs",
    "TasksArgs",
    "UsersArgs",
    "Verbosity",
    "schema_of",
]

Verbosity = Literal["summary", "compact", "detailed", "raw"]
SortBy = Literal["date_created", "date_updated", "date_start", "date_end", "date_status_change"]

_FIELD_NAME_MAX = 120
_FIELDS_MAX = 60


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
    BeforeValidator(_split_fields, json_schema_input_type=list[str] | str),
    Field(
        min_length=1,
        max_length=_FIELDS_MAX,
        description="Only these fields of each record, as a list or comma-separated; dotted paths such as "
        "primary.name are allowed. Wins over verbosity.",
    ),
]
VerbosityArg = Annotated[
    Verbosity,
    Field(
        description="How much of each record: summary (a line's worth), compact (what most questions need), detailed "
        "(all fields that are set), raw (JobNimbus's record untouched, dates in epoch seconds)."
    ),
]
MaxAge = Annotated[
    Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)] | None,
    Field(
        description="Oldest answer to accept, in seconds. 0 asks JobNimbus now. Leave out normally: cached answers "
        "are kept current by webhooks.",
    ),
]


class NoArgs(BaseModel):
    """A tool without arguments."""

    model_config = ConfigDict(extra="forbid")


class _Reading(NoArgs):
    fields: FieldNames | None = None
    verbosity: VerbosityArg = "compact"
    max_age_s: MaxAge = None


class ListArgs(_Reading):
    """What every list takes."""

    size: Annotated[Whole, Field(ge=1, le=200, description="Records per page.")] = 25
    cursor: Annotated[
        str | None,
        Field(max_length=4096, description="next_cursor of the previous answer, for the next page."),
    ] = None
    from_: Annotated[
        Annotated[Whole, Field(ge=0, le=10_000_000)] | None,
        Field(alias="from", description="Skip this many records (instead of a cursor)."),
    ] = None


class SortedListArgs(ListArgs):
    """A list whose order can be chosen."""

    sort_by: Annotated[SortBy, Field(description="Date to sort by.")] = "date_created"
    order: Annotated[Literal["asc", "desc"], Field(description="desc: newest first.")] = "desc"


Status = Annotated[Name | None, Field(description="Status name, any case, e.g. In Production.")]
RecordType = Annotated[Name | None, Field(description="Workflow (record type) name, any case.")]
SalesRep = Annotated[Name | None, Field(description="Sales rep: full name, e-mail or user id.")]
OwnerId = Annotated[RecordId | None, Field(description="User id of an owner (assignee).")]
ContactId = Annotated[RecordId | None, Field(description="Only what belongs to the contact with this jnid.")]
RelatedTo = Annotated[
    # estimates made by the embedded quoting product have ids with hyphens
    Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None,
    Field(description="Only what belongs to the record with this jnid, any kind."),
]
OfJob = Annotated[JobId | None, Field(description="Only what belongs to this job: its jnid or job number.")]
CreatedFrom = Annotated[Day | None, Field(description="Created on or after: 2026-11-01 or RFC 3339.")]
CreatedTo = Annotated[Day | None, Field(description="Created on or before; a date means the whole day.")]
UpdatedSince = Annotated[Day | None, Field(description="Changed on or after.")]


class JobsArgs(SortedListArgs):
    """get_jobs"""

    status: Status = None
    record_type: RecordType = None
    sales_rep: SalesRep = None
    owner_id: OwnerId = None
    contact_id: ContactId = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None
    updated_since: UpdatedSince = None
    scheduled_from: Annotated[Day | None, Field(description="Work starts on or after.")] = None
    scheduled_to: Annotated[Day | None, Field(description="Work starts on or before.")] = None
    has_schedule: Annotated[Truth | None, Field(description="true: only jobs with a start date; false: without.")] = (
        None
    )
    is_archived: Annotated[Truth | None, Field(description="true: only archived jobs; false: none of them.")] = None


class SearchJobsArgs(JobsArgs):
    """search_jobs"""

    query: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Words that must all occur in the job's name, number, address or description.",
        ),
    ] = None


class JobArgs(_Reading):
    """get_job"""

    job_id: JobId


class ContactsArgs(SortedListArgs):
    """get_contacts"""

    status: Status = None
    record_type: RecordType = None
    sales_rep: SalesRep = None
    owner_id: OwnerId = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None
    updated_since: UpdatedSince = None


class SearchContactsArgs(ContactsArgs):
    """search_contacts"""

    query: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Words that must all occur in name, company or e-mail, or a phone number in any format.",
        ),
    ] = None


class EstimatesArgs(SortedListArgs):
    """get_estimates"""

    job_id: OfJob = None
    contact_id: ContactId = None
    status: Annotated[Name | None, Field(description="Draft, Sent, Viewed, Approved, Invoiced or Declined.")] = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None
    sent_from: Annotated[Day | None, Field(description="Sent for signature on or after.")] = None
    sent_to: Annotated[Day | None, Field(description="Sent for signature on or before.")] = None
    approved_from: Annotated[Day | None, Field(description="Signed or approved on or after.")] = None
    approved_to: Annotated[Day | None, Field(description="Signed or approved on or before.")] = None


class ActivitiesArgs(SortedListArgs):
    """get_activities"""

    job_id: OfJob = None
    contact_id: ContactId = None
    related_to: RelatedTo = None
    activity_type: Annotated[Name | None, Field(description="Note, Phone Call, Email, Status Changed, ...")] = None
    created_by: Annotated[Name | None, Field(description="Author: full name, e-mail or user id.")] = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None


class CalendarArgs(ListArgs):
    """get_calendar_activities"""

    date_from: Annotated[Day | None, Field(description="First day; default today.")] = None
    date_to: Annotated[Day | None, Field(description="Last day, included; default 30 days after the first.")] = None
    owner_id: OwnerId = None


class TasksArgs(SortedListArgs):
    """get_tasks"""

    job_id: OfJob = None
    contact_id: ContactId = None
    related_to: RelatedTo = None
    owner_id: OwnerId = None
    is_completed: Annotated[Truth | None, Field(description="true: only done ones; false: only open ones.")] = None
    overdue: Annotated[
        Truth | None, Field(description="true: only open tasks whose end (or else start) is past; false: none of them.")
    ] = None
    priority: Annotated[
        Annotated[Whole, Field(ge=0, le=5)] | None,
        Field(description="0 is none."),
    ] = None
    record_type: Annotated[Name | None, Field(description="Task type name, e.g. Phone Call.")] = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None


class UsersArgs(SortedListArgs):
    """get_users: users have no dates, so any order is JobNimbus's own."""

    active_only: Annotated[Truth, Field(description="false: former users too.")] = True


class AttachmentsArgs(SortedListArgs):
    """get_attachments"""

    size: Annotated[Whole, Field(ge=1, le=500, description="Files per page.")] = 100
    job_id: OfJob = None
    contact_id: ContactId = None
    related_to: RelatedTo = None
    file_type: Annotated[
        str | None,
        Field(
            pattern=r"^\.?[A-Za-z0-9]{1,10}$|^[A-Za-z][A-Za-z0-9.+-]{0,39}/([A-Za-z0-9][A-Za-z0-9.+-]{0,79}|\*)$",
            description="Extension (pdf, jpg) or MIME type (image/jpeg, image/*).",
        ),
    ] = None
    date_from: CreatedFrom = None
    date_to: CreatedTo = None


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, without the titles pydantic adds, refusing unknown arguments."""
    schema: dict[str, Any] = _slim(_without_titles(model.model_json_schema(by_alias=True)))
    schema.pop("description", None)
    schema["additionalProperties"] = False
    schema.setdefault("properties", {})
    return schema


def _slim(node: Any) -> Any:
    """Without the `or null` that optional arguments carry: an agent leaves out what it does not want."""
    if isinstance(node, list):
        return [_slim(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _slim(value) for key, value in node.items()}
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
