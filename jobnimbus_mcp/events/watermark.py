"""Where polling for changes resumes, how soon it comes again, and how many changes no webhook told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "CALM_ROUNDS",
    "INDEX_LAG_S",
    "OVERLAP_S",
    "YOUNG_S",
    "Loss",
    "Mark",
    "interval_s",
    "is_young",
    "loss_hours",
]

OVERLAP_S = 300
"""How far each question reaches back behind the last: JobNimbus's index lags by seconds, and its clock may differ from
ours by as much as signatures allow."""

INDEX_LAG_S = 10
"""A record may show in lists so long after it was written. Source: JobNimbus API documentation, hints of the back end;
users have seen up to about 6 s."""

YOUNG_S = 2
"""`date_updated` has whole seconds, so a second edit may still come that looks like this one."""

CALM_ROUNDS = 3
"""After so many rounds in a row that found nothing new to us, webhooks are taken to arrive."""

_SOONEST_S = 5.0
_LOOKED_BACK_H = 24


@dataclass(frozen=True, slots=True)
class Mark:
    """Of one kind of record. `watermark`: what was changed before has been told, epoch seconds on our clock; of what
    lies after the floor, as much as was read. `floor`: nothing before is to be asked for again, whatever the overlap.
    """

    watermark: int
    floor: int = 0

    @classmethod
    def first(cls, started_at: float) -> Mark:
        """Nobody has polled before: a cache that was filled from then on can have missed nothing older."""
        return cls(int(started_at), int(started_at) - INDEX_LAG_S)

    def since(self, now: float) -> int:
        """Records with this `date_updated` or a later one are to be asked for.

        A mark that lies ahead was set by a clock that has been set back since, and says nothing.
        """
        floor = self.floor if self.floor <= now else 0
        return max(floor, min(self.watermark, int(now)) - OVERLAP_S, 0)

    def after(self, asked_at: float, *, read_to: int | None = None) -> Mark:
        """The mark once everything that was found is told.

        `asked_at`: when the question was put. `read_to`: the last `date_updated` that was read, where there was more
        than could be read; None where all was.
        """
        if read_to is None:
            return Mark(int(asked_at), self.floor)
        since = self.since(asked_at)
        read_to = min(read_to, int(asked_at))  # dates that lie ahead must not make the mark one that does
        # More within one second than is ever read must not hold up everything after it.
        resumed = read_to if read_to > since else since + 1
        # the floor says where to go on; what is read once more from there must not be counted once more
        return Mark(resumed + YOUNG_S, read_to - INDEX_LAG_S if read_to - INDEX_LAG_S > since else resumed)

    def is_first_seen(self, updated_at: int, asked_at: float) -> bool:
        """Was a record that was changed then not looked at for good by the round that set this mark, but will be by the
        one that asks now, or soon?"""
        return self.watermark - YOUNG_S < updated_at <= asked_at + OVERLAP_S


def is_young(updated_at: int, asked_at: float) -> bool:
    """May the record have been changed once more since, within the same second? A date that lies further ahead than
    clocks differ is none of a change, and would be young for as long as that."""
    return asked_at - YOUNG_S < updated_at <= asked_at + OVERLAP_S


def interval_s(longest_s: float, *, calm_rounds: int, behind: bool) -> float:
    """How long after a round began the next one is to have ended; never more than `longest_s`.

    A quarter of it, but no less than 5 s, while webhooks seem to be missing (`calm_rounds` counts the rounds in a row
    that found nothing missed) or there was more than one round could read (`behind`).
    """
    if calm_rounds >= CALM_ROUNDS and not behind:
        return longest_s
    return min(longest_s, max(longest_s / 4, _SOONEST_S))


class Loss(NamedTuple):
    """Versions of records in the last 24 hours. `missed`: first heard of by polling; `heard`: a webhook was first.
    `rate`: the share that was missed, 0 without any."""

    missed: int
    heard: int

    @property
    def rate(self) -> float:
        return self.missed / (self.missed + self.heard) if self.missed else 0.0

    def told(self) -> dict[str, float]:
        """`{"missed", "heard", "rate"}`."""
        return {"missed": self.missed, "heard": self.heard, "rate": round(self.rate, 4)}


def loss_hours(now: float) -> list[int]:
    """The hours since the epoch over which losses are summed, the present one included."""
    hour = int(now // 3600)
    return list(range(hour - _LOOKED_BACK_H + 1, hour + 1))
