"""Which lists to ask for together: what hangs on one record is short, and many such lists are one page.

Hints only, and bounded: the least recently seen go first. Losing them costs requests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, OneOf
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.upkeep import is_complete

__all__ = ["FILTER_CHARS_MOST", "ROWS_SHARE", "Together", "parent_of", "rows_most"]

FILTER_CHARS_MOST = 4_000
"""For the ids of the records whose lists are asked for at once, of the 6,000 characters of a filter that fit into a
URL. Some 120 of JobNimbus's own ids."""

_CHARS_AROUND = 9
"""Two quotation marks and a comma, encoded for a URL."""

ROWS_SHARE = 0.8
"""Of a page, for the rows that they have as far as is known: with what was added since, they are still one page."""

_ROWS_UNKNOWN = 12
"""Taken for granted of a list that nobody has seen. Should there be more, a second page is one more request."""

_REST_S = 600.0
"""For so long nothing is asked for together after it was no use: about a lifetime of these lists, of which each is
asked for alone meanwhile."""

_KINDS_MOST = 512
_REMEMBERED = 256
_ROWS_MOST_KNOWN = 20_000
_LISTS_MOST = 4

_LINK = "related.id"

_Kind = tuple[tuple[str, str], Entity]
"""((account, partition), kind of record)."""


def parent_of(read: Read) -> str | None:
    """The one record that the rows of this list hang on; None when it is no such list."""
    if read.shape not in (Shape.BLOCK, Shape.SCAN) or len(read.scope) != 1:
        return None
    (parent,) = read.scope
    return parent if Is(_LINK, parent) in read.where else None


def rows_most(entity: Entity) -> int:
    """Rows of a kind that are asked for together."""
    return int(ROWS_SHARE * facts_of(entity).page_rows)


class Together:
    """What this process has seen of lists of single records, per account and partition."""

    def __init__(self) -> None:
        self._parents: Bounded[tuple[str, str], dict[str, None]] = Bounded(_KINDS_MOST)
        self._rows: Bounded[tuple[_Kind, str], int] = Bounded(_ROWS_MOST_KNOWN)
        self._lists: Bounded[_Kind, tuple[Read, ...]] = Bounded(_KINDS_MOST)
        self._rest: Bounded[_Kind, float] = Bounded(_KINDS_MOST)

    def opened(self, whose: tuple[str, str], jnid: str) -> None:
        """Somebody looks at this record, or at what hangs on it."""
        known = self._parents.get(whose) or {}
        known.pop(jnid, None)
        known[jnid] = None  # the latest is the last
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]
        self._parents.put(whose, known)

    def parents(self, whose: tuple[str, str]) -> Collection[str]:
        """The records that were looked at lately, or whose lists were, the latest last."""
        return self._parents.get(whose) or ()

    def seen(self, whose: tuple[str, str], read: Read, value: Mapping[str, Any]) -> None:
        """`value` is the answer to `read`, a list."""
        kind, parent = (whose, read.entity), parent_of(read)
        if parent is not None:
            self.opened(whose, parent)
            if len(read.where) == 1 and (read.shape is Shape.BLOCK or is_complete(read, value)):
                self._rows.put((kind, parent), value.get("count", len(value["rows"])))
        elif len(read.scope) > 1 and is_complete(read, value):
            others = tuple(one for one in self._lists.get(kind) or () if one != read)
            self._lists.put(kind, (read, *others)[:_LISTS_MOST])

    def lists(self, whose: tuple[str, str], entity: Entity) -> tuple[Read, ...]:
        """Complete lists of several records, the latest seen first."""
        return self._lists.get((whose, entity)) or ()

    def list_for(self, whose: tuple[str, str], read: Read, now: float) -> Read | None:
        """The list to ask for instead of that of one record: its rows and those of the records seen lately. None when
        there is nothing to be had by it. `now`: seconds, as for `no_use`."""
        kind, parent = (whose, read.entity), parent_of(read)
        if parent is None or self.rests(whose, read.entity, now):
            return None
        chosen, left = {parent}, rows_most(read.entity) - self._rows_of(kind, parent)
        chars = FILTER_CHARS_MOST - len(parent) - _CHARS_AROUND
        for other in reversed(tuple(self.parents(whose))):
            rows, takes = self._rows_of(kind, other), len(other) + _CHARS_AROUND
            if other not in chosen and rows <= left and takes <= chars:
                chosen.add(other)
                left -= rows
                chars -= takes
        if left < 0 or len(chosen) == 1:
            return None
        return Read.scan(read.entity, (OneOf(_LINK, tuple(sorted(chosen))),), scope=frozenset(chosen))

    def rests(self, whose: tuple[str, str], entity: Entity, now: float) -> bool:
        """Was it no use a while ago?"""
        return now < (self._rest.get((whose, entity)) or 0.0)

    def no_use(self, whose: tuple[str, str], entity: Entity, now: float) -> None:
        """Lists of this kind that were asked for together could not be had, or not be kept."""
        self._rest.put((whose, entity), now + _REST_S)

    def _rows_of(self, kind: _Kind, parent: str) -> int:
        rows = self._rows.get((kind, parent))
        return _ROWS_UNKNOWN if rows is None else rows
