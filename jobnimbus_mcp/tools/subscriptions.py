"""Who may be told of which record's or list's changes, for how long, and who is listening now.

What is told is a URI and nothing else: the client reads the record itself, under its own credential. A subscription is
granted after its records were read in the caller's name. It outlives that check, so it is checked again: every
`recheck_s` the credential, and the records that were told of since. Whoever may no longer read one is told of it for
so long at most; then the whole subscription ends with the reason. With an access token it ends when that does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CallerError,
    InternalError,
    InvalidInput,
    NotAuthenticated,
    ProjectError,
    Stopping,
    UpstreamForbidden,
    UpstreamUnauthorized,
)
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.resources import ListUnder, any_list_of, located
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.tools.resources import WATCH, Proof, Resources

__all__ = [
    "RECHECK_S",
    "UNDECIDED_MOST",
    "URIS_MOST",
    "WATCHES_MOST",
    "WATCHES_OF_ONE_MOST",
    "Unwatchable",
    "Watch",
    "Watches",
]

URIS_MOST = 100
"""Records of one subscription: each is read once when it opens."""

WATCHES_MOST = 1_000
"""Open subscriptions of one process; each is a connection kept open."""

WATCHES_OF_ONE_MOST = 200
"""Of these the holder of one token: an agent that forgets to close its streams shuts out nobody else."""

RECHECK_S = 300.0

UNDECIDED_MOST = 12
"""Checks in a row that came to nothing because JobNimbus could not be asked; then the subscription ends too."""

_AT_ONCE = 10

_FINAL = (CallerError, UpstreamUnauthorized, UpstreamForbidden)
"""A check that ends so has an answer: no. Any other failure says nothing about the caller."""


class Unwatchable(Exception):
    """One of the records may not be watched; `uri` says which, `error` why."""

    def __init__(self, uri: str, error: ProjectError) -> None:
        super().__init__(uri)
        self.uri = uri
        self.error = error


class Watch:
    """One open subscription. A URI told twice before it was taken is taken once: it says "read again", and no more."""

    def __init__(self, uris: Sequence[str], client: str = "") -> None:
        """`client`: of the token it was opened with; "" is nobody in particular."""
        self.uris = tuple(uris)
        self.client = client
        self.unchecked: set[str] = set()
        self._waiting: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self._reason: Exception | None = None

    def told(self, uri: str) -> None:
        """The record changed."""
        if not self._ended:
            self.unchecked.add(uri)
            self._waiting[uri] = None
            self._changed.set()

    def end(self, reason: Exception | None = None) -> None:
        """No more than what was told already; the first reason counts. With one, not even that."""
        if not self._ended:
            self._ended, self._reason = True, reason
            self._changed.set()

    async def next(self) -> str | None:
        """The URI of a record that changed, or None at the end.

        Raises:
            ProjectError, Unwatchable: the reason it was ended for.
        """
        await self._changed.wait()
        if self._reason is not None:
            raise self._reason
        if not self._waiting:
            return None
        uri = next(iter(self._waiting))
        del self._waiting[uri]
        if not self._waiting and not self._ended:
            self._changed.clear()
        return uri


class Watches:
    """The open subscriptions of this process, by URI, so that a change costs only those it concerns."""

    def __init__(
        self, resources: Resources, clock: Clock, log: FilteringBoundLogger, *, recheck_s: float = RECHECK_S
    ) -> None:
        self._resources = resources
        self._clock = clock
        self._log = log
        self._recheck_s = recheck_s
        self._open: set[Watch] = set()
        self._of: dict[str, set[Watch]] = {}
        self._lists: dict[str, set[str]] = {}
        """The lists that are watched, by what stands for all of their kind."""
        self._closed = False

    @property
    def open_now(self) -> int:
        """How many there are."""
        return len(self._open)

    def tell(self, uri: str) -> None:
        """It changed: whoever watches it here is told. Costs nothing where nobody does.

        `uri`: of a record or list, or what stands for every list of a kind.
        """
        for changed in (uri, *self._lists.get(uri, ())):
            for watch in self._of.get(changed, ()):
                watch.told(changed)

    def close(self) -> None:
        """End all in good order and open none any more."""
        self._closed = True
        for watch in self._open:
            watch.end()

    @asynccontextmanager
    async def opened(self, uris: Sequence[str], proof: Proof, call: Call) -> AsyncIterator[Watch]:
        """A subscription to these records (without repeats), granted; what changed since it was asked for is in it.

        Raises:
            InvalidInput: too many URIs.
            Unwatchable: this caller may not watch one of them, or that cannot be known now.
            ProjectError: too many subscriptions, or the server is being stopped.
        """
        if len(uris) > URIS_MOST:
            raise InvalidInput(f"At most {URIS_MOST} resources can be subscribed to at once; open several streams.")
        if self._closed:
            raise Stopping("The server is stopping; subscribe again.")
        if len(self._open) >= WATCHES_MOST:
            raise _too_many(f"This server has {WATCHES_MOST} open subscriptions")
        client = proof.access.client
        if client and sum(one.client == client for one in self._open) >= WATCHES_OF_ONE_MOST:
            raise _too_many(f"You have {WATCHES_OF_ONE_MOST} open subscriptions")
        callers = self._callers(uris, proof)
        watch = Watch(uris, client)
        # before the records are read, so that nothing that changes meanwhile is missed
        self._add(watch)
        checking: asyncio.Task[None] | None = None
        try:
            if not uris:
                await self._resources.admitted(self._resources.anyone(proof), call)
            await self._read(uris, callers, call)
            checking = asyncio.create_task(self._keep_checking(watch, callers, proof.access.until, call.request_id))
            yield watch
        finally:
            self._remove(watch)
            if checking is not None:
                checking.cancel()
                await asyncio.wait({checking})

    def _callers(self, uris: Sequence[str], proof: Proof) -> Mapping[str, Caller]:
        found: dict[str, Caller] = {}
        for uri in uris:
            try:
                found[uri] = self._resources.caller(uri, proof)
            except ProjectError as error:
                raise Unwatchable(uri, error) from error
        return found

    async def _read(self, uris: Sequence[str], callers: Mapping[str, Caller], call: Call) -> None:
        """Read each in its caller's name, through the cache.

        Raises:
            Unwatchable: the first that could not be read.
        """
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(uri: str) -> None:
            async with turns:
                try:
                    await self._resources.read(uri, callers[uri], call, why=WATCH)
                except ProjectError as error:
                    raise Unwatchable(uri, error) from error

        # one alone: a credential that is refused is refused once
        for uri in uris[:1]:
            await one(uri)
        try:
            async with asyncio.TaskGroup() as group:
                for uri in uris[1:]:
                    group.create_task(one(uri))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _keep_checking(
        self, watch: Watch, callers: Mapping[str, Caller], until: float | None, request_id: str
    ) -> None:
        """Until the watch must end, and then end it. `until`: epoch seconds at which the caller's token does."""
        undecided = 0
        distinct = set(callers.values())
        while True:
            left_s = self._recheck_s if until is None else until - self._clock.now()
            await self._clock.sleep(max(0.0, min(self._recheck_s, left_s)))
            if until is not None and self._clock.now() >= until:
                watch.end(NotAuthenticated("The access token has expired; subscribe again with a new one."))
                return
            try:
                call = Call.begin(self._clock, request_id, tool=WATCH)
                for who in distinct:
                    await self._resources.admitted(who, call)
                again = tuple(watch.unchecked)
                watch.unchecked.clear()
                try:
                    await self._read(again, callers, call)
                except Unwatchable:
                    watch.unchecked.update(again)
                    raise
            except (ProjectError, Unwatchable) as failed:
                undecided += 1
                error = failed.error if isinstance(failed, Unwatchable) else failed
                if isinstance(error, _FINAL) or undecided >= UNDECIDED_MOST:
                    watch.end(failed)
                    return
            except Exception as defect:  # the boundary of a task nobody awaits: without its check a watch must end
                self._log.error("subscription check failed", request_id=request_id, **defect_fields(defect))
                watch.end(InternalError("This subscription ended through a defect of the server; it was logged."))
                return
            else:
                undecided = 0

    def _add(self, watch: Watch) -> None:
        self._open.add(watch)
        for uri in watch.uris:
            self._of.setdefault(uri, set()).add(watch)
            if (every := _every_list(uri)) is not None:
                self._lists.setdefault(every, set()).add(uri)

    def _remove(self, watch: Watch) -> None:
        self._open.discard(watch)
        for uri in watch.uris:
            watchers = self._of[uri]
            watchers.discard(watch)
            if watchers:
                continue
            del self._of[uri]
            if (every := _every_list(uri)) is not None:
                self._lists[every].discard(uri)
                if not self._lists[every]:
                    del self._lists[every]


def _too_many(there_are: str) -> BudgetExhausted:
    return BudgetExhausted(
        f"{there_are}, and no more are taken; close one.", code="too_many_subscriptions", retry_after_s=60.0
    )


def _every_list(uri: str) -> str | None:
    """What stands for this list and all others of its kind; None for a record."""
    place = located(uri)
    return any_list_of(place.instance, place.kind) if isinstance(place, ListUnder) else None
