"""One consumer's hand in the PostgreSQL log, in one process: messages it holds are hidden from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.events.database_postgres import EVENTS, Database
from jobnimbus_mcp.events.event import decode
from jobnimbus_mcp.events.ports import (
    ACT_WITHIN_S,
    ANSWER_MOST,
    BATCH_MOST,
    EventsUnavailable,
    Fate,
    Settled,
    Taken,
)
from jobnimbus_mcp.events.text_postgres import fit

__all__ = ["PostgresSubscription"]

_LOOK_AGAIN_S = 5.0
"""For what was told while nobody heard it: a connection that is dead without knowing, a pooler that tells nothing."""
_SOON_S = 0.005
_READ_ENDS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class _Receipt:
    """Which message it was, and how often it had been taken: who takes it later counts on."""

    message: int
    takes: int


class PostgresSubscription:
    """As `ports.Subscription`. `claim_idle_s`: for so long what was taken is hidden; then somebody else may have it."""

    def __init__(self, database: Database, consumer: str, *, clock: Clock, claim_idle_s: float) -> None:
        self._database = database
        self._consumer = consumer
        self._clock = clock
        self._hidden_s = claim_idle_s
        # an answer that took longer leaves too little time to act
        self._answer_within_s = claim_idle_s - min(ACT_WITHIN_S, claim_idle_s * 2 / 3)
        self._held: dict[_Receipt, float] = {}
        self._wake = asyncio.Event()
        self._stop_listening = database.listen(EVENTS, self._wake.set)
        self._reading: asyncio.Task[list[Taken]] | None = None
        self._unseen: set[_Receipt] = set()
        self._closed = False

    async def take(self, most: int, *, wait_s: float) -> Sequence[Taken]:
        deadline = self._clock.monotonic() + wait_s
        while not self._closed:
            self._wake.clear()
            await self._database.hearing()
            if taken := await self._read(most):
                return taken
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                break
            due_s = await self._database.value("select jobnimbus_mcp.next_due_s($1)", self._consumer)
            due_s = _LOOK_AGAIN_S if due_s is None else max(due_s, 0.0) + _SOON_S
            try:
                async with asyncio.timeout(min(left_s, due_s, _LOOK_AGAIN_S)):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return ()

    async def settle(self, results: Sequence[Settled]) -> None:
        if not results:
            return
        receipts: list[_Receipt] = [result.taken.receipt for result in results]
        tries = [result.attempt for result in results]
        await self._database.value(
            "select jobnimbus_mcp.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            self._consumer,
            [receipt.message for receipt in receipts],
            [receipt.takes for receipt in receipts],
            [result.taken.event.event_id for result in results],
            [result.fate.value for result in results],
            [result.due_at for result in results],
            [fit(result.reason) for result in results],
            [attempt.at for attempt in tries],
            [fit(attempt.request_id) for attempt in tries],
            [attempt.duration_ms for attempt in tries],
            [attempt.status for attempt in tries],
            [fit(attempt.error) for attempt in tries],
            [fit(attempt.answer[:ANSWER_MOST]) for attempt in tries],
            self._clock.now(),
        )
        for receipt in receipts:
            self._held.pop(receipt, None)

    async def aclose(self) -> None:
        self._closed = True
        self._wake.set()
        self._stop_listening()
        if self._reading is not None:
            # what an interrupted take got from the server is ours, though nobody has seen it
            await asyncio.wait([self._reading], timeout=_READ_ENDS_WITHIN_S)
        held, self._held = list(self._held), {}
        with suppress(EventsUnavailable):  # then it comes to another when it is no longer hidden
            await self._give_back(held)

    async def _read(self, most: int) -> list[Taken]:
        """In a task of its own, so that whoever is cancelled here leaves no message hidden for nothing."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
            await self._give_back(list(self._unseen))
            self._unseen.clear()
        self._reading = asyncio.create_task(self._read_and_note(most))
        self._reading.add_done_callback(_heard)
        taken = await asyncio.shield(self._reading)
        self._reading = None
        self._unseen.clear()
        return taken

    async def _read_and_note(self, most: int) -> list[Taken]:
        asked_at = self._clock.monotonic()
        rows = await self._database.rows(
            "select * from jobnimbus_mcp.take($1, $2, $3)", self._consumer, min(most, BATCH_MOST), self._hidden_s
        )
        receipts = [_Receipt(row["msg_id"], row["read_ct"]) for row in rows]
        if self._clock.monotonic() - asked_at > self._answer_within_s:
            await self._give_back(receipts)
            return []
        self._forget_lost(asked_at)
        self._held.update((receipt, asked_at + self._hidden_s) for receipt in receipts)
        self._unseen.update(receipts)
        taken, unreadable = [], []
        for row, receipt in zip(rows, receipts, strict=True):
            if row["envelope"] is None:
                await self._database.value(
                    "select jobnimbus_mcp.drop_orphans($1, $2)", self._consumer, [receipt.message]
                )
                continue
            try:
                event = decode(row["envelope"], row["body"])
            except ValueError:
                unreadable.append((row, receipt))
                continue
            taken.append(Taken(event, row["attempts"], row["due_at"], receipt))
        if unreadable:
            await self._bury(unreadable)
        return taken

    async def _bury(self, found: Sequence[tuple[Any, _Receipt]]) -> None:
        """What cannot be read is a dead letter at once; it must not hold back its record for ever."""
        now = self._clock.now()
        for row, receipt in found:
            await self._database.value(
                "select jobnimbus_mcp.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                *(self._consumer, [receipt.message], [receipt.takes], [row["event_id"]], [Fate.DEAD.value], [0.0]),
                *(["unreadable"], [now], [""], [0.0], [None], ["unreadable"], [""], now),
            )

    def _forget_lost(self, now: float) -> None:
        if len(self._held) > BATCH_MOST:
            self._held = {receipt: until for receipt, until in self._held.items() if until > now}

    async def _give_back(self, receipts: Sequence[_Receipt]) -> None:
        if receipts:
            await self._database.value(
                "select jobnimbus_mcp.give_back($1, $2, $3)",
                self._consumer,
                [receipt.message for receipt in receipts],
                [receipt.takes for receipt in receipts],
            )


def _heard(reading: asyncio.Task[list[Taken]]) -> None:
    """A failure that nobody waits for any more has been told to whoever asks next."""
    if not reading.cancelled():
        reading.exception()
