"""A working day of agents on one account, against three servers: how often JobNimbus is asked.

    python benchmarks/bench_trace.py [--sessions 200] [--seed 7]

The day is written down first, from a seed: sessions of 12 to 20 tool calls each, about jobs of which few are asked for
all the time (Zipf), with varied sizes, fields, verbosities, filters and pages; one step in twenty is a change in
JobNimbus, followed by its webhooks and their acknowledgment. Then the same day passes, on a clock of its own, for

- no cache: CACHE_ENABLED=false;
- a cache by arguments: the key is the tool with its arguments, the lifetime that of the tool's kind in
  `gateway.policies`, and a webhook drops the keys of every kind that can show the change;
- this server as it is.

Each has a fresh simulator with the same data. Told are the requests that JobNimbus counted, what remains of them, and
how many answers of this server differed from those of no cache at the same moment, which are JobNimbus's own: in the
records shown, their order, number, `date_updated` and status.

Goals: at most a tenth of no cache, at most a third of a cache by arguments, and no answer that differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import httpx
import structlog

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.crm.relations import CALENDAR_KINDS, CHILDREN
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Account, Simulator

__all__ = ["Day", "Passed", "by_arguments", "day_of", "pass_day", "stale_answers"]

ACCOUNT = "stamford"
DAY_S = 8 * 3600
CHANGE_SHARE = 0.05
ZIPF = 1.1
_TURNS = 150
"""Of the event loop: what a refresh takes that nobody waits for."""
HOOK = "bench-hook-0123456789"

Json = dict[str, Any]


# -- the day -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A tool call; `following`: the step whose cursor it goes on with, nothing is asked when that has none."""

    at_s: float
    tool: str
    arguments: Json
    following: int | None = None


@dataclass(frozen=True)
class Alter:
    """A change in JobNimbus; without an id, something new."""

    at_s: float
    kind: str
    jnid: str
    fields: Json


@dataclass
class Day:
    steps: list[Ask | Alter] = field(default_factory=list)

    @property
    def changes(self) -> int:
        return sum(isinstance(step, Alter) for step in self.steps)


