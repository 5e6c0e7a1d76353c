"""Records and lists as resources: which there are, and reading one as the caller may see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.query import NameIs
from jobnimbus_mcp.crm.reads import BLOCK_ROWS, Operation, Read
from jobnimbus_mcp.errors import InvalidInput, NotAllowed, ProjectError
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import INSTANCE_HEADER, Caller, Identities
from jobnimbus_mcp.gateway.reads import not_found
from jobnimbus_mcp.gateway.resources import (
    LISTS_BY,
    RELATED_LISTS,
    RESOURCE_KINDS,
    SCHEME,
    AllOf,
    ListBy,
    ListUnder,
    Place,
    RecordAt,
    located,
    spelled,
    uri_of,
)
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import ListArgs, NoArgs
from jobnimbus_mcp.tools.listing import Listing, list_answer
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import META, Toolbox

__all__ = ["MIME_TYPE", "READ", "WATCH", "Proof", "Resource", "Resources", "Template"]

MIME_TYPE = "application/json"

READ, WATCH = "resources/read", "subscriptions/listen"
"""Why a record is read, as counts and log lines name it."""

_RECORDS: Mapping[Entity, tuple[str, str]] = {
    Entity.JOBS: ("Job", "One job in full."),
    Entity.CONTACTS: ("Contact", "One customer or other contact in full."),
    Entity.ESTIMATES: ("Estimate", "One estimate with its items."),
    Entity.INVOICES: ("Invoice", "One invoice with its items and payments."),
    Entity.PAYMENTS: ("Payment", "One payment with the invoices it paid."),
    Entity.PRODUCTS: ("Product", "One product with its units and prices."),
    Entity.ACTIVITIES: ("Activity", "One note, call, e-mail or entry of the change log."),
    Entity.TASKS: ("Task", "One task or appointment."),
    Entity.WORKORDERS: ("Work order", "One work order with its items."),
    Entity.MATERIALORDERS: ("Material order", "One material order with its items."),
    Entity.BUDGETS: ("Budget", "One budget: revenue, costs and margin of a job."),
    Entity.ATTACHMENTS: ("File", "One file's metadata; its content is not read."),
    Entity.USERS: ("User", "One person of the account, by the id that records name their owners by."),
}

_LISTED: Mapping[Entity, str] = {
    Entity.JOBS: "jobs",
    Entity.CONTACTS: "contacts",
    Entity.ACTIVITIES: "activities",
    Entity.ATTACHMENTS: "files",
    Entity.TASKS: "tasks",
    Entity.ESTIMATES: "estimates",
    Entity.INVOICES: "invoices",
    Entity.PAYMENTS: "payments",
    Entity.WORKORDERS: "work orders",
    Entity.MATERIALORDERS: "material orders",
    Entity.BUDGETS: "budgets",
}

_BY: Mapping[str, tuple[str, str]] = {
    "status": ("status", "status: its name, percent-encoded."),
    "owner": ("user", "user: an owner's full name, e-mail or id, percent-encoded."),
    "tag": ("tag", "tag: percent-encoded."),
}
"""What a list is asked by: the template's variable, and what it takes."""

_WHOLE: Mapping[Entity, tuple[str, str, str]] = {
    Entity.USERS: ("get_users", "Users", "The account's people with their ids."),
    Entity.SETTINGS: ("get_settings", "Settings", "The account's workflows with their statuses, sources and types."),
}

_HAS_MORE = "there are more; the tool that lists them goes on"


class Template(NamedTuple):
    """A row of resources/templates/list. `variables`: what its variables stand for, by which values are completed."""

    uri_template: str
    name: str
    title: str
    description: str
    variables: Mapping[str, str]


