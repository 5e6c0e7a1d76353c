"""Where writes meet the road of changes: each is told as one event, which renews what it touched and is its audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobnimbus_mcp.app.accounts import Accounts
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Action, Change, Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.events.envelope import event_name, parents_of, version_key
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.found import deletion_key
from jobnimbus_mcp.events.ports import AppendAndBump
from jobnimbus_mcp.gateway.carrier import Written
from jobnimbus_mcp.gateway.receipts import Keeping, MemoryReceipts, ReceiptsByAccount
from jobnimbus_mcp.gateway.receipts_redis import RedisReceipts

__all__ = ["WriteTeller", "event_of_write", "receipts_of"]

_SOURCE = "write"
_LATEST_S = 253_402_300_799
"""The last second of the year 9999."""
_GATEWAY_SCRIPTS = "jobnimbus_mcp.gateway.scripts"


class WriteTeller:
    """Implements `gateway.carrier.Tell`: read your own writes, at every replica.

    `event_id`: of events, as `events.event.event_id_at` makes them.
    """

    def __init__(self, append: AppendAndBump, *, event_id: Callable[[], str], clock: Clock) -> None:
        self._append = append
        self._event_id = event_id
        self._clock = clock

    async def __call__(self, written: Written, call: Call) -> None:
        await self._append(event_of_write(written, event_id=self._event_id(), at=self._clock.now(), call=call), call)


def event_of_write(written: Written, *, event_id: str, at: float, call: Call) -> Event:
    """The event of one write. `at`: epoch seconds.

    It is never a duplicate, since no other event has its audit: JobNimbus's webhook of the same change may well come
    first. Its version is noted, so that catch-up does not find a change that everybody was told of.
    """
    known = written.action is not Action.UNKNOWN and written.ref.entity is not Entity.SETTINGS
    deleted = written.action is Action.DELETED
    change = Change(
        written.ref,
        written.action,
        parents=parents_of(written.record) if known and not deleted else None,
        occurred_at=_version(written) if known and not deleted else None,
    )
    version = ""
    if known and deleted:
        version = deletion_key(written.instance, change.ref.entity, change.ref.jnid)
    elif change.occurred_at is not None:
        version = version_key(written.instance, change.ref.entity, change.ref.jnid, change.occurred_at)
    event = Event.of_change(
        change,
        event_id=event_id,
        instance=written.instance,
        name=event_name(change),
        # of a record that nobody has seen there is no id to renew anything by
        tags=[tag for tag in tags_of_change(change) if not tag.endswith((":", "@"))],
        source=_SOURCE,
        received_at=at,
        version_key=version,
        request_id=call.request_id,
        body=written.audit,
    )
    # settings are one document, and no record that could be asked for by an id
    return replace(event, record_id="") if change.ref.entity is Entity.SETTINGS else event


def receipts_of(accounts: Accounts, clock: Clock, new_token: Callable[[], str]) -> ReceiptsByAccount:
    """The receipts of each account in its own store."""
    stores: dict[str, Keeping] = {}
    for one in accounts.stores:
        store: Keeping = MemoryReceipts(clock, new_token)
        if one.redis is not None:
            store = RedisReceipts(Scripts(one.redis, package=_GATEWAY_SCRIPTS), new_token)
        stores |= dict.fromkeys(one.tenants, store)
    return ReceiptsByAccount(stores)


def _version(written: Written) -> int | None:
    """`date_updated` of the record as it was answered."""
    try:
        version = epoch_s(written.record.get("date_updated"))
    except (OverflowError, ValueError):  # no number that a date could be
        return None
    return None if version is None or version > _LATEST_S else version
