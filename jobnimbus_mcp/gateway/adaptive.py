"""Lifetimes that follow how often each kind of record has changed of late.

A lifetime only bounds what no event tells us of. Of a kind that changes all day such misses are likely, so it is
shortened; of one that hardly changes, where events are known to arrive, it may be longer: it saves requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.relations import CALENDAR_KINDS
from jobnimbus_mcp.errors import CacheUnavailable

__all__ = ["REFRESH_EVERY_S", "AdaptiveBounds", "AdaptiveLifetimes", "Rates", "adapted_s"]

REFRESH_EVERY_S = 60.0
"""The rate is one of an hour: looked at ten times more often it would say the same, ten times less it would come late
to a busy morning."""

_HOURS_KEPT = 48
"""As many as are counted; see `_heard` for what the old ones are good for."""

_HOURS_OF_A_DAY = 24

Rates = Callable[[str, Sequence[int], Call], Awaitable[Mapping[int, Mapping[str, int]]]]
"""(account, hours since the epoch) -> invalidations of each as `resource|source` -> count; raises CacheUnavailable."""


@dataclass(frozen=True, slots=True)
class AdaptiveBounds:
    """Above `busy_per_h` changes an hour, lifetimes are at most `min_s`; below `calm_per_h`, at least `max_s`.

    Raises:
        ValueError: the bounds cross.
    """

    busy_per_h: float = 10
    calm_per_h: float = 2
    min_s: int = 600
    max_s: int = 3600

    def __post_init__(self) -> None:
        if self.calm_per_h > self.busy_per_h or not 0 < self.min_s <= self.max_s:
            raise ValueError("calm_per_h must not be above busy_per_h, nor min_s above max_s or below 1")


@dataclass(frozen=True, slots=True)
class _Account:
    """What is known of one account: changes in the last hour by kind; the kinds whose silence means that nothing
    changed."""

    per_h: Mapping[str, float]
    heard: frozenset[str]


class AdaptiveLifetimes:
    """What the rates of invalidation make of lifetimes. Until an account's were asked for, nothing.

    `hears_of_changes(instance)`: is anybody let in who could tell of changes.
    """

    def __init__(
        self,
        rates: Rates,
        *,
        clock: Clock,
        instances: Sequence[str],
        hears_of_changes: Callable[[str], bool],
        bounds: AdaptiveBounds | None = None,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._instances = tuple(instances)
        self._hears_of_changes = hears_of_changes
        self._bounds = bounds or AdaptiveBounds()
        self._known: dict[str, _Account] = {}

    def lifetime_s(self, instance: str, entity: Entity, base_s: int) -> int:
        """How long a read of this kind stays fresh now, where it would be `base_s`."""
        account = self._known.get(instance)
        if account is None:
            return base_s
        return adapted_s(base_s, account.per_h.get(entity, 0.0), hears=entity in account.heard, bounds=self._bounds)

    async def refresh(self, instance: str) -> None:
        """Ask how often what changed; while the store is away, what was known stays."""
        now = self._clock.now()
        newest = int(now // 3600)
        call = Call.begin(self._clock, "lifetimes", tool="lifetimes")
        try:
            counted = await self._rates(instance, range(newest, newest - _HOURS_KEPT, -1), call)
        except CacheUnavailable:
            return  # counted by the store's guard, and asked again within the minute
        self._known[instance] = _Account(
            _per_h(counted, newest, now % 3600 / 3600),
            _heard(counted, newest) if self._hears_of_changes(instance) else frozenset(),
        )

    async def run(self) -> None:
        """Refresh every account again and again, until cancelled."""
        while True:
            for instance in self._instances:
                await self.refresh(instance)
            await self._clock.sleep(REFRESH_EVERY_S)


def adapted_s(base_s: int, per_h: float, *, hears: bool, bounds: AdaptiveBounds) -> int:
    """The lifetime of a kind that changed `per_h` times in the last hour. Silence lengthens it only where changes of it
    are known to be heard of (`hears`); a longer one than calm would give is left as it is."""
    if per_h > bounds.busy_per_h:
        return min(base_s, bounds.min_s)
    if per_h < bounds.calm_per_h and hears:
        return max(base_s, bounds.max_s)
    return base_s


def _per_h(counted: Mapping[int, Mapping[str, int]], newest: int, elapsed: float) -> dict[str, float]:
    """Changes in the last hour by kind: those of this hour, and of the last one the share that is not an hour old yet.

    Whatever changes is also a change to the activity log, and what has a date to the calendar.
    """
    own: dict[str, float] = {}
    for hour, share in ((newest, 1.0), (newest - 1, 1.0 - elapsed)):
        for field, number in counted.get(hour, {}).items():
            kind = field.partition("|")[0]
            own[kind] = own.get(kind, 0.0) + number * share
    return own | {
        Entity.ACTIVITIES.value: sum(own.values()),
        Entity.CALENDAR.value: sum(own.get(kind, 0.0) for kind in (*CALENDAR_KINDS, Entity.CALENDAR)),
    }


def _heard(counted: Mapping[int, Mapping[str, int]], newest: int) -> frozenset[str]:
    """The kinds whose silence is known to mean that nothing changed.

    Only those of which a webhook arrived within a day, so that somebody does send them (each kind needs an automation
    of its own), and only where something was counted more than an hour ago: right after a start with an empty store,
    nothing has been counted of anything. A calendar is heard of where all that it is made of is.
    """
    # an hour's count does not say when within it: the hour before the last is the newest that is surely an hour old
    if not any(hour <= newest - 2 for hour, fields in counted.items() if sum(fields.values()) > 0):
        return frozenset()
    told = {
        kind
        for hour, fields in counted.items()
        if newest - hour < _HOURS_OF_A_DAY
        for field, number in fields.items()
        for kind, _, source in (field.partition("|"),)
        if source == "webhook" and number > 0
    }
    if told >= CALENDAR_KINDS:
        told.add(Entity.CALENDAR.value)
    return frozenset(told)
