"""What one tool call works with: who asks, until when, and the reads it made."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Awaitable, Callable, Sequence
from datetime import tzinfo
from functools import cached_property
from typing import Any

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import Entity, is_jnid
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import OneOf
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.errors import ConfirmationNeeded, InvalidInput, ProjectError, RecordNotFound
from jobnimbus_mcp.gateway.answers import Answer, Outcome, Provenance, provenance_of
from jobnimbus_mcp.gateway.directory import Directory
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.reads import Gateway, not_found
from jobnimbus_mcp.gateway.writes import Writer
from jobnimbus_mcp.tools.memo import Recalled, Remembered, Used
from jobnimbus_mcp.tools.people import People
from jobnimbus_mcp.tools.versions import Versions

__all__ = ["Progress", "ToolContext"]

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Told (done, of how many or None, in words)."""

_SURELY_JNID_FROM = 12
"""Shorter words of letters and digits may be job numbers as well as ids of old accounts; longer ones are ids.

Source: JobNimbus API documentation, identifiers (2 to 7 characters once, about 24 now)."""

_JOBS_SHOWN = 10
"""Of those that one number may mean."""


class ToolContext:
    """Hands reads to the gateway in this call's name and remembers what came of those the call is about."""

    def __init__(
        self, gateway: Gateway, caller: Caller, call: Call, clock: Clock, zone: tzinfo, answer_max_bytes: int
    ) -> None:
        self.caller = caller
        self.call = call
        self.clock = clock
        self.zone = zone
        self.answer_max_bytes = answer_max_bytes
        self.max_age_s: float | None = None
        self.answers: list[Answer] = []
        self.used: list[Used] = []
        self.looked_at_clock = False
        self.writer: Writer | None = None
        self.confirmed = False
        self.progress: Progress | None = None
        self.versions = Versions()
        self.people = People()
        self._gateway = gateway
        self.recall: Callable[[], Remembered | None] | None = None
        self._made_before: dict[Read, Answer] = {}
        self._recalled: Remembered | None = None

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the reads this call is about."""
        return [answer.outcome for answer in self.answers]

    @cached_property
    def directory(self) -> Directory:
        return Directory(self.look_up)

    async def read(self, read: Read) -> Any:
        """The parsed value of a read this call is about, at most `max_age_s` old.

        Raises:
            Recalled: the whole answer has been finished meanwhile, from the same values, by another call.
        """
        answer = self._made_before.get(read)
        if answer is None:
            answer = await self._gateway.get(
                read, self.caller, self.call, max_age_s=self.max_age_s, collect=self.answers.append
            )
        else:
            self.answers.append(answer)
        await self._note(read, answer, internal=False)
        return answer.value()

    async def look_now(self, read: Read) -> Answer:
        """A read on the side, asked of JobNimbus now: what somebody is to agree to must be as it is told."""
        return await self._gateway.get(read, self.caller, self.call, max_age_s=0, internal=True)

    async def look_up(self, read: Read) -> Answer:
        """A read on the side: names, numbers, counts. Answered as kept, whatever `max_age_s` says."""
        answer = self._made_before.get(read)
        if answer is None:
            answer = await self._gateway.get(read, self.caller, self.call, internal=True)
        await self._note(read, answer, internal=True)
        return answer

    async def exists(self, read: Read) -> bool:
        """Is there such a record, as far as this caller may see?"""
        try:
            await self.look_up(read)
        except RecordNotFound:
            return False
        return True

    async def _note(self, read: Read, answer: Answer, *, internal: bool) -> None:
        """Of a thousand equal calls that wait for one load, the first shapes the answer and the others recall it."""
        self.used.append(Used(read, answer.outcome.etag, internal, None if internal else answer.stale_reason))
        self._made_before[read] = answer
        known = self.recall() if self.recall is not None else None
        if known is None or known is self._recalled or self.used[-1] not in known.used:
            return
        self._recalled = known
        if await self.unchanged(known.used):
            raise Recalled(known.data)

    def about_to_shape(self) -> None:
        """Before the costly part: go on only if no equal call has finished it since this one's reads came back.

        Raises:
            Recalled: one has, from the same values.
        """
        known = self.recall() if self.recall is not None else None
        if known is not None and self._same(known.used):
            raise Recalled(known.data)

    async def report(self, done: float, total: float | None, text: str) -> None:
        """Tell the caller how far this got, where it wants to hear that."""
        if self.progress is not None:
            await self.progress(done, total, text)

    def confirm(self, given: bool, question: str) -> None:
        """Go on only if a person has agreed.

        Raises:
            ConfirmationNeeded: nobody has, as far as is known.
        """
        if not (given or self.confirmed):
            raise ConfirmationNeeded(question)

    def now(self) -> float:
        """Epoch seconds; an answer that depends on more of it than the day is good for this moment only."""
        self.looked_at_clock = True
        return self.clock.now()

    async def unchanged(self, used: Sequence[Used]) -> bool:
        """Make these reads again, all at once; whether each gave what it gave before.

        Their answers stand in for the reads of this call, so that nothing is asked twice where something changed. A
        read that fails now is left to the call itself, which may know another way.
        """
        missing = [one for one in used if one.read not in self._made_before]
        answers = await gather(*(self._again(one) for one in missing), return_exceptions=True)
        for one, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Answer):
                self._made_before[one.read] = answer
            elif not isinstance(answer, ProjectError):
                raise answer
        return self._same(used)

    def _same(self, used: Sequence[Used]) -> bool:
        """Whether this call made all these reads and each gave the same; then they are what it is told by."""
        made = self._made_before
        if all(one.read in made and _gave(made[one.read], one) for one in used):
            self.answers = [made[one.read] for one in used if not one.internal]
            return True
        return False

    async def _again(self, one: Used) -> Answer:
        max_age_s = None if one.internal else self.max_age_s
        return await self._gateway.get(one.read, self.caller, self.call, max_age_s=max_age_s, internal=one.internal)

    async def admitted(self) -> None:
        """Return when JobNimbus accepts the caller's credential; for tools that read nothing."""
        await self._gateway.admitted(self.caller, self.call)

    def provenance(self) -> Provenance:
        """Where the answer came from, over all reads it was made of."""
        return provenance_of(self.outcomes, self.consistency)

    @property
    def consistency(self) -> str:
        """What freshness was promised to the reads this call was about."""
        return self._gateway.consistency_told(self.caller.instance, self.answers)

    async def jobs_numbered(self, number: str) -> list[dict[str, Any]]:
        """Jobs that carry this job number, the one changed last first; numbers are unique only by habit."""
        variants = tuple(dict.fromkeys((number, number.upper(), number.lower())))
        read = Read.scan(Entity.JOBS, (OneOf("number", variants),), operation=Operation.SEARCH)
        rows: list[dict[str, Any]] = (await self.look_up(read)).value()["rows"]
        return sorted(rows, key=lambda row: epoch_s(row.get("date_updated")) or 0, reverse=True)

    async def job_jnid(self, job_id: str) -> str:
        """The jnid behind a jnid or job number.

        Raises:
            RecordNotFound: nothing carries this number.
        """
        if surely_jnid(job_id):
            return job_id
        if rows := await self.jobs_numbered(job_id):
            return str(rows[0]["jnid"])
        if not is_jnid(job_id):
            raise not_found(Entity.JOBS)
        await self.look_up(Read.record(Entity.JOBS, job_id))
        return job_id

    async def job_to_write(self, job_id: str) -> str:
        """The jnid behind a jnid or job number that can mean one job only: what is changed by mistake stays so.

        Raises:
            RecordNotFound: nothing carries this number.
            InvalidInput: several jobs carry it, or it is the number of one and the id of another.
        """
        if surely_jnid(job_id):
            return job_id
        found = [str(row["jnid"]) for row in await self.jobs_numbered(job_id)]
        if is_jnid(job_id) and job_id not in found and await self.exists(Read.record(Entity.JOBS, job_id)):
            found.append(job_id)
        if not found:
            raise not_found(Entity.JOBS)
        if len(found) > 1:
            shown = ", ".join(found[:_JOBS_SHOWN]) + (", ..." if len(found) > _JOBS_SHOWN else "")
            raise InvalidInput(f"That may mean {len(found)} jobs: {shown}. Give the jnid of one.", field="job_id")
        return found[0]

    async def job(self, job_id: str) -> tuple[dict[str, Any], list[str]]:
        """The record behind a jnid or job number, and the jnids of other jobs with the same number.

        Raises:
            RecordNotFound: no such job.
        """
        if surely_jnid(job_id):
            try:
                return await self.read(Read.record(Entity.JOBS, job_id)), []
            except RecordNotFound:
                pass  # it may still be somebody's job number
        rows = await self.jobs_numbered(job_id)
        if rows:
            jnid, *others = (str(row["jnid"]) for row in rows)
            self.answers.clear()
            return await self.read(Read.record(Entity.JOBS, jnid)), others
        if surely_jnid(job_id) or not is_jnid(job_id):
            raise not_found(Entity.JOBS)
        return await self.read(Read.record(Entity.JOBS, job_id)), []


def _gave(answer: Answer, before: Used) -> bool:
    """Did the read give what it gave before, and as fresh as far as that is told?"""
    return answer.outcome.etag == before.etag and (before.internal or answer.stale_reason == before.stale_reason)


def surely_jnid(text: str) -> bool:
    """Whether a word can only be an id, not a job number."""
    return is_jnid(text) and len(text) >= _SURELY_JNID_FROM and not text.isdigit()
