"""Lists kept right by hand: what a list becomes when records of it change, and what a narrower one is made of.

Everything here gives the answer that JobNimbus would give, or None: "cannot be sure, ask". Sure is what follows from

- the rows of a list that is complete: nothing else matches;
- a record's place among the rows: JobNimbus sorts by the value as it is stored, then by `recid`, both in the order
  asked for, and rows without a value come last (JobNimbus API documentation, list parameters);
- clauses that JobNimbus and `matches` judge alike.

Clauses of kinds that are not named here are never sure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from jobnimbus_mcp.crm.catalog import CATALOG
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, NameIs, Not, OneOf, PhoneHas, Sort, Where, Word, matches
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS

__all__ = ["Changed", "is_complete", "is_wider", "narrowed", "upkept"]

Row = Mapping[str, Any]
Changed = Mapping[str, Row | None]
"""jnid -> the record as it is now, None when it is gone."""

_Place = tuple[int, float, int]

_KEYWORDS = frozenset({"jnid", "number", "sales_rep", "created_by", "customer", "guid", "external_id"})
"""Text fields that JobNimbus compares whole; of the others it compares words. Source: JobNimbus API documentation,
filters."""

_FIXED = "date_created"
"""The date that a record keeps all its life, so that its place in a list sorted by it is always the same."""


class _UnsureError(Exception):
    """This cannot be decided from here."""


def upkept(read: Read, value: Mapping[str, Any], changed: Changed) -> dict[str, Any] | None:
    """The answer to `read` now, if it was `value` once and since then only `changed` have changed, been made or gone.

    It may be that `value` has some of these changes already. None: only JobNimbus can tell.
    """
    if not _is_sure(read) or "incomplete" in value:
        return None
    try:
        kept = _Kept(read, value)
        for jnid, record in changed.items():
            kept.put(jnid, record if record is not None and _is_match(read, jnid, record) else None, record)
        return kept.value()
    except _UnsureError:
        return None


def is_complete(read: Read, value: Mapping[str, Any]) -> bool:
    """Are the rows of `value`, the answer to `read`, all that match?"""
    if read.shape is Shape.SCAN:
        return "incomplete" not in value
    if read.shape is not Shape.BLOCK or "incomplete" in value or read.offset:
        return False
    return bool(value["count"] <= len(value["rows"]))


def is_wider(wide: Read, read: Read) -> bool:
    """Are the rows of a complete answer to `wide` all that an answer to `read` is made of, whatever they are?"""
    return (
        wide.entity is read.entity
        and read.entity in CATALOG
        and wide.shape in (Shape.BLOCK, Shape.SCAN)
        and read.shape in (Shape.BLOCK, Shape.SCAN)
        # a list of the whole account, or of these records: whatever renews the narrower one renews the wider one too
        and (not wide.scope or (bool(read.scope) and read.scope <= wide.scope))
        and all(_follows(clause, read.where) for clause in wide.where)
        and _is_sure(wide)
        and _is_sure(read)
    )


def narrowed(read: Read, wide: Read, value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to `read` out of the answer to a wider one, which is complete or begins with the same rows.

    None: only JobNimbus can tell.
    """
    if not is_wider(wide, read):
        return None
    if is_complete(wide, value):
        rest = tuple(clause for clause in read.where if clause not in wide.where)
        try:
            rows = _sorted([row for row in value["rows"] if matches(rest, row)], read.sort)
        except _UnsureError:
            return None
        return _cut(read, rows)
    begins_alike = (
        wide.shape is read.shape is Shape.BLOCK
        and "incomplete" not in value
        and set(wide.where) == set(read.where)
        and (wide.sort, wide.offset) == (read.sort, read.offset)
        and read.size <= min(wide.size, len(value["rows"]))
    )
    return {"count": value["count"], "rows": list(value["rows"][: read.size])} if begins_alike else None


