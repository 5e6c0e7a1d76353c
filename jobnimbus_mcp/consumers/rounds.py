"""A round of warming: what is to be asked, one after the other, with what callers leave of the request budget."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import ProjectError, RecordNotFound, UpstreamUnauthorized
from jobnimbus_mcp.gateway.answers import Answer, Tier
from jobnimbus_mcp.gateway.identity import Caller, Identities
from jobnimbus_mcp.telemetry.recorder import Recorder

__all__ = ["FETCHED_MOST", "SPARE_SHARE", "Errand", "Reader", "Round", "Rounds", "server_callers"]

SPARE_SHARE = 0.5
"""Of the request budget that is left for callers: nothing is asked while less is."""

FETCHED_MOST = 20
"""Fetches of one round: two seconds of the usual budget."""

_AT_ONCE = 2
"""Of an account, whatever number of rounds there is: callers need the other connections when JobNimbus is slow."""

_PATIENCE_S = 1.0
"""How long a round waits for its share: the budget fills up in half a second when nobody else draws on it."""

_LOOK_EVERY_S = 0.1

Errand = Callable[[Call], Awaitable[bool]]
"""Asks one thing; whether JobNimbus was asked for it. Raises ProjectError."""


class Reader(Protocol):
    """What warming asks of the gateway; `gateway.reads.Gateway`."""

    async def get(self, read: Read, caller: Caller, call: Call, *, internal: bool = False) -> Answer: ...


@dataclass
class Round:
    """What came of it. `made`: errands that were run, `fetched`: those that asked JobNimbus; `failed`: by their place
    in the list; `left`: for want of budget or time, or since JobNimbus would have refused them too."""

    made: int = 0
    fetched: int = 0
    left: int = 0
    failed: dict[int, ProjectError] = field(default_factory=dict)


class Rounds:
    """Runs rounds. `share_left(instance)`: of the account's request budget, 0 to 1."""

    def __init__(
        self, gateway: Reader, *, clock: Clock, share_left: Callable[[str], float], recorder: Recorder
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._share_left = share_left
        self._recorder = recorder
        self._under_way: Counter[str] = Counter()

    def reading(self, read: Read, caller: Caller) -> Errand:
        """The errand of having the answer kept. One that is fresh is a hit and costs nothing; a record that is gone is
        an answer too."""

        async def errand(call: Call) -> bool:
            try:
                answer = await self._gateway.get(read, caller, call, internal=True)
            except RecordNotFound:
                return True
            return answer.outcome.tier is Tier.UPSTREAM

        return errand

    async def run(
        self,
        instance: str,
        errands: Sequence[Errand],
        *,
        request_id: str,
        reason: str,
        begun_within_s: float,
        fetched_most: int = FETCHED_MOST,
    ) -> Round:
        """In their order, two of an account at once, until `fetched_most` have asked JobNimbus; none is begun later
        than `begun_within_s` seconds from now, and each has a call's time. `reason`: event, schedule or admin."""
        done, waiting = Round(), deque(enumerate(errands))
        until = self._clock.monotonic() + begun_within_s
        under_way = 0

        async def work() -> None:
            nonlocal under_way
            while waiting and done.fetched + under_way < fetched_most and await self._has_room(instance, until):
                if not waiting or done.fetched + under_way >= fetched_most:
                    return
                place, errand = waiting.popleft()
                under_way += 1
                self._under_way[instance] += 1
                try:
                    fetched = await errand(Call.begin(self._clock, request_id, tool="warm"))
                    done.fetched += fetched  # not in one statement: the sum would be older than the wait
                except ProjectError as error:
                    done.failed[place] = error
                    # what fails for a reason of its own leaves the others; what they would meet too ends the round
                    if error.retryable or isinstance(error, UpstreamUnauthorized):
                        done.left += len(waiting)
                        waiting.clear()
                finally:
                    under_way -= 1
                    self._under_way[instance] -= 1
                    done.made += 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work())
        except BaseExceptionGroup as defects:
            raise defects.exceptions[0] from defects
        if done.fetched < fetched_most:
            done.left += len(waiting)
        self._counted(done, reason)
        return done

    async def _has_room(self, instance: str, until: float) -> bool:
        """Whether another may be asked: callers come first, and what other rounds have begun."""
        patient_until = None
        while (now := self._clock.monotonic()) < until:
            if self._under_way[instance] < _AT_ONCE:
                if self._share_left(instance) >= SPARE_SHARE:
                    return True
                patient_until = patient_until or now + _PATIENCE_S
                if now >= patient_until:
                    return False
            await self._clock.sleep(_LOOK_EVERY_S)
        return False

    def _counted(self, done: Round, reason: str) -> None:
        kept = done.made - done.fetched - len(done.failed)
        results = {"fetched": done.fetched, "kept": kept, "failed": len(done.failed), "left": done.left}
        for result, number in results.items():
            if number:
                self._recorder.count("warm_reads", number, reason=reason, result=result)


def server_callers(identities: Identities) -> Mapping[str, Caller]:
    """The server's own credential of each account it holds one for: the only ones that background work may use."""
    found = {instance: identities.server_caller(instance) for instance in identities.instances}
    return {instance: caller for instance, caller in found.items() if caller is not None}
