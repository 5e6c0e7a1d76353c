"""Lanes: events that wait in a process's memory, those of one record behind one another."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Lanes"]

K = TypeVar("K", bound=Hashable)

_STALE_MOST = 64


class _Place(NamedTuple):
    """When a key is due, and which it was to be added: between keys due at once, the first comes first."""

    due_at: float
    number: int


@dataclass(slots=True)
class _Lane(Generic[K]):
    """One record's keys, its head first. `out`: the head is being worked on."""

    record: Hashable
    places: OrderedDict[K, _Place] = field(default_factory=OrderedDict)
    times: dict[K, float] = field(default_factory=dict)
    out: bool = False

    def head(self) -> K:
        return next(iter(self.places))


class Lanes(Generic[K]):
    """Keys by record, each with the time it is due; those of one record come out one at a time, in the order of `add`,
    save what is said to be late.

    Only the head of a record can be `ready`, and it stays the head until it is finished or forgotten: while it is out,
    when it has been put back, and while it waits for its time, also when a later key of its record is due before. So
    what waits holds back its own record's later keys, and no other's.

    Keys are unique over all records. Every operation takes O(log n) for each key it is about.
    """

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[K]] = {}
        self._lane_of: dict[K, _Lane[K]] = {}
        # holds the place of every head that is not out, and some that are none any more: those are passed over
        self._heads: list[tuple[_Place, Hashable]] = []
        self._number = 0

    def __len__(self) -> int:
        """All keys, with those that are out."""
        return len(self._lane_of)

    def __contains__(self, key: object) -> bool:
        return key in self._lane_of

    def add(self, record: Hashable, key: K, due_at: float, *, of: float = 0.0, late: bool = False) -> bool:
        """At its record's end or, when it is `late`, before those of its record that are of a later time and have not
        been handed out; `of`: its own time, by whatever clock. False, and nothing done, when the key
        is there already."""
        if key in self._lane_of:
            return False
        lane = self._lanes.get(record)
        if lane is None:
            lane = self._lanes[record] = _Lane(record)
        self._lane_of[key] = lane
        self._number += 1
        overtook = [other for other in list(lane.places)[lane.out :] if lane.times[other] > of] if late else []
        lane.places[key] = _Place(due_at, self._number)
        lane.times[key] = of
        for other in overtook:
            lane.places.move_to_end(other)
        if not lane.out and lane.head() == key:
            self._show(lane)
        return True

    def ready(self, now: float, most: int) -> list[K]:
        """Heads that are due at `now`, at most `most`, the longest due first. They are out from here on, until they are
        put back, finished or forgotten."""
        found: list[K] = []
        while len(found) < most and self._drop_stale() and self._heads[0][0].due_at <= now:
            _, record = heapq.heappop(self._heads)
            lane = self._lanes[record]
            lane.out = True
            found.append(lane.head())
        return found

    def is_out(self, key: K) -> bool:
        """Whether `ready` gave this key, and nobody has told what came of it."""
        lane = self._lane_of.get(key)
        return lane is not None and lane.out and lane.head() == key

    def put_back(self, key: K, due_at: float) -> bool:
        """To come out (again) at `due_at`; it keeps its place in its record's order. False when the key is unknown."""
        lane = self._lane_of.get(key)
        if lane is None:
            return False
        lane.places[key] = _Place(due_at, lane.places[key].number)
        if lane.head() == key:
            lane.out = False
            self._show(lane)
        return True

    def finish(self, key: K) -> bool:
        """Done with it: its record's next key is the head. False when the key is unknown."""
        lane = self._lane_of.pop(key, None)
        if lane is None:
            return False
        was_head = lane.head() == key
        del lane.places[key], lane.times[key]
        if not lane.places:
            del self._lanes[lane.record]
        elif was_head:
            lane.out = False
            self._show(lane)
        return True

    def forget(self, keys: Iterable[K]) -> int:
        """As if they had never been added, also those that are out; how many were known."""
        return sum([self.finish(key) for key in keys])

    def next_due(self) -> float | None:
        """The earliest time at which a head that is not out is due, which may have passed; None when there is none,
        and nothing becomes ready before something is added, put back, finished or forgotten."""
        return self._heads[0][0].due_at if self._drop_stale() else None

    def _show(self, lane: _Lane[K]) -> None:
        heapq.heappush(self._heads, (lane.places[lane.head()], lane.record))
        # what was forgotten far ahead of its time would otherwise stay until then
        if len(self._heads) > 2 * len(self._lanes) + _STALE_MOST:
            self._heads = [(lane.places[lane.head()], lane.record) for lane in self._lanes.values() if not lane.out]
            heapq.heapify(self._heads)

    def _drop_stale(self) -> bool:
        """Whether there is a head that is not out; it is the first then."""
        while self._heads:
            place, record = self._heads[0]
            lane = self._lanes.get(record)
            if lane is not None and not lane.out and lane.places[lane.head()] == place:
                return True
            heapq.heappop(self._heads)
        return False
