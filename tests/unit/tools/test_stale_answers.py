"""Answers made of something stale say so, and answers that are not are never taken for them."""

from __future__ import annotations

import asyncio
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
import structlog

from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.cache.read_through import Admit, Loader
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.registry import read_tools
from jobnimbus_mcp.tools.toolbox import Toolbox

WHO = Caller("stamford", "k" * 16, "p" * 32, own_key=True)
JOB = {"jnid": "mjob100000000000", "name": "Whitfield roof", "date_updated": 50}
BLOCK = {"count": 1, "rows": [JOB]}
FRESH = (Status.HIT, Tier.L1, None)
EXPIRED = (Status.STALE, Tier.L1, "past its lifetime; being fetched anew")
UNREACHABLE = (Status.STALE, Tier.L2, "past its lifetime; the origin could not be asked")
LAGGING = (Status.STALE, Tier.UPSTREAM, "the origin's list lags behind a change")


class Scripted:
    """A cache that always has the same value of the same fetch, as fresh as `next` says it is."""

    def __init__(self, *following: tuple[Status, Tier, str | None]) -> None:
        self.following = list(following)
        self.gate: asyncio.Event | None = None

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome:
        status, tier, reason = self.following.pop(0)
        if self.gate is not None:
            await self.gate.wait()
        value = orjson.dumps(JOB if question.key.operation == "detail" else BLOCK)
        return Outcome(value, False, status, tier, 1_790_000_000.0 - 60, 0.0, False, "the same fetch", reason)

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None: ...


class Nobody:
    """A JobNimbus that is not asked."""

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        raise AssertionError("asked")

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None:
        raise AssertionError("asked")


class Desk:
    """The tools over a scripted cache."""

    def __init__(self, *following: tuple[Status, Tier, str | None]) -> None:
        self.clock = ManualClock()
        self.tally = Tally()
        self.cache = Scripted(*following)
        gateway = Gateway(self.cache, Nobody(), Policies(), self.tally, lambda _: "strict")
        self.toolbox = Toolbox(
            read_tools(lambda ctx, args: None),
            gateway,
            self.clock,
            ZoneInfo("UTC"),
            24_576,
            self.tally,
            InMemoryRecorder(),
            structlog.get_logger(),
            AnswerMemo(1 << 20),
        )

    async def ask(self, tool: str = "get_job") -> ToolAnswer:
        arguments = {"job_id": JOB["jnid"]} if tool == "get_job" else {"size": 5}
        return await self.toolbox.call(tool, arguments, WHO, Call.begin(self.clock, "r"))


def stale_of(answer: ToolAnswer) -> tuple[bool, str | None, str, str | None]:
    data = answer.structured
    return data.get("stale", False), data.get("stale_reason"), answer.cache["status"], answer.cache.get("staleReason")


@pytest.mark.parametrize("tool", ["get_job", "get_jobs"])
async def test_the_same_value_is_told_as_fresh_or_stale_as_it_is_this_time(tool: str) -> None:
    expired = "past its lifetime; being fetched anew"
    unreachable = "past its lifetime; JobNimbus could not be asked"
    desk = Desk(FRESH, EXPIRED, EXPIRED, UNREACHABLE, FRESH)
    told = [stale_of(await desk.ask(tool)) for _ in range(5)]

    assert told == [
        (False, None, "hit", None),
        (True, expired, "stale", expired),
        (True, expired, "stale", expired),
        (True, unreachable, "stale", unreachable),
        (False, None, "hit", None),
    ]


async def test_an_equal_call_that_found_it_stale_meanwhile_does_not_lend_its_answer() -> None:
    desk = Desk(FRESH, EXPIRED, FRESH)
    desk.cache.gate = asyncio.Event()
    calls = [asyncio.create_task(desk.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    desk.cache.gate.set()
    told = [stale_of(await call)[0] for call in calls]

    assert told == [False, True, False]


async def test_an_unchanged_answer_is_still_recalled() -> None:
    desk = Desk(FRESH, FRESH, EXPIRED, EXPIRED)
    first, second, third, fourth = [await desk.ask() for _ in range(4)]

    assert second.data is first.data
    assert fourth.data is third.data


async def test_a_stale_answer_is_a_hit_and_a_list_that_lags_a_miss() -> None:
    desk = Desk(EXPIRED, LAGGING)
    await desk.ask()
    counted = desk.tally.since_start("stamford")
    assert (counted.get("hits"), counted.get("l1Hits"), counted.get("staleHits")) == (1, 1, 1)
    assert "misses" not in counted

    told = await desk.ask()
    counted = desk.tally.since_start("stamford")
    assert (counted["hits"], counted["staleHits"], counted["misses"]) == (1, 1, 1)
    assert told.structured["stale_reason"] == "JobNimbus's list lags behind a change"
