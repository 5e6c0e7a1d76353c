"""How fresh each kind of read must be and how long it stays so, with the reason for each number.

Webhooks and our own invalidations end an entry's life at once; these lifetimes only bound what no event tells us of:
lost webhooks, rollups that JobNimbus computes itself, settings changed in its web pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.policy import Policy
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation, Read

__all__ = ["LIFETIMES_S", "NEGATIVE_S", "OTHERWISE_S", "STALE_SHARE", "Policies", "early_beta"]

_T = TypeVar("_T")

NEGATIVE_S = 30
"""A 404 is kept this long: enough for an agent that asks again at once, short enough for a record created meanwhile
behind our back."""

OTHERWISE_S = 900

STALE_SHARE = 0.1
"""What is past its lifetime is given at once for no longer than this share of it: the jitter's own size, so that a
caller who knows the lifetime is not told of something that he would call old. Ten times more would double lifetimes."""

_EARLY_FROM = 0.25
"""With less of the request budget left than this, nothing is refreshed before its time: callers come first."""

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


class _Family(NamedTuple):
    """What the table and the settings say of a kind of read. `fixed`: the lifetime was set, so it is not adapted."""

    base_s: int
    fixed: bool
    mode: Mode


class Policies:
    """What settings make of the table.

    `overrides`: (entity, operation or None for all of them) -> seconds; the one with the operation wins, and neither is
    adapted. `modes`: the same for how fresh answers must be, `mode` for all others. `adapted`: (account, entity,
    seconds) -> the seconds that apply now. `stale_s`, `error_s`, `soft_s`, `settle_s`: as in `Policy`, of every read.
    """

    def __init__(
        self,
        overrides: Mapping[tuple[str, str | None], int] | None = None,
        *,
        max_bytes: int = 512 * 1024,
        mode: Mode = Mode.STRICT,
        modes: Mapping[tuple[str, str | None], Mode] | None = None,
        stale_s: float = 0,
        error_s: float = 0,
        soft_s: float = 2.0,
        settle_s: float = 6.0,
        adapted: Callable[[str, Entity, int], int] | None = None,
    ) -> None:
        self._overrides = dict(overrides or {})
        self._max_bytes = max_bytes
        self._mode = mode
        self._modes = dict(modes or {})
        self._stale_s = stale_s
        self._error_s = error_s
        self._soft_s = soft_s
        self._settle_s = settle_s
        self._adapted = adapted
        self._families: dict[tuple[Entity, Operation], _Family] = {}
        self._made: dict[int, Policy] = {}

    def lifetime_s(self, entity: Entity, operation: Operation, instance: str | None = None) -> int:
        """Seconds that a read of this family stays fresh; with `instance`, as its rate of changes has it now."""
        family = self._family(entity, operation)
        if family.fixed or instance is None or self._adapted is None:
            return family.base_s
        return self._adapted(instance, entity, family.base_s)

    def of(self, read: Read, instance: str | None = None) -> Policy:
        """The policy of one read; the same object for all that have the same lifetime now."""
        fresh_s = self.lifetime_s(read.entity, read.operation, instance)
        policy = self._made.get(fresh_s)
        if policy is None:
            # few: those of the table, of the settings, and the two bounds of adapting
            policy = self._made[fresh_s] = Policy(
                fresh_s=fresh_s,
                negative_s=NEGATIVE_S,
                max_bytes=self._max_bytes,
                stale_s=min(self._stale_s, STALE_SHARE * fresh_s),
                error_s=self._error_s,
                soft_s=self._soft_s,
                settle_s=self._settle_s,
            )
        return policy

    def mode_of(self, read: Read) -> Mode:
        """How fresh the answer must be."""
        return self._family(read.entity, read.operation).mode

    def _family(self, entity: Entity, operation: Operation) -> _Family:
        family = self._families.get((entity, operation))
        if family is None:
            set_s = _most_specific(self._overrides, entity, operation)
            base_s = LIFETIMES_S.get((entity, operation), LIFETIMES_S.get((entity, None), OTHERWISE_S))
            mode = _most_specific(self._modes, entity, operation)
            family = self._families[entity, operation] = _Family(
                base_s if set_s is None else set_s, set_s is not None, self._mode if mode is None else mode
            )
        return family


def _most_specific(given: Mapping[tuple[str, str | None], _T], entity: Entity, operation: Operation) -> _T | None:
    return given.get((entity.value, operation.value), given.get((entity.value, None)))


def early_beta(share_left: float) -> float:
    """How eagerly what is asked often is refreshed before its time: 0 not at all, 1 as the method has it.

    `share_left` (0..1): of the request budget. Early refreshes spend what nobody else wants: none when it is short, up
    to twice the usual when nothing of it is used.
    """
    return 0.0 if share_left < _EARLY_FROM else 2.0 * share_left
