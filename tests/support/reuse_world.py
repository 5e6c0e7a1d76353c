"""Gateways over a simulated account, told of its changes: what loads are put together from, under test."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jobnimbus_mcp.cache.coherence import Coherence
from jobnimbus_mcp.cache.invalidate import Invalidator, Notice
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.ports import SETTLED
from jobnimbus_mcp.cache.read_through import ReadThrough
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.catalog import facts_of
from jobnimbus_mcp.crm.entities import Change, Entity
from jobnimbus_mcp.crm.query import Is, Not, Sort
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import DERIVED_FIELDS, floors_of_change, tags_of_change
from jobnimbus_mcp.errors import RecordNotFound, UpstreamNotFound, UpstreamServerError, UpstreamUnauthorized
from jobnimbus_mcp.events.envelope import parse_body
from jobnimbus_mcp.gateway.answers import Answer
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.gateway.reuse import Reuse
from jobnimbus_mcp.simulator import Account
from jobnimbus_mcp.simulator.webhook_bodies import webhook_body
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.upstream.paging import Page, merge, why_block_incomplete
from jobnimbus_mcp.upstream.request import page_request, scan_filter

__all__ = ["SERVER", "SETTLE_S", "SHOWN", "ReuseWorld", "bare", "listed", "state_of"]

SERVER = Caller("stamford", "k" * 16, "p" * 32, own_key=False)
SETTLE_S = 6.0
NAMES = {Entity.ATTACHMENTS: "files"}
CALENDAR_PARTS = (Entity.TASKS, Entity.JOBS, Entity.WORKORDERS)

SHOWN = "parent_shows"
"""The field by which rows of a living account show the records that they hang on: id -> `state_of`."""

Json = dict[str, Any]


def state_of(record: Mapping[str, Any] | None) -> Json | None:
    """What is shown of a record under it: its name, and what no link says."""
    if record is None:
        return None
    return {name: record.get(name) for name in ("name", "display_name", "owners", "cf_string_1", "mobile_phone")}


def _living(account: Account, row: Json, lag_s: float) -> Json:
    """The row of an account whose rows follow the records that they hang on, as the index or the record shows it."""
    view, states, made = account._view(lag_s), {}, dict(row)

    def link_of(link: Any) -> Any:
        kind = {"job": "jobs", "contact": "contacts"}.get(link.get("type")) if isinstance(link, dict) else None
        if kind is None:
            return link
        record = view.get(kind, link["id"])
        states[link["id"]] = state_of(record)
        return link if record is None else {**link, "name": record["name" if kind == "jobs" else "display_name"]}

    made["primary"] = link_of(row.get("primary"))
    made["related"] = [link_of(link) for link in row.get("related") or ()]
    return {**made, SHOWN: states}


def listed(account: Account, read: Read, *, lag_s: float = 0.0, living: bool = False) -> Json:
    """What the client makes of JobNimbus's answer to the question for a list."""
    value = _listed(account, read, lag_s)
    return {**value, "rows": [_living(account, row, lag_s) for row in value["rows"]]} if living else value


def _listed(account: Account, read: Read, lag_s: float) -> Json:
    where = scan_filter(read.where) if read.shape is Shape.SCAN else read.where
    size = 1_000 if read.shape is Shape.SCAN else read.size
    request = page_request(read.entity, where, read.sort, offset=read.offset, size=size)
    name = NAMES.get(read.entity, read.entity.value)
    count, rows = account.list(name, dict(request.params), lag_s=lag_s)
    merged = merge([rows], read.where)
    if read.shape is Shape.SCAN:
        assert count == len(rows)
        return {"rows": merged.rows}
    window = facts_of(read.entity).window
    why = why_block_incomplete(merged, count, asked=Page(read.offset, size), size=size, window=window)
    return {"count": count, "rows": merged.rows} | ({} if why is None else {"incomplete": why})


