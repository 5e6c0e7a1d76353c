"""Who acts on events, and who finds out what nobody told of: built from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.app.accounts import Accounts, StoreOfAccounts
from jobnimbus_mcp.app.events import Events
from jobnimbus_mcp.cache.notice import Notice
from jobnimbus_mcp.cache.ports import SETTLED
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.system_keys import seen_key
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.consumers.heat import Heat, HeatByAccount, MemoryHeat
from jobnimbus_mcp.consumers.heat_redis import RedisHeat
from jobnimbus_mcp.consumers.notify import Notify
from jobnimbus_mcp.consumers.relay import relays_of
from jobnimbus_mcp.consumers.relay_http import RelayHttp
from jobnimbus_mcp.consumers.rounds import Rounds
from jobnimbus_mcp.consumers.settle import Settle
from jobnimbus_mcp.consumers.warm import Warm
from jobnimbus_mcp.consumers.warming import Warming
from jobnimbus_mcp.events.background import STATE_LIFE_S, Ask
from jobnimbus_mcp.events.background_memory import MemoryBackground
from jobnimbus_mcp.events.background_redis import RedisBackground
from jobnimbus_mcp.events.catch_up import CatchUp
from jobnimbus_mcp.events.ports import AppendAndBump, Consumer
from jobnimbus_mcp.events.sweep import Sweep
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.tools.toolbox import Toolbox

__all__ = ["Consuming", "Watching", "consumers_of", "heat_of", "watch"]

T = TypeVar("T")

_CONSUMER_SCRIPTS = "jobnimbus_mcp.consumers.scripts"
_EVENT_SCRIPTS = "jobnimbus_mcp.events.scripts"


def heat_of(accounts: Accounts, clock: Clock, recorder: Recorder) -> HeatByAccount:
    """What is asked most, of each account in its own store."""
    heats: dict[str, Heat] = {}
    for one in accounts.stores:
        heat: Heat = MemoryHeat(clock)
        if one.redis is not None:
            runner = Scripts(one.redis, package=_CONSUMER_SCRIPTS)
            heat = RedisHeat(runner, clock=clock, recorder=recorder)
        heats |= dict.fromkeys(one.tenants, heat)
    return HeatByAccount(heats)


@dataclass(frozen=True)
class Consuming:
    """Those who act on events, and what they need while they do."""

    consumers: Sequence[Consumer]
    warming: Warming
    heat: HeatByAccount
    poster: RelayHttp

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What is asked is noted, and the schedule kept; to be closed after those who act."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.poster.aclose)
            await stack.enter_async_context(self.heat.running())
            stack.push_async_callback(self.warming.aclose)
            schedule = asyncio.get_running_loop().create_task(self.warming.run_schedule())
            stack.push_async_callback(_cancelled, schedule)
            yield


def consumers_of(
    settings: Settings,
    accounts: Accounts,
    events: Events,
    *,
    gateway: Gateway,
    tools: Toolbox,
    heat: HeatByAccount,
    callers: Mapping[str, Caller],
    share_left: Callable[[str], float],
    clock: Clock,
    ids: Callable[[], str],
    recorder: Recorder,
    log: FilteringBoundLogger,
) -> Consuming:
    """`tools`: for warming, so neither counted nor noted."""

    async def bump(instance: str, tags: Sequence[str]) -> None:
        call = Call.begin(clock, ids(), tool="settle")
        notice = Notice("index.settled", "any", "", "catch_up", clock.now(), ids(), quiet=True)
        await accounts.append_and_bump(instance, tags, notice, call, tells=(SETTLED,))

    async def everywhere_dirty(instance: str) -> None:
        await accounts.everywhere(instance, Call.begin(clock, ids(), tool="notify"))

    rounds = Rounds(gateway, clock=clock, share_left=share_left, recorder=recorder)
    targets = settings.targets()
    poster = RelayHttp(targets, allow_private=settings.relay_allow_private)
    consumers: list[Consumer] = [
        Settle(bump, index_settle_s=settings.index_settle_s),
        Warm(
            rounds,
            heat,
            callers=callers,
            index_settle_s=settings.index_settle_s,
            events_settle_s=settings.events_settle_s,
        ),
        Notify(events, everywhere_dirty),
        *relays_of(targets, poster, clock),
    ]
    warming = Warming(
        rounds,
        heat,
        instances=settings.instances,
        callers=callers,
        run_tool=tools.call,
        check_tool=tools.check,
        every_s=settings.cache_warm_every_s,
        clock=clock,
        ids=ids,
        log=log,
    )
    return Consuming(consumers, warming, heat, poster)


@dataclass(frozen=True)
class Watching:
    """Those who ask JobNimbus what nobody told of, per store."""

    catch_ups: Mapping[str, CatchUp]
    sweeps: Mapping[str, Sweep]

    async def facts(self, instance: str) -> Mapping[str, Any]:
        """How both are doing, and how much no webhook told of. Raises CacheUnavailable."""
        catch_up = self.catch_ups[instance]
        return {
            "catchUp": catch_up.status(instance),
            "sweep": self.sweeps[instance].status(instance),
            "webhookLoss": await catch_up.loss(instance),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for catch_up in _each(self.catch_ups):
                await stack.enter_async_context(catch_up.running())
            for sweep in _each(self.sweeps):
                await stack.enter_async_context(sweep.running())
            yield


def watch(
    settings: Settings,
    accounts: Accounts,
    *,
    poll: Ask,
    tell: AppendAndBump,
    event_id: Callable[[], str],
    clock: Clock,
    random01: Callable[[], float],
    recorder: Recorder,
    log: FilteringBoundLogger,
) -> Watching:
    """Catch-up and sweep for every account; they do nothing for those without a key of the server's own."""
    catch_ups: dict[str, CatchUp] = {}
    sweeps: dict[str, Sweep] = {}
    for one in accounts.stores:
        background = _background(one, settings, clock)
        shared: dict[str, Any] = {
            "ask": poll,
            "tell": tell,
            "known": background,
            "keeper": background,
            "instances": one.tenants,
            "clock": clock,
            "ids": event_id,
            "random01": random01,
            "recorder": recorder,
            "log": log,
        }
        catch_ups |= dict.fromkeys(one.tenants, CatchUp(longest_s=settings.catch_up_interval_s, **shared))
        sweeps |= dict.fromkeys(one.tenants, Sweep(every_s=settings.sweep_interval_s, **shared))
    return Watching(catch_ups, sweeps)


def _background(one: StoreOfAccounts, settings: Settings, clock: Clock) -> MemoryBackground | RedisBackground:
    if one.redis is None:
        return MemoryBackground(clock, one.noted)
    # what one sweep has found must be there for the next
    life_s = max(STATE_LIFE_S, 2 * settings.sweep_interval_s)
    return RedisBackground(Scripts(one.redis, package=_EVENT_SCRIPTS), seen_key, life_s=life_s)


def _each(of: Mapping[str, T]) -> Sequence[T]:
    return tuple({id(one): one for one in of.values()}.values())


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
