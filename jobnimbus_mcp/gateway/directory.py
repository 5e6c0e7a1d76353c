"""Names to ids: statuses, record types, activity types and people of an account, from its settings and users."""

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
        kind, key = {
            Entity.TASKS: ("taskTypes", "TaskTypeId"),
            Entity.ACTIVITIES: ("activityTypes", "ActivityTypeId"),
        }[entity]
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


def _unknown(argument: str, name: str, known: Iterable[str]) -> InvalidInput:
    names = sorted({known_name for known_name in known if known_name})
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return InvalidInput(f"This account has no {argument} of that name. It has: {shown or 'none'}.", field=argument)
