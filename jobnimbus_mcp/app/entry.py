"""The ways in: an ASGI app for a worker, MCP on stdin and stdout, and what doctor asks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from starlette.types import ASGIApp

from jobnimbus_mcp.app.events import Events
from jobnimbus_mcp.app.root import Overrides, build, new_id
from jobnimbus_mcp.app.secrets import revealed
from jobnimbus_mcp.cache.scripts_redis import Scripts
from jobnimbus_mcp.cache.system_keys import seen_key
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.doctor import BackgroundFacts, EventFacts, EventsAway, IssuerAway, Probes, StoreAway
from jobnimbus_mcp.doctor_redis import store_facts, workers_alive
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.events.background_redis import RedisBackground
from jobnimbus_mcp.events.ports import EventsUnavailable
from jobnimbus_mcp.events.watermark import loss_hours
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.telemetry.logging import configure
from jobnimbus_mcp.web.jwks_http import JwksHttp
from jobnimbus_mcp.web.keyring import KeysUntold
from jobnimbus_mcp.web.oauth import keys_of

__all__ = ["doctor_probes", "events_of", "from_environment", "run_stdio", "run_worker"]

_LOOKED_BACK = 1_000
_LOOK_S = 0.05
_EVENT_SCRIPTS = "jobnimbus_mcp.events.scripts"


def from_environment() -> ASGIApp:
    """The ASGI app of one worker: settings from the environment and `.env`, logging configured."""
    settings = Settings.from_env(os.environ, env_file=".env")
    configure(settings.log_level, settings.log_format, secrets=settings.secret_values())
    return build(settings, Overrides(freeze_heap=True)).asgi


async def run_stdio(settings: Settings) -> None:
    """Serve MCP on stdin and stdout until the client hangs up.

    Raises:
        SettingsError: several accounts, or no key: a stdio client can name neither.
    """
    if len(settings.instances) > 1:
        raise SettingsError("JOBNIMBUS_INSTANCES: stdio serves one account; name that one alone")
    if not settings.holds_api_key:
        raise SettingsError("JOBNIMBUS_API_KEY: stdio needs the account's key from the environment")
    app = build(settings, Overrides(freeze_heap=True))
    async with app.running():
        await app.mcp.run_stdio()


async def run_worker(settings: Settings, *, until_idle: bool) -> None:
    """Act on events until cancelled or, with `until_idle`, until nothing is left to do."""
    # No L1: nobody calls here, and every webhook would wait until this process knows too.
    app = build(settings.model_copy(update={"l1_max_mb": 0}), Overrides(freeze_heap=True, handled=not until_idle))
    async with app.running():
        if until_idle:
            while app.accounts.indebted:  # what the journal holds has to be in the stream first
                await app.clock.sleep(_LOOK_S)
            await app.event_side.until_idle()
        else:
            await asyncio.Event().wait()


@asynccontextmanager
async def events_of(settings: Settings) -> AsyncIterator[Events]:
    """The trace of events, for a look or a replay; nothing is acted on meanwhile."""
    app = build(settings, Overrides(background=False))
    async with app.running():
        try:
            yield app.events
        finally:
            for one in app.events.logs:
                await one.log.aclose()


@asynccontextmanager
async def doctor_probes(settings: Settings) -> AsyncIterator[Probes]:
    """What doctor asks, over the same parts that serve; what the servers left in the journal is theirs.

    The log is the one beside the store whatever the settings say: others make what they need when they are asked.
    """
    app = build(settings.model_copy(update={"events_transport": "redis"}), Overrides(background=False))

    async def check_key(instance: str) -> None:
        caller = app.identities.identify(None, instance)
        call = Call.begin(app.clock, new_id(), tool="doctor")
        await app.client.check_credential(instance=instance, credential=caller.credential, call=call)

    def digest(instance: str) -> str:
        return app.partitions.digest(instance, settings.api_keys[instance].get_secret_value())

    async def last_webhook_age_s(instance: str) -> float | None:
        call = Call.begin(app.clock, new_id(), tool="doctor")
        rows = await app.accounts.recent(instance, limit=_LOOKED_BACK, since=None, call=call)
        newest = next((row for row in rows if row["source"] == "webhook"), None)
        return None if newest is None else app.clock.now() - datetime.fromisoformat(newest["at"]).timestamp()

    def runner_of(instance: str) -> Scripts:
        redis = app.accounts.of(instance).redis
        if redis is None:
            raise EventsUnavailable("no Redis")
        return Scripts(redis, package=_EVENT_SCRIPTS)

    async def events(instance: str) -> EventFacts:
        if settings.events_transport == "postgres":
            from jobnimbus_mcp import doctor_postgres

            return await doctor_postgres.event_facts(revealed(settings.database_url) or "", instance, clock=app.clock)
        if settings.events_transport == "kafka":
            return await _in_kafka(settings, instance, runner_of, app.clock)
        try:
            runner, log = runner_of(instance), app.events.of(instance)
            return EventFacts(await log.durable(), await log.lag(instance), await workers_alive(runner, instance))
        except EventsUnavailable as away:
            raise EventsAway(away.detail or away.code) from away
        except StoreAway as away:
            raise EventsAway(str(away)) from away

    async def background(instance: str) -> BackgroundFacts:
        kept, now = RedisBackground(runner_of(instance), seen_key), app.clock.now()
        marks = await kept.marks(instance)
        return BackgroundFacts(
            now=now,
            # a round moves each kind's mark to when it asked
            polled_at=max((mark.watermark for mark in marks.values()), default=None),
            swept_at=await kept.swept_at(instance),
            loss=await kept.losses(instance, loss_hours(now)),
        )

    async def issuer() -> int:
        fetch = JwksHttp(settings.oauth_issuer_url or "", jwks_url=settings.oauth_jwks_url)
        try:
            return len({key.kid for key in keys_of(await fetch())})  # an RSA key goes with two algorithms
        except KeysUntold as untold:
            raise IssuerAway(str(untold)) from untold
        except ValueError as unreadable:
            raise IssuerAway("what it told is no JWK set") from unreadable
        finally:
            await fetch.aclose()

    async with app.running():
        yield Probes(
            store=lambda instance: store_facts(revealed(settings.store_url_of(instance)) or "", tenant=instance),
            check_key=check_key,
            digest=digest,
            last_webhook_age_s=last_webhook_age_s,
            events=events,
            background=background,
            issuer=issuer,
        )


async def _in_kafka(settings: Settings, instance: str, runner_of: Callable[[str], Scripts], clock: Clock) -> EventFacts:
    from jobnimbus_mcp import doctor_kafka
    from jobnimbus_mcp.events.client_kafka import KafkaSecurity
    from jobnimbus_mcp.events.trace_of_kafka_redis import KafkaTraceInRedis

    def security() -> KafkaSecurity:
        return KafkaSecurity(
            settings.kafka_security_protocol,
            settings.kafka_sasl_mechanism,
            settings.kafka_sasl_username or "",
            revealed(settings.kafka_sasl_password) or "",
        )

    return await doctor_kafka.event_facts(
        ",".join(settings.kafka_bootstrap_servers),
        instance,
        lambda: KafkaTraceInRedis(runner_of(instance), clock=clock, instances=(instance,)).lag(instance),
        security=security,
    )
