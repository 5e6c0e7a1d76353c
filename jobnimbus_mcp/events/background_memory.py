"""What polling and the sweep keep where there is no Redis: in this process, for as long as it lives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.watermark import Loss, Mark

__all__ = ["MemoryBackground"]

_HOURS_KEPT = 26


class MemoryBackground:
    """Implements `Keeper` and `Known`. `is_noted(instance, version key)`: has an append noted it?

    Bounded by the accounts, the kinds, the hours of a day, and the ids there are.
    """

    def __init__(self, clock: Clock, is_noted: Callable[[str, str], bool]) -> None:
        self._clock = clock
        self._is_noted = is_noted
        self._holders: dict[tuple[str, str], tuple[str, float]] = {}
        self._marks: dict[str, dict[str, Mark]] = {}
        self._losses: dict[str, dict[int, Loss]] = {}
        self._swept_at: dict[str, float] = {}
        self._ids: dict[tuple[str, str], frozenset[str]] = {}

    async def known(self, instance: str, keys: Sequence[str]) -> Sequence[bool]:
        return [self._is_noted(instance, key) for key in keys]

    async def hold(self, instance: str, name: str, token: str, life_s: float) -> bool:
        if self._holder(instance, name) not in (None, token):
            return False
        self._holders[instance, name] = (token, self._clock.monotonic() + life_s)
        return True

    async def let_go(self, instance: str, name: str, token: str) -> None:
        if self._holder(instance, name) == token:
            del self._holders[instance, name]

    async def marks(self, instance: str) -> Mapping[str, Mark]:
        return dict(self._marks.get(instance, {}))

    async def advance(
        self, instance: str, name: str, token: str, marks: Mapping[str, Mark], *, loss: Loss, hour: int
    ) -> bool:
        if self._holder(instance, name) != token:
            return False
        self._marks.setdefault(instance, {}).update(marks)
        hours = self._losses.setdefault(instance, {})
        before = hours.get(hour, Loss(0, 0))
        hours[hour] = Loss(before.missed + loss.missed, before.heard + loss.heard)
        for old in sorted(hours)[:-_HOURS_KEPT]:
            del hours[old]
        return True

    async def losses(self, instance: str, hours: Sequence[int]) -> Loss:
        known = self._losses.get(instance, {})
        found = [known[hour] for hour in hours if hour in known]
        return Loss(sum(one.missed for one in found), sum(one.heard for one in found))

    async def swept_at(self, instance: str) -> float | None:
        return self._swept_at.get(instance)

    async def note_sweep(self, instance: str, name: str, token: str, at: float) -> bool:
        if self._holder(instance, name) != token:
            return False
        self._swept_at[instance] = at
        return True

    async def ids(self, instance: str, kind: str) -> frozenset[str] | None:
        return self._ids.get((instance, kind))

    async def keep_ids(self, instance: str, name: str, token: str, kind: str, ids: Collection[str]) -> bool:
        if self._holder(instance, name) != token:
            return False
        self._ids[instance, kind] = frozenset(ids)
        return True

    def _holder(self, instance: str, name: str) -> str | None:
        token, until = self._holders.get((instance, name), ("", 0.0))
        return token if token and self._clock.monotonic() < until else None
