"""Subscriptions from a client's side: granted for what it may read, told of each change, ended when they must be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from mcp.client import Client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    SubscriptionFilter,
    SubscriptionsListenRequestParams,
)
from served import BOUND_S, served, until

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.consumers.notify import Notify
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.events.event import Event, event_id_at
from jobnimbus_mcp.tools import listening_mcp, subscriptions

INVENTED = "invented-key-0123456789"


class LocalBus:
    """One process's hearing of its own messages."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        for message in messages:
            self._heard(message)

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        raise AssertionError("nobody listens here but the face")


def uri_of(row: Any, instance: str = "stamford", kind: str = "jobs") -> str:
    return f"jobnimbus://{instance}/{kind}/{row['jnid']}"


async def following(subscription: Any) -> str:
    async with asyncio.timeout(BOUND_S):
        return str((await anext(subscription)).uri)


async def anything_more(subscription: Any) -> None:
    """Take what comes until it ends."""
    async with asyncio.timeout(BOUND_S):
        async for _ in subscription:
            pass


async def in_time(world: Any, work: Awaitable[Any]) -> Any:
    """The result of `work`, the manual clock going on about as sockets do."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(BOUND_S):
        while not task.done():
            await asyncio.wait({task}, timeout=0.02)
            world.clock.advance(0.1)
    return task.result()


async def refusal(client: Client, *uris: str, **flags: bool) -> Any:
    with pytest.raises(MCPError) as caught:
        async with asyncio.timeout(BOUND_S), client.listen(resource_subscriptions=uris, **flags):
            raise AssertionError("it was granted")
    return caught.value.error


def changed(row: Any, clock: Any, change: Change | None = None) -> Event:
    change = change or Change(EntityRef(Entity.JOBS, row["jnid"]), Action.UPDATED)
    return Event.of_change(
        change,
        event_id=event_id_at(clock.now(), "0" * 20),
        instance="stamford",
        name="job.updated",
        tags=(),
        source="webhook",
        received_at=clock.now(),
    )


async def test_a_change_reaches_the_subscriber_whose_next_read_is_new(world: Any) -> None:
    job = world.has("jobs")[0]
    uri = uri_of(job)

    async def everywhere_dirty(instance: str) -> None:
        assert instance == "stamford"

    notify = Notify(LocalBus(world.app.mcp.resource_updated), everywhere_dirty)
    async with served(world) as connect, connect() as client:
        await client.read_resource(uri)
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            assert subscription.honored.resource_subscriptions == [uri]
            for name in ("First", "Second"):
                await world.sim.change("stamford", "jobs", job["jnid"], {"name": name})
                (outcome,) = await notify.act([changed(job, world.clock)], ["request"])
                assert outcome.ok
                assert await following(subscription) == uri
                told = await client.read_resource(uri)
                assert json.loads(told.contents[0].text)["name"] == name


async def test_a_subscriber_hears_of_its_own_records_only(world: Any) -> None:
    mine, other, *_ = world.has("jobs")
    async with (
        served(world) as connect,
        connect() as client,
        client.listen(resource_subscriptions=[uri_of(mine)]) as subscription,
    ):
        world.app.mcp.resource_updated(uri_of(other))
        world.app.mcp.resource_updated(uri_of(mine, "guilford"))
        world.app.mcp.resource_updated(uri_of(mine))
        assert await following(subscription) == uri_of(mine)


async def test_a_client_may_watch_many_records_of_several_kinds_and_accounts(world: Any) -> None:
    job, contact = world.has("jobs")[0], world.has("contacts")[0]
    uris = [uri_of(job), uri_of(contact, kind="contacts")]
    async with (
        served(world) as connect,
        connect(instance=None) as client,
        client.listen(resource_subscriptions=uris) as subscription,
    ):
        for uri in reversed(uris):
            world.app.mcp.resource_updated(uri)
            assert await following(subscription) == uri


async def test_what_hangs_on_a_job_is_watched_as_a_list(world: Any) -> None:
    """The list is told of records that come, change and go, of whatever of its kind nobody knows the job of, and of
    no other list's."""
    job, other = world.has("jobs")[:2]
    told, next_to_it = f"{uri_of(job)}/tasks", f"{uri_of(other)}/tasks"

    async def everywhere_dirty(instance: str) -> None:
        return None

    notify = Notify(LocalBus(world.app.mcp.resource_updated), everywhere_dirty)

    async def happens(action: Action, *parents: str, kind: Entity = Entity.TASKS) -> None:
        change = Change(EntityRef(kind, "task1"), action, frozenset(parents) if parents else None)
        (outcome,) = await notify.act([changed(None, world.clock, change)], ["request"])
        assert outcome.ok

    async with (
        served(world) as connect,
        connect() as client,
        client.listen(resource_subscriptions=[told, next_to_it]) as subscription,
    ):
        for action in Action:
            await happens(action, job["jnid"], "c1")
            assert await following(subscription) == told
        await happens(Action.UPDATED, job["jnid"], kind=Entity.ACTIVITIES)
        await happens(Action.UPDATED, other["jnid"])
        assert await following(subscription) == next_to_it
        await happens(Action.DELETED)
        assert {await following(subscription), await following(subscription)} == {told, next_to_it}
    await until(lambda: world.app.mcp.subscriptions == 0)
    await happens(Action.DELETED)


