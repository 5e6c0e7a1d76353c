"""The tools that read records: one row per kind, from which get_Xs, search_Xs and get_X are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Sort, Where, matches
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.gateway.reads import not_found
from jobnimbus_mcp.tools import account, billing, estimates, files, jobs, tasks
from jobnimbus_mcp.tools import filters as by
from jobnimbus_mcp.tools.clauses import phone_query, word_query
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.filters import Filter, Keep
from jobnimbus_mcp.tools.inputs import JobArgs, ReadingArgs, RecordId, SortedListArgs
from jobnimbus_mcp.tools.inputs_more import FilesArgs, InvoicesArgs, PaymentsArgs
from jobnimbus_mcp.tools.listing import Listing
from jobnimbus_mcp.tools.record import record_answer
from jobnimbus_mcp.tools.spec import LIST_OUTPUT, RECORD_OUTPUT, Handler, Plan, ToolSpec

__all__ = ["ROWS", "ReadRow", "list_model", "one_model", "search_model", "table_tools"]

_GuidOrId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
"""Estimates of the embedded quoting product have ids with hyphens."""

_QUERY_CHARS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRow:
    """A kind of record as agents read it.

    `one`, `many`: its names in those of the tools. `lists`, `finds`, `shows`: what get_Xs, search_Xs and get_X are for;
    "" where there is no such tool. `filters`: what the list, and the search too, can be asked for. `searched`: fields
    that words are looked for in; `phones`: fields that a query of digits is. `query`: what a query may be. `page`: what
    the list takes beside its filters. `whole`: JobNimbus tells them only all at once. `default`: which of the tools are
    in the default set. `one_handler`, `one_arguments`: of get_X, where it does more than others.
    """

    entity: Entity
    one: str
    many: str
    toolset: str
    lists: str
    filters: tuple[Filter, ...]
    finds: str = ""
    searched: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    query: str = "Words that must all occur."
    shows: str = ""
    page: type[SortedListArgs] = SortedListArgs
    whole: bool = False
    id_type: Any = RecordId
    default: frozenset[str] = frozenset()
    one_handler: Handler | None = None
    one_arguments: type[BaseModel] | None = None


_LIST, _SEARCH, _ONE = "list", "search", "one"

ROWS: tuple[ReadRow, ...] = (
    ReadRow(
        entity=Entity.JOBS,
        one="job",
        many="jobs",
        toolset="crm",
        lists="List jobs by status, workflow, people, dates or schedule.",
        filters=(
            *(by.STATUS, by.RECORD_TYPE, by.SALES_REP, by.OWNER, jobs.OF_CONTACT, jobs.SCHEDULE, jobs.ARCHIVED),
            *(by.CREATED, by.UPDATED, by.SCHEDULED),
        ),
        finds="Find jobs by words in their name, number, address or description. Use it when you have no id.",
        searched=("name", "number", "description", "address_line1", "address_line2", "city", "state_text", "zip"),
        shows="One job in full, by jnid or job number. Use it for the current state before acting on a job.",
        default=frozenset({_LIST, _SEARCH, _ONE}),
        one_handler=jobs.get_job,
        one_arguments=JobArgs,
    ),
    ReadRow(
        entity=Entity.CONTACTS,
        one="contact",
        many="contacts",
        toolset="crm",
        lists="List customers and other contacts by status, workflow, people or dates.",
        filters=(by.STATUS, by.RECORD_TYPE, by.SALES_REP, by.OWNER, by.CREATED, by.UPDATED),
        finds="Find contacts by name, company, e-mail or a phone number in any format.",
        searched=("display_name", "first_name", "last_name", "company", "email"),
        phones=("mobile_phone", "home_phone", "work_phone", "fax_number"),
        query="Words that must all occur, or a phone number.",
        shows="One contact in full, by jnid. Use it for address, phones and totals of a customer.",
        default=frozenset({_LIST, _SEARCH, _ONE}),
    ),
    ReadRow(
        entity=Entity.TASKS,
        one="task",
        many="tasks",
        toolset="work",
        lists="List tasks of the account, a job, a contact or a person; open, done or overdue.",
        filters=(
            *(by.JOB, by.CONTACT, by.RELATED, by.OWNER, tasks.COMPLETED, tasks.PRIORITY, by.TASK_TYPE, by.CREATED),
            tasks.OVERDUE,
        ),
        finds="Find tasks and appointments by words in title, description or the name of what they belong to.",
        searched=("title", "description", "number", "related.name"),
        shows="One task or appointment in full, by jnid.",
        default=frozenset({_LIST}),
    ),
    ReadRow(
        entity=Entity.ACTIVITIES,
        one="activity",
        many="activities",
        toolset="work",
        lists="List notes, calls, e-mails and the change log of the account, a job or a contact.",
        filters=(by.JOB, by.CONTACT, by.RELATED, by.ACTIVITY_TYPE, by.AUTHOR, by.CREATED),
        finds="Find notes, calls and e-mails by words in their text; give a job, contact or dates with it.",
        searched=("note", "related.name"),
        shows="One note, call, e-mail or entry of the change log in full, by jnid.",
        default=frozenset({_LIST}),
    ),
    ReadRow(
        entity=Entity.WORKORDERS,
        one="work_order",
        many="work_orders",
        toolset="work",
        lists="List work orders by status, workflow, crew or schedule, of the account, a job or a contact.",
        filters=(by.JOB, by.CONTACT, by.STATUS, by.RECORD_TYPE, by.OWNER, by.CREATED, by.SCHEDULED),
        finds="Find work orders by words in their name, number, notes or items.",
        searched=("name", "number", "customer_note", "internal_note", "items.name", "related.name"),
        shows="One work order with its items, by jnid.",
    ),
    ReadRow(
        entity=Entity.MATERIALORDERS,
        one="material_order",
        many="material_orders",
        toolset="work",
        lists="List material orders of the account, a job or a contact, by status or date.",
        filters=(by.JOB, by.CONTACT, billing.NAMED_STATUS, by.CREATED),
        finds="Find material orders by words in their number, items or the name of what they belong to.",
        searched=("number", "items.name", "related.name"),
        shows="One material order with its items and supplier, by jnid.",
    ),
    ReadRow(
        entity=Entity.ESTIMATES,
        one="estimate",
        many="estimates",
        toolset="sales",
        lists="List estimates of the account, a job or a contact, by status and by when they were sent or approved.",
        filters=(by.JOB, by.CONTACT, by.CREATED, estimates.STATUS, estimates.SENT, estimates.APPROVED),
        finds="Find estimates by words in their number, notes, items or the name of what they belong to.",
        searched=("number", "note", "internal_note", "items.name", "related.name"),
        shows="One estimate with its items, by jnid.",
        id_type=_GuidOrId,
        default=frozenset({_LIST}),
    ),
    ReadRow(
        entity=Entity.INVOICES,
        one="invoice",
        many="invoices",
        toolset="sales",
        lists="List invoices of the account, a job or a contact, by status and dates; unpaid or overdue.",
        filters=(by.JOB, by.CONTACT, billing.NAMED_STATUS, by.CREATED, billing.DUE, billing.UNPAID, billing.OVERDUE),
        finds="Find invoices by words in their number, notes, items or the name of what they belong to.",
        searched=("number", "note", "internal_note", "items.name", "related.name"),
        shows="One invoice with its items and payments, by jnid.",
        page=InvoicesArgs,
        default=frozenset({_LIST}),
    ),
    ReadRow(
        entity=Entity.PAYMENTS,
        one="payment",
        many="payments",
        toolset="sales",
        lists="List payments of the account, a job, a contact or an invoice, by the day they were made.",
        filters=(by.JOB, by.CONTACT, billing.INVOICE, billing.METHOD, billing.PAID_ON),
        finds="Find payments by words in their reference (check number) or the name of what they belong to.",
        searched=("reference", "invoices.invoice_no", "related.name"),
        shows="One payment with the invoices it paid, by jnid.",
        page=PaymentsArgs,
    ),
    ReadRow(
        entity=Entity.PRODUCTS,
        one="product",
        many="products",
        toolset="sales",
        lists="List the account's products and services with units, costs and prices.",
        filters=(billing.IN_USE, billing.ITEM_TYPE, by.CREATED),
        finds="Find products by words in name or description. Use it before writing lines of an estimate or invoice.",
        searched=("name", "description"),
        shows="One product with its units, costs and prices, by jnid.",
    ),
    ReadRow(
        entity=Entity.BUDGETS,
        one="budget",
        many="budgets",
        toolset="sales",
        lists="List budgets (revenue, cost, profit) of the account, a job, a contact or a sales rep.",
        filters=(by.JOB, by.CONTACT, by.SALES_REP, by.CREATED),
        finds="Find budgets by words in their number or the name of what they belong to.",
        searched=("number", "related.name"),
        shows="One budget: revenue, cost, profit and margin, by jnid.",
    ),
    ReadRow(
        entity=Entity.ATTACHMENTS,
        one="attachment",
        many="attachments",
        toolset="files",
        lists="List the files and photos (metadata only) of the account, a job or a contact, by type or date.",
        filters=(by.JOB, by.CONTACT, by.RELATED, files.FILE_TYPE, by.CREATED),
        finds="Find files by words in their name, description or the name of what they belong to.",
        searched=("filename", "description", "related.name"),
        shows="One file's metadata, by jnid; not its content.",
        page=FilesArgs,
        default=frozenset({_LIST}),
    ),
    ReadRow(
        entity=Entity.USERS,
        one="user",
        many="users",
        toolset="account",
        lists="List the account's people with their ids, as owners and sales reps are named elsewhere.",
        filters=(account.ACTIVE_ONLY,),
        finds="Find people of the account by words in their name or e-mail address.",
        searched=("first_name", "last_name", "email"),
        shows="One person of the account, by user id.",
        whole=True,
        default=frozenset({_LIST}),
    ),
)


@cache
def table_tools() -> tuple[ToolSpec, ...]:
    """The tools of every row, in order; made once, since models of arguments take a while to make."""
    return tuple(spec for row in ROWS for spec in _row_tools(row))


def _row_tools(row: ReadRow) -> tuple[ToolSpec, ...]:
    """The list, the search and the single record, as far as the kind has them."""

    def tool(name: str, which: str, title: str, text: str, arguments: type[BaseModel], **run: Any) -> ToolSpec:
        default, toolset = which in row.default, row.toolset
        output = RECORD_OUTPUT if which == _ONE else LIST_OUTPUT
        return ToolSpec(name, title, text, row.entity, arguments, output, default=default, toolset=toolset, **run)

    many = row.many.replace("_", " ")
    made = [tool(f"get_{row.many}", _LIST, f"List {many}", row.lists, list_model(row), plan=_list_plan(row))]
    if row.finds:
        name = f"search_{row.many}"
        made.append(tool(name, _SEARCH, f"Search {many}", row.finds, search_model(row), plan=_search_plan(row)))
    if row.shows:
        title, run = f"Get one {row.one.replace('_', ' ')}", row.one_handler or _one_handler(row)
        made.append(tool(f"get_{row.one}", _ONE, title, row.shows, one_model(row), handler=run))
    return tuple(made)


def list_model(row: ReadRow) -> type[BaseModel]:
    """The arguments of get_Xs."""
    taken: dict[str, Any] = {}
    for asked in row.filters:
        taken |= {name: (type_, asked.defaults.get(name)) for name, type_ in asked.arguments.items()}
    made: type[BaseModel] = create_model(f"get_{row.many}", __base__=row.page, **taken)
    return made


def search_model(row: ReadRow) -> type[BaseModel]:
    """The arguments of search_Xs: a query, and everything of the list."""
    query = Annotated[str | None, Field(min_length=1, max_length=_QUERY_CHARS_MAX, description=row.query)]
    made: type[BaseModel] = create_model(f"search_{row.many}", __base__=list_model(row), query=(query, None))
    return made


def one_model(row: ReadRow) -> type[BaseModel]:
    """The arguments of get_X."""
    if row.one_arguments is not None:
        return row.one_arguments
    told = Field(description=f"The {row.one.replace('_', ' ')}'s id, from any result.")
    taken: dict[str, Any] = {f"{row.one}_id": (row.id_type, told)}
    made: type[BaseModel] = create_model(f"get_{row.one}", __base__=ReadingArgs, **taken)
    return made


def _list_plan(row: ReadRow) -> Plan:
    async def plan(ctx: ToolContext, args: SortedListArgs) -> Listing:
        where: Where = ()
        scope: frozenset[str] = frozenset()
        keeps: list[Keep] = []
        scan = False
        for asked in row.filters:
            given = {name: value for name in asked.arguments if (value := getattr(args, name)) is not None}
            if not given:
                continue
            condition = await asked.condition(ctx, row.entity, given)
            where, scope = (*where, *condition.where), scope | condition.scope
            scan = scan or condition.scan or condition.keep is not None
            if condition.keep is not None:
                keeps.append(condition.keep)
        sort = Sort(args.sort_by, args.order == "desc")
        if row.whole:
            return Listing(row.entity, whole=True, keep=_all_of(keeps))
        return Listing(row.entity, where, scope, sort, scan=scan, keep=_all_of(keeps))

    return plan


def _search_plan(row: ReadRow) -> Plan:
    list_plan = _list_plan(row)

    async def plan(ctx: ToolContext, args: Any) -> Listing:
        """The rows of the list in which every word of the query occurs."""
        listing = await list_plan(ctx, args)
        if args.query is None:
            return listing
        words = phone_query(args.query, row.phones, row.searched) if row.phones else None
        words = words or word_query(args.query, row.searched, row.phones)
        if row.whole:
            keeps = [] if listing.keep is None else [listing.keep]
            return replace(listing, keep=_all_of([*keeps, lambda user: matches(words, user)]))
        return replace(listing, where=(*words, *listing.where), scan=True, operation=Operation.SEARCH)

    return plan


def _one_handler(row: ReadRow) -> Callable[[ToolContext, Any], Awaitable[dict[str, Any]]]:
    async def handler(ctx: ToolContext, args: Any) -> dict[str, Any]:
        jnid = getattr(args, f"{row.one}_id")
        record = await (_of_all(ctx, row.entity, jnid) if row.whole else ctx.read(Read.record(row.entity, jnid)))
        return await record_answer(ctx, row.entity, record, args)

    return handler


async def _of_all(ctx: ToolContext, entity: Entity, key: str) -> Mapping[str, Any]:
    for row in (await ctx.read(Read.whole(entity)))["rows"]:
        if isinstance(row, Mapping) and row.get("id") == key:
            return row
    raise not_found(entity)


def _all_of(keeps: Sequence[Keep]) -> Keep | None:
    if len(keeps) < 2:
        return keeps[0] if keeps else None
    return lambda row: all(keep(row) for keep in keeps)
