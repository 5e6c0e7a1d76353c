"""Answers a `Read` from JobNimbus, in the form its `Shape` documents, and carries out a `Write` or an
`Upload`, which are never sent twice unless surely undone; all of it within the call's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.files import FileContent, FileLink
from jobnimbus_mcp.crm.query import Sort, Where, matches
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.writes import Upload, Write
from jobnimbus_mcp.errors import UpstreamForbidden, UpstreamTimeout, UpstreamUnreadable
from jobnimbus_mcp.resilience.backoff import BackoffPolicy
from jobnimbus_mcp.resilience.breaker import BreakerBox, BreakerPolicy, State
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.upstream.attempts import Asking, Attempts
from jobnimbus_mcp.upstream.files import Files
from jobnimbus_mcp.upstream.known import KnownKeys
from jobnimbus_mcp.upstream.paging import (
    Page,
    Row,
    first_page,
    merge,
    pages_after,
    why_block_incomplete,
    why_scan_incomplete,
    window_note,
)
from jobnimbus_mcp.upstream.ports import RawAnswer, RequestBudget, Sender
from jobnimbus_mcp.upstream.request import (
    credential_check,
    page_request,
    record_request,
    scan_filter,
    whole_request,
    write_request,
)
from jobnimbus_mcp.upstream.response import interpret, record_of, rows_of, whole_of, written_of

__all__ = ["UPSTREAM_BREAKER", "JobNimbusClient", "upstream_breakers"]

UPSTREAM_BREAKER = BreakerPolicy(window_s=60, open_s=15, min_calls=20, failure_share=0.5)
"""Open when most of a minute's calls failed. 20 calls are two busy seconds; fewer would let one bad moment open it."""

_LEVELS = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}

T = TypeVar("T")


def upstream_breakers(instances: Iterable[str], clock: Clock, recorder: Recorder) -> dict[str, BreakerBox]:
    """One breaker per account, each shown by the gauge `breaker_state` as `jobnimbus:<instance>`."""
    return {instance: _breaker(f"jobnimbus:{instance}", clock, recorder) for instance in instances}


