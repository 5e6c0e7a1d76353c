"""What a process holds stays bounded, however many questions it is asked and however many keys are made up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from jobnimbus_mcp.app import App
from jobnimbus_mcp.cache.l1 import L1
from jobnimbus_mcp.cache.listing import HitCounts
from jobnimbus_mcp.cache.lru import Bounded
from jobnimbus_mcp.gateway.answers import ParsedValues
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.versions import Versions

AT_ONCE = 32
"""Callers at a time."""

BOUNDED: dict[type, Callable[[Any], bool]] = {
    L1: lambda held: held.size_bytes <= held._max_bytes,
    AnswerMemo: lambda held: held.size_bytes <= held._max_bytes,
    Versions: lambda held: held.size_bytes <= held._max_bytes,
    Bounded: lambda held: len(held) <= held._most,
    HitCounts: lambda held: len(held._counts) <= held._most,
    ParsedValues: lambda held: sum(size for size, _ in held._kept.values()) <= held._max_bytes,
}
"""What has a bound of its own, and whether it is kept."""

Ask = Callable[[int], Awaitable[Any]]


def containers(root: object) -> tuple[dict[int, tuple[str, Any]], list[Any]]:
    """Every dict, list, set and deque that can be reached from `root` without leaving this package, with the way to it;
    and whatever has a bound of its own, which is not entered."""
    found: dict[int, tuple[str, Any]] = {}
    bounded: list[Any] = []
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("app", root)]
    while todo:
        way, thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, types.ModuleType)):
            continue
        seen.add(id(thing))
        if isinstance(thing, tuple(BOUNDED)):
            bounded.append(thing)
            continue
        inside: Iterable[tuple[str, object]] = ()
        if isinstance(thing, dict):
            found[id(thing)] = (way, thing)
            inside = [(f"{way}[{str(name)[:20]}]", value) for name, value in thing.items()]
        elif isinstance(thing, (list, set, frozenset, tuple)) or hasattr(thing, "popleft"):
            found[id(thing)] = (way, thing)
            inside = [(f"{way}[]", value) for value in list(thing)]
        elif isinstance(thing, types.FunctionType):
            cells = thing.__closure__ or ()
            inside = [
                (f"{way}.{name}", cell.cell_contents)
                for name, cell in zip(thing.__code__.co_freevars, cells, strict=True)
            ]
        elif isinstance(thing, types.MethodType):
            inside = [(way, thing.__self__), (way, thing.__func__)]
        elif type(thing).__module__.startswith(("jobnimbus_mcp", "prometheus_client")) and not isinstance(
            thing, Simulator
        ):
            names = itertools.chain(
                getattr(thing, "__dict__", {}),
                *(getattr(kind, "__slots__", ()) for kind in type(thing).__mro__),
            )
            inside = [(f"{way}.{name}", getattr(thing, name, None)) for name in names]
        todo.extend(inside)
    return found, bounded


def sizes(app: App) -> Counter[str]:
    """Elements held, by the way to the container."""
    gc.collect()
    counted: Counter[str] = Counter()
    for way, container in containers(app)[0].values():
        counted[way] += len(container)
    return counted


async def at_rest(app: App) -> Counter[str]:
    """Sizes once nothing is under way any more: an answer may be given before its fill has ended."""
    deadline = time.monotonic() + 5
    while True:
        counted = sizes(app)
        under_way = {way: n for way, n in counted.items() if way.endswith(("._flights", "._tasks"))}
        # these loops never end, and no call begins one
        loops = ("coherence._tasks", "_ownership._tasks")
        under_way = {way: n for way, n in under_way.items() if not way.endswith(loops)}
        assert len(under_way) >= 4, "what loads and round trips are held in was not looked at"
        if not any(under_way.values()):
            return counted
        assert time.monotonic() < deadline, under_way
        await asyncio.sleep(0.05)


async def in_turns(numbers: Iterable[int], ask: Ask) -> None:
    """`ask` for each number, a few at a time."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await ask(number)

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


@pytest.mark.parametrize(
    ("questions", "keys"),
    [(1_000, 200), pytest.param(20_000, 5_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
)
async def test_what_is_held_does_not_grow_with_the_questions_or_the_keys_that_were_tried(
    open_site: Callable[..., Awaitable[Any]], redis_url: str, questions: int, keys: int
) -> None:
    """Distinct questions with large answers, so that L1 fills, each asked twice; then keys that JobNimbus refuses."""
    site = await open_site(redis_url, L1_MAX_MB="1", JOBNIMBUS_MAX_REQUESTS_PER_S="0", JOBNIMBUS_MAX_CONCURRENT="0")

    updated = sorted((job["date_updated"] for job in site.simulator.account("stamford").records("jobs")), reverse=True)

    async def question(number: int) -> None:
        since = datetime.fromtimestamp(updated[5] - number, UTC).isoformat()
        for _ in range(2):
            reply = await site.call("get_jobs", {"size": 1, "updated_since": since})
            assert reply.status_code == 200, reply.body

    async def intruder(number: int) -> None:
        reply = await site.call("get_users", {}, key=f"inv3nted-key-{number:08d}")
        assert reply.status_code == 401

    await in_turns(range(questions // 4), question)
    await in_turns(range(keys // 4), intruder)
    before = await at_rest(site.app)
    assert site.app.accounts.l1_stats()["evictions"] > 0, "L1 was not full, so its bound was not tried"

    await in_turns(range(questions // 4, questions), question)
    await in_turns(range(keys // 4, keys), intruder)
    after = await at_rest(site.app)

    grown = {way: n - before[way] for way, n in after.items() if n - before[way] > max(40, before[way] // 10)}
    assert grown == {}
    bounded = containers(site.app)[1]
    assert {type(held) for held in bounded} == set(BOUNDED)
    assert [held for held in bounded if not BOUNDED[type(held)](held)] == []