class Resource(NamedTuple):
    """A row of resources/list."""

    uri: str
    name: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request says of its sender: two header values, None where one was not sent, and what its token allows."""

    api_key: str | None = field(repr=False)
    instance: str | None
    access: Access = EVERYTHING


class _Which(NoArgs):
    uri: Annotated[str, Field(max_length=2_000)]


class Resources:
    """Reads by URI: records counted and logged like the toolbox's own calls, lists by the tools that make them.

    Whoever may use no tool that reads a kind may not read its resources either.
    """

    def __init__(self, toolbox: Toolbox, identities: Identities) -> None:
        title, text = "Read a resource", "One record or list by its URI."
        records = tuple(
            ToolSpec(name, title, text, Entity.JOBS, _Which, handler=_resource_of, toolset=META)
            for name in (READ, WATCH)
        )
        # of the record's own kind in the counts
        self._by_kind = {
            kind: replace(toolbox, specs=tuple(replace(spec, entity=kind) for spec in records))
            for kind in RESOURCE_KINDS
        }
        self._toolbox = toolbox
        self._identities = identities
        self._lists = {
            spec.entity: spec
            for spec in toolbox.specs
            if spec.plan is not None and spec.entity in _LISTED and spec.name.startswith("get_")
        }
        self._whole = {spec.name for spec in toolbox.specs} & {name for name, _, _ in _WHOLE.values()}

    def templates(self, access: Access = EVERYTHING) -> list[Template]:
        """Those whose kinds this caller may read, in a fixed order."""
        kinds = [kind for kind in RESOURCE_KINDS if self._readable(kind, access)]
        found = [_record_template(kind) for kind in kinds]
        for parent, listed in RELATED_LISTS.items():
            found += [
                _related_template(parent, kind, self._lists[kind].name)
                for kind in listed
                if parent in kinds and kind in kinds and self._argument(kind, parent) is not None
            ]
        for kind, words in LISTS_BY.items():
            found += [_by_template(kind, word) for word in words if kind in kinds and kind in self._lists]
        return found

    def listed(self, proof: Proof) -> list[Resource]:
        """What is there once per account, of the accounts that this caller may see."""
        found = []
        for instance in self._identities.instances:
            try:
                self._identities.identify(proof.api_key, instance, proof.access)
            except ProjectError:
                continue  # none of this caller's
            if proof.instance is not None and proof.instance != instance:
                continue
            for kind, (tool, title, text) in _WHOLE.items():
                if tool in self._whole and self._toolbox.usable(self._toolbox.spec(tool), proof.access):
                    uri = spelled(AllOf(instance, kind))
                    found.append(Resource(uri, f"{instance}-{kind.value}", f"{title} of {instance}", text))
        return found

    def caller(self, uri: str, proof: Proof) -> Caller:
        """Who asks for this URI: the account is the URI's, which a header may name too.

        Raises:
            InvalidInput: no URI of a resource, an account not served here, or another one than the header's.
            NotAllowed: the token is not for this account.
            NotAuthenticated: no key given, and none held here for the account.
        """
        instance = located(uri).instance
        if proof.instance is not None and self._identities.instance(proof.instance) != instance:
            raise InvalidInput(f"The URI names another account than the {INSTANCE_HEADER} header.", field="uri")
        if instance not in self._identities.instances:
            raise InvalidInput("No account of the name in the URI is served here.", field="uri")
        return self._identities.identify(proof.api_key, instance, proof.access)

    def anyone(self, proof: Proof) -> Caller:
        """Who asks, where no URI names the account; raises as `Identities.identify` does."""
        return self._identities.identify(proof.api_key, proof.instance, proof.access)

    async def read(self, uri: str, who: Caller, call: Call, *, why: str = READ) -> ToolAnswer:
        """The record or list as JSON, and the cache's envelope. `who`: of `caller(uri, ...)`.

        Raises:
            RecordNotFound: JobNimbus has no such record, or hides it from this caller.
            ProjectError: by its kind, as for a tool.
        """
        place = located(uri)
        call = replace(call)  # reads of one subscription go side by side, and each call has its own name
        if why == WATCH and not isinstance(place, RecordAt | ListUnder):
            raise InvalidInput(
                "This list can be read, not subscribed to. Records can, and what is listed under a job or contact.",
                field="uri",
            )
        if place.kind in RESOURCE_KINDS and not self._readable(place.kind, who.access):
            raise NotAllowed(f"The token sent may not read {place.kind.value}.", code="tool_not_allowed", field="uri")
        match place:
            case RecordAt():
                return await self._by_kind[place.kind].call(why, {"uri": uri}, who, call)
            case ListUnder(_, parent, kind):
                argument = self._argument(kind, parent.entity)
                if argument is None:
                    raise InvalidInput(
                        f"What hangs on {parent.entity.value} is not listed as {kind.value}.", field="uri"
                    )
                # whoever may not see the record learns nothing of what hangs on it, not even that there is nothing
                await self.read(uri_of(place.instance, parent), who, call, why=why)
                asked = {argument: parent.jnid, "size": BLOCK_ROWS}
                return await self._toolbox.call(self._lists[kind].name, asked, who, call)
            case ListBy(_, kind, "status", value):
                asked = {"status": value, "size": BLOCK_ROWS}
                return await self._toolbox.call(self._list_of(kind).name, asked, who, call)
            case ListBy(_, kind):
                self._list_of(kind)
                return await self._by_kind[kind].call(why, {"uri": uri}, who, call)
            case AllOf(_, kind):
                tool = _WHOLE[kind][0]
                if tool not in self._whole:
                    raise not_found(kind)
                return await self._toolbox.call(tool, {"size": 200} if kind is Entity.USERS else {}, who, call)

    async def admitted(self, who: Caller, call: Call) -> None:
        """Return when JobNimbus accepted this caller's credential lately, asking it when it did not."""
        await self._toolbox.gateway.admitted(who, call)

    def _readable(self, kind: Entity, access: Access) -> bool:
        return any(
            spec.entity is kind and not spec.effect.writes and self._toolbox.usable(spec, access)
            for spec in self._toolbox.specs
        )

    def _list_of(self, kind: Entity) -> ToolSpec:
        if kind not in self._lists:
            raise InvalidInput(f"There is no list of {kind.value} here.", field="uri")
        return self._lists[kind]

    def _argument(self, kind: Entity, parent: Entity) -> str | None:
        """By which the tool that lists the kind takes the record it hangs on; None: it does not."""
        names = self._lists[kind].argument_names if kind in self._lists else frozenset()
        # a short jnid may be another job's number, which job_id would take it for
        wanted = ("related_to", "job_id") if parent is Entity.JOBS else ("related_to", "contact_id")
        return next((name for name in wanted if name in names), None)


