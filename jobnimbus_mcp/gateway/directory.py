"""Names to ids: statuses, workflows, types, sources and people of an account, from its settings and users.

Reading asks for whatever carries a name, retired ones included; what is written must be in use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Clause, NameIs, OneOf
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.answers import Answer

__all__ = ["ESTIMATE_STATUSES", "Directory"]

ESTIMATE_STATUSES = ("Draft", "Sent", "Viewed", "Approved", "Invoiced", "Declined", "Denied", "Closed")
"""Estimates have fixed statuses that no setting lists. Source: JobNimbus API documentation, estimates, and what its
users saw."""

_SYSTEM_ACTIVITIES = (
    "Status Changed",
    "Contact Created",
    "Contact Modified",
    "Contact Deleted",
    "Job Created",
    "Job Modified",
    "Job Deleted",
)
"""Types that JobNimbus writes by itself; not every account's settings list them."""

_OBJECT_TYPES = {Entity.JOBS: "job", Entity.CONTACTS: "contact", Entity.WORKORDERS: "workorder"}
_TYPES = {
    Entity.TASKS: ("taskTypes", "TaskTypeId"),
    Entity.ACTIVITIES: ("activityTypes", "ActivityTypeId"),
    Entity.ATTACHMENTS: ("fileTypes", "FileTypeId"),
}
_NAMES_SHOWN = 40


