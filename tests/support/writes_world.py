"""A JobNimbus that does with each write what it was told to, and what is built around it to write."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import structlog

from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.encoding import body_of
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.query import matches
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.writes import Upload, Write
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    InternalError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.answers import Answer, ParsedValues
from jobnimbus_mcp.gateway.carrier import Written
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.reads import not_found
from jobnimbus_mcp.gateway.receipts import Keeping, MemoryReceipts
from jobnimbus_mcp.gateway.writing import Writes
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

CALLER = Caller("stamford", "k" * 16, "p" * 32, own_key=False, access=Access(client="crew-bot"))
SETTLE_S = 6.0
T = TypeVar("T")


def rejected(said: str) -> UpstreamRejected:
    error = UpstreamRejected("JobNimbus did not take the request.")
    error.said = said
    return error


class JobNimbus:
    """Keeps records. `script`: what becomes of the next writes, "ok" when it is over; see `_FATES`.

    `lag_s`: its lists show a record so long after it was made. `hides`: fields that it ignores. `drops_links`: of new
    records. `keeps_dates`: those that a record was sent with as the day it was made. `bare`: answers of writes hold the
    id alone. `away`: reads fail. `slow_s`: a write takes so long.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: dict[tuple[Entity, str], dict[str, Any]] = {}
        self.script: deque[str] = deque()
        self.sent: list[Write | Upload] = []
        self.bases: list[Mapping[str, Any] | None] = []
        self.loads: list[Read] = []
        self.lag_s = 0.0
        self.slow_s = 0.0
        self.hides: frozenset[str] = frozenset()
        self.drops_links = False
        self.keeps_dates = False
        self.behind_s = 0.0
        self.incomplete = False
        self.bare = False
        self.away = False
        self._made_at: dict[str, float] = {}
        self._number = 0

    def put(self, entity: Entity, jnid: str, **fields: Any) -> dict[str, Any]:
        record = {"jnid": jnid, "date_created": 1, "date_updated": 1, "is_active": True, **fields}
        self.records[entity, jnid] = record
        self._made_at[jnid] = 0.0
        return record

    def of(self, entity: Entity) -> list[dict[str, Any]]:
        return [record for (kind, _), record in self.records.items() if kind is entity]

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        self.loads.append(read)
        if self.away:
            raise UpstreamServerError("down")
        if read.shape is Shape.RECORD:
            if (read.entity, read.record_id) not in self.records:
                raise UpstreamNotFound("none")
            return dict(self.records[read.entity, read.record_id])
        shown = [
            dict(record)
            for record in self.of(read.entity)
            if self._made_at[record["jnid"]] + self.lag_s <= self.clock.now() and matches(read.where, record)
        ]
        return {"rows": shown, "incomplete": "too many"} if self.incomplete else {"rows": shown}

    async def write(
        self, write: Write, *, base: Mapping[str, Any] | None, instance: str, credential: str, call: Call
    ) -> dict[str, Any]:
        self.sent.append(write)
        self.bases.append(base)
        return await self._answered(lambda: self._act(write, base))

    async def upload(self, upload: Upload, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        self.sent.append(upload)
        return await self._answered(lambda: self._store(upload))

    async def _answered(self, act: Any) -> dict[str, Any]:
        fate = self.script.popleft() if self.script else "ok"
        if self.slow_s:
            await self.clock.sleep(self.slow_s)
        match fate:
            case "ok":
                record: dict[str, Any] = act()
                return {"jnid": record["jnid"]} if self.bare and record else record
            case "empty":
                act()
                return {}
            case "lost":  # carried out, and the answer never came
                act()
                raise UpstreamTimeout("late")
            case "lost_5xx":
                act()
                raise UpstreamServerError("down")
            case "lost_html":
                act()
                raise UpstreamUnreadable("HTML")
            case "broken":
                act()
                raise UpstreamUnreachable("broken")
            case "timeout":
                raise UpstreamTimeout("late")
            case "5xx":
                raise UpstreamServerError("down")
            case "unsent":
                raise UpstreamUnreachable("no connection").unsent()
            case "429":
                raise UpstreamRateLimited("slow down", retry_after_s=1.0)
            case "budget":
                raise BudgetExhausted("used up", retry_after_s=2.0)
            case "refused":
                raise rejected("Invalid record_type_name - Nope")
            case "duplicate":
                raise rejected("Duplicate job exists")
            case "401":
                raise UpstreamUnauthorized("no")
            case "403":
                raise UpstreamForbidden("no")
            case "404":
                raise UpstreamNotFound("none")
        raise AssertionError(fate)

    def _act(self, write: Write, base: Mapping[str, Any] | None) -> dict[str, Any]:
        now = int(self.clock.now())
        if write.entity is Entity.SETTINGS:
            return {"id": 7, **write.fields}
        if write.action is Action.DELETED:
            record = self.records.pop((write.entity, write.record_id), None)
            if record is None:
                raise UpstreamNotFound("none")
            return {} if write.entity is Entity.ATTACHMENTS else {**record, "is_active": False}
        shown = {name: value for name, value in body_of(write, base=base).items() if name not in self.hides}
        if write.action is Action.UPDATED:
            if (write.entity, write.record_id) not in self.records:
                raise UpstreamNotFound("none")
            record = self.records[write.entity, write.record_id]
            self.records[write.entity, write.record_id] = {**record, **shown, "date_updated": now}
            return dict(self.records[write.entity, write.record_id])
        unique = facts_of(write.entity).writes.unique
        if unique and any(record.get(unique) == shown.get(unique) for record in self.of(write.entity)):
            raise rejected("Duplicate job exists")
        kept = write.links[:1] if write.entity is Entity.TASKS else write.links
        links = [] if self.drops_links else [{"id": link.jnid} for link in kept]
        return self._new(write.entity, {**shown, "related": links, "primary": links[0] if links else None})

    def _store(self, upload: Upload) -> dict[str, Any]:
        links = [] if self.drops_links else [{"id": link.jnid} for link in upload.links]
        return self._new(
            Entity.ATTACHMENTS,
            {
                "filename": upload.filename,
                "record_type": upload.type_id,
                "description": upload.description,
                "size": len(upload.content or b""),
                "related": links,
            },
        )

    def _new(self, entity: Entity, fields: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        jnid, now = f"{entity.value}{self._number}", int(self.clock.now() - self.behind_s)
        made = fields.get("date_created", now) if self.keeps_dates else now
        record = {**fields, "jnid": jnid, "date_created": made, "date_updated": now, "is_active": True}
        self.records[entity, jnid] = record
        self._made_at[jnid] = self.clock.now()
        return dict(record)


class Records:
    """A gateway whose cache holds what `kept` says, and asks for the rest."""

    def __init__(self, jobnimbus: JobNimbus) -> None:
        self.jobnimbus = jobnimbus
        self.kept: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, float | None]] = []

    async def get(
        self, read: Read, caller: Caller, call: Call, *, max_age_s: float | None = None, internal: bool = False
    ) -> Answer:
        assert internal
        self.asked.append((read.record_id, max_age_s))
        value = self.kept.get(read.record_id) if max_age_s is None else None
        if value is None:
            try:
                value = await self.jobnimbus.load(
                    read, instance=caller.instance, credential=caller.credential, call=call
                )
            except UpstreamNotFound as none:
                raise not_found(read.entity) from none
        return Answer(
            Outcome(orjson.dumps(value), False, Status.MISS, Tier.UPSTREAM, 0.0, 0.0, False, ""), ParsedValues(0)
        )


