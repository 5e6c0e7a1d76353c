"""get_contacts, search_contacts."""

from __future__ import annotations

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Clause, Is, Sort
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.tools.clauses import date_range, phone_query, word_query
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import ContactsArgs, SearchContactsArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["get_contacts", "search_contacts"]

_SEARCHED = ("display_name", "first_name", "last_name", "company", "email")
_PHONES = ("mobile_phone", "home_phone", "work_phone", "fax_number")


async def get_contacts(ctx: ToolContext, args: ContactsArgs) -> Listing:
    """The contacts that satisfy every argument given."""
    where: list[Clause] = []
    if args.status is not None:
        where.append(await ctx.directory.status(Entity.CONTACTS, args.status))
    if args.record_type is not None:
        where.append(await ctx.directory.record_type(Entity.CONTACTS, args.record_type))
    if args.sales_rep is not None:
        where.append(await ctx.directory.person("sales_rep", args.sales_rep, argument="sales_rep"))
    if args.owner_id is not None:
        where.append(Is("owners.id", args.owner_id))
    where += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    where += date_range(ctx, "date_updated", args.updated_since, None, names=("updated_since", ""))
    return Listing(Entity.CONTACTS, tuple(where), sort=Sort(args.sort_by, args.order == "desc"))


async def search_contacts(ctx: ToolContext, args: SearchContactsArgs) -> Listing:
    """The contacts of get_contacts in which the words, or the phone number, of the query occur."""
    listing = await get_contacts(ctx, args)
    if args.query is None:
        return listing
    asked = phone_query(args.query, _PHONES, _SEARCHED) or word_query(args.query, _SEARCHED, _PHONES)
    return Listing(Entity.CONTACTS, (*asked, *listing.where), sort=listing.sort, scan=True, operation=Operation.SEARCH)
