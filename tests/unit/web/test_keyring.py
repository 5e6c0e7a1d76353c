"""An issuer's keys: fetched once for all who wait, again when one is missing, and kept while the issuer is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from oauth_issuer import PRIVATE, Issuer, public_jwk
from structlog.testing import capture_logs

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.web.keyring import AGAIN_S, FIRST_AGAIN_S, OLD_S, KeyRing, KeysUntold
from jobnimbus_mcp.web.oauth import Presented


class Fetching:
    """What the issuer tells, counted; `hold` keeps it waiting; `away` makes it fail."""

    def __init__(self, *kids: str) -> None:
        self.kids = list(kids)
        self.asked = 0
        self.away = False
        self.hold: asyncio.Event | None = None

    async def __call__(self) -> Any:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise KeysUntold("status 503")
        return {"keys": [public_jwk(PRIVATE["RS256"], kid) for kid in self.kids]}


class Told:
    def __init__(self, *kids: str) -> None:
        self.clock = ManualClock()
        self.fetching = Fetching(*kids)
        self.ring = KeyRing(self.fetching, self.clock, structlog.get_logger())

    async def kids(self, kid: str) -> list[str | None] | None:
        async with asyncio.timeout(5):
            found = await self.ring.keys_for(Presented("x", "RS256", kid))
        return None if found is None else [key.kid for key in found]


@pytest.fixture
def told() -> Told:
    return Told("one")


async def test_the_keys_are_fetched_when_first_needed_and_then_known(told: Told) -> None:
    assert told.fetching.asked == 0
    assert [await told.kids("one") for _ in range(3)] == [["one"]] * 3
    assert told.fetching.asked == 1


async def test_all_who_wait_are_served_by_one_fetch(told: Told) -> None:
    told.fetching.hold = asyncio.Event()
    waiting = [asyncio.ensure_future(told.kids("one")) for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert told.fetching.asked == 1
    told.fetching.hold.set()
    assert await asyncio.gather(*waiting) == [["one"]] * 50
    assert told.fetching.asked == 1


async def test_who_gives_up_waiting_takes_the_fetch_from_nobody(told: Told) -> None:
    told.fetching.hold = asyncio.Event()
    first, second = (asyncio.ensure_future(told.kids("one")) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    first.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert told.fetching.asked == 2
    told.fetching.hold.set()
    assert await second == ["one"]
    await asyncio.gather(first, return_exceptions=True)


async def test_a_key_that_is_not_known_is_asked_for_once_a_minute_however_many_tokens_name_it(told: Told) -> None:
    assert await told.kids("one") == ["one"]
    told.fetching.kids = ["two"]
    for number in range(20):
        assert await told.kids(f"invented-{number}") == []
    assert await told.kids("two") == []
    assert told.fetching.asked == 1
    told.clock.advance(AGAIN_S)
    assert await told.kids("two") == ["two"], "the issuer has changed its keys"
    assert await told.kids("one") == []
    assert told.fetching.asked == 2


async def test_keys_are_fetched_again_when_old_so_that_one_withdrawn_opens_no_longer(told: Told) -> None:
    assert await told.kids("one") == ["one"]
    told.fetching.kids = []
    told.clock.advance(OLD_S - 1)
    assert await told.kids("one") == ["one"]
    told.clock.advance(1)
    assert await told.kids("one") == []


async def test_while_the_issuer_is_away_its_keys_of_before_hold_and_it_is_asked_once_a_minute(told: Told) -> None:
    assert await told.kids("one") == ["one"]
    told.fetching.away = True
    told.clock.advance(OLD_S)
    with capture_logs() as logged:
        for _ in range(5):
            assert await told.kids("one") == ["one"]
            assert await told.kids("two") == []
    assert told.fetching.asked == 2
    assert [(line["event"], line["why"], line["kept"]) for line in logged] == [
        ("issuer's keys not fetched", "status 503", True)
    ]
    told.clock.advance(AGAIN_S)
    assert await told.kids("one") == ["one"]
    assert told.fetching.asked == 3
    told.fetching.away, told.fetching.kids = False, ["two"]
    told.clock.advance(AGAIN_S)
    assert await told.kids("two") == ["two"]


async def test_an_issuer_that_was_never_reached_is_tried_again_soon(told: Told) -> None:
    told.fetching.away = True
    with capture_logs() as logged:
        assert [await told.kids("one") for _ in range(5)] == [None] * 5
    assert (told.fetching.asked, len(logged)) == (1, 1)
    told.fetching.away = False
    told.clock.advance(FIRST_AGAIN_S)
    assert await told.kids("one") == ["one"]


async def test_who_has_a_key_does_not_wait_while_it_is_looked_up_again(told: Told) -> None:
    assert await told.kids("one") == ["one"]
    told.clock.advance(OLD_S)
    told.fetching.hold = asyncio.Event()
    looking = asyncio.ensure_future(told.kids("one"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await told.kids("one") == ["one"]
    told.fetching.hold.set()
    assert await looking == ["one"]
    assert told.fetching.asked == 2


async def test_what_is_no_set_of_keys_leaves_those_of_before(told: Told) -> None:
    assert await told.kids("one") == ["one"]

    async def nonsense() -> Any:
        return {"keys": "none"}

    told.ring._fetch = nonsense
    told.clock.advance(OLD_S)
    with capture_logs() as logged:
        assert await told.kids("one") == ["one"]
    assert [line["why"] for line in logged] == ["what it told is no JWK set"]


def test_the_issuer_of_the_tests_publishes_no_private_key() -> None:
    """A guard on the tests themselves: a verifier that took private keys would pass them all."""
    jwk = public_jwk(Issuer(lambda: 0.0).keys["one"], "one")
    assert set(jwk) == {"kty", "key_ops", "n", "e", "kid"}
