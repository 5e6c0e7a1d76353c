"""One load per key for all who ask meanwhile; one waiter's leaving does not take the load from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from enum import Enum
from typing import Any, Generic, TypeVar

from jobnimbus_mcp.call import CALL_DEADLINE_S, Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InternalError, Stopping, UpstreamTimeout

__all__ = [
    "GATHER_S",
    "JOIN_LEFT_S",
    "JOIN_WITHIN_S",
    "LINGER_S",
    "SPACING_S",
    "Body",
    "Flight",
    "Joining",
    "SingleFlight",
]

T = TypeVar("T")

GATHER_S = 0.002
"""A flight that may only be joined before it begins waits so long for company: one load for a burst, not two."""

SPACING_S = 0.1
"""Such a flight waits for the one before it under the same key, but no longer than this: with the one time-out of a
frozen store before it, a reader is held up by less than 250 ms, and the origin gets some eight loads per second and key
however many ask. A call waits so once: the loads of its further reads begin at once."""

LINGER_S = 2.0
"""How long a landed flight is remembered. A reader that looked before the landing may have its turn only when all
others of its burst had theirs, and a thousand of them take a busy machine more than a second."""

JOIN_WITHIN_S = 10.0
JOIN_LEFT_S = CALL_DEADLINE_S - JOIN_WITHIN_S
"""A flight ends with the deadline of the call that began it. One with less time left than this is not joined by a call
with so much more: it would be given up with the other, which may be old, or have made other reads before this one."""


class Joining(Enum):
    """Which flight under the key may be joined."""

    BEGUN = "begun"
    """Any under way: the key names the state that the load will see."""
    UNBEGUN = "unbegun"
    """Only one that has not begun: what happened since it began is not known."""
    NONE = "none"
    """None, and nobody may join this one."""


class Flight(Generic[T]):
    """A load under way. It may go on after it has been answered."""

    __slots__ = ("after", "answered", "began", "deadline", "detached", "landed", "task", "waiters")

    def __init__(self, after: asyncio.Task[None] | None, deadline: float) -> None:
        self.after = after
        """The load it waits for before it begins, though not for long."""
        self.deadline = deadline
        """Of the call that began it: the load is given up then, whoever waits."""
        self.began: float | None = None
        self.landed: int | None = None
        self.detached = False
        """Does it go on when nobody waits for it any more?"""
        self.waiters = 0
        self.answered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]

    @property
    def spacing(self) -> bool:
        """Is it waiting for the one before it?"""
        return self.after is not None and not self.after.done()

    def answer(self, value: T) -> None:
        """Give the waiters their value; only the first answer counts."""
        if not self.answered.done():
            self.answered.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Give the waiters the error, unless they have been answered."""
        if not self.answered.done():
            self.answered.set_exception(error)
            # With nobody waiting any more, the loop must not report it as never retrieved.
            self.answered.exception()


Body = Callable[[Flight[T]], Coroutine[Any, Any, None]]


class SingleFlight(Generic[T]):
    """Flights by key. Whoever constructs this closes it.

    A flight that has landed is remembered for a moment, for whoever looked at the state its key names before it landed
    and comes only now: `fly` with the `landings` of before that look joins it, and does not load the same again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.landings = 0
        self._flights: dict[Hashable, Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def fly(
        self,
        key: Hashable,
        body: Body[T],
        *,
        call: Call,
        joining: Joining = Joining.BEGUN,
        begun_within_s: float | None = None,
        looked: int | None = None,
        detach: bool = False,
    ) -> tuple[T, bool]:
        """The answer of the flight under `key`, and whether somebody else had asked for it first.

        `body` runs in a task of its own and answers the flight. `begun_within_s`: join only a flight at most so old; a
        younger one takes its place under the key. `looked`: `landings` before the caller looked at the state that `key`
        names; None joins no flight that has landed. `detach`: the flight goes on to its end when its waiters have left.

        Raises:
            UpstreamTimeout: the call's deadline passed while waiting.
            Exception: what `body` raised.
        """
        flight = self._joinable(key, joining, begun_within_s, looked, call)
        joined = flight is not None
        if flight is None:
            flight = self._start(key, body, joining, call)
        call.spaced = call.spaced or flight.spacing
        flight.detached = flight.detached or detach
        flight.waiters += 1
        bound = asyncio.timeout(max(0.0, call.remaining_s(self._clock)))
        try:
            async with bound:
                return await asyncio.shield(flight.answered), joined
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise UpstreamTimeout("No answer in time.") from error
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.detached and not flight.answered.done():
                self._forget(key, flight)
                flight.task.cancel()

    async def aclose(self, within_s: float = 2.0) -> None:
        """Let what is under way end, for so long, or until this is cancelled itself; then cancel it."""
        tasks = set(self._tasks)
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=within_s)
            finally:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _joinable(
        self, key: Hashable, joining: Joining, begun_within_s: float | None, looked: int | None, call: Call
    ) -> Flight[T] | None:
        flight = self._flights.get(key)
        if flight is None or joining is Joining.NONE:
            return None
        if flight.landed is not None and (looked is None or flight.landed <= looked):
            return None
        if flight.landed is None and self._ends_too_soon(flight, call):
            return None
        if flight.began is None:
            return None if call.spaced and flight.spacing else flight
        if joining is Joining.UNBEGUN:
            return None
        age_s = self._clock.monotonic() - flight.began
        if begun_within_s is not None and age_s > begun_within_s:
            return None
        return flight

    def _ends_too_soon(self, flight: Flight[T], call: Call) -> bool:
        left_s = flight.deadline - self._clock.monotonic()
        return left_s < JOIN_LEFT_S < call.deadline - flight.deadline

    def _start(self, key: Hashable, body: Body[T], joining: Joining, call: Call) -> Flight[T]:
        before = self._flights.get(key) if joining is Joining.UNBEGUN and not call.spaced else None
        flight: Flight[T] = Flight(before.task if before is not None else None, call.deadline)
        if joining is not Joining.NONE:
            self._flights[key] = flight
        if joining is not Joining.UNBEGUN:
            flight.began = self._clock.monotonic()
        flight.task = asyncio.get_running_loop().create_task(self._run(key, flight, body, joining))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    async def _run(self, key: Hashable, flight: Flight[T], body: Body[T], joining: Joining) -> None:
        try:
            if flight.began is None:
                await asyncio.sleep(GATHER_S)
                if flight.after is not None:
                    await asyncio.wait({flight.after}, timeout=SPACING_S)
                    flight.after = None
                flight.began = self._clock.monotonic()
            await body(flight)
            flight.fail(InternalError("The fetch ended without an answer."))
            if joining is Joining.BEGUN and flight.answered.exception() is None:
                self.landings += 1
                flight.landed = self.landings
                asyncio.get_running_loop().call_later(LINGER_S, self._forget, key, flight)
        except asyncio.CancelledError:
            flight.fail(Stopping("The server is stopping; try again."))
            raise
        except Exception as error:  # the boundary between a flight and its waiters: they get whatever went wrong
            flight.fail(error)
        finally:
            if flight.landed is None:
                self._forget(key, flight)

    def _forget(self, key: Hashable, flight: Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
