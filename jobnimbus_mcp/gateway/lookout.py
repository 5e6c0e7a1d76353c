"""Lookout: whether a write that was sent is there, when JobNimbus did not say so itself.

JobNimbus knows no idempotency keys, so nothing is sent twice before it was looked for. A record that exists is read by
its id, which is current. A new one has no id yet: it is looked for in the list of what was made since the call began,
and that list lags. Source: JobNimbus API documentation, retries and consistency (a lag of up to about 6 s was seen).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import Where
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import BudgetExhausted, UpstreamError, UpstreamNotFound
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.orders import Order, UploadOrder

__all__ = ["ABSENT", "DOUBTFUL", "PAUSES_S", "Loads", "Lookout", "Seen"]

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

    def __init__(self, upstream: Loads, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._made: OrderedDict[tuple[str, str], Hashable] = OrderedDict()

    def note_made(self, instance: str, jnid: str, mark: Hashable) -> None:
        """This record is what the write of this mark has made, so no other write's."""
        self._made[instance, jnid] = mark
        self._made.move_to_end((instance, jnid))
        while len(self._made) > _MADE_MOST:
            self._made.popitem(last=False)

    async def look(self, order: Order, since: float, caller: Caller, call: Call, mark: Hashable) -> Seen:
        """One look. `since`: when it was first tried, epoch seconds. `mark`: whose it would be.

        Raises:
            UpstreamError, BudgetExhausted: JobNimbus could not be asked.
        """
        if order.entity is Entity.SETTINGS:
            return ABSENT
        if order.action is not Action.CREATED:
            return await self._changed(order, caller, call)
        told = await self._list(order.entity, order.where(since), caller, call)
        rows = told["rows"]
        candidates = [row for row in rows if self._made.get((caller.instance, str(row.get("jnid"))), mark) == mark]
        alike = [row for row in candidates if not order.unlike(row)]
        if len(alike) == 1:
            return Seen(alike[0])
        not_all = "incomplete" in told
        return DOUBTFUL if not_all or any(order.resembles(row) for row in candidates) else ABSENT

    async def look_out(self, order: Order, since: float, caller: Caller, call: Call, mark: Hashable) -> Seen:
        """Look again and again while the call has time. A look that fails is one that saw nothing."""
        seen = ABSENT
        at_once = order.action is not Action.CREATED  # a list needs its time
        for pause_s in (0.0, *PAUSES_S) if at_once else PAUSES_S:
            if pause_s + _LOOK_S > call.remaining_s(self._clock):
                break
            await self._clock.sleep(pause_s)
            try:
                seen = await self.look(order, since, caller, call, mark)
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
        self, entity: Entity, jnid: str, written: Mapping[str, Any] | None, caller: Caller, call: Call
    ) -> bool:
        """Wait until JobNimbus's lists show a record as it was written, None: no more; False when they do not in time.
        For kinds that are shown nowhere else."""
        for pause_s in (0.0, *PAUSES_S):
            if pause_s + _LOOK_S > call.remaining_s(self._clock):
                break
            await self._clock.sleep(pause_s)
            try:
                row = await self.record(entity, jnid, caller, call)
            except UpstreamNotFound:
                if written is None:
                    return True
                continue
            except (UpstreamError, BudgetExhausted):
                continue
            if written is not None and (epoch_s(row.get("date_updated")) or 0) >= (
                epoch_s(written.get("date_updated")) or 0
            ):
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

    async def _changed(self, order: Order, caller: Caller, call: Call) -> Seen:
        try:
            record = await self.record(order.entity, order.record_id, caller, call)
        except UpstreamNotFound:
            return Seen({}) if order.action is Action.DELETED else ABSENT
        return Seen(record) if not order.unlike(record) else ABSENT

    async def _list(self, entity: Entity, where: Where, caller: Caller, call: Call) -> dict[str, Any]:
        read = Read.scan(entity, where)
        return await self._upstream.load(read, instance=caller.instance, credential=caller.credential, call=call)
