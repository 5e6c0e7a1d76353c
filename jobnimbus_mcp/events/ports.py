"""What the stream of events is made of: the log that keeps them, who acts on them, and what became of each.

    EventLog        where events are kept until every consumer is done, and after that for the trace
    Subscription    one consumer's hand in the log, in one process
    Consumer        what is done about an event
    Bus             tells every process of this server something at once, and forgets it

errors.CacheUnavailable
+-- EventsUnavailable    the log could not be reached, or refused the write
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.event import Event

__all__ = [
    "ACT_WITHIN_S",
    "ANSWER_MOST",
    "ATTEMPTS_KEPT",
    "BATCH_MOST",
    "REJECTED_BY",
    "STATES",
    "AppendAndBump",
    "Appended",
    "Attempt",
    "Bus",
    "Consumer",
    "ConsumerTrace",
    "EventLog",
    "EventPage",
    "EventQuery",
    "EventsUnavailable",
    "Fate",
    "Lag",
    "Outcome",
    "Rates",
    "RedisRunner",
    "Routes",
    "Settled",
    "Subscription",
    "Taken",
    "Traced",
]

BATCH_MOST = 500
"""Events handed to a consumer at once, at most."""

ACT_WITHIN_S = 20.0
"""No effect takes longer: what `take` returns may be worked on for so long, and nobody else works on it meanwhile."""

ATTEMPTS_KEPT = 20
ANSWER_MOST = 500
"""Characters of a target's answer or of an error that the trace keeps."""

STATES = ("pending", "delayed", "done", "dead")
"""Of an event: due and not done by some consumer; waiting for its settling or retry time; done by all; given up by some
and done by the others. The first that fits, in the order pending, delayed, dead, done."""

REJECTED_BY = "intake"
"""Whose dead letter a rejected event is, which no consumer ever had: nobody can replay it."""

Routes = Mapping[str, float]
"""Consumer -> when the event is due for it, epoch seconds. Consumers that are not named have nothing to do with it."""


class EventsUnavailable(CacheUnavailable):
    """The events could not be read or written; `detail` says why, for the log."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(
            "The event log is unavailable; try again shortly.", code="events_unavailable", retry_after_s=1.0
        )
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Appended:
    """`event_id`: the event's, or that of the first delivery when this one is a `duplicate`.

    `journalled`: it is on this machine's disk, to be appended, with its tags renewed, in the background; whether it is
    a duplicate, and after how long it held, shows only then.
    """

    event_id: str
    duplicate: bool
    latency_ms: float
    journalled: bool = False


class AppendAndBump(Protocol):
    """Appends the event and renews its tags, in one step; renews them for a duplicate too, without a second event.

    When it returns, the event is durable and no read that starts later gets older data, unless it says `journalled`.

    Raises:
        CacheUnavailable: neither happened for certain, nor will it.
    """

    async def __call__(self, event: Event, call: Call) -> Appended: ...


# -- acting on events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try to act on one event. `error` "" means that it is done; a stable word or class name, fit for
    a log, never a body or a credential. `retry` False: no further try would help. `status`: an HTTP status where there
    was one. `answer`: what the other side said, for the trace; cut to ANSWER_MOST. `away`: a store of our own cannot be
    reached, which is not the event's fault: it is tried again until it can."""

    error: str = ""
    retry: bool = True
    status: int | None = None
    answer: str = ""
    away: bool = False

    @property
    def ok(self) -> bool:
        return not self.error


class Consumer(Protocol):
    """What is done about an event. Everything is at least once: acting twice on one event must do no harm.

    `name`: letters, digits, `-`, `_` and `:`; its group's, in the trace, the metrics and the settings. `batch_most`:
    how many events it is given at once (1 to BATCH_MOST; all of different records). `parallel`: how many batches at
    once.
    `within_s`: bound on one batch, at most ACT_WITHIN_S.
    """

    @property
    def name(self) -> str: ...

    @property
    def batch_most(self) -> int: ...

    @property
    def parallel(self) -> int: ...

    @property
    def within_s(self) -> float: ...

    def delay_s(self, event: Event) -> float | None:
        """How long after its receipt the event is due for this consumer; None when it is nothing to it. Pure."""
        ...

    async def act(self, batch: Sequence[Event], request_ids: Sequence[str]) -> Sequence[Outcome]:
        """One outcome for each event, in their order. Raising is a failed try of all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. `at`: epoch seconds when it began. `request_id`: its own, as a target was told it."""

    at: float
    request_id: str
    duration_ms: float
    status: int | None = None
    error: str = ""
    answer: str = ""


