"""Notify: tells MCP clients, at whichever process they listen, that a record or list they watch has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import BATCH_MOST, Bus, Outcome
from jobnimbus_mcp.gateway.resources import RESOURCE_KINDS, uris_of_change

__all__ = ["EverywhereDirty", "Notify"]

EverywhereDirty = Callable[[str], Awaitable[None]]
"""Returns when no process serves anything of this account that is older than what was invalidated before the call.

Raises CacheUnavailable when that cannot be known."""

_PUBLISH_WITHIN_S = 4.0


class Notify:
    """Publishes the URIs that each change concerns: what changed is for the client to read, under its own credential.

    These are the record's own and those of the lists under the records it hangs on (`uris_of_change`). What else shows
    it (lists by status, roll-ups) is not told. Told twice, a client reads twice. A client that reads at once must not
    be answered by a process that has not heard of the change yet: hence `everywhere_dirty` is waited for before it is
    told. A list may lag behind its records for some seconds; the lifetime told with it says when to read it again.
    """

    name = "notify"
    batch_most = BATCH_MOST
    parallel = 4
    within_s = 5.0

    def __init__(self, bus: Bus, everywhere_dirty: EverywhereDirty) -> None:
        self._bus = bus
        self._everywhere_dirty = everywhere_dirty

    def delay_s(self, event: Event) -> float | None:
        """At once, for every event about a record that can be a resource."""
        change = event.change
        return None if change is None or change.ref.entity not in RESOURCE_KINDS else 0.0

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        """One publish per account; an account that cannot be told fails its own events only."""
        uris: dict[str, dict[str, None]] = {}
        for event in batch:
            if event.change is not None:
                uris.setdefault(event.instance, {}).update(dict.fromkeys(uris_of_change(event.instance, event.change)))
        told = await asyncio.gather(*(self._tell(instance, tuple(those)) for instance, those in uris.items()))
        outcomes = dict(zip(uris, told, strict=True))
        return [outcomes.get(event.instance, Outcome()) for event in batch]

    async def _tell(self, instance: str, uris: Sequence[str]) -> Outcome:
        try:
            async with asyncio.timeout(_PUBLISH_WITHIN_S):
                await self._everywhere_dirty(instance)
                await self._bus.publish(instance, uris)
        except CacheUnavailable as error:
            return Outcome(error.code, away=True)
        except TimeoutError:
            return Outcome("timeout", away=True)
        return Outcome()
