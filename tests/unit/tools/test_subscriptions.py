"""Watches: who is told of what, what a granted subscription costs, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import structlog

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import (
    InternalError,
    InvalidInput,
    NotAuthenticated,
    ProjectError,
    RecordNotFound,
    UpstreamTimeout,
    UpstreamUnauthorized,
)
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools import subscriptions
from jobnimbus_mcp.tools.resources import Proof, Resources
from jobnimbus_mcp.tools.subscriptions import RECHECK_S, UNDECIDED_MOST, Unwatchable, Watch, Watches

BOUND_S = 5.0
PROOF = Proof("k" * 16, "stamford")
A, B, C = (f"jobnimbus://stamford/jobs/{name}" for name in "abc")


class Readable:
    """Records that can be read, unless `refused` says otherwise; `credential` is what the credential's check raises."""

    def __init__(self) -> None:
        self.refused: dict[str, ProjectError] = {}
        self.credential: Exception | None = None
        self.read_uris: list[str] = []
        self.checks = 0
        self.meanwhile: Callable[[], Awaitable[None] | None] = lambda: None

    def caller(self, uri: str, proof: Proof) -> Caller:
        if proof.api_key is None:
            raise NotAuthenticated("no key")
        return Caller("stamford", proof.api_key, "p", True)

    def anyone(self, proof: Proof) -> Caller:
        return self.caller("", proof)

    async def read(self, uri: str, who: Caller, call: Call, *, why: str) -> None:
        self.read_uris.append(uri)
        self.meanwhile()
        await asyncio.sleep(0)
        if uri in self.refused:
            raise self.refused[uri]

    async def admitted(self, who: Caller, call: Call) -> None:
        self.checks += 1
        if self.credential is not None:
            raise self.credential


class Scene:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.records = Readable()
        self.watches = Watches(cast("Resources", self.records), self.clock, structlog.get_logger())

    def opened(self, *uris: str, proof: Proof = PROOF) -> Any:
        return self.watches.opened(uris, proof, Call.begin(self.clock, "request"))

    async def time_passes(self, seconds: float = RECHECK_S) -> None:
        await self.settle()
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def taken(watch: Watch) -> str | None:
    async with asyncio.timeout(BOUND_S):
        return await watch.next()


async def test_a_change_is_told_to_all_who_watch_it_and_to_nobody_else(scene: Scene) -> None:
    async with scene.opened(A, B) as one, scene.opened(B, C) as two:
        scene.watches.tell(B)
        scene.watches.tell(A)
        scene.watches.tell(C)
        assert [await taken(one), await taken(one)] == [B, A]
        assert [await taken(two), await taken(two)] == [B, C]
    scene.watches.tell(B)
    assert scene.watches.open_now == 0


async def test_a_change_told_often_before_it_is_taken_is_told_once(scene: Scene) -> None:
    async with scene.opened(A, B) as watch:
        for _ in range(5_000):
            scene.watches.tell(A)
        scene.watches.tell(B)
        assert [await taken(watch), await taken(watch)] == [A, B]
        scene.watches.tell(A)
        assert await taken(watch) == A


async def test_what_changes_while_the_records_are_read_is_told_after_the_grant(scene: Scene) -> None:
    scene.records.meanwhile = lambda: scene.watches.tell(A)
    async with scene.opened(A) as watch:
        assert await taken(watch) == A


async def test_one_record_that_cannot_be_read_refuses_the_whole(scene: Scene) -> None:
    scene.records.refused[B] = RecordNotFound("no")
    with pytest.raises(Unwatchable) as refused:
        async with scene.opened(A, B, C):
            raise AssertionError("it was granted")
    assert refused.value.uri == B
    assert scene.watches.open_now == 0


async def test_a_refused_credential_is_refused_once_for_a_hundred_records(scene: Scene) -> None:
    uris = [f"{A}{number}" for number in range(100)]
    scene.records.refused = dict.fromkeys(uris, UpstreamUnauthorized("no"))
    with pytest.raises(Unwatchable):
        async with scene.opened(*uris):
            raise AssertionError("it was granted")
    assert len(scene.records.read_uris) == 1


async def test_nobody_subscribes_without_a_credential_even_to_nothing(scene: Scene) -> None:
    with pytest.raises(NotAuthenticated):
        async with scene.opened(proof=Proof(None, None)):
            raise AssertionError("it was granted")
    scene.records.credential = UpstreamUnauthorized("no")
    with pytest.raises(UpstreamUnauthorized):
        async with scene.opened():
            raise AssertionError("it was granted")


async def test_the_bounds_hold_and_cost_no_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "WATCHES_MOST", 3)
    with pytest.raises(InvalidInput, match="100"):
        async with scene.opened(*(f"{A}{number}" for number in range(101))):
            raise AssertionError("it was granted")
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(scene.opened(A))
        reads = len(scene.records.read_uris)
        with pytest.raises(ProjectError) as full:
            async with scene.opened(A):
                raise AssertionError("it was granted")
        assert full.value.code == "too_many_subscriptions"
        assert len(scene.records.read_uris) == reads
    async with scene.opened(A):
        assert scene.watches.open_now == 1