class Directory:
    """Turns the names of one call into clauses; reads settings and users (on the side) at most once each."""

    def __init__(self, look_up: Callable[[Read], Awaitable[Answer]]) -> None:
        self._look_up = look_up
        self._settings: dict[str, Any] | None = None
        self._users: list[dict[str, Any]] | None = None

    async def status(self, entity: Entity, name: str) -> Clause:
        """Records of a kind in the status of this name, in whichever workflow.

        Raises:
            InvalidInput: the account has no such status; the message lists those it has.
        """
        if entity is Entity.ESTIMATES:
            if name.casefold() not in {known.casefold() for known in ESTIMATE_STATUSES}:
                raise _unknown("status", name, ESTIMATE_STATUSES)
            return NameIs("status_name", name)
        if entity not in _OBJECT_TYPES:
            return NameIs("status_name", name)  # nothing lists the statuses of the other kinds
        found: set[int] = set()
        names: list[str] = []
        for workflow in await self._workflows(entity):
            for status in _dicts(workflow.get("status")):
                names.append(str(status.get("name")))
                if _is(status.get("name"), name) and isinstance(status.get("id"), int):
                    found.add(status["id"])
        if not found:
            raise _unknown("status", name, names)
        return OneOf("status", tuple(sorted(found)))

    async def record_type(self, entity: Entity, name: str, *, argument: str = "record_type") -> Clause:
        """Records of a kind with the workflow (jobs, contacts) or type (tasks, activities) of this name.

        Raises:
            InvalidInput: the account has no such type; the message lists those it has.
        """
        pairs = [(str(n), i) for n, i in await self._types(entity)]
        ids = tuple(sorted({number for known, number in pairs if _is(known, name)}))
        if ids:
            return OneOf("record_type", ids)
        names = [known for known, _ in pairs]
        if entity is Entity.ACTIVITIES:
            if any(_is(known, name) for known in _SYSTEM_ACTIVITIES):
                return NameIs("record_type_name", name)
            names += _SYSTEM_ACTIVITIES
        raise _unknown(argument, name, names)

    async def person(self, field: str, name: str, *, argument: str) -> Clause:
        """Records whose `field` is a user: by id, full name or e-mail address (one human may have several ids).

        Raises:
            InvalidInput: the account has no such user; the message lists those it has.
        """
        ids: list[str] = []
        names: list[str] = []
        for user in await self.users():
            full = full_name(user)
            names.append(full)
            if name == user.get("id") or _is(full, name) or _is(user.get("email"), name):
                ids.append(str(user.get("id")))
        if ids:
            return OneOf(field, tuple(sorted(ids)))
        if argument == "created_by" and name.startswith("system_"):
            # automations and connected products sign with markers such as system_automation_job, system_qbo
            return OneOf(field, (name,))
        raise _unknown(argument, name, names)

    async def status_fields(
        self, entity: Entity, name: str, record_type: str | None = None, current: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What to write for a status of a job, contact or work order, whose workflow may be named too: `record_type`,
        `record_type_name`, `status`, `status_name`.

        `current`: the record as it is, whose own workflow is kept where several have a status of the name.

        Raises:
            InvalidInput: no such status or workflow is in use, or it is one of several; the message lists them.
        """
        flows = await self._workflows(entity)
        if record_type is not None:
            flows = _in_use_named("record_type", record_type, flows, "name")
        flows = [flow for flow in flows if _in_use(flow)]
        _in_use_named("status", name, [status for flow in flows for status in _statuses(flow)], "name")
        having = [flow for flow in flows if any(_in_use(one) and _is(one.get("name"), name) for one in _statuses(flow))]
        chosen = sorted(having, key=lambda flow: not _is_own(flow, current))[0]
        if len(having) > 1 and not _is_own(chosen, current):
            several = ", ".join(sorted({str(flow.get("name")) for flow in having}))
            raise InvalidInput(
                f"Several workflows have a status of that name: {several}. Say which one in record_type.",
                field="record_type",
            )
        status = _in_use_named("status", name, _statuses(chosen), "name")[0]
        return {
            "record_type": chosen.get("id"),
            "record_type_name": chosen.get("name"),
            "status": status.get("id"),
            "status_name": status.get("name"),
        }

    async def type_fields(self, entity: Entity, name: str, *, argument: str = "record_type") -> dict[str, Any]:
        """What to write for the type of a task, activity or file: `record_type`, `record_type_name`.

        Raises:
            InvalidInput: no such type is in use; the message lists those that are.
        """
        kind, key = _TYPES[entity]
        found = _in_use_named(argument, name, _dicts((await self._read_settings()).get(kind)), "TypeName")[0]
        return {"record_type": found.get(key), "record_type_name": found.get("TypeName")}

    async def source_fields(self, name: str, *, argument: str = "source") -> dict[str, Any]:
        """What to write for a lead source: `source`, `source_name`.

        Raises:
            InvalidInput: no such source is in use; the message lists those that are.
        """
        sources = _dicts((await self._read_settings()).get("sources"))
        found = _in_use_named(argument, name, sources, "SourceName")[0]
        return {"source": found.get("JobSourceId"), "source_name": found.get("SourceName")}

    async def user_id(self, name: str, argument: str) -> str:
        """The id of one user given by id, full name or e-mail address.

        One human may have several ids: the first that is active is meant.

        Raises:
            InvalidInput: no such user, or several people of the name; the message lists them.
        """
        users = await self.users()
        wanted = name.strip()
        found = [one for one in users if wanted == one.get("id")]
        found = found or [one for one in users if _is(full_name(one), wanted) or _is(one.get("email"), wanted)]
        if not found:
            raise _unknown(argument, name, (full_name(one) for one in users if _in_use(one)))
        found = [one for one in found if _in_use(one)] or found
        people = {str(one.get("email") or one.get("id")).casefold() for one in found}
        if len(people) > 1:
            raise InvalidInput(
                f"Several people are called so. Say which one by e-mail address: {', '.join(sorted(people))}.",
                field=argument,
            )
        return str(found[0].get("id"))

    async def user_names(self) -> dict[str, str]:
        """Full names by user id, former users included."""
        return {str(user.get("id")): full_name(user) for user in await self.users()}

    async def users(self) -> list[dict[str, Any]]:
        """Every user of the account, inactive ones included."""
        if self._users is None:
            answer = await self._look_up(Read.whole(Entity.USERS))
            self._users = _dicts(answer.value().get("rows"))
        return self._users

    async def _workflows(self, entity: Entity) -> list[dict[str, Any]]:
        wanted = _OBJECT_TYPES[entity]
        settings = await self._read_settings()
        return [flow for flow in _dicts(settings.get("workflows")) if flow.get("object_type") == wanted]

    async def _types(self, entity: Entity) -> list[tuple[Any, int]]:
        if entity in _OBJECT_TYPES:
            return [(flow.get("name"), int(flow["id"])) for flow in await self._workflows(entity) if "id" in flow]
        kind, key = _TYPES[entity]
        settings = await self._read_settings()
        return [(item.get("TypeName"), int(item[key])) for item in _dicts(settings.get(kind)) if key in item]

    async def _read_settings(self) -> Mapping[str, Any]:
        if self._settings is None:
            answer = await self._look_up(Read.whole(Entity.SETTINGS))
            self._settings = answer.value()
        return self._settings or {}


def full_name(user: Mapping[str, Any]) -> str:
    """`Robin Okafor`, from the two halves JobNimbus keeps."""
    return f"{user.get('first_name') or ''} {user.get('last_name') or ''}".strip()


def _is(known: Any, name: str) -> bool:
    return isinstance(known, str) and known.casefold() == name.strip().casefold()


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _in_use(item: Mapping[str, Any]) -> bool:
    """A workflow, status, type, source or user that new records may name; keys are in either of JobNimbus's styles."""
    return item.get("is_active", item.get("IsActive")) is not False and not item.get("is_archived")


def _in_use_named(argument: str, name: str, items: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Those in use that have this name: at least one.

    Raises:
        InvalidInput: there is none; the message lists those in use.
    """
    items = list(items)
    same = [item for item in items if _is(item.get(key), name)]
    if found := [item for item in same if _in_use(item)]:
        return found
    known = [str(item.get(key)) for item in items if _in_use(item)]
    if same:
        raise InvalidInput(f"That {argument} is no longer in use. In use are: {_listed(known)}.", field=argument)
    raise _unknown(argument, name, known)


def _statuses(flow: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _dicts(flow.get("status"))


def _is_own(flow: Mapping[str, Any], current: Mapping[str, Any] | None) -> bool:
    """Is this the record's own workflow?"""
    if current is None:
        return False
    own = current.get("record_type")
    return flow.get("id") == own if own is not None else _is(flow.get("name"), str(current.get("record_type_name")))


def _unknown(argument: str, name: str, known: Iterable[str]) -> InvalidInput:
    return InvalidInput(f"This account has no {argument} of that name. It has: {_listed(known)}.", field=argument)


def _listed(known: Iterable[str]) -> str:
    names = sorted({name for name in known if name})
    return (", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")) or "none"