class _Writer:
    """Writes a day down. The account is read as it is in the morning."""

    def __init__(self, account: Account, rng: random.Random) -> None:
        self._rng = rng
        self.jobs = list(account.records("jobs"))
        rng.shuffle(self.jobs)
        self._weights = list(accumulate(1 / rank**ZIPF for rank in range(1, len(self.jobs) + 1)))
        self._of_job: dict[str, dict[str, list[Json]]] = {}
        for kind in ("tasks", "estimates"):
            for record in account.records(kind):
                for link in record.get("related") or []:
                    self._of_job.setdefault(link["id"], {}).setdefault(kind, []).append(record)
        self.statuses = sorted({(job["record_type_name"], job["status_name"]) for job in self.jobs})
        self.day_s = int(max(job["date_created"] for job in self.jobs))

    def job(self) -> Json:
        return self._rng.choices(self.jobs, cum_weights=self._weights)[0]

    def of_job(self, job: Mapping[str, Any], kind: str) -> list[Json]:
        return self._of_job.get(job["jnid"], {}).get(kind, [])

    def look(self) -> Json:
        """How an agent happens to ask for the same thing."""
        made: Json = {}
        if self._rng.random() < 0.5:
            made["size"] = self._rng.choice([5, 10, 15, 20, 25, 50])
        if self._rng.random() < 0.4:
            made["verbosity"] = self._rng.choice(["summary", "compact", "detailed"])
        elif self._rng.random() < 0.3:
            made["fields"] = self._rng.choice(
                [["jnid", "name", "status_name", "date_updated"], ["jnid", "number", "date_updated"]]
            )
        return made

    def session(self) -> Iterator[tuple[str, Json, bool]]:
        """(tool, arguments, is it the next page of the step before); about one job, with a look at the board."""
        rng, job = self._rng, self.job()
        jnid = job["jnid"]
        yield "search_jobs", {"query": job["name"].split()[0], **self.look()}, False
        yield "get_job", {"job_id": jnid, **self._plain()}, False
        if rng.random() < 0.5:
            yield "get_contact", {"contact_id": job["primary"]["id"], **self._plain()}, False
        while True:
            match rng.choices(range(10), weights=[14, 14, 10, 8, 14, 8, 8, 16, 8, 8])[0]:
                case 0:
                    done = {"is_completed": rng.random() < 0.5} if rng.random() < 0.5 else {}
                    yield "get_tasks", {"job_id": jnid, **done, **self.look()}, False
                case 1:
                    yield "get_activities", {"job_id": jnid, **self.look()}, False
                case 2:
                    yield "get_attachments", {"job_id": jnid, **self.look()}, False
                case 3:
                    yield "get_estimates", {"job_id": jnid, **self.look()}, False
                case 4:
                    yield "get_jobs", {"status": rng.choice(self.statuses)[1], **self.look()}, False
                case 5:
                    ahead = rng.choice([7, 14, 30])
                    days = {"date_from": _day(self.day_s), "date_to": _day(self.day_s + ahead * 86_400)}
                    yield "get_calendar_activities", {**days, **self.look()}, False
                case 6:
                    yield "get_jobs", {"sort_by": rng.choice(["date_created", "date_updated"]), **self.look()}, False
                    if rng.random() < 0.5:
                        yield "get_jobs", {}, True
                case 7:
                    yield "get_job", {"job_id": jnid, **self._plain()}, False
                case 8:
                    # what is going on in the whole account
                    tool = rng.choice(["get_tasks", "get_estimates", "get_attachments", "get_work_orders"])
                    yield tool, self.look(), False
                case _:
                    if rng.random() < 0.4:
                        job = self.job()
                        jnid = job["jnid"]
                    tasks = self.of_job(job, "tasks")
                    if tasks:
                        yield "get_task", {"task_id": rng.choice(tasks)["jnid"], **self._plain()}, False

    def change(self) -> tuple[str, str, Json]:
        rng, job = self._rng, self.job()
        link = [{"id": job["jnid"], "type": "job", "name": job["name"], "number": job["number"]}]
        tasks = self.of_job(job, "tasks")
        match rng.choices(range(4), weights=[35, 30, 20, 15])[0]:
            case 1:
                return "activities", "", {"note": "Called back", "record_type_name": "Note", "primary": link[0]}
            case 2 if tasks:
                return "tasks", rng.choice(tasks)["jnid"], {"is_completed": True}
            case 3:
                fields = {"title": "Call the adjuster", "record_type_name": "Task", "related": link}
                return "tasks", "", {**fields, "date_start": self.day_s}
            case _:
                status = rng.choice([name for kind, name in self.statuses if kind == job["record_type_name"]])
                return "jobs", job["jnid"], {"status_name": status}

    def _plain(self) -> Json:
        return {name: value for name, value in self.look().items() if name != "size"}


def day_of(account: Account, *, sessions: int, seed: int) -> Day:
    """The day, the same one for the same account and seed."""
    rng = random.Random(seed)
    writer = _Writer(account, rng)
    planned: list[tuple[float, int, int, str, Json, bool]] = []
    for session in range(sessions):
        at_s = rng.uniform(0, DAY_S)
        asked = writer.session()
        for number in range(rng.randint(12, 20)):
            at_s += rng.uniform(5, 40)
            planned.append((at_s, session, number, *next(asked)))
    planned.sort(key=lambda one: one[:3])
    day, last = Day(), dict[int, int]()
    for at_s, session, _, tool, arguments, goes_on in planned:
        if rng.random() < CHANGE_SHARE:
            day.steps.append(Alter(at_s, *writer.change()))
        following = last[session] if goes_on else None
        last[session] = len(day.steps)
        day.steps.append(Ask(at_s, tool, arguments, following))
    return day


def _day(at_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at_s))


# -- passing it --------------------------------------------------------------------------------------------------------


@dataclass
class Passed:
    """What came of a day: JobNimbus's own count, and what each step was answered."""

    requests: int
    by_path: dict[str, int]
    answers: list[Json | None]
    took_s: float


