"""What tests of polling and the sweep stand on: a JobNimbus made of lists, and a stream that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.background_memory import MemoryBackground
from jobnimbus_mcp.events.envelope import version_key
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import Appended

ACCOUNT = "stamford"


def row(jnid: str, updated: float, *, created: float | None = None, **fields: Any) -> dict[str, Any]:
    """A record as a trimmed list shows it; made long ago unless said otherwise."""
    made_at = int(updated) - 86_400 if created is None else int(created)
    return {"jnid": jnid, "date_created": made_at, "date_updated": int(updated), "related": [], **fields}


class ListedJobNimbus:
    """Implements `Ask` over rows by kind. `failing`: raised for questions about a kind, or (None) about all."""

    def __init__(self) -> None:
        self.rows: dict[Entity, dict[str, dict[str, Any]]] = {}
        self.failing: dict[Entity | None, Exception] = {}
        self.hidden: set[str] = set()
        self.asked: list[tuple[str, Entity]] = []
        self.miscounts = 0
        self.before_page: Callable[[], None] = lambda: None

    def put(self, kind: Entity, rows: Iterable[dict[str, Any]]) -> None:
        self.rows.setdefault(kind, {}).update({one["jnid"]: one for one in rows})

    def remove(self, kind: Entity, *jnids: str) -> None:
        for jnid in jnids:
            del self.rows[kind][jnid]

    def serves(self, instance: str) -> bool:
        return instance == ACCOUNT

    async def changed(
        self, instance: str, kind: Entity, *, since_s: int, offset: int, size: int
    ) -> tuple[list[Mapping[str, Any]], int | None]:
        self._ask("changed", kind)
        self.before_page()
        found = [one for one in self._listed(kind) if one["date_updated"] >= since_s]
        found.sort(key=lambda one: (one["date_updated"], one["jnid"]))
        return list(found[offset : offset + size]), len(found)

    async def made(
        self, instance: str, kind: Entity, *, from_s: int | None, to_s: int | None, offset: int, size: int
    ) -> tuple[list[Mapping[str, Any]], int | None]:
        self._ask("made", kind)
        low, high = from_s if from_s is not None else float("-inf"), to_s if to_s is not None else float("inf")
        found = [one for one in self._listed(kind) if low <= one["date_created"] <= high]
        found.sort(key=lambda one: (one["date_created"], one["jnid"]))
        return list(found[offset : offset + size]), len(found) + self.miscounts

    async def is_gone(self, instance: str, kind: Entity, jnid: str) -> bool:
        self._ask("is_gone", kind)
        return jnid not in self.rows.get(kind, {})

    def questions(self, what: str) -> int:
        return sum(asked == what for asked, _ in self.asked)

    def _listed(self, kind: Entity) -> list[dict[str, Any]]:
        return [one for jnid, one in self.rows.get(kind, {}).items() if jnid not in self.hidden]

    def _ask(self, what: str, kind: Entity) -> None:
        self.asked.append((what, kind))
        for failing in (None, kind):
            if failing in self.failing:
                raise self.failing[failing]


class Stream:
    """Implements `AppendAndBump`, and knows what it was told: `is_noted` as `MemoryBackground` asks for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.renewed: list[Event] = []
        self.noted: set[tuple[str, str]] = set()
        self.away_after: int | None = None

    async def __call__(self, event: Event, call: Call) -> Appended:
        if self.away_after is not None and len(self.renewed) >= self.away_after:
            raise CacheUnavailable("away")
        self.renewed.append(event)
        duplicate = bool(event.dedupe_key) and (event.instance, event.dedupe_key) in self.noted
        self.noted |= {(event.instance, key) for key in (event.dedupe_key, event.version_key) if key}
        if not duplicate:
            self.events.append(event)
        return Appended(event.event_id, duplicate, 0.0)

    def is_noted(self, instance: str, key: str) -> bool:
        return (instance, key) in self.noted

    def hear_by_webhook(self, kind: Entity, one: Mapping[str, Any]) -> None:
        """As the append of a webhook notes this version."""
        self.noted.add((ACCOUNT, version_key(ACCOUNT, kind.value, one["jnid"], one["date_updated"])))

    @property
    def told(self) -> list[tuple[str, str]]:
        """(name, record id) of every event."""
        return [(event.name, event.record_id) for event in self.events]

    def take(self) -> list[tuple[str, str]]:
        told = self.told
        self.events.clear()
        return told


class Scene:
    """All of it on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.jobnimbus = ListedJobNimbus()
        self.stream = Stream()
        self.keeper = MemoryBackground(self.clock, self.stream.is_noted)
        self._numbers = count(1)

    def new_id(self) -> str:
        return f"{next(self._numbers):032x}"

    async def pass_time(self, seconds: float, step_s: float = 1.0) -> None:
        """Let `seconds` go by, everything that is due meanwhile done."""
        await self.rest()
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            await self.rest()

    async def rest(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)