class Told:
    """Notes what it is told. `away`: it cannot be told. `broken`: it fails as it never should."""

    def __init__(self) -> None:
        self.written: list[Written] = []
        self.away = False
        self.broken = False

    async def __call__(self, written: Written, call: Call) -> None:
        if self.away:
            raise CacheUnavailable("away")
        if self.broken:
            raise InternalError("a defect")
        self.written.append(written)

    @property
    def actions(self) -> list[tuple[str, str, str]]:
        return [(one.ref.entity.value, one.ref.jnid, one.action.value) for one in self.written]


class AwayReceipts:
    """A store that answers so many commands more, and then no longer."""

    def __init__(self, inner: Keeping, answers: int = 0) -> None:
        self._inner = inner
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        async def asked(*args: Any, **named: Any) -> Any:
            self.answers -= 1
            if self.answers < 0:
                raise CacheUnavailable("away", retry_after_s=1.0)
            return await getattr(self._inner, name)(*args, **named)

        return asked


@dataclass
class World:
    clock: ManualClock = field(default_factory=ManualClock)
    told: Told = field(default_factory=Told)
    recorder: InMemoryRecorder = field(default_factory=InMemoryRecorder)

    def __post_init__(self) -> None:
        self.jobnimbus = JobNimbus(self.clock)
        self.records = Records(self.jobnimbus)
        tokens = iter(range(10**6))
        self.memory = MemoryReceipts(self.clock, lambda: str(next(tokens)))
        self.receipts: Any = self.memory
        self.writes = self.another()

    def another(self) -> Writes:
        """A process that shares the store and the world."""
        return Writes(
            self.jobnimbus,
            self.records,
            self.receipts,
            self.told,
            clock=self.clock,
            recorder=self.recorder,
            log=structlog.get_logger(),
            settle_s=SETTLE_S,
        )

    def call(self, within_s: float = 14.0) -> Call:
        return Call.begin(self.clock, "req-1", tool="create_task", within_s=within_s)

    async def write(self, write: Write, key: str | None = None, *, caller: Caller = CALLER, **told: Any) -> Any:
        return await self.driven(self.writes.write(write, caller, self.call(), idempotency_key=key, **told))

    async def upload(self, upload: Upload, key: str | None = None) -> Any:
        return await self.driven(self.writes.upload(upload, CALLER, self.call(60.0), idempotency_key=key))

    async def driven(self, work: Awaitable[T], step_s: float = 0.25, within_s: float = 300.0) -> T:
        """The result of `work`, for whose sake the clock goes on."""
        task = asyncio.ensure_future(work)
        try:
            for _ in range(int(within_s / step_s)):
                for _ in range(30):
                    await asyncio.sleep(0)
                    if task.done():
                        return task.result()
                self.clock.advance(step_s)
            raise AssertionError(f"not within {within_s} s")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
