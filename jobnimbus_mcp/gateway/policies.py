"""How long each kind of read stays fresh, with the reason for each number.

Webhooks and our own invalidations end an entry's life at once; these lifetimes only bound what no event tells us of:
lost webhooks, rollups that JobNimbus computes itself, settings changed in its web pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation, Read

__all__ = ["LIFETIMES_S", "NEGATIVE_S", "OTHERWISE_S", "Policies"]

NEGATIVE_S = 30
"""A 404 is kept this long: enough for an agent that asks again at once, short enough for a record created meanwhile
behind our back."""

OTHERWISE_S = 900

_LIST, _SEARCH, _DETAIL = Operation.LIST, Operation.SEARCH, Operation.DETAIL

LIFETIMES_S: Mapping[tuple[Entity, Operation | None], int] = MappingProxyType(
    {
        (Entity.USERS, None): 7200,  # people join and leave a few times a year
        (Entity.CONTACTS, _LIST): 3600,
        (Entity.CONTACTS, _SEARCH): 1800,  # a search is often about somebody who was just entered
        (Entity.CONTACTS, _DETAIL): 3600,
        (Entity.JOBS, _LIST): 1800,  # boards move all day
        (Entity.JOBS, _SEARCH): 900,
        (Entity.JOBS, _DETAIL): 3600,
        (Entity.ESTIMATES, _LIST): 1800,
        (Entity.ESTIMATES, _DETAIL): 1800,
        (Entity.ATTACHMENTS, _LIST): 900,  # JobNimbus is known not to send every file event
        (Entity.ATTACHMENTS, _DETAIL): 1800,
        (Entity.ACTIVITIES, None): 900,
        (Entity.CALENDAR, None): 900,
        (Entity.TASKS, None): 600,  # ticked off many times a day
        (Entity.INVOICES, None): 900,
        (Entity.PAYMENTS, None): 900,
        (Entity.PRODUCTS, None): 1800,
        (Entity.WORKORDERS, None): 1800,
        (Entity.MATERIALORDERS, None): 1800,
        (Entity.SETTINGS, None): 3600,
    }
)


class Policies:
    """`overrides`: (entity, operation or None for all of them) -> seconds; the one with the operation wins."""

    def __init__(
        self,
        overrides: Mapping[tuple[str, str | None], int] | None = None,
        *,
        max_bytes: int = 512 * 1024,
    ) -> None:
        self._overrides = dict(overrides or {})
        self._max_bytes = max_bytes
        self._made: dict[tuple[Entity, Operation], Policy] = {}

    def lifetime_s(self, entity: Entity, operation: Operation) -> int:
        """Seconds that a read of this family stays fresh."""
        for key in ((entity.value, operation.value), (entity.value, None)):
            if key in self._overrides:
                return self._overrides[key]
        return LIFETIMES_S.get((entity, operation), LIFETIMES_S.get((entity, None), OTHERWISE_S))

    def of(self, read: Read) -> Policy:
        """The policy of one read; equal for all reads of a family."""
        family = (read.entity, read.operation)
        if family not in self._made:
            self._made[family] = Policy(
                fresh_s=self.lifetime_s(*family), negative_s=NEGATIVE_S, max_bytes=self._max_bytes
            )
        return self._made[family]