class JobNimbusClient:
    """Asks politely: bounded in requests at once, requests per second, and attempts.

    The keys of `breakers` are the accounts there are. `max_concurrent` bounds the requests under way per account,
    whoever's key they carry; 0 is no bound. `on_call(instance, entity)` hears of every request sent, further attempts
    included. `random01` gives numbers in [0, 1). `trusted`: accounts with credentials that are taken for accepted from
    the start, the server's own; all others have small limits of their own until JobNimbus accepts them.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        budget: RequestBudget,
        breakers: Mapping[str, BreakerBox],
        clock: Clock,
        random01: Callable[[], float],
        recorder: Recorder,
        on_call: Callable[[str, Entity], None],
        max_concurrent: int = 8,
        backoff: BackoffPolicy | None = None,
        trusted: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._clock = clock
        self._attempts = Attempts(
            sender=sender,
            budget=budget,
            breakers=breakers,
            clock=clock,
            random01=random01,
            recorder=recorder,
            on_call=on_call,
            max_concurrent=max_concurrent,
            backoff=backoff if backoff is not None else BackoffPolicy(),
            known=KnownKeys(trusted),
        )
        self._files = Files(self._attempts, clock)

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        """The answer to `read`. Cancelling it gives up its requests.

        Raises:
            UpstreamNotFound: JobNimbus has no such record.
            UpstreamError: JobNimbus refused, failed, or was too slow for the call's deadline.
            BudgetExhausted: our own request budget is used up.
            InvalidInput: it cannot be asked: the id is none, or the conditions are too long.
        """
        asking = Asking(instance, read.entity, call, credential)
        match read.shape:
            case Shape.RECORD:
                return await self._in_time(asking, self._record(asking, read.record_id))
            case Shape.BLOCK:
                return await self._in_time(asking, self._block(asking, read))
            case Shape.SCAN:
                return await self._in_time(asking, self._scan(asking, read))
            case Shape.WHOLE:
                return await self._in_time(asking, self._whole(asking, read.part))

    async def page(
        self,
        entity: Entity,
        where: Where,
        sort: Sort,
        *,
        offset: int,
        size: int,
        fields: Sequence[str],
        instance: str,
        credential: str,
        call: Call,
    ) -> tuple[list[Row], int | None]:
        """`size` rows of a list from `offset`, with these fields at least, and JobNimbus's count of all that match.

        Rows without the fields asked for were seen to be left out altogether: then whole ones are asked for. Source:
        JobNimbus API documentation, list parameters; a production note.

        Raises:
            UpstreamUnreadable: rows that do not match (JobNimbus ignores filters it does not understand), or fewer than
                it counts.
            UpstreamError, BudgetExhausted: as `load`.
        """
        asking = Asking(instance, entity, call, credential)
        request = page_request(entity, where, sort, offset=offset, size=size, fields=fields)
        rows, count = await self._in_time(asking, self._attempts.ask(asking, request, self._rows(asking)))
        if not rows and count is not None and count > offset and fields:
            request = page_request(entity, where, sort, offset=offset, size=size)
            rows, count = await self._in_time(asking, self._attempts.ask(asking, request, self._rows(asking)))
        if not rows and count is not None and count > offset and size > 0:
            raise UpstreamUnreadable(f"JobNimbus counts {count} {entity.value} and gave none.")
        if not all(matches(where, row) for row in rows):
            raise UpstreamUnreadable(f"JobNimbus gave {entity.value} that do not match.")
        return rows[:size], count

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None:
        """Return when JobNimbus accepts the key, however little its access profile allows.

        Raises:
            UpstreamUnauthorized: JobNimbus refuses the key.
            UpstreamError: JobNimbus cannot say now.
            BudgetExhausted: our own request budget is used up.
        """
        asking = Asking(instance, Entity.CONTACTS, call, credential)
        try:
            await self._in_time(asking, self._attempts.ask(asking, credential_check(), self._rows(asking)))
        except UpstreamForbidden:
            return  # only a key that is known can lack a right

    async def write(
        self, write: Write, *, base: Mapping[str, Any] | None = None, instance: str, credential: str, call: Call
    ) -> dict[str, Any]:
        """The record as JobNimbus answers the one POST, PUT or DELETE that carries `write` out; {} where a deletion is
        answered without it. `base`: the record as it is now, which the update of a document needs.

        It is sent again only where it surely was not carried out: JobNimbus was too busy, or was never reached. Of an
        error with `sent`, a time-out, 5xx, broken connection or unreadable answer leaves open whether it was.

        Raises:
            UpstreamRejected: JobNimbus does not take the record; `said` holds its words.
            UpstreamError, BudgetExhausted: as `load`.
            InvalidInput: the id is none, or the record cannot be written as JSON.
            ValueError: the kind takes no such change, or `base` is missing.
        """
        asking = Asking(instance, write.entity, call, credential)
        request = write_request(write, base)

        def read(answer: RawAnswer) -> dict[str, Any]:
            if write.action is Action.DELETED and 200 <= answer.status < 300 and not answer.body.strip():
                return {}
            value = interpret(answer, now=self._clock.now(), credential=credential, writes=True)
            return written_of(write, value)

        return await self._in_time(asking, self._attempts.ask_raw(asking, request, read))

    async def upload(self, upload: Upload, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        """What is known of the file that was stored, its `jnid` at least.

        By the upload service; files up to `BASE64_BYTES_MAX` also where that is not there or out of reach. Whether the
        file hangs where it should is for the caller to see: JobNimbus drops links without a word.

        Raises:
            UpstreamRejected, UpstreamError, BudgetExhausted: as `write`.
            FeatureDisabled: JobNimbus wants the bytes at a host that files may not be put at.
            InvalidInput: not exactly one of content and URL.
        """
        asking = Asking(instance, Entity.ATTACHMENTS, call, credential)
        return await self._in_time(asking, self._files.upload(asking, upload))

    async def content(self, jnid: str, *, max_bytes: int, instance: str, credential: str, call: Call) -> FileContent:
        """The bytes of a file.

        Raises:
            UpstreamNotFound: JobNimbus has no such file.
            InvalidInput: it is larger than `max_bytes`, or the id is none.
            FeatureDisabled: it lies at a host that files may not be fetched from.
            UpstreamError, BudgetExhausted: as `load`.
        """
        asking = Asking(instance, Entity.ATTACHMENTS, call, credential)
        return await self._in_time(asking, self._files.content(asking, jnid, max_bytes=max_bytes))

    async def link(self, jnid: str, *, instance: str, credential: str, call: Call) -> FileLink:
        """Where JobNimbus redirects whoever asks for the file, unvisited. Raises as `content`."""
        asking = Asking(instance, Entity.ATTACHMENTS, call, credential)
        return await self._in_time(asking, self._files.link(asking, jnid))

    async def _record(self, asking: Asking, jnid: str) -> dict[str, Any]:
        request = record_request(asking.entity, jnid)
        return await self._attempts.ask(asking, request, lambda value: record_of(asking.entity, jnid, value))

    async def _whole(self, asking: Asking, part: str) -> dict[str, Any]:
        request = whole_request(asking.entity, part)
        return await self._attempts.ask(asking, request, lambda value: whole_of(asking.entity, value, part))

    async def _block(self, asking: Asking, read: Read) -> dict[str, Any]:
        window = facts_of(read.entity).window
        page = first_page(read.offset, read.size, window)
        if page.size == 0:
            _, count = await self._page(asking, read.where, read.sort, Page(0, 1))
            answer: dict[str, Any] = {"count": count or 0, "rows": []}
            beyond = count is None or count > window
            return answer | ({"incomplete": window_note(count, window)} if beyond else {})
        rows, count = await self._page(asking, read.where, read.sort, page)
        merged = merge([rows], read.where)
        why = why_block_incomplete(merged, count, asked=page, size=read.size, window=window)
        answer = {"count": page.offset + len(rows) if count is None else count, "rows": merged.rows}
        return answer | ({"incomplete": why} if why else {})

    async def _scan(self, asking: Asking, read: Read) -> dict[str, Any]:
        window = facts_of(read.entity).window
        asked = scan_filter(read.where)
        first = first_page(0, min(facts_of(read.entity).page_rows, read.size), window)
        rows, count = await self._page(asking, asked, read.sort, first)
        rest = pages_after(first, len(rows), count or 0, window=window, limit=read.size)
        further = await _together(self._page(asking, asked, read.sort, page) for page in rest)
        merged = merge([rows, *(page_rows for page_rows, _ in further)], read.where)
        if count is not None:  # records made meanwhile may lie beyond the last page
            count = max([count, *(page_count or 0 for _, page_count in further)])
        why = why_scan_incomplete(merged, count, window=window, limit=read.size, sort=read.sort)
        return {"rows": merged.rows} | ({"incomplete": why} if why else {})

    async def _page(self, asking: Asking, where: Where, sort: Sort, page: Page) -> tuple[list[Row], int | None]:
        request = page_request(asking.entity, where, sort, offset=page.offset, size=page.size)
        rows, count = await self._attempts.ask(asking, request, self._rows(asking))
        return rows[: page.size], count

    def _rows(self, asking: Asking) -> Callable[[Any], tuple[list[Row], int | None]]:
        return lambda value: rows_of(asking.entity, value)

    async def _in_time(self, asking: Asking, work: Coroutine[Any, Any, T]) -> T:
        """`work`'s result, or UpstreamTimeout at the deadline; nothing of it is left running either way."""
        remaining_s = asking.call.remaining_s(self._clock)
        if remaining_s <= 0:
            work.close()
            raise UpstreamTimeout("There was no time left to ask JobNimbus.").unsent()
        task = asyncio.ensure_future(work)
        alarm = asyncio.ensure_future(self._clock.sleep(remaining_s))
        try:
            await asyncio.wait((task, alarm), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            late = UpstreamTimeout("JobNimbus did not answer in time.")
            raise late if asking.trail.sent else late.unsent()
        finally:
            await _end((task, alarm))


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _breaker(name: str, clock: Clock, recorder: Recorder) -> BreakerBox:
    def show(state: State) -> None:
        recorder.gauge("breaker_state", _LEVELS[state], breaker=name)

    show(State.CLOSED)
    return BreakerBox(UPSTREAM_BREAKER, clock, show)
