"""get_attachments."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Sort
from jobnimbus_mcp.tools.clauses import date_range, parents
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import AttachmentsArgs
from jobnimbus_mcp.tools.listing import Listing

__all__ = ["get_attachments", "is_of_type"]


async def get_attachments(ctx: ToolContext, args: AttachmentsArgs) -> Listing:
    """Files' metadata, as far as they satisfy every argument given."""
    where, scope = await parents(ctx, job_id=args.job_id, contact_id=args.contact_id, related_to=args.related_to)
    where += date_range(ctx, "date_created", args.date_from, args.date_to, names=("date_from", "date_to"))
    sort = Sort(args.sort_by, args.order == "desc")
    wanted = args.file_type
    if wanted is None:
        return Listing(Entity.ATTACHMENTS, where, scope, sort)

    def keep(row: Mapping[str, Any]) -> bool:
        return is_of_type(row, wanted)

    return Listing(Entity.ATTACHMENTS, where, scope, sort, scan=True, keep=keep)


def is_of_type(row: Mapping[str, Any], wanted: str) -> bool:
    """Whether a file has this extension or MIME type (`image/*` for a family); spellings of one type are equal."""
    wanted = wanted.lower().lstrip(".")
    content_type = str(row.get("content_type") or "").lower().split(";")[0].strip()
    if "/" in wanted:
        return content_type.startswith(wanted[:-1]) if wanted.endswith("/*") else content_type == wanted
    if str(row.get("filename") or "").lower().endswith(f".{wanted}"):
        return True
    guessed, _ = mimetypes.guess_type(f"x.{wanted}")
    return guessed is not None and guessed == content_type
