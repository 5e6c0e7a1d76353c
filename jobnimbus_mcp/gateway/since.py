"""What the log tells a load: what has changed since a position, and up to which position an answer is right."""

from __future__ import annotations

from collections.abc import Collection

from jobnimbus_mcp.cache.ports import EVERYTHING, SETTLED, History
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.crm.relations import ACCOUNT_WIDE, tags_of_read
from jobnimbus_mcp.crm.told import Told, told_of

__all__ = ["before_parents", "exact_at", "named_since", "told_since"]

_DETAIL = f":{Operation.DETAIL}:"


def told_since(history: History, position: str, reads: Collection[Read]) -> Told | None:
    """What has changed in the answers to `reads` since that position; None when that is not told."""
    lines = history.since(position)
    if lines is None or any(EVERYTHING in line.tags for line in lines):
        return None
    # what was only renewed once more since the index lags is after the position of whatever may lack it
    return told_of(reads, (line.tags for line in lines if SETTLED not in line.tags))


def named_since(history: History, position: str, read: Read) -> frozenset[str]:
    """Records that are told of by name since that position and may belong into the answer to `read`, though more may
    have changed: what its rows hang on, or anything, as right after a start with an empty store."""
    own, renewing = f"{read.entity}:detail:", frozenset(tags_of_read(read))
    lines = [line.tags for line in history.since(position) or () if not renewing.isdisjoint(line.tags)]
    return frozenset(tag.removeprefix(own) for tags in lines for tag in tags if tag.startswith(own))


def exact_at(read: Read, history: History) -> str:
    """The position of a load into which all was put that has been told since the index lags."""
    return history.position if read.scope else before_parents(read.entity, history, history.settled)


def before_parents(entity: Entity, history: History, position: str) -> str:
    """The last position after `position` before which no change of another record has renewed lists under it of this
    kind; the log's end when none has."""
    under = f"{entity}@"
    for line in history.since(position) or ():
        renewed = {tag.removeprefix(under) for tag in line.tags if tag.startswith(under)} - {ACCOUNT_WIDE}
        named = [(kind, jnid) for kind, detail, jnid in (tag.partition(_DETAIL) for tag in line.tags) if detail]
        is_own = any(kind == entity for kind, _ in named)
        # a record of the kind that was made renews the lists that it adds itself to, and shows in the whole one as well
        if renewed and not (is_own and renewed.isdisjoint(jnid for kind, jnid in named if kind != entity)):
            return line.previous
    return history.position
