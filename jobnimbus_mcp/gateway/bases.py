"""What this process has seen of lists lately: which are complete, which show a record, and how long whole kinds are.

Hints only. Whatever is found by them is looked up and validated before it is used, so losing them costs requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.upkeep import is_complete

__all__ = ["Bases"]

_Whose = tuple[str, str]
"""(account, partition)."""

_KINDS_MOST = 512
_RECORDS_MOST = 20_000
"""Some ten megabytes of names. An account's busy records are a tenth of that."""

_WIDE_MOST = 16
"""Complete lists of one kind, those of all its records apart: what agents look at over and over, and what hangs on
a few records."""

_WHOLE_MOST = 2

_SHOWN_MOST = 2

_REST_S = 600.0
"""For so long no whole kind is asked for that could not be had in time: it would cost each of its lists that time."""

_MISSED_MOST = 16
"""Records of a kind: enough to see that there are several."""


class Bases:
    """Bounded: the least recently seen go first."""

    def __init__(self) -> None:
        self._complete: Bounded[tuple[_Whose, Entity], tuple[Read, ...]] = Bounded(_KINDS_MOST)
        self._whole: Bounded[tuple[_Whose, Entity], tuple[Read, ...]] = Bounded(_KINDS_MOST)
        self._counts: Bounded[tuple[_Whose, Entity], int] = Bounded(_KINDS_MOST)
        self._shown: Bounded[tuple[_Whose, Entity, str], tuple[Read, ...]] = Bounded(_RECORDS_MOST)
        self._missed: Bounded[tuple[_Whose, Entity], dict[str, float]] = Bounded(_KINDS_MOST)
        self._unfit: Bounded[tuple[_Whose, Entity], int] = Bounded(_KINDS_MOST)
        self._rest: Bounded[tuple[_Whose, Entity], float] = Bounded(_KINDS_MOST)

    def seen(self, whose: _Whose, read: Read, value: Mapping[str, Any]) -> None:
        """`value` is the answer to `read`, a list."""
        kind, rows = (whose, read.entity), value["rows"]
        if is_complete(read, value):
            lists, most = (self._complete, _WIDE_MOST) if read.where else (self._whole, _WHOLE_MOST)
            others = tuple(one for one in lists.get(kind) or () if one != read)
            lists.put(kind, (read, *others)[:most])
            if not read.where:
                self._counts.put(kind, len(rows))
        elif not read.where and "count" in value:
            self._counts.put(kind, value["count"])
        for row in rows:
            jnid = row.get("jnid")
            if isinstance(jnid, str):
                record = (whose, read.entity, jnid)
                others = tuple(one for one in self._shown.get(record) or () if one != read)
                self._shown.put(record, (read, *others)[:_SHOWN_MOST])

    def complete(self, whose: _Whose, entity: Entity) -> tuple[Read, ...]:
        """Lists whose answers were complete, the latest seen first and those of all records last."""
        kind = (whose, entity)
        return (*(self._complete.get(kind) or ()), *(self._whole.get(kind) or ()))

    def showing(self, whose: _Whose, entity: Entity, jnid: str) -> tuple[Read, ...]:
        """Lists that had the record, the latest seen first."""
        return self._shown.get((whose, entity, jnid)) or ()

    def count(self, whose: _Whose, entity: Entity) -> int | None:
        """How many records of the kind there were, None when nobody has said."""
        return self._counts.get((whose, entity))

    def missed(self, whose: _Whose, entity: Entity, jnid: str, now: float) -> None:
        """The record was asked for by itself, and nothing showed it that anybody asked for."""
        misses = self._missed.get((whose, entity)) or {}
        misses.pop(jnid, None)
        misses[jnid] = now  # the latest is the last
        if len(misses) > _MISSED_MOST:
            del misses[next(iter(misses))]
        self._missed.put((whose, entity), misses)

    def missed_since(self, whose: _Whose, entity: Entity, since: float) -> int:
        """How many different records were, at most as many as are remembered."""
        return sum(at >= since for at in (self._missed.get((whose, entity)) or {}).values())

    def too_large(self, whose: _Whose, entity: Entity, count: int) -> None:
        """So many records of the kind are too large to be kept as one list."""
        self._unfit.put((whose, entity), count)

    def fits(self, whose: _Whose, entity: Entity, count: int) -> bool:
        """May a list of so many records be kept, as far as is known?"""
        unfit = self._unfit.get((whose, entity))
        return unfit is None or count < unfit

    def not_had(self, whose: _Whose, entity: Entity, now: float) -> None:
        """All records of the kind were asked for, and could not be had in time. `now`: seconds, as for `rests`."""
        self._rest.put((whose, entity), now + _REST_S)

    def rests(self, whose: _Whose, entity: Entity, now: float) -> bool:
        """Was that so a while ago?"""
        return now < (self._rest.get((whose, entity)) or 0.0)