class ByArguments:
    """A cache in front of a server without one, as it is usually made: whole answers by tool and arguments."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._lifetimes = Policies(mode=Mode.STRICT)
        self._kept: dict[str, tuple[float, Entity, Json]] = {}

    def get(self, tool: str, arguments: Json) -> Json | None:
        kept = self._kept.get(_key(tool, arguments))
        return kept[2] if kept is not None and kept[0] > self._clock.now() else None

    def put(self, tool: str, arguments: Json, answer: Json) -> None:
        entity, operation = _TOOLS[tool]
        until = self._clock.now() + self._lifetimes.lifetime_s(entity, operation)
        self._kept[_key(tool, arguments)] = (until, entity, answer)

    def told(self, entity: Entity) -> None:
        """A webhook about a record of this kind has come."""
        shown = {entity, Entity.ACTIVITIES, *CHILDREN.get(entity, ())}
        if entity in CALENDAR_KINDS:
            shown.add(Entity.CALENDAR)
        self._kept = {key: kept for key, kept in self._kept.items() if kept[1] not in shown}


_TOOLS = {
    "search_jobs": (Entity.JOBS, Operation.SEARCH),
    "get_job": (Entity.JOBS, Operation.DETAIL),
    "get_jobs": (Entity.JOBS, Operation.LIST),
    "get_contact": (Entity.CONTACTS, Operation.DETAIL),
    "get_tasks": (Entity.TASKS, Operation.LIST),
    "get_task": (Entity.TASKS, Operation.DETAIL),
    "get_activities": (Entity.ACTIVITIES, Operation.LIST),
    "get_attachments": (Entity.ATTACHMENTS, Operation.LIST),
    "get_estimates": (Entity.ESTIMATES, Operation.LIST),
    "get_work_orders": (Entity.WORKORDERS, Operation.LIST),
    "get_calendar_activities": (Entity.CALENDAR, Operation.LIST),
}


def _key(tool: str, arguments: Json) -> str:
    return f"{tool} {json.dumps(arguments, sort_keys=True)}"


class _Relay(httpx.AsyncBaseTransport):
    """Webhooks find the server that is made after the simulator."""

    def __init__(self) -> None:
        self.to: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.to is None:
            raise httpx.ConnectError("nobody listens", request=request)
        return await self.to.handle_async_request(request)


@asynccontextmanager
async def _served(*, cached: bool) -> AsyncIterator[tuple[ManualClock, Simulator, httpx.AsyncClient]]:
    clock, relay = ManualClock(), _Relay()
    url = f"http://localhost/webhooks/jobnimbus?token={HOOK}"
    sim = Simulator(instances=(ACCOUNT,), clock=clock, webhook_url=url, webhook_transport=relay)
    settings = {
        "JOBNIMBUS_API_BASE_URL": "http://sim/api1",
        "JOBNIMBUS_INSTANCES": ACCOUNT,
        "WEBHOOK_SECRET": HOOK,
        # a clock that stands still while a call is under way fills no bucket
        "JOBNIMBUS_MAX_REQUESTS_PER_S": "0",
        "CACHE_ENABLED": "true" if cached else "false",
    }
    app = build(
        Settings.from_env(settings),
        Overrides(clock=clock, upstream_transport=httpx.ASGITransport(sim.app), random01=lambda: 0.5),
    )
    relay.to = httpx.ASGITransport(app.asgi)
    headers = {"X-JobNimbus-Api-Key": sim.keys[ACCOUNT][0], "X-JobNimbus-Instance": ACCOUNT}
    async with app.running(), app.mcp.http_running():
        transport = httpx.ASGITransport(app.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
            yield clock, sim, http
    await sim.aclose()


async def pass_day(day: Day, *, cached: bool = True, by_arguments: bool = False) -> Passed:
    """The day passes for a fresh server with a fresh account."""
    began = time.monotonic()
    async with _served(cached=cached) as (clock, sim, http):
        morning, peer = clock.now(), ByArguments(clock) if by_arguments else None
        answers: list[Json | None] = []
        for step in day.steps:
            await _until(clock, morning + step.at_s)
            if isinstance(step, Alter):
                answers.append(None)
                await _altered(sim, step)
                if peer is not None:
                    peer.told(Entity(step.kind))
                    peer.told(Entity.ACTIVITIES)
                continue
            arguments = step.arguments
            if step.following is not None:
                cursor = (answers[step.following] or {}).get("next_cursor")
                if cursor is None:
                    answers.append(None)
                    continue
                arguments = {"cursor": cursor}
            answer = None if peer is None else peer.get(step.tool, arguments)
            if answer is None:
                answer = await _asked(http, step.tool, arguments)
                if peer is not None:
                    peer.put(step.tool, arguments, answer)
            answers.append(answer)
        return Passed(sim.calls, _summed(sim.calls_by_path()), answers, time.monotonic() - began)


async def _until(clock: ManualClock, at: float) -> None:
    """Time passes: what was begun in the background is done before, and what has become due after."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    clock.advance(max(0.0, at - clock.now()))
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _altered(sim: Simulator, step: Alter) -> None:
    if step.jnid:
        await sim.change(ACCOUNT, step.kind, step.jnid, step.fields)
    else:
        await sim.create(ACCOUNT, step.kind, step.fields)


