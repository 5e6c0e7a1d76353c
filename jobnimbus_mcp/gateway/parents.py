"""Which state of a record the lists under it show: whether its change can be seen in them.

A list under a record is renewed when that record changes: its rows show the name, and who sees them may follow the
owners. Most changes are of the status or a date, which no row under it shows. `Parents` remembers, as digests, what of
a record may be shown under it; the list goes on when that is the same after the change as it was before.

What makes it sure. The state before: seen at a position of the log before the list's own, with no change of the record
told of in between, and so long before the list was fetched that the index had caught up: whatever had changed by then
without being told of is in the list as well. The state after: the record by its id, which does not lag, and what the
rows say of it.

Of two changes, the second may have taken back what rows were fetched with, however much later. Then the first is from
before the fetch, so it is told of shortly after it at the latest. Hence no change may be told of within that time after
rows were fetched; and a list is fetched when it was asked for, but rows are put into it until it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.cache.ports import EVERYTHING, SETTLED, History, Logged, order
from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.relations import CHILDREN, tags_of_read
from jobnimbus_mcp.crm.shown import shown_under

__all__ = ["Image", "Parents", "was_shown"]

_RECORDS_MOST = 20_000
"""Some fifteen megabytes when each was seen as often as is remembered, a third of that otherwise."""

_IMAGES_MOST = 8
"""Of a record: what was seen before the last lists under it were fetched."""

TOLD_WITHIN_S = 60.0
"""How much later than it is made, at most, a change is told of that is taken back later: some ten times what a webhook
takes and the clocks differ by."""

_Whose = tuple[str, str]
"""(account, partition)."""


class Image(NamedTuple):
    """`digest` of what a record showed under it at a `position` of the log of that `epoch`, seen at `until_s` (wall) or
    before."""

    epoch: bytes
    position: str
    until_s: float
    digest: bytes


class Parents:
    """What this process has seen of records that others hang on. Bounded; what it has forgotten costs requests."""

    def __init__(self) -> None:
        self._images: Bounded[tuple[_Whose, EntityRef], tuple[Image, ...]] = Bounded(_RECORDS_MOST)

    def saw(
        self,
        whose: _Whose,
        entity: Entity,
        records: Iterable[Mapping[str, Any]],
        *,
        epoch: bytes,
        position: str,
        until_s: float,
    ) -> None:
        """Records of a kind as JobNimbus gave them. `position`: what was told up to there is in them."""
        if entity not in CHILDREN or not position:
            return
        for record in records:
            jnid = record.get("jnid")
            if isinstance(jnid, str):
                key = (whose, EntityRef(entity, jnid))
                image, known = Image(epoch, position, until_s, shown_under(entity, record)), self._images.get(key) or ()
                if not known or known[0]._replace(until_s=until_s) != image:  # the same, seen earlier, counts for more
                    self._images.put(key, (image, *known[: _IMAGES_MOST - 1]))

    def image(self, whose: _Whose, parent: EntityRef, position: str, until_s: float) -> Image | None:
        """What was seen of the record last at a position up to this one and until then."""
        found = self._images.get((whose, parent)) or ()
        return next((one for one in found if order(one.position) <= order(position) and one.until_s <= until_s), None)


def was_shown(
    parent: EntityRef, image: Image, history: History, *, position: str, fetched_s: float, kept_s: float
) -> bool:
    """Did the rows of a list under the record, with all in them that was told of up to `position`, show what the image
    does, and do they still, if the record does?

    `history` goes back to the image's position, which is not after `position`. `fetched_s`, `kept_s`: wall seconds
    before and after which nothing of the list was fetched.
    """
    lines = history.since(image.position)
    if lines is None or history.epoch != image.epoch:
        return False
    soon_s, at = fetched_s + TOLD_WITHIN_S, order(position)
    changes = tuple(_changes(parent, lines))
    before = [line for line in changes if order(line.position) <= at]
    after = [line for line in changes if order(line.position) > at]
    # what was told of later, and is in it, was found to show nothing else when it was put in
    if any(_told_s(line) <= soon_s for line in before):
        return False
    if all(_told_s(line) > kept_s + TOLD_WITHIN_S for line in after):
        return True
    # the only one: nothing else was told of, and would be by now
    return len(after) == 1 and _told_s(after[0]) <= soon_s and history.now_ms / 1000 > kept_s + TOLD_WITHIN_S


def _told_s(line: Logged) -> float:
    """When it was told of, wall seconds of the store."""
    return order(line.position)[0] / 1000


def _changes(parent: EntityRef, lines: Sequence[Logged]) -> Iterator[Logged]:
    """The lines by which the record may have become another."""
    tags = {EVERYTHING, *tags_of_read(Read.record(parent.entity, parent.jnid))}
    return (line for line in lines if SETTLED not in line.tags and not tags.isdisjoint(line.tags))
