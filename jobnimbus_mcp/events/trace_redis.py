"""What became of an event, as its hash and its line in the archive say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from jobnimbus_mcp.events.asking_redis import text
from jobnimbus_mcp.events.event import Event, decode, received_ms
from jobnimbus_mcp.events.ports import ANSWER_MOST, ATTEMPTS_KEPT, Attempt, ConsumerTrace, Fate, Settled, Traced

__all__ = ["Became", "decoded", "fields_of", "milliseconds", "traced"]


@dataclass(frozen=True, slots=True)
class Became:
    """What became of an event for one consumer: state "" not finished. `tries`: since it was due anew; `attempts`: in
    all. `due_ms`: when it is or was last due, None as routed."""

    state: str = ""
    tries: int = 0
    attempts: int = 0
    due_ms: int | None = None
    ended_ms: int | None = None
    reason: str = ""
    tried: tuple[Attempt, ...] = ()

    @classmethod
    def read(cls, raw: bytes) -> Became:
        """Of the field; b"" when nothing has become of it yet."""
        if not raw:
            return cls()
        told = orjson.loads(raw)
        return cls(
            told["s"], told["n"], told["t"], told["u"], told["d"], told["r"], tuple(Attempt(*a) for a in told["a"])
        )

    @property
    def written(self) -> bytes:
        tried = [(a.at, a.request_id, a.duration_ms, a.status, a.error, a.answer) for a in self.tried]
        return orjson.dumps(
            {
                "s": self.state,
                "n": self.tries,
                "t": self.attempts,
                "u": self.due_ms,
                "d": self.ended_ms,
                "r": self.reason,
                "a": tried,
            }
        )

    def after(self, settled: Settled, now_ms: int) -> Became:
        """With one more try."""
        attempt = settled.attempt
        attempt = replace(attempt, error=attempt.error[:ANSWER_MOST], answer=attempt.answer[:ANSWER_MOST])
        more = replace(
            self,
            tries=self.tries + 1,
            attempts=self.attempts + 1,
            tried=(*self.tried, attempt)[-ATTEMPTS_KEPT:],
            due_ms=milliseconds(settled.taken.due_at),
        )
        if settled.fate is Fate.RETRY:
            return replace(more, due_ms=milliseconds(settled.due_at))
        reason = settled.reason[:ANSWER_MOST] if settled.fate is Fate.DEAD else ""
        return replace(more, state=settled.fate.value, ended_ms=now_ms, reason=reason)

    def gone(self, reason: str, now_ms: int) -> Became:
        """Given up without a try."""
        return replace(self, state=Fate.DEAD.value, ended_ms=now_ms, reason=reason)

    def anew(self, now_ms: int) -> Became:
        """Due again, its tries counted from 0."""
        return replace(self, state="", tries=0, due_ms=now_ms, ended_ms=None, reason="")

    def told(self, routed_ms: int, now_ms: int) -> ConsumerTrace:
        due_ms = routed_ms if self.due_ms is None else self.due_ms
        return ConsumerTrace(
            state=self.state or ("pending" if due_ms <= now_ms else "delayed"),
            due_at=due_ms / 1000,
            attempts=self.attempts,
            tried=self.tried,
            done_at=None if self.ended_ms is None else self.ended_ms / 1000,
            reason=self.reason,
        )


def milliseconds(at: float) -> int:
    """Epoch seconds as stores have them."""
    return round(at * 1000)


def fields_of(flat: Sequence[bytes]) -> Mapping[str, bytes]:
    """Field, value, field, value, ... as a mapping."""
    return {text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def traced(instance: str, event_id: str, fields: Mapping[str, bytes], now_ms: int) -> Traced:
    """The event of these fields; `b` may be missing."""
    event = decoded(instance, event_id, fields["e"], text(fields.get("b", b"")))
    routed: Mapping[str, int] = orjson.loads(fields["to"])
    consumers = {
        consumer: Became.read(fields.get(f"c:{consumer}", b"")).told(due_ms, now_ms)
        for consumer, due_ms in routed.items()
    }
    return Traced(event, consumers)


def decoded(instance: str, event_id: str, raw: bytes, body: str) -> Event:
    """As it was appended; one that cannot be read is shown with what is known of it all the same."""
    try:
        return decode(raw, body)
    except ValueError:
        received_at = (received_ms(event_id) or 0) / 1000
        return Event(event_id, instance, "unreadable", "", "", "unknown", (), "", received_at, body=body)