async def test_one_client_cannot_take_every_place_and_others_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "WATCHES_OF_ONE_MOST", 2)
    ana, bob = (Proof("k" * 16, "stamford", Access(client=name)) for name in ("ana", "bob"))
    async with AsyncExitStack() as stack:
        for proof in (ana, ana, bob, PROOF, PROOF, PROOF):
            await stack.enter_async_context(scene.opened(A, proof=proof))
        with pytest.raises(ProjectError, match="You have 2") as full:
            async with scene.opened(A, proof=ana):
                raise AssertionError("it was granted")
        assert full.value.code == "too_many_subscriptions"
        async with scene.opened(A, proof=bob):
            assert scene.watches.open_now == 7
    async with scene.opened(A, proof=ana):
        assert scene.watches.open_now == 1


@pytest.mark.parametrize("uris", [(A,), ()])
async def test_a_subscription_ends_with_the_token_it_was_opened_with(scene: Scene, uris: tuple[str, ...]) -> None:
    short = Proof("k" * 16, "stamford", Access(client="ana", until=scene.clock.now() + RECHECK_S + 40))
    async with scene.opened(*uris, proof=short) as watch, scene.opened(A) as other:
        await scene.time_passes()
        await scene.time_passes(39)
        for uri in uris:
            scene.watches.tell(uri)
            assert await taken(watch) == uri
        await scene.time_passes(1)
        scene.watches.tell(A)
        with pytest.raises(NotAuthenticated, match="expired"):
            await taken(watch)
        assert await taken(other) == A


async def test_closing_ends_all_after_what_was_told_and_opens_none(scene: Scene) -> None:
    async with scene.opened(A) as one, scene.opened(B) as two:
        scene.watches.tell(A)
        scene.watches.close()
        scene.watches.tell(B)
        assert [await taken(one), await taken(one)] == [A, None]
        assert [await taken(two), await taken(two)] == [None, None]
    with pytest.raises(ProjectError) as stopping:
        async with scene.opened(A):
            raise AssertionError("it was granted")
    assert stopping.value.code == "stopping"


async def test_a_recheck_costs_one_look_at_the_credential_and_a_read_of_what_changed(scene: Scene) -> None:
    async with scene.opened(A, B, C) as watch:
        scene.records.read_uris.clear()
        await scene.time_passes(RECHECK_S - 1)
        assert scene.records.checks == 0
        scene.watches.tell(B)
        await scene.time_passes(1)
        assert (scene.records.checks, scene.records.read_uris) == (1, [B])
        await scene.time_passes()
        assert (scene.records.checks, scene.records.read_uris) == (2, [B]), "it was read again without a change"
        assert await taken(watch) == B


async def test_a_withdrawn_credential_ends_it_within_one_interval_and_what_waited_is_not_told(scene: Scene) -> None:
    async with scene.opened(A) as watch:
        scene.records.credential = UpstreamUnauthorized("withdrawn")
        scene.watches.tell(A)
        await scene.time_passes()
        with pytest.raises(UpstreamUnauthorized):
            await taken(watch)


async def test_a_changed_record_that_may_not_be_read_any_more_ends_it_by_name(scene: Scene) -> None:
    async with scene.opened(A, B) as watch:
        scene.records.refused[B] = RecordNotFound("gone")
        await scene.time_passes()
        scene.watches.tell(B)
        assert await taken(watch) == B
        await scene.time_passes()
        with pytest.raises(Unwatchable) as ended:
            await taken(watch)
        assert ended.value.uri == B


async def test_jobnimbus_away_ends_nothing_at_first_and_everything_in_the_end(scene: Scene) -> None:
    async with scene.opened(A) as watch:
        scene.watches.tell(A)
        assert await taken(watch) == A
        scene.records.refused[A] = UpstreamTimeout("slow")
        for _ in range(UNDECIDED_MOST - 1):
            await scene.time_passes()
        del scene.records.refused[A]
        await scene.time_passes()
        scene.records.read_uris.clear()
        scene.records.credential = UpstreamTimeout("slow")
        for _ in range(UNDECIDED_MOST - 1):
            await scene.time_passes()
        scene.watches.tell(A)
        assert await taken(watch) == A
        await scene.time_passes()
        with pytest.raises(UpstreamTimeout):
            await taken(watch)


async def test_a_check_that_fails_by_a_defect_ends_it(scene: Scene) -> None:
    async with scene.opened(A) as watch:
        scene.records.credential = ValueError("defect")
        with structlog.testing.capture_logs() as logged:
            await scene.time_passes()
        with pytest.raises(InternalError):
            await taken(watch)
        assert [line["log_level"] for line in logged] == ["error"]


async def test_leaving_ends_the_checking(scene: Scene) -> None:
    async with scene.opened(A):
        pass
    await scene.time_passes()
    assert scene.records.checks == 0