async def test_a_list_by_status_cannot_be_watched_nor_a_list_under_a_record_that_may_not_be_read(world: Any) -> None:
    _, restricted = world.sim.keys["stamford"]
    me = world.users()[1]["id"]
    foreign = next(row for row in world.has("jobs") if row["sales_rep"] != me and {"id": me} not in row["owners"])
    async with served(world) as connect, connect() as client, connect(restricted) as other:
        for uri in ("jobnimbus://stamford/jobs/status/Lead", "jobnimbus://stamford/users"):
            error = await refusal(client, uri)
            assert (error.code, error.data["uri"]) == (INVALID_PARAMS, uri)
        error = await refusal(other, f"{uri_of(foreign)}/tasks")
        assert (error.code, error.data["code"]) == (INVALID_PARAMS, "not_found")


async def test_subscriptions_are_advertised_to_those_who_can_have_them(world: Any) -> None:
    async with served(world) as connect:
        async with connect(mode="auto") as client:
            can = client.server_capabilities
            assert can.resources.subscribe is True
            assert (can.tools.list_changed, can.prompts.list_changed, can.resources.list_changed) == (False,) * 3
            assert can.completions is not None
            async with client.listen(tools_list_changed=True) as subscription:
                assert not subscription.honored.tools_list_changed, "nothing is promised that never comes"
        async with connect(mode="legacy") as client:
            assert not client.server_capabilities.resources.subscribe


async def test_a_subscription_is_refused_whole_for_one_record_the_caller_may_not_read(world: Any) -> None:
    _, restricted = world.sim.keys["stamford"]
    me = world.users()[1]["id"]

    def own(row: Any) -> bool:
        return row["sales_rep"] == me or {"id": me} in row["owners"]

    mine = next(row for row in world.has("jobs") if own(row))
    foreign = next(row for row in world.has("jobs") if not own(row))
    async with served(world) as connect, connect() as client, connect(restricted) as other:
        await client.read_resource(uri_of(foreign))
        error = await refusal(other, uri_of(mine), uri_of(foreign))
        assert (error.code, error.data["code"], error.data["uri"]) == (INVALID_PARAMS, "not_found", uri_of(foreign))
        assert uri_of(foreign) in error.message
        assert world.app.mcp.subscriptions == 0
        async with other.listen(resource_subscriptions=[uri_of(mine)]) as subscription:
            world.app.mcp.resource_updated(uri_of(foreign))
            world.app.mcp.resource_updated(uri_of(mine))
            assert await following(subscription) == uri_of(mine)


async def test_what_is_not_served_unknown_or_malformed_is_refused_by_name(world: Any) -> None:
    job = world.has("jobs")[0]
    wrong = [
        uri_of(job, "springfield"),
        uri_of(world.has("jobs", instance="guilford")[0], "guilford"),
        uri_of(job, kind="settings"),
        uri_of(job, kind="invoices"),
        "jobnimbus://stamford/jobs/not-an-id",
        "jobnimbus://stamford/jobs/nosuchrecord000000",
        "file:///etc/passwd",
    ]
    async with served(world) as connect, connect() as client:
        for uri in wrong:
            error = await refusal(client, uri_of(job), uri)
            assert error.code == INVALID_PARAMS, uri
            assert error.data["uri"] == uri
            assert uri in error.message
        assert world.app.mcp.subscriptions == 0


async def test_an_invented_key_gets_no_subscription_at_all(world: Any) -> None:
    uri = uri_of(world.has("jobs")[0])
    async with served(world) as connect, connect() as client, connect(INVENTED) as stranger:
        await client.read_resource(uri)
        error = await in_time(world, refusal(stranger, uri))
        assert (error.code, error.data["code"]) == (INVALID_REQUEST, "upstream_unauthorized")
        error = await in_time(world, refusal(stranger, tools_list_changed=True))
        assert (error.code, error.data["code"]) == (INVALID_REQUEST, "upstream_unauthorized")