class _Kept:
    """A list while changes are put into it, one after the other: each leaves it as JobNimbus would have it then."""

    def __init__(self, read: Read, value: Mapping[str, Any]) -> None:
        rows: Sequence[Row] = value["rows"]
        self._read = read
        self._places = {_jnid(row): _place(row, read.sort) for row in rows}
        self._rows = {_jnid(row): row for row in rows}
        places = list(self._places.values())
        if len(places) < len(rows) or any(ahead >= after for ahead, after in pairwise(places)):
            raise _UnsureError  # JobNimbus has an order that is not known here
        self._count: int = len(rows) if read.shape is Shape.SCAN else value["count"]
        begins = read.shape is Shape.SCAN or read.offset == 0
        ends = read.shape is Shape.SCAN or read.offset + len(rows) >= self._count
        if not begins and not rows:
            raise _UnsureError
        self._begins, self._ends = begins, ends
        # what is put in may have been made since: `recid` numbers records as they are made
        self._made = max((row["recid"] for row in rows if isinstance(row.get("recid"), int)), default=0)

    def put(self, jnid: str, match: Row | None, record: Row | None) -> None:
        """`match`: the record where it belongs into the list, None where it does not."""
        before = self._places.get(jnid)
        if self._begins and self._ends:
            self._put_into_whole(jnid, match)
        elif before is not None:
            self._put_seen(jnid, match, before)
        else:
            self._put_unseen(jnid, match, record)

    def _put_into_whole(self, jnid: str, match: Row | None) -> None:
        if jnid in self._places:
            self._drop(jnid)
            self._count -= 1
        if match is not None:
            self._insert(jnid, match, _place(match, self._read.sort))
            self._count += 1
            if self._read.shape is Shape.BLOCK and len(self._rows) > self._read.size:
                self._shorten()

    def _put_seen(self, jnid: str, match: Row | None, before: _Place) -> None:
        if match is None:
            if not self._ends:
                raise _UnsureError  # which row comes up from behind is not known
            self._drop(jnid)
            self._count -= 1
            if not self._rows:
                raise _UnsureError
            return
        place = _place(match, self._read.sort)
        self._drop(jnid)
        if place != before and not self._is_inside(place):
            raise _UnsureError  # it has moved to where other rows are not known
        self._insert(jnid, match, place)

    def _put_unseen(self, jnid: str, match: Row | None, record: Row | None) -> None:
        """It was in no row of this block: before it, behind it, or nowhere, which is not always known."""
        fixed, all_match = self._read.sort.field == _FIXED, not self._read.where
        if match is None:
            raise _UnsureError  # it may have been counted
        place = _place(match, self._read.sort)
        inside = self._is_inside(place)
        if inside and fixed:
            # where it would have been all the time, so it was not in the list before
            self._insert(jnid, match, place)
            self._count += 1
        elif all_match and self._was_there(match) and (fixed or (inside and self._begins)):
            # counted already. Inside, it has come from behind, since nothing is ahead
            if inside:
                self._insert(jnid, match, place)
        else:
            raise _UnsureError
        if len(self._rows) > self._read.size:
            self._shorten()

    def value(self) -> dict[str, Any]:
        rows = [self._rows[jnid] for jnid in sorted(self._places, key=self._places.__getitem__)]
        if self._read.shape is Shape.SCAN:
            if len(rows) > self._read.size:
                raise _UnsureError
            return {"rows": rows}
        window = CATALOG[self._read.entity].window
        if self._read.offset + self._read.size > window and self._count > window:
            raise _UnsureError  # JobNimbus would say that it does not show them all
        return {"count": self._count, "rows": rows}

    def _was_there(self, record: Row) -> bool:
        """Was it made before a row that this list has had from the start?"""
        return _recid(record) < self._made

    def _is_inside(self, place: _Place) -> bool:
        """Between two rows of the block, or at an end of it which is an end of the list."""
        places = self._places.values()
        ahead = self._begins or any(one < place for one in places)
        return ahead and (self._ends or any(one > place for one in places))

    def _insert(self, jnid: str, row: Row, place: _Place) -> None:
        if place in self._places.values():
            raise _UnsureError
        self._places[jnid], self._rows[jnid] = place, row

    def _drop(self, jnid: str) -> None:
        del self._places[jnid], self._rows[jnid]

    def _shorten(self) -> None:
        self._drop(max(self._places, key=self._places.__getitem__))
        self._ends = False