class Fate(StrEnum):
    """What becomes of an event for one consumer after a try."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Taken:
    """An event in the hands of one consumer of this process. `attempts`: tries before this one, of whatever process.
    `due_at`: since when it was due, epoch seconds. `receipt` is the log's own."""

    event: Event
    attempts: int
    due_at: float
    receipt: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of what was taken. `due_at`: with RETRY, when to try again, epoch seconds. `reason`: with DEAD."""

    taken: Taken
    fate: Fate
    attempt: Attempt
    due_at: float = 0.0
    reason: str = ""


class Subscription(Protocol):
    """One consumer's hand in the log, in one process. Used by one task that takes and several that settle.

    What it hands out is this process's alone for ACT_WITHIN_S; of one record at most one event is out at a time, in the
    order of their receipt: the next comes when the one before is done or dead. An event that waits for its time
    (delayed, or to be tried again) holds back later events of its own record, and of no other.
    """

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        """Events that are due, the oldest first, at most `most`; waits up to `wait_s` for one, then none.

        Raises:
            EventsUnavailable: the log could not be asked; the caller rests and comes again.
        """
        ...

    async def settle(self, results: Sequence[Settled]) -> None:
        """Note what came of them, and give them back. Those that another process has meanwhile are passed over.

        Raises:
            EventsUnavailable: it could not be noted. They are given back all the same, and will be handed out again.
        """
        ...

    async def aclose(self) -> None:
        """Give back everything, so that another process need not wait for it."""
        ...


# -- looking at events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConsumerTrace:
    """One consumer's part in an event. `state`: one of STATES. `due_at`: when it is, or was last, due. `attempts`: how
    many in all; `tried`: the last of them, ATTEMPTS_KEPT at most, the oldest first. `reason`: with dead."""

    state: str
    due_at: float
    attempts: int = 0
    tried: tuple[Attempt, ...] = ()
    done_at: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Traced:
    """One event with all that has become of it."""

    event: Event
    consumers: Mapping[str, ConsumerTrace]

    @property
    def state(self) -> str:
        """As STATES says."""
        states = {told.state for told in self.consumers.values()}
        return next((state for state in ("pending", "delayed", "dead") if state in states), "done")

    @property
    def attempts(self) -> int:
        return sum(told.attempts for told in self.consumers.values())

    @property
    def replayable(self) -> bool:
        """Has anybody given it up who could act on it after all?"""
        return any(told.state == "dead" and name != REJECTED_BY for name, told in self.consumers.items())


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to list, newest first. `since`: received no earlier, epoch seconds. `before`: event ids below it, as
    `EventPage.next_before` tells."""

    state: str | None = None
    entity: str | None = None
    record_id: str | None = None
    since: float | None = None
    limit: int = 50
    before: str | None = None


class EventPage(NamedTuple):
    """`events` without their bodies, the newest (by event id) first; `next_before`: where the next page begins, None at
    the end."""

    events: tuple[Traced, ...]
    next_before: str | None


class Lag(NamedTuple):
    """One consumer of one account. `due`: events that are due and not done; `delayed`: those whose time has not come;
    `oldest_s`: for how long the oldest due one has been due, 0 without one; `dead`: given up."""

    due: int
    delayed: int
    oldest_s: float
    dead: int


class Rates(NamedTuple):
    """One consumer's tries of late: how many went well and failed, and the mean of the seconds from due to done."""

    ok: int
    failed: int
    latency_s: float


class EventLog(Protocol):
    """Events of the accounts of one store, whatever keeps them. Every method may raise `EventsUnavailable`; each is
    bounded in time by the log itself.

    An event is kept until all consumers it is routed to are done or have given it up, then in the archive; dead ones
    until they are replayed or the archive's retention ends.
    """

    async def append(self, event: Event, routes: Routes) -> bool:
        """Durable when it returns; True when the event is new, False when it is there already, by its id."""
        ...

    def subscribe(self, consumer: str) -> Subscription:
        """A hand in the log for this consumer. To be closed by whoever asked for it."""
        ...

    async def open(self, consumers: Sequence[str]) -> None:
        """Make what these consumers need (groups, topics, queues). Safe to repeat; called before anything is taken."""
        ...

    async def show(self, instance: str, event_id: str) -> Traced | None:
        """One event with its body, or None."""
        ...

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        """A page of events. State filters look at events as they are now."""
        ...

    async def replay(self, instance: str, event_id: str, consumer: str | None = None) -> tuple[str, ...]:
        """Dead letters of this event (of one consumer or of all) are due again, with their attempts counted anew; for
        which consumers. Empty when it has none."""
        ...

    async def lag(self, instance: str) -> Mapping[str, Lag]:
        """By consumer; every consumer that was opened or still has events."""
        ...

    async def rates(self, instance: str) -> Mapping[str, Rates]:
        """By consumer, of the last five minutes, over all processes."""
        ...

    async def standing(self, instance: str, event_ids: Sequence[str]) -> tuple[str, Mapping[str, bool]]:
        """(a token that stays the same for as long as nothing was lost, event id -> whether it is still kept for some
        consumer). For whoever keeps a copy until everybody is done."""
        ...

    async def reject(self, event: Event, reason: str) -> None:
        """Keep, for the trace alone, something that could not be understood: dead, and never handed out."""
        ...

    async def clean(self, *, archived_before: float, dead_before: float) -> int:
        """Forget what was archived or given up before (epoch seconds); how many."""
        ...

    async def retire(self, consumers: Sequence[str]) -> int:
        """Consumers other than these no longer exist: what is still kept for them is dead, reason `no_such_consumer`,
        and what they were the last for goes to the archive. How many."""
        ...

    async def durable(self) -> bool:
        """Whether what was appended outlives the process that keeps it."""
        ...

    async def ping(self) -> None:
        """Return when the log answers and takes writes."""
        ...

    async def aclose(self) -> None: ...


class Bus(Protocol):
    """Tells every process of this server something at once: who listens now hears it, nobody else ever will."""

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        """Raises EventsUnavailable when it could not be told."""
        ...

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        """`heard(instance, message)` is called for every message, also of this process; the result stops that."""
        ...


class RedisRunner(Protocol):
    """Scripts by file name, and commands that wait, over one store's connections; `cache.scripts_redis.Scripts`.

    Both raise `CacheUnavailable` for whatever goes wrong. `tenant`: whose keys these are; always to be given.
    """

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, tenant: str = "") -> Any:
        """The script's reply, not bounded in time."""
        ...

    async def blocked(self, command: Sequence[Any], *, tenants: Sequence[str] = (), within_s: float = 5.0) -> Any:
        """The reply of a raw command which the server holds back; bounded by `within_s`."""
        ...
