"""Findings about changes: where their events are kept, who acts on them, what finds those nobody told of, and relay."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from jobnimbus_mcp.doctor.facts import (
    PROBE_BOUND_S,
    BackgroundFacts,
    EventFacts,
    EventsAway,
    Finding,
    Level,
    Probes,
    ago,
    is_loopback,
)
from jobnimbus_mcp.errors import ProjectError
from jobnimbus_mcp.events.ports import Lag
from jobnimbus_mcp.events.vitals import LAG_MOST, LATENCY_MOST_S
from jobnimbus_mcp.settings import Settings

__all__ = ["background_findings", "event_findings", "relay_findings"]

LOSS_MOST = 0.05
"""Of the changes of a day, the share that may come without a webhook before something is said."""

_ROUNDS_LATE = 3
_LATE_LEAST_S = 60.0


# -- events ----------------------------------------------------------------------------------------------------------


async def event_findings(settings: Settings, probes: Probes) -> list[Finding]:
    """Of every account's log."""
    told = await asyncio.gather(*(_events(settings, probes, instance) for instance in settings.instances))
    return [finding for findings in told for finding in findings]


async def _events(settings: Settings, probes: Probes, instance: str) -> list[Finding]:
    subject = f"events of {instance}"
    if settings.events_transport == "redis" and settings.store_url_of(instance) is None:
        said = "kept in the server's memory: its end loses those not done with, and their trace. Set REDIS_URL."
        return [Finding(Level.WARN, subject, said)]
    try:
        facts = await asyncio.wait_for(probes.events(instance), PROBE_BOUND_S)
    except (EventsAway, TimeoutError) as away:
        why = str(away) or "no answer in time"
        return [Finding(Level.BAD, subject, f"{_WHERE[settings.events_transport]} cannot be used: {why}.")]
    return [_kept(settings, subject, facts), *_handled(instance, facts)]


_WHERE = {
    "redis": "the stream in Redis",
    "postgres": "the PostgreSQL of DATABASE_URL",
    "kafka": "the brokers of KAFKA_BOOTSTRAP_SERVERS",
}


def _kept(settings: Settings, subject: str, facts: EventFacts) -> Finding:
    where = _WHERE[settings.events_transport]
    if facts.durable:
        return Finding(Level.OK, subject, f"in {where}, which keeps them over a restart.")
    if settings.events_transport == "redis":
        unsure = "may forget" if facts.durable is None else "forgets"
        said = f"in {where}, which {unsure} them at a restart, so events are also kept in {settings.data_dir}"
        return Finding(Level.WARN, subject, f"{said} (DATA_DIR); set appendonly yes.")
    said = f"in {where}, which may lose the latest at a crash; set fsync, full_page_writes and synchronous_commit on."
    return Finding(Level.WARN, subject, said)


def _handled(instance: str, facts: EventFacts) -> list[Finding]:
    findings = []
    if facts.lags is None or not facts.lags:
        said = "nobody has ever registered to act on events: start `jobnimbus-mcp serve`, or `jobnimbus-mcp worker`."
        return [Finding(Level.WARN, f"consumers of {instance}", said)]
    if facts.workers == 0:
        said = "no process acts on events now: start `jobnimbus-mcp serve`, or `jobnimbus-mcp worker`."
        findings.append(Finding(Level.WARN, f"consumers of {instance}", said))
    findings.append(_lag(instance, facts.lags))
    dead = {name: lag.dead for name, lag in facts.lags.items() if lag.dead}
    if dead:
        by = ", ".join(f"{name} {number}" for name, number in sorted(dead.items()))
        said = f"{sum(dead.values())} ({by}); see why with `jobnimbus-mcp events dead`, then replay them."
        findings.append(Finding(Level.WARN, f"dead letters of {instance}", said))
    return findings


def _lag(instance: str, lags: Mapping[str, Lag]) -> Finding:
    subject = f"lag of {instance}"
    name, lag = max(lags.items(), key=lambda item: (item[1].due, item[1].oldest_s))
    slowest, late = max(lags.items(), key=lambda item: item[1].oldest_s)
    delayed = sum(one.delayed for one in lags.values())
    if lag.due > LAG_MOST:
        said = f"{lag.due} events wait for {name}; add a `jobnimbus-mcp worker`, or see what it waits for."
        return Finding(Level.WARN, subject, said)
    if late.oldest_s > LATENCY_MOST_S:
        said = (
            f"an event has waited {ago(late.oldest_s)} for {slowest}; see `jobnimbus-mcp events list --state pending`."
        )
        return Finding(Level.WARN, subject, said)
    waits = "no event waits" if lag.due == 0 else f"{lag.due} events wait for {name}"
    return Finding(Level.OK, subject, f"{waits}; {delayed} wait for their time ({len(lags)} consumers).")


# -- in the background -----------------------------------------------------------------------------------------------


async def background_findings(settings: Settings, probes: Probes) -> list[Finding]:
    """Catch-up, sweep and warming of every account."""
    told = await asyncio.gather(*(_background(settings, probes, instance) for instance in settings.instances))
    return [finding for findings in told for finding in findings]


