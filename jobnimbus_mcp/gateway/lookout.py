"""Lookout: whether a write that was sent is there, when JobNimbus did not say so itself.

JobNimbus knows no idempotency keys, so nothing is sent twice before it was looked for. A record that exists is read by
its id, which is current. A new one has no id yet: it is looked for in the list of what was made since the call began,
and that list lags. Source: JobNimbus API documentation, retries and consistency (a lag of up to about 6 s was seen).
In that list stand others much like it too, as the rows of a bulk run are; what is known to be another's is not it: this
process knows what it has made itself, and the store what was made under keys, also by a process that has died since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import OneOf, Where
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import BudgetExhausted, CacheUnavailable, UpstreamError, UpstreamNotFound
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.orders import Order, UploadOrder
from jobnimbus_mcp.gateway.receipts import Owner

__all__ = ["ABSENT", "DOUBTFUL", "PAUSES_S", "Loads", "Lookout", "Others", "Seen"]

PAUSES_S = (1.0, 2.0, 3.0)
"""Between looks: together as long as the index was seen to lag."""

_LOOK_S = 0.5
"""A look is not begun with less time left: that is several times what JobNimbus takes for one."""

_MADE_MOST = 2_000


class Loads(Protocol):
    """Reads past the cache; `gateway.reads.Upstream`."""

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        """The answer in the form `crm.reads.Shape` documents. Raises UpstreamError, BudgetExhausted."""
        ...


class Others(Protocol):
    """What is known of records that were made; `gateway.receipts.Receipts`."""

    async def others(self, owner: Owner, key: str, jnids: Sequence[str]) -> frozenset[str]:
        """Those that were made under another key. Raises CacheUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen. `record`: the one, {} of a deleted one, None when there is none. `doubtful`: there is something
    like it, or more than one, so nobody may say that there is none."""

    record: Mapping[str, Any] | None = field(default=None, repr=False)
    doubtful: bool = False


ABSENT = Seen()
DOUBTFUL = Seen(doubtful=True)


class Lookout:
    """Looks for what `Writes` has sent."""

    def __init__(self, upstream: Loads, others: Others, clock: Clock) -> None:
        self._upstream = upstream
        self._others = others
        self._clock = clock
        self._made: OrderedDict[tuple[str, str], Hashable] = OrderedDict()

    def note_made(self, instance: str, jnid: str, mark: Hashable) -> None:
        """This record is what the write of this mark has made, so no other write's."""
        self._made[instance, jnid] = mark
        self._made.move_to_end((instance, jnid))
        while len(self._made) > _MADE_MOST:
            self._made.popitem(last=False)

    async def look(
        self, order: Order, since: float, caller: Caller, call: Call, mark: Hashable, key: str | None
    ) -> Seen:
        """One look. `since`: when it was first tried, epoch seconds. `mark`, `key`: whose it would be.

        Raises:
            UpstreamError, BudgetExhausted: JobNimbus could not be asked.
        """
        if order.entity is Entity.SETTINGS:
            return ABSENT
        if order.action is not Action.CREATED:
            return await self._changed(order, caller, call)
        told = await self._list(order.entity, order.where(since), caller, call)
        near = {str(row.get("jnid")): row for row in told["rows"] if order.resembles(row)}
        others = await self._others_of(tuple(near), caller, call, key)
        # nothing is awaited from here on until it is noted whose it is, so that no two take the same for theirs
        candidates = [
            row
            for jnid, row in near.items()
            if jnid not in others and self._made.get((caller.instance, jnid), mark) == mark
        ]
        alike = [row for row in candidates if not order.unlike(row)]
        if len(alike) == 1:
            return Seen(alike[0])
        return DOUBTFUL if candidates or "incomplete" in told else ABSENT

    async def look_out(
        self, order: Order, since: float, caller: Caller, call: Call, mark: Hashable, key: str | None
    ) -> Seen:
        """Look again and again while the call has time. A look that fails is one that saw nothing."""
        seen = ABSENT
        at_once = order.action is not Action.CREATED  # a list needs its time
        for pause_s in (0.0, *PAUSES_S) if at_once else PAUSES_S:
            if pause_s + _LOOK_S > call.remaining_s(self._clock):
                break
            await self._clock.sleep(pause_s)
            try:
                seen = await self.look(order, since, caller, call, mark, key)
            except (UpstreamError, BudgetExhausted):
                continue
            if seen.record is not None:
                break
        return seen

    async def stored(self, order: UploadOrder, jnid: str, caller: Caller, call: Call) -> Mapping[str, Any] | None:
        """What the list of files says of one that was just stored; None when it does not show it in time."""
        for pause_s in (0.0, *PAUSES_S):
            if pause_s + _LOOK_S > call.remaining_s(self._clock):
                break
            await self._clock.sleep(pause_s)
            try:
                told = await self._list(order.entity, order.of_record(jnid), caller, call)
            except (UpstreamError, BudgetExhausted):
                continue
            rows: list[Mapping[str, Any]] = told["rows"]
            if rows:
                return rows[0]
        return None

    async def listed(
        self, entity: Entity, written: Mapping[str, Mapping[str, Any] | None], caller: Caller, call: Call
    ) -> bool:
        """Wait until JobNimbus's lists show these records, by their ids, as they were written, None: not any more;
        False when they do not in time."""
        for pause_s in (0.0, *PAUSES_S):
            if pause_s + _LOOK_S > call.remaining_s(self._clock):
                break
            await self._clock.sleep(pause_s)
            try:
                told = await self._list(entity, (OneOf("jnid", tuple(written)),), caller, call)
            except (UpstreamError, BudgetExhausted):
                continue
            shown = {row.get("jnid"): row for row in told["rows"]}
            if all(_is_shown(shown.get(jnid), record) for jnid, record in written.items()):
                return True
        return False

    async def record(self, entity: Entity, jnid: str, caller: Caller, call: Call) -> dict[str, Any]:
        """The record as it is now.

        Raises:
            UpstreamNotFound: there is none.
            UpstreamError, BudgetExhausted: JobNimbus could not be asked.
        """
        read = Read.record(entity, jnid)
        return await self._upstream.load(read, instance=caller.instance, credential=caller.credential, call=call)

    async def _others_of(self, jnids: Sequence[str], caller: Caller, call: Call, key: str | None) -> frozenset[str]:
        """Those that the store knows to be another's; without the store none, and who looks sees more to doubt."""
        if not jnids or not call.store_usable:
            return frozenset()
        try:
            return await self._others.others(Owner(caller.instance, caller.partition), key or "", jnids)
        except CacheUnavailable:
            call.store_usable = False
            return frozenset()

    async def _changed(self, order: Order, caller: Caller, call: Call) -> Seen:
        try:
            record = await self.record(order.entity, order.record_id, caller, call)
        except UpstreamNotFound:
            return Seen({}) if order.action is Action.DELETED else ABSENT
        return Seen(record) if not order.unlike(record) else ABSENT

    async def _list(self, entity: Entity, where: Where, caller: Caller, call: Call) -> dict[str, Any]:
        read = Read.scan(entity, where)
        return await self._upstream.load(read, instance=caller.instance, credential=caller.credential, call=call)


def _is_shown(row: Mapping[str, Any] | None, written: Mapping[str, Any] | None) -> bool:
    if row is None or written is None:
        return row is written
    return (epoch_s(row.get("date_updated")) or 0) >= (epoch_s(written.get("date_updated")) or 0)