def bare(read: Read, value: Mapping[str, Any]) -> Json:
    """Without what JobNimbus derives, which lags without a word."""
    if read.shape is Shape.RECORD:
        return _bare_row(read.entity, value)
    return {**value, "rows": [_bare_row(read.entity, row, read.scope) for row in value["rows"]]}


def _bare_row(entity: Entity, row: Mapping[str, Any], scope: Collection[str] = ()) -> Json:
    if SHOWN in row:
        # a list follows what it is under; of everything else it shows what it was put together from
        row = {
            **row,
            "primary": _bare_link(row["primary"], scope),
            "related": [_bare_link(link, scope) for link in row["related"]],
            SHOWN: {jnid: state for jnid, state in row[SHOWN].items() if jnid in scope},
        }
    derived = DERIVED_FIELDS.get(entity, frozenset())
    if entity is Entity.CALENDAR:
        derived = frozenset().union(*(DERIVED_FIELDS.get(part, frozenset()) for part in CALENDAR_PARTS))
    return {name: value for name, value in row.items() if name not in derived}


def _bare_link(link: Any, scope: Collection[str]) -> Any:
    return link if not isinstance(link, dict) or link["id"] in scope else {"id": link["id"]}


class JobNimbus:
    """The account as the client shows it. `living`: rows follow what they hang on. `requests`: what it was asked, a
    page each. `refusing`: keys it refuses; `broken`: questions it fails to answer, by kind and shape."""

    def __init__(self, account: Account, lag_s: float, living: bool) -> None:
        self.account = account
        self.lag_s = lag_s
        self.living = living
        self.requests: Counter[str] = Counter()
        self.refusing: set[str] = set()
        self.broken: set[str] = set()
        self.checks = 0

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> Json:
        self._know(credential)
        self.requests[f"{read.entity}:{read.shape}"] += 1
        if f"{read.entity}:{read.shape}" in self.broken:
            raise UpstreamServerError("broken")
        name = NAMES.get(read.entity, read.entity.value)
        if read.shape is not Shape.RECORD:
            return listed(self.account, read, lag_s=self.lag_s, living=self.living)
        lag_s = 0.0
        if facts_of(read.entity).has_detail:
            record = self.account.get(name, read.record_id)
            found = [] if record is None else [record]
        else:
            lag_s = self.lag_s
            request = page_request(read.entity, (Is("jnid", read.record_id),), Sort(), offset=0, size=1)
            _, found = self.account.list(name, dict(request.params), lag_s=lag_s)
        if not found:
            raise UpstreamNotFound("nothing there")
        return _living(self.account, found[0], lag_s) if self.living else found[0]

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None:
        self.checks += 1
        self._know(credential)

    def _know(self, credential: str) -> None:
        if credential in self.refusing:
            raise UpstreamUnauthorized("refused")

    @property
    def total(self) -> int:
        return self.requests.total()


