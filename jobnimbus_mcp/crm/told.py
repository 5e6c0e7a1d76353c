"""What the tags of a change tell whoever keeps the answer to a read: which records of it may be another now.

Every change of a record names it by its own tag, `<kind>:detail:<jnid>`. Tags that are renewed without such a name, and
those by which another kind of record reaches this one, say that something has changed and not what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.crm.relations import tags_of_change, tags_of_read

__all__ = ["Told", "told_of"]

_DETAIL = f":{Operation.DETAIL}:"
_KINDS = {entity.value: entity for entity in Entity}
_LOG = {f"{Entity.ACTIVITIES}:{Operation.LIST}"}


class Told(NamedTuple):
    """`named`: ids of records of the read's kind. `logged`: JobNimbus may have written entries about other records to
    its activity log, which nobody names. `parents`: records of other kinds that the rows hang on."""

    named: frozenset[str] = frozenset()
    logged: bool = False
    parents: frozenset[EntityRef] = frozenset()


def told_of(reads: Collection[Read], changes: Iterable[Collection[str]]) -> Told | None:
    """What may be another now in the answers to `reads`, all of one kind of record; None when that is not told.

    `changes`: the tags that were renewed together, of each time. Those that concern none of the reads add nothing.
    """
    hangs_on = {tag for read in reads for tag in tags_of_read(read)}
    (entity,) = {read.entity for read in reads}
    named: set[str] = set()
    parents: set[EntityRef] = set()
    logged = False
    for tags in changes:
        hit = hangs_on.intersection(tags)
        if not hit:
            continue
        own: set[str] = set()
        told: set[str] = set()
        for kind, jnid in _names(tags):
            if kind is entity:
                own.add(jnid)
                continue
            ref = EntityRef(kind, jnid)
            reached = hangs_on.intersection(tags_of_change(Change(ref, Action.UNKNOWN)))
            if entity is Entity.ACTIVITIES:
                logged |= bool(reached & _LOG)
                told |= reached & _LOG
                reached -= _LOG
            if reached == {f"{entity}@{jnid}"}:
                parents.add(ref)
                told |= reached
            elif reached:
                return None  # the rows show something of it
        if not own and not hit <= told:
            return None  # by a tag alone
        named |= own
    return Told(frozenset(named), logged, frozenset(parents))


def _names(tags: Iterable[str]) -> Iterator[tuple[Entity, str]]:
    for tag in tags:
        kind, detail, jnid = tag.partition(_DETAIL)
        if detail and kind in _KINDS:
            yield _KINDS[kind], jnid