async def test_a_subscription_has_a_most_of_records_and_a_process_of_subscriptions(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = world.has("jobs")
    most = [uri_of(row) for row in jobs[: subscriptions.URIS_MOST + 1]]
    monkeypatch.setattr(subscriptions, "WATCHES_MOST", 2)
    async with served(world) as connect, connect() as client:
        calls = world.sim.calls
        error = await refusal(client, *most)
        assert error.code == INVALID_PARAMS
        assert "100" in error.message
        assert world.sim.calls == calls
        async with client.listen(resource_subscriptions=most[:2]):
            async with client.listen(resource_subscriptions=most[1:-1]) as all_of_them:
                error = await refusal(client, most[0])
                assert (error.code, error.data["code"]) == (INTERNAL_ERROR, "too_many_subscriptions")
                world.app.mcp.resource_updated(most[-2])
                assert await following(all_of_them) == most[-2]
            await until(lambda: world.app.mcp.subscriptions == 1)
            async with client.listen(resource_subscriptions=[most[0]]):
                assert world.app.mcp.subscriptions == 2
        await until(lambda: world.app.mcp.subscriptions == 0)


async def test_a_client_that_goes_away_leaves_nothing_behind(world: Any) -> None:
    uri = uri_of(world.has("jobs")[0])
    async with served(world) as connect:
        async with connect() as client, client.listen(resource_subscriptions=[uri]):
            assert world.app.mcp.subscriptions == 1
        await until(lambda: world.app.mcp.subscriptions == 0)
        world.app.mcp.resource_updated(uri)


async def test_a_server_that_stops_ends_its_streams_in_good_order_and_opens_no_more(world: Any) -> None:
    uri = uri_of(world.has("jobs")[0])
    async with served(world) as connect, connect() as client:
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            world.app.mcp.end_subscriptions()
            async with asyncio.timeout(BOUND_S):
                assert [event async for event in subscription] == []
        error = await refusal(client, uri)
        assert (error.code, error.data["code"]) == (INTERNAL_ERROR, "stopping")


class Door(httpx.AsyncBaseTransport):
    """The way to the simulator, at which keys can be turned away."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.revoked: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"].removeprefix("bearer ") in self.revoked:
            return httpx.Response(401, json={"status": 401, "body": "Authentication required"})
        return await self._inner.handle_async_request(request)


async def test_a_withdrawn_credential_is_told_nothing_more_after_the_recheck(open_world: Any, stage: Any) -> None:
    clock, door = ManualClock(), Door(httpx.ASGITransport(stage.sim.app))
    async with open_world(clock=clock, transport=door) as world:
        uri = uri_of(world.has("jobs")[0])
        async with served(world) as connect, connect() as client:
            async with client.listen(resource_subscriptions=[uri]) as subscription:
                door.revoked.add(world.sim.keys["stamford"][0])
                clock.advance(subscriptions.RECHECK_S + 1)
                await until(lambda: world.app.mcp.subscriptions == 0)
                world.app.mcp.resource_updated(uri)
                with pytest.raises(SubscriptionLost) as lost:
                    await following(subscription)
            assert lost.value.__cause__.error.data["code"] == "upstream_unauthorized"
            assert world.app.mcp.subscriptions == 0


async def test_a_record_that_may_no_longer_be_read_ends_the_subscription_after_it_changed(world: Any) -> None:
    kept, gone, *_ = world.has("jobs")
    async with served(world) as connect, connect() as client:
        async with client.listen(resource_subscriptions=[uri_of(kept), uri_of(gone)]) as subscription:
            await world.sim.delete("stamford", "jobs", gone["jnid"])
            world.app.mcp.resource_updated(uri_of(gone))
            assert await following(subscription) == uri_of(gone), "that it is gone is a change too"
            world.clock.advance(subscriptions.RECHECK_S + 1)
            with pytest.raises(SubscriptionLost) as lost:
                await anything_more(subscription)
        told = lost.value.__cause__.error
        assert (told.code, told.data["code"], told.data["uri"]) == (INVALID_PARAMS, "not_found", uri_of(gone))


class Stuck:
    """A session whose client takes the acknowledgment and then nothing more."""

    def __init__(self) -> None:
        self.sent = 0

    async def send_notification(self, notification: Any, related_request_id: Any) -> None:
        self.sent += 1
        if self.sent > 1:
            await asyncio.Event().wait()


async def test_a_subscriber_that_takes_nothing_loses_its_place(
    open_world: Any, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_mcp, "TAKEN_WITHIN_S", 0.05)
    only = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": stage.sim.keys["stamford"][0]}
    async with open_world(only) as world:
        face, uri = world.app.mcp, uri_of(world.has("jobs")[0])
        asked = SubscriptionsListenRequestParams(notifications=SubscriptionFilter(resource_subscriptions=[uri]))
        context = SimpleNamespace(request=None, request_id="mine", session=Stuck())
        listening = asyncio.create_task(face.listening.listen(context, asked))
        await until(lambda: context.session.sent == 1)
        face.resource_updated(uri)
        with pytest.raises(MCPError):
            await asyncio.wait_for(listening, BOUND_S)
        assert face.subscriptions == 0