class ReuseWorld:
    """Two processes over one store. A change is told of when `tell` is called, as its webhooks tell of it."""

    def __init__(
        self, seeded: Account, *, lag_s: float = 0.0, policies: Policies | None = None, living: bool = False
    ) -> None:
        self.clock = ManualClock()
        self.account = copy.copy(seeded)
        self.account._clock = self.clock
        self.account._writes.clear()
        self.living = living
        self.upstream = JobNimbus(self.account, lag_s, living)
        self.store = MemoryStore(self.clock)
        self.recorder = InMemoryRecorder()
        self.invalidator = Invalidator(self.store, clock=self.clock, recorder=self.recorder)
        self.policies = policies or Policies(settle_s=SETTLE_S)
        self.gateways = [self._gateway(number) for number in range(2)]
        self._settling: list[tuple[float, Change]] = []

    def _gateway(self, number: int) -> Gateway:
        # not started: nothing of L1 is trusted, but fetches have leases, and with them the floors
        coherence = Coherence(
            self.store,
            clock=self.clock,
            recorder=self.recorder,
            instance=f"i{number}",
            tenants=["stamford"],
            follow=False,
            register=False,
        )
        cache = ReadThrough(
            self.store,
            L1(1 << 22),
            clock=self.clock,
            random01=lambda: 0.5,
            recorder=self.recorder,
            compress=True,
            coherence=coherence,
        )
        reuse = Reuse(cache, self.clock, self.recorder)
        return Gateway(cache, self.upstream, self.policies, Tally(), lambda _: "strict", reuse=reuse)

    async def wait(self, seconds: float) -> None:
        await self._rest()
        self.clock.advance(seconds)

    async def _rest(self) -> None:
        """Let loads that have answered come to their end: nobody is woken here by those that have."""
        for _ in range(10):
            await asyncio.sleep(0)

    def call(self) -> Call:
        return Call.begin(self.clock, "r")

    async def get(
        self, read: Read, *, process: int = 0, max_age_s: float | None = None, caller: Caller = SERVER
    ) -> tuple[Json | None, Answer]:
        """The value, None for a record that is not there; and what was said of it."""
        answers: list[Answer] = []
        try:
            await self.gateways[process].get(read, caller, self.call(), max_age_s=max_age_s, collect=answers.append)
        except RecordNotFound:
            return None, answers[0]
        finally:
            await self._rest()
        return answers[0].value(), answers[0]

    def truth(self, read: Read) -> Json | None:
        """What JobNimbus would say now if its index did not lag."""
        if read.shape is Shape.RECORD:
            record = self.account.get(NAMES.get(read.entity, read.entity.value), read.record_id)
            return _living(self.account, record, 0.0) if self.living and record is not None else record
        if read.entity is not Entity.CALENDAR:
            return listed(self.account, read, living=self.living)
        rows: list[Any] = []
        for kind in CALENDAR_PARTS:
            hidden = (Not(Is("hide_from_calendarview", True)),) if kind is Entity.TASKS else ()
            rows += listed(self.account, Read.scan(kind, (*read.where, *hidden), sort=read.sort))["rows"]
        return {"rows": rows}

    async def tell(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The webhooks of these records have come, and were acknowledged."""
        for record in records:
            change = parse_body(webhook_body(dict(record), lambda user: None)).change
            await self._bump(change)
            self._settling.append((self.clock.now() + SETTLE_S, change))

    async def settle(self) -> None:
        """Renew once more what is due for it, since the index has caught up."""
        due = [change for at, change in self._settling if at <= self.clock.now()]
        self._settling = [(at, change) for at, change in self._settling if at > self.clock.now()]
        for change in due:
            tags = [tag for tag in tags_of_change(change) if ":detail:" not in tag]
            notice = Notice("index.settled", "any", "", "catch_up", self.clock.now(), "s", quiet=True)
            await self.invalidator.append_and_bump("stamford", tags, notice, self.call(), tells=(SETTLED,))

    async def bump(self, tags: Sequence[str]) -> None:
        """Somebody has these tags renewed, and tells no record."""
        notice = Notice("told", "any", "", "admin", self.clock.now(), "e")
        await self.invalidator.append_and_bump("stamford", tags, notice, self.call())

    async def renew(self) -> None:
        await self.invalidator.renew_epoch("stamford", self.call(), reason="test")

    async def flush(self) -> None:
        self.store.flush()

    async def _bump(self, change: Change) -> None:
        entity, jnid = change.ref.entity, change.ref.jnid
        notice = Notice("told", entity.value, jnid, "webhook", self.clock.now(), "e", floors=floors_of_change(change))
        await self.invalidator.append_and_bump("stamford", tags_of_change(change), notice, self.call())

    def reuses(self, kind: str) -> int:
        """How many loads were of this kind: full, repaired, narrowed, widened, together, detail_from_list."""
        return int(
            sum(
                amount
                for (name, labels), amount in self.recorder.counts.items()
                if name == "reuse" and dict(labels)["kind"] == kind
            )
        )