async def _background(settings: Settings, probes: Probes, instance: str) -> list[Finding]:
    if instance not in settings.api_keys:
        said = "off: they ask with the server's own key, and there is none; see its key."
        return [Finding(Level.WARN, f"catch-up, sweep and warming of {instance}", said)]
    warming = _warming(settings, instance)
    if settings.store_url_of(instance) is None:
        catch_up, sweep = _catch_up(settings, instance, None), _sweep(settings, instance, None)
        return [catch_up, sweep, warming]
    try:
        facts = await asyncio.wait_for(probes.background(instance), PROBE_BOUND_S)
    except (ProjectError, TimeoutError) as unsaid:
        why = unsaid.code if isinstance(unsaid, ProjectError) else "no answer in time"
        said = f"how they are getting on could not be read ({why})."
        return [Finding(Level.WARN, f"catch-up and sweep of {instance}", said), warming]
    findings = [_catch_up(settings, instance, facts), _sweep(settings, instance, facts), warming]
    if facts.loss.missed + facts.loss.heard:
        findings.insert(1, _loss(settings, instance, facts))
    return findings


def _catch_up(settings: Settings, instance: str, facts: BackgroundFacts | None) -> Finding:
    """`facts` None: they are in the server's memory."""
    subject, every_s = f"catch-up of {instance}", settings.catch_up_interval_s
    if every_s == 0:
        said = "off by CATCH_UP_INTERVAL_S=0: a change that no webhook tells of shows when lifetimes end. Unset it."
        return Finding(Level.WARN, subject, said)
    on = f"on, every {every_s} s"
    if facts is None:
        return Finding(Level.OK, subject, f"{on} while a server runs.")
    if facts.polled_at is None:
        return Finding(Level.OK, subject, f"{on}; not begun yet, start the server.")
    age_s = facts.now - facts.polled_at
    if age_s > max(_LATE_LEAST_S, _ROUNDS_LATE * every_s):
        said = f"{on}, but the last round was {ago(age_s)} ago: no server runs, or its log says `catch-up` and why not."
        return Finding(Level.WARN, subject, said)
    return Finding(Level.OK, subject, f"{on}; the last round was {ago(age_s)} ago.")


def _loss(settings: Settings, instance: str, facts: BackgroundFacts) -> Finding:
    subject, loss = f"webhook loss of {instance}", facts.loss
    share = f"{loss.rate:.1%} of {loss.missed + loss.heard} changes in 24 hours came without a webhook"
    if loss.rate > LOSS_MOST:
        said = f"{share}; see that JobNimbus's automations post to every URL that get_webhooks tells."
        return Finding(Level.WARN, subject, said)
    return Finding(Level.OK, subject, f"{share}.")


def _sweep(settings: Settings, instance: str, facts: BackgroundFacts | None) -> Finding:
    subject, every_s = f"sweep of {instance}", settings.sweep_interval_s
    if every_s == 0:
        said = "off by SWEEP_INTERVAL_S=0: a deletion that no webhook tells of shows when lifetimes end. Unset it."
        return Finding(Level.WARN, subject, said)
    on = f"on, every {ago(every_s)}"
    if facts is None:
        return Finding(Level.OK, subject, f"{on} while a server runs.")
    if facts.swept_at is None:
        return Finding(Level.OK, subject, f"{on}; not begun yet, start the server.")
    next_s = facts.swept_at + every_s - facts.now
    if next_s < -max(3_600.0, every_s):
        said = f"{on}, but overdue for {ago(-next_s)}: no server runs, or its log says `sweep` and why not."
        return Finding(Level.WARN, subject, said)
    return Finding(Level.OK, subject, f"{on}; due in {ago(next_s)}." if next_s > 0 else f"{on}; due now.")


def _warming(settings: Settings, instance: str) -> Finding:
    subject = f"warming of {instance}"
    if not settings.cache_enabled:
        return Finding(Level.WARN, subject, "off, as the cache is (CACHE_ENABLED=false).")
    if settings.cache_warm_every_s == 0:
        said = "after changes only: its schedule is off by CACHE_WARM_EVERY_S=0. Unset it to read ahead every hour."
        return Finding(Level.OK, subject, said)
    said = f"on: after changes, and every {ago(settings.cache_warm_every_s)} what is asked most."
    return Finding(Level.OK, subject, said)


# -- relay -----------------------------------------------------------------------------------------------------------


def relay_findings(settings: Settings) -> list[Finding]:
    """By name and host: the rest of a target's URL is as good as a password."""
    targets = settings.targets()
    if not targets:
        return [Finding(Level.OK, "relay", "off: no other system is told of changes. Set RELAY_TARGETS to tell some.")]
    findings = []
    for target in targets:
        subject, host = f"relay to {target.name}", urlsplit(target.url).hostname
        if target.plain:
            said = f"{host} is told without TLS, so anybody on the way can read along; use https."
            findings.append(Finding(Level.WARN, subject, said))
        else:
            findings.append(Finding(Level.OK, subject, f"{host} is told of {', '.join(target.events)}, signed."))
    if settings.relay_allow_private and not all(map(is_loopback, settings.allowed_hosts)):
        said = "RELAY_ALLOW_PRIVATE lets a target reach into your own network, and this server is asked from outside "
        findings.append(Finding(Level.WARN, "relay", said + "it (ALLOWED_HOSTS); unset it unless a target is there."))
    return findings
