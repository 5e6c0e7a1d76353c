"""A question as JobNimbus is asked it: path and query parameters.

Source of all: JobNimbus API documentation, list parameters and filter. Parameters it does not know are ignored without
a word, so only known ones are ever made here; order and page are always spelled out, since rows come in no useful
order by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity, is_jnid
from jobnimbus_mcp.crm.query import Is, Sort, Where, filter_of
from jobnimbus_mcp.errors import InvalidInput

__all__ = [
    "FILTER_CHARS_MAX",
    "SCAN_PAGE_ROWS",
    "Request",
    "credential_check",
    "page_request",
    "record_request",
    "scan_filter",
    "whole_request",
]

SCAN_PAGE_ROWS = 500
"""Rows of one page of a scan: half of JobNimbus's default, which is several megabytes of wide records."""

FILTER_CHARS_MAX = 6_000
"""Longest filter, percent-encoded: with path and the other parameters the URL stays under 8 KB."""


@dataclass(frozen=True, slots=True)
class Request:
    """One GET. `path` is relative to the API root; the parameters hold what customers are called, so no repr."""

    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def record_request(entity: Entity, jnid: str) -> Request:
    """One record by id. Attachments come as a list of one: GET by id answers with the file's content.

    Raises:
        InvalidInput: `jnid` is none, so it must not get near a path.
    """
    if not is_jnid(jnid):
        raise InvalidInput("A JobNimbus id has 1 to 64 letters and digits and nothing else.")
    facts = facts_of(entity)
    if facts.has_detail:
        return Request(f"{facts.path}/{jnid}")
    return page_request(entity, (Is("jnid", jnid),), Sort(), offset=0, size=1)


def whole_request(entity: Entity) -> Request:
    """The one document of its kind: users, settings."""
    return Request(facts_of(entity).path)


def page_request(
    entity: Entity, where: Where, sort: Sort, *, offset: int, size: int, fields: Sequence[str] = ()
) -> Request:
    """`size` rows of a list from `offset`, sorted by JobNimbus; with `fields`, of each row these alone.

    Raises:
        InvalidInput: the conditions are too many for one URL.
    """
    params = [
        ("size", str(size)),
        ("from", str(offset)),
        ("sort_field", sort.field),
        ("sort_direction", "desc" if sort.descending else "asc"),
    ]
    asked = filter_of(where)
    if asked is not None:
        text = _compact(asked)
        if _encoded_length(text) > FILTER_CHARS_MAX:
            raise InvalidInput("These conditions are too long for JobNimbus: give fewer or shorter ones.")
        params.append(("filter", text))
    if fields:
        params.append(("fields", ",".join(fields)))
    return Request(facts_of(entity).path, tuple(params))


def scan_filter(where: Where) -> Where:
    """The clauses to ask for when every row is checked here anyway: as many, in order, as one URL holds.

    Asking fewer gives more rows, never other ones.
    """
    asked: Where = ()
    for clause in where:
        longer = (*asked, clause)
        if _encoded_length(_compact(filter_of(longer))) <= FILTER_CHARS_MAX:
            asked = longer
    return asked


def credential_check() -> Request:
    """The cheapest question that JobNimbus answers to every key it accepts."""
    return Request(facts_of(Entity.CONTACTS).path, (("size", "1"), ("fields", "jnid")))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _encoded_length(text: str) -> int:
    return len(quote(text, safe=""))
