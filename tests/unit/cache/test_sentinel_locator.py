"""Whom to believe when Sentinels do not name the same master."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError

from jobnimbus_mcp.cache.locate_redis import SentinelLocator

Answer = Callable[[], Awaitable[dict[str, Any]]]


def names(port: int, epoch: int, **facts: Any) -> Answer:
    state = {
        "ip": "10.0.0.1",
        "port": port,
        "config-epoch": epoch,
        "is_master": True,
        "is_sdown": False,
        "is_odown": False,
        "num-other-sentinels": 2,
    }

    async def answer() -> dict[str, Any]:
        return {"jobs": state | facts}

    return answer


async def refuses() -> dict[str, Any]:
    raise RedisConnectionError("away")


async def says_nothing() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


class Asked:
    def __init__(self, answer: Answer) -> None:
        self.sentinel_masters = answer


def locator(*answers: Answer) -> SentinelLocator:
    found = SentinelLocator([("127.0.0.1", 1)], "jobs", {})
    sentinels: Any = [Asked(answer) for answer in answers]
    found._sentinel.sentinels = sentinels
    return found


@pytest.mark.parametrize(
    ("answers", "port"),
    [
        ((names(1, 4), names(2, 5), names(2, 5)), 2),
        ((names(2, 5), names(1, 4), names(1, 4)), 2),
        ((names(1, 4), refuses, names(2, 5)), 2),
        ((says_nothing, names(1, 4), names(2, 5)), 2),
        ((names(1, 4), names(2, 5, is_odown=True), refuses), 1),
        ((names(1, 4), names(2, 5, is_master=False), says_nothing), 1),
        ((refuses, says_nothing, names(1, 0)), 1),
    ],
)
async def test_the_latest_failover_that_any_of_them_knows_of_counts(answers: tuple[Answer, ...], port: int) -> None:
    async with asyncio.timeout(2):
        assert await locator(*answers).locate(None, None) == ("10.0.0.1", port)


@pytest.mark.parametrize("answers", [(refuses, refuses), (names(1, 4, is_sdown=True), refuses)])
async def test_nobody_who_names_one_is_an_error(answers: tuple[Answer, ...]) -> None:
    with pytest.raises(MasterNotFoundError):
        await locator(*answers).locate(None, None)


async def test_one_that_is_given_up_is_not_waited_for_by_a_task_left_behind() -> None:
    before = len(asyncio.all_tasks())
    await locator(says_nothing, names(1, 4)).locate(None, None)
    assert len(asyncio.all_tasks()) == before
