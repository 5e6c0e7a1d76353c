"""A client of JobNimbus over a sender made of a function, on a clock that moves when told."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import orjson

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.files import FileContent, FileLink
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Upload, Write
from jobnimbus_mcp.errors import ProjectError
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.upstream.budget_local import LocalBudget
from jobnimbus_mcp.upstream.client import JobNimbusClient, upstream_breakers
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Request

__all__ = ["A_JOB", "DOWN", "GOOD", "JSON", "KEY", "Answer", "FakeSender", "World", "in_turn", "json"]

T = TypeVar("T")
Answer = RawAnswer | Exception
JSON = {"content-type": "application/json"}
KEY = "k3yk3yk3yk3yk3yk"
A_JOB = Read.record(Entity.JOBS, "j1")


def json(value: Any, status: int = 200, **headers: str) -> RawAnswer:
    return RawAnswer(
        status, JSON | {name.replace("_", "-"): text for name, text in headers.items()}, orjson.dumps(value)
    )


GOOD = json({"jnid": "j1"})
DOWN = json({}, 503)


class FakeSender:
    """Implements `Sender`: answers by a function of the request, at once or after awaiting it."""

    def __init__(self, answer: Callable[[Request], Answer | Awaitable[Answer]]) -> None:
        self.answer = answer
        self.sent: list[Request] = []
        self.keys: list[str] = []
        self.timeouts: list[float] = []
        self.under_way = 0
        self.most_under_way = 0

    async def send(self, request: Request, credential: str, timeout_s: float) -> RawAnswer:
        self.sent.append(request)
        self.keys.append(credential)
        self.timeouts.append(timeout_s)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self.answer(request)
            if inspect.isawaitable(answer):
                answer = await answer
        finally:
            self.under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A client over a fake sender, on a clock that moves when told."""

    def __init__(
        self,
        answer: Callable[[Request], Answer | Awaitable[Answer]],
        *,
        rate: float = 0,
        max_concurrent: int = 8,
        random01: float = 1.0,
        trusted: Iterable[str] = (KEY,),
    ) -> None:
        self.clock = ManualClock()
        self.recorder = InMemoryRecorder()
        self.sender = FakeSender(answer)
        self.calls: Counter[tuple[str, Entity]] = Counter()
        instances = ["stamford", "guilford"]
        self.breakers = upstream_breakers(instances, self.clock, self.recorder)
        self.client = JobNimbusClient(
            sender=self.sender,
            budget=LocalBudget(rate, instances, self.clock),
            breakers=self.breakers,
            clock=self.clock,
            random01=lambda: random01,
            recorder=self.recorder,
            on_call=lambda instance, entity: self.calls.update([(instance, entity)]),
            max_concurrent=max_concurrent,
            trusted=[(instance, key) for instance in instances for key in trusted],
        )

    def load(
        self, read: Read = A_JOB, *, instance: str = "stamford", key: str = KEY, within_s: float = 14.0
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        call = Call.begin(self.clock, "request-1", within_s=within_s)
        return self.client.load(read, instance=instance, credential=key, call=call)

    def write(
        self, write: Write, base: Mapping[str, Any] | None = None, *, within_s: float = 14.0
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        call = Call.begin(self.clock, "request-1", within_s=within_s)
        return self.client.write(write, base=base, instance="stamford", credential=KEY, call=call)

    def upload(self, upload: Upload, *, within_s: float = 14.0) -> Coroutine[Any, Any, dict[str, Any]]:
        call = Call.begin(self.clock, "request-1", within_s=within_s)
        return self.client.upload(upload, instance="stamford", credential=KEY, call=call)

    def content(self, jnid: str, *, max_bytes: int = 1_000) -> Coroutine[Any, Any, FileContent]:
        call = Call.begin(self.clock, "request-1")
        return self.client.content(jnid, max_bytes=max_bytes, instance="stamford", credential=KEY, call=call)

    def link(self, jnid: str) -> Coroutine[Any, Any, FileLink]:
        call = Call.begin(self.clock, "request-1")
        return self.client.link(jnid, instance="stamford", credential=KEY, call=call)

    def check(self) -> Coroutine[Any, Any, None]:
        call = Call.begin(self.clock, "request-1")
        return self.client.check_credential(instance="stamford", credential=KEY, call=call)

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def run(self, work: Coroutine[Any, Any, T], *, step_s: float = 0.25, for_s: float = 30.0) -> T:
        """`work`'s result, moving the clock on whenever everything waits."""
        task = asyncio.ensure_future(work)
        for _ in range(int(for_s / step_s)):
            await self.settle()
            if task.done():
                return task.result()
            self.clock.advance(step_s)
        task.cancel()
        raise AssertionError("still running")

    async def outcome(self, work: Coroutine[Any, Any, Any]) -> type[BaseException] | None:
        try:
            await self.run(work)
        except ProjectError as error:
            return type(error)
        return None


def in_turn(*answers: Answer) -> Callable[[Request], Answer]:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