async def _asked(http: httpx.AsyncClient, tool: str, arguments: Json) -> Json:
    response = await http.post("/mcp/tools/call", json={"name": tool, "arguments": arguments})
    if response.status_code != 200:
        sys.exit(f"{tool} {arguments}: {response.text}")
    data: Json = response.json()["data"]
    return data


def _summed(by_path: Mapping[str, int]) -> dict[str, int]:
    """Single records together."""
    sums: Counter[str] = Counter()
    for path, number in by_path.items():
        head, _, last = path.rpartition("/")
        sums[f"{head}/<jnid>" if len(last) > 20 else path] += number
    return dict(sums.most_common())


# -- judging it --------------------------------------------------------------------------------------------------------


def stale_answers(day: Day, truth: Passed, told: Passed) -> list[tuple[int, Ask]]:
    """Steps that were answered otherwise than JobNimbus would have at that moment."""
    return [
        (number, step)
        for number, (step, right, given) in enumerate(zip(day.steps, truth.answers, told.answers, strict=True))
        if isinstance(step, Ask) and _told(right) != _told(given)
    ]


def _told(answer: Json | None) -> Any:
    if answer is None:
        return None
    if "record" in answer:
        return _row(answer["record"])
    return answer.get("count"), [_row(row) for row in answer["results"]]


def _row(row: Json) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("jnid", "date_updated", "status_name", "is_completed"))


async def by_arguments(day: Day) -> Passed:
    """The day with a cache by arguments."""
    return await pass_day(day, cached=False, by_arguments=True)


async def _run(sessions: int, seed: int) -> int:
    from rig import (
        Goals,
        machine,
    )  # the other benchmarks' helpers need Redis clients, which a test of this one does not

    print(machine())
    day = day_of(Simulator(instances=(ACCOUNT,), clock=ManualClock()).account(ACCOUNT), sessions=sessions, seed=seed)
    calls = len(day.steps) - day.changes
    print(f"seed {seed}: {sessions} sessions, {calls} calls, {day.changes} changes")
    none = await pass_day(day, cached=False)
    peer = await by_arguments(day)
    ours = await pass_day(day)
    for name, passed in (("no cache", none), ("by arguments", peer), ("ours", ours)):
        print(
            f"  {name:13} {passed.requests:6} requests, {passed.requests / none.requests:7.1%}   {passed.took_s:5.1f} s"
        )
        print("   ", ", ".join(f"{path} {number}" for path, number in passed.by_path.items()))
    stale = stale_answers(day, none, ours)
    for number, step in stale[:10]:
        print(f"  differs: step {number} at {step.at_s:.0f} s, {step.tool} {step.arguments}")
    goals = Goals()
    goals.check("a tenth of no cache", ours.requests <= 0.1 * none.requests, f"{ours.requests / none.requests:.1%}")
    goals.check(
        "a third of a cache by arguments", ours.requests * 3 <= peer.requests, f"{ours.requests / peer.requests:.1%}"
    )
    goals.check("no answer differs", not stale, f"{len(stale)} of {calls}")
    return goals.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return asyncio.run(_run(given.sessions, given.seed))


if __name__ == "__main__":
    sys.exit(main())