def _is_match(read: Read, jnid: str, record: Row) -> bool:
    if record.get("jnid") != jnid or record.get("is_active") is False:
        raise _UnsureError  # JobNimbus shows neither in its lists, as far as is known
    return matches(read.where, record)


def _cut(read: Read, rows: list[Row]) -> dict[str, Any] | None:
    window = CATALOG[read.entity].window
    if len(rows) > window or (read.shape is Shape.SCAN and len(rows) > read.size):
        return None  # JobNimbus would say that it does not show them all
    if read.shape is Shape.SCAN:
        return {"rows": rows}
    return {"count": len(rows), "rows": rows[read.offset : read.offset + read.size]}


def _sorted(rows: list[Row], sort: Sort) -> list[Row]:
    placed = sorted(((_place(row, sort), row) for row in rows), key=lambda pair: pair[0])
    if any(ahead[0] == after[0] for ahead, after in pairwise(placed)):
        raise _UnsureError
    return [row for _, row in placed]


def _place(row: Row, sort: Sort) -> _Place:
    """Smaller is further ahead."""
    value, way = row.get(sort.field), -1 if sort.descending else 1
    if value is None:
        return 1, 0, way * _recid(row)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _UnsureError
    return 0, way * value, way * _recid(row)


def _recid(row: Row) -> int:
    recid = row.get("recid")
    if isinstance(recid, bool) or not isinstance(recid, int):
        raise _UnsureError
    return recid


def _jnid(row: Row) -> str:
    jnid = row.get("jnid")
    if not isinstance(jnid, str):
        raise _UnsureError
    return jnid


# -- what is judged alike ----------------------------------------------------------------------------------------------


def _is_sure(read: Read) -> bool:
    """Does `matches` judge this list's clauses as JobNimbus does, and is its order known?

    Of a scan, which checks every row here, it is enough that JobNimbus finds all that match.
    """
    if read.entity not in CATALOG or read.shape not in (Shape.BLOCK, Shape.SCAN):
        return False
    judged = _found_alike if read.shape is Shape.SCAN else _judged_alike
    derived = DERIVED_FIELDS.get(read.entity, frozenset())
    return (
        read.sort.field not in derived
        and all(map(judged, read.where))
        and derived.isdisjoint(field.partition(".")[0] for field in _fields(read.where))
    )


def _judged_alike(clause: Clause) -> bool:
    match clause:
        case Is(field, value):
            return _is_whole(field, (value,))
        case OneOf(field, values):
            return _is_whole(field, values)
        case Between():
            return True
        case Not(inner):
            return _judged_alike(inner)
        case AnyOf(clauses):
            return all(map(_judged_alike, clauses))
        case _:
            return False


def _follows(clause: Clause, where: Where) -> bool:
    """Does it hold of every row for which all of `where` hold?"""
    if clause in where:
        return True
    if not isinstance(clause, OneOf):
        return False
    for one in where:
        match one:
            case Is(clause.field, value) if _is_among(value, clause.values):
                return True
            case OneOf(clause.field, values) if all(_is_among(value, clause.values) for value in values):
                return True
    return False


def _is_among(value: Any, values: Sequence[Any]) -> bool:
    # True is 1 to Python and not to JobNimbus
    return any(value == one and type(value) is type(one) for one in values)


def _found_alike(clause: Clause) -> bool:
    match clause:
        case NameIs() | Word() | PhoneHas():
            return True
        case AnyOf(clauses):
            return all(map(_found_alike, clauses))
        case _:
            return _judged_alike(clause)


def _is_whole(field: str, values: Sequence[Any]) -> bool:
    if field in _KEYWORDS or field == "id" or field.endswith(".id"):
        return True
    return all(isinstance(value, (bool, int)) for value in values)


def _fields(where: Where) -> Iterator[str]:
    for clause in where:
        match clause:
            case Is(field) | OneOf(field) | NameIs(field) | Between(field):
                yield field
            case Not(inner):
                yield from _fields((inner,))
            case AnyOf(clauses):
                yield from _fields(clauses)
            case Word(_, fields) | PhoneHas(_, fields):
                yield from fields
