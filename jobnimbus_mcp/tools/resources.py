"""Records as resources: which kinds there are, and reading one as the caller may see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import INSTANCE_HEADER, Caller, Identities
from jobnimbus_mcp.gateway.reads import not_found
from jobnimbus_mcp.gateway.resources import RESOURCE_KINDS, SCHEME, located
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import NoArgs
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import Toolbox

__all__ = ["MIME_TYPE", "READ", "WATCH", "Proof", "Resources", "Template", "templates"]

MIME_TYPE = "application/json"

READ, WATCH = "resources/read", "subscriptions/listen"
"""Why a record is read, as counts and log lines name it."""

_TOLD: Mapping[Entity, tuple[str, str]] = {
    Entity.JOBS: ("Job", "One job in full."),
    Entity.CONTACTS: ("Contact", "One customer or other contact in full."),
    Entity.ESTIMATES: ("Estimate", "One estimate with its items."),
    Entity.ACTIVITIES: ("Activity", "One note, call, e-mail or entry of the change log."),
    Entity.TASKS: ("Task", "One task or appointment."),
    Entity.WORKORDERS: ("Work order", "One work order with its items."),
    Entity.ATTACHMENTS: ("File", "One file's metadata; its content is not read."),
    Entity.USERS: ("User", "One person of the account, by the id that records name their owners by."),
}


class Template(NamedTuple):
    """A row of resources/templates/list."""

    uri_template: str
    name: str
    title: str
    description: str


def templates() -> tuple[Template, ...]:
    """One for each kind, in a fixed order."""
    return tuple(
        Template(
            f"{SCHEME}://{{instance}}/{kind.value}/{{jnid}}",
            kind.value,
            title,
            f"{text} As JobNimbus has it, dates in epoch seconds. instance: the account; jnid: from any result.",
        )
        for kind, (title, text) in ((kind, _TOLD[kind]) for kind in RESOURCE_KINDS)
    )


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request says of its sender: two header values, None where one was not sent."""

    api_key: str | None = field(repr=False)
    instance: str | None


class _Which(NoArgs):
    uri: Annotated[str, Field(max_length=200)]


class Resources:
    """Reads records by URI, counted and logged like the toolbox's own calls."""

    def __init__(self, toolbox: Toolbox, identities: Identities) -> None:
        title, text = "Read a record", "One record by its URI."
        specs = tuple(ToolSpec(name, title, text, Entity.JOBS, _Which, handler=_record_of) for name in (READ, WATCH))
        # of the record's own kind in the counts
        self._by_kind = {
            kind: replace(toolbox, specs=tuple(replace(spec, entity=kind) for spec in specs)) for kind in RESOURCE_KINDS
        }
        self._toolbox = toolbox
        self._identities = identities

    def caller(self, uri: str, proof: Proof) -> Caller:
        """Who asks for this URI: the account is the URI's, which a header may name too.

        Raises:
            InvalidInput: no URI of a resource, an account not served here, or another one than the header's.
            NotAuthenticated: no key given, and none held here for the account.
        """
        instance = located(uri).instance
        if proof.instance is not None and self._identities.instance(proof.instance) != instance:
            raise InvalidInput(f"The URI names another account than the {INSTANCE_HEADER} header.", field="uri")
        if instance not in self._identities.instances:
            raise InvalidInput("No account of the name in the URI is served here.", field="uri")
        return self._identities.identify(proof.api_key, instance)

    def anyone(self, proof: Proof) -> Caller:
        """Who asks, where no URI names the account; raises as `Identities.identify` does."""
        return self._identities.identify(proof.api_key, proof.instance)

    async def read(self, uri: str, who: Caller, call: Call, *, why: str = READ) -> ToolAnswer:
        """The record as JSON, and the cache's envelope. `who`: of `caller(uri, ...)`.

        Raises:
            RecordNotFound: JobNimbus has no such record, or hides it from this caller.
            ProjectError: by its kind, as for a tool.
        """
        return await self._by_kind[located(uri).ref.entity].call(why, {"uri": uri}, who, call)

    async def admitted(self, who: Caller, call: Call) -> None:
        """Return when JobNimbus accepted this caller's credential lately, asking it when it did not."""
        await self._toolbox.gateway.admitted(who, call)


async def _record_of(ctx: ToolContext, args: _Which) -> dict[str, Any]:
    instance, ref = located(args.uri)
    if instance != ctx.caller.instance:
        raise InvalidInput("The URI names another account than the one asked as.", field="uri")
    if ref.entity is not Entity.USERS:
        record: dict[str, Any] = await ctx.read(Read.record(ref.entity, ref.jnid))
        return record
    # JobNimbus tells of its users only all at once
    for user in (await ctx.read(Read.whole(Entity.USERS)))["rows"]:
        if isinstance(user, dict) and user.get("id") == ref.jnid:
            return user
    raise not_found(Entity.USERS)