def _record_template(kind: Entity) -> Template:
    title, text = _RECORDS[kind]
    return Template(
        f"{SCHEME}://{{instance}}/{kind.value}/{{jnid}}",
        kind.value,
        title,
        f"{text} As JobNimbus has it, dates in epoch seconds. instance: the account; jnid: from any result.",
        {"instance": "instance"},
    )


def _related_template(parent: Entity, kind: Entity, tool: str) -> Template:
    one = _RECORDS[parent][0].lower()
    return Template(
        f"{SCHEME}://{{instance}}/{parent.value}/{{jnid}}/{kind.value}",
        f"{one}-{kind.value}",
        f"{_LISTED[kind].capitalize()} of a {one}",
        f"The {_LISTED[kind]} of one {one}, newest first; {tool} takes next_cursor. jnid: the {one}'s.",
        {"instance": "instance"},
    )


def _by_template(kind: Entity, word: str) -> Template:
    variable, text = _BY[word]
    return Template(
        f"{SCHEME}://{{instance}}/{kind.value}/{word}/{{{variable}}}",
        f"{kind.value}-by-{word}",
        f"{_LISTED[kind].capitalize()} by {word}",
        f"The newest {_LISTED[kind]} of one {word}. {text}",
        {"instance": "instance", variable: f"{kind.value}.{word}"},
    )


async def _resource_of(ctx: ToolContext, args: _Which) -> dict[str, Any]:
    place: Place = located(args.uri)
    if place.instance != ctx.caller.instance:
        raise InvalidInput("The URI names another account than the one asked as.", field="uri")
    match place:
        case RecordAt(_, ref):
            return await _record_of(ctx, ref)
        case ListBy():
            return await _list_by(ctx, place)
        case _:
            raise InvalidInput("This resource is read by a tool.", field="uri")


async def _record_of(ctx: ToolContext, ref: EntityRef) -> dict[str, Any]:
    if ref.entity is not Entity.USERS:
        record: dict[str, Any] = await ctx.read(Read.record(ref.entity, ref.jnid))
        return record
    # JobNimbus tells of its users only all at once
    for user in _dicts((await ctx.read(Read.whole(Entity.USERS)))["rows"]):
        if user.get("id") == ref.jnid:
            return user
    raise not_found(Entity.USERS)


async def _list_by(ctx: ToolContext, place: ListBy) -> dict[str, Any]:
    """A list that no tool makes by this argument; one page, since no tool could go on with its cursor."""
    if place.by == "owner":
        clause = await ctx.directory.person("owners.id", place.value, argument="user")
        listing = Listing(place.kind, (clause,))
    else:
        # JobNimbus keeps the words of a tag, so the whole of it is checked here
        listing = Listing(place.kind, (NameIs("tags", place.value),), scan=True, operation=Operation.SEARCH)
    answer = await list_answer(ctx, listing, ListArgs(size=BLOCK_ROWS), {}, None)
    if answer["next_cursor"] is not None:
        answer |= {"next_cursor": None, "complete": False, "incomplete_reason": _HAS_MORE}
    return answer


def _dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row, dict)]
