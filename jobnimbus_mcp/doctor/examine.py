"""All findings: settings, stores, keys, callers, webhooks, events and what goes on in the background."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.doctor.callers import caller_findings
from jobnimbus_mcp.doctor.changes import background_findings, event_findings, relay_findings
from jobnimbus_mcp.doctor.facts import (
    PROBE_BOUND_S,
    Finding,
    Level,
    Probes,
    StoreAway,
    StoreFacts,
    ago,
    is_loopback,
)
from jobnimbus_mcp.errors import ProjectError, UpstreamUnauthorized
from jobnimbus_mcp.settings import Settings

__all__ = ["examine"]

REDIS_VERSION_MIN = (6, 2)
"""The oldest with all commands that the store's scripts use."""


async def examine(settings: Settings, probes: Probes) -> list[Finding]:
    """All findings, in the order of the settings table; nothing is changed anywhere."""
    store, keys, callers, webhooks, events, background = await asyncio.gather(
        _stores(settings, probes),
        _keys(settings, probes),
        caller_findings(settings, probes),
        _webhooks(settings, probes),
        event_findings(settings, probes),
        background_findings(settings, probes),
    )
    return [
        *store,
        *_journal(settings),
        *_cache(settings),
        _api(settings),
        *keys,
        *callers,
        *webhooks,
        *events,
        *background,
        *relay_findings(settings),
    ]


async def _stores(settings: Settings, probes: Probes) -> list[Finding]:
    """Of every store there is; accounts with the same one are told of together."""
    sharing: dict[str | None, list[str]] = {}
    for instance in settings.instances:
        url = settings.store_url_of(instance)
        sharing.setdefault(None if url is None else url.get_secret_value(), []).append(instance)
    told = await asyncio.gather(*(_store(settings, probes, instances[0]) for instances in sharing.values()))
    if len(sharing) == 1:
        return told[0]
    return [
        Finding(finding.level, f"{finding.subject} of {', '.join(instances)}", finding.sentence)
        for instances, findings in zip(sharing.values(), told, strict=True)
        for finding in findings
    ]


async def _store(settings: Settings, probes: Probes, instance: str) -> list[Finding]:
    if settings.store_url_of(instance) is None:
        said = "embedded: kept in one process and lost at its end. Set REDIS_URL to share and keep it."
        return [Finding(Level.WARN, "store", said)]
    address = settings.store_address_of(instance)
    try:
        facts = await asyncio.wait_for(probes.store(instance), PROBE_BOUND_S)
    except (StoreAway, TimeoutError) as away:
        why = str(away) or "no answer in time"
        said = f"{address} cannot be used ({why}); start it or correct REDIS_URL. Until then every read asks JobNimbus."
        return [Finding(Level.BAD, "redis", said)]
    return [
        _reachable(settings, address, facts),
        _access(facts),
        _version(facts),
        _eviction(facts),
        _persistence(facts),
    ]


def _journal(settings: Settings) -> list[Finding]:
    """Can webhooks be kept that arrive while Redis is away?"""
    if not settings.webhooks_enabled or not any(settings.store_url_of(instance) for instance in settings.instances):
        return []
    nearest = settings.data_dir / "journal"
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        said = f"kept in {settings.data_dir} (DATA_DIR) while Redis is away; let that outlive a restart."
        return [Finding(Level.OK, "journal", said)]
    said = f"{settings.data_dir} cannot be written: a webhook that comes while Redis is away is lost. Set DATA_DIR."
    return [Finding(Level.BAD, "journal", said)]


def _reachable(settings: Settings, address: str, facts: StoreFacts) -> Finding:
    bound_ms = settings.redis_command_timeout_ms
    if facts.ping_ms * 2 > bound_ms:
        said = f"{address} answers in {facts.ping_ms:.1f} ms, too near to REDIS_COMMAND_TIMEOUT_MS={bound_ms}. "
        return Finding(Level.WARN, "redis", said + "Put it nearer, or raise the bound.")
    found = f" ({facts.found})" if facts.found else ""
    return Finding(Level.OK, "redis", f"{address}{found} answers in {facts.ping_ms:.1f} ms.")


def _access(facts: StoreFacts) -> Finding:
    way = "with TLS" if facts.tls else "without TLS, which is for a network of your own only"
    return Finding(Level.OK, "redis access", f"as user {facts.user or '(it does not tell)'}, {way}.")


def _version(facts: StoreFacts) -> Finding:
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    if not numbers:
        return Finding(Level.WARN, "redis version", "the server does not tell its version.")
    if numbers < REDIS_VERSION_MIN:
        wanted = ".".join(str(number) for number in REDIS_VERSION_MIN)
        return Finding(Level.BAD, "redis version", f"{facts.version}: upgrade to {wanted} or later.")
    return Finding(Level.OK, "redis version", f"{facts.version}.")


def _eviction(facts: StoreFacts) -> Finding:
    subject = "redis eviction"
    if facts.eviction is None:
        return Finding(
            Level.WARN, subject, "the server does not tell its maxmemory-policy; see that it is not allkeys-*."
        )
    if facts.eviction.startswith("allkeys"):
        said = "may evict the invalidation log and the lasting counters; set maxmemory-policy to volatile-ttl."
        return Finding(Level.WARN, subject, f"{facts.eviction} {said}")
    full = "nothing new is kept when memory is full" if facts.eviction == "noeviction" else "entries make room"
    return Finding(Level.OK, subject, f"{facts.eviction}: {full}, invalidations hold either way.")


def _persistence(facts: StoreFacts) -> Finding:
    subject = "redis persistence"
    if facts.append_only is None:
        return Finding(Level.WARN, subject, "the server does not tell whether it keeps an append-only file.")
    if facts.append_only:
        return Finding(Level.OK, subject, "append-only file: the cache and its counters survive a restart of Redis.")
    said = "no append-only file: a restart of Redis empties the cache and resets its counters. Set appendonly yes."
    return Finding(Level.WARN, subject, said)


def _cache(settings: Settings) -> list[Finding]:
    if not settings.cache_enabled:
        return [Finding(Level.WARN, "cache", "off by CACHE_ENABLED=false: every read asks JobNimbus.")]
    return [_consistency(settings, instance) for instance in settings.instances]


def _consistency(settings: Settings, instance: str) -> Finding:
    subject = f"consistency of {instance}"
    mode = settings.cache_consistency
    if not settings.takes_webhooks(instance):
        if not settings.catches_up(instance):
            said = "ttl: neither a webhook nor catch-up tells of changes made in JobNimbus, so lifetimes are the only "
            return Finding(Level.WARN, subject, said + "bound on how old an answer is; see webhooks.")
        said = f"{mode.value}, but no webhook secret is set: {_by_catch_up(settings)}; see webhooks."
        return Finding(Level.WARN, subject, said)
    if settings.consistency_overrides:
        kinds = ", ".join(
            f"{entity}{'' if operation is None else ' ' + operation} {one.value}"
            for (entity, operation), one in sorted(settings.consistency_overrides.items(), key=str)
        )
        return Finding(Level.OK, subject, f"{mode.value}: {_PROMISES[mode]} Otherwise: {kinds}.")
    return Finding(Level.OK, subject, f"{mode.value}: {_PROMISES[mode]}")


_NONE_OLDER = "no read that starts after a webhook was answered returns older data."
_PROMISES = {
    Mode.STRICT: _NONE_OLDER,
    Mode.BARRIER: _NONE_OLDER,
    Mode.BOUNDED: "no read that starts 2 s after a webhook was answered returns older data.",
    Mode.ANY: "an answer may be older than a webhook, and says so.",
}


def _by_catch_up(settings: Settings) -> str:
    every_s = settings.catch_up_interval_s
    return f"a change made in JobNimbus is learnt of by catch-up alone, up to {every_s} s later"


def _api(settings: Settings) -> Finding:
    url = urlsplit(settings.jobnimbus_api_base_url)
    subject = "jobnimbus"
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        said = "is asked without TLS, so anybody on the way can read the keys; use https in JOBNIMBUS_API_BASE_URL."
        return Finding(Level.BAD, subject, f"{settings.jobnimbus_api_base_url} {said}")
    default = str(Settings.model_fields["jobnimbus_api_base_url"].default)
    if settings.jobnimbus_api_base_url != default:
        said = "is asked instead of JobNimbus itself; unset JOBNIMBUS_API_BASE_URL if that is not meant."
        return Finding(Level.WARN, subject, f"{settings.jobnimbus_api_base_url} {said}")
    return Finding(Level.OK, subject, f"{default} will be asked.")


async def _keys(settings: Settings, probes: Probes) -> list[Finding]:
    return list(await asyncio.gather(*(_key(settings, probes, instance) for instance in settings.instances)))


async def _key(settings: Settings, probes: Probes, instance: str) -> Finding:
    subject = f"key of {instance}"
    if instance not in settings.api_keys:
        variable = "JOBNIMBUS_API_KEY"
        if len(settings.instances) > 1:
            variable += "_" + instance.upper().replace("-", "_")
        said = f"none: every request must bring one, and background work is off. Set {variable} to change that."
        return Finding(Level.WARN, subject, said)
    digest = f"partition digest {probes.digest(instance)}"
    try:
        await asyncio.wait_for(probes.check_key(instance), PROBE_BOUND_S)
    except UpstreamUnauthorized:
        said = f"JobNimbus refuses it ({digest}); make a new one in JobNimbus under Settings, API."
        return Finding(Level.BAD, subject, said)
    except (ProjectError, TimeoutError) as unsaid:
        why = unsaid.code if isinstance(unsaid, ProjectError) else "no answer in time"
        said = f"JobNimbus could not be asked ({why}; {digest}); check JOBNIMBUS_API_BASE_URL and the network."
        return Finding(Level.BAD, subject, said)
    return Finding(Level.OK, subject, f"JobNimbus accepts it; {digest}.")


async def _webhooks(settings: Settings, probes: Probes) -> list[Finding]:
    if not settings.webhooks_enabled:
        unheard = [instance for instance in settings.instances if not settings.catches_up(instance)]
        if not unheard:
            return [Finding(Level.WARN, "webhooks", f"off (503): {_by_catch_up(settings)}. Set WEBHOOK_SECRET.")]
        of = "" if len(unheard) == len(settings.instances) else f" of {', '.join(unheard)}"
        said = f"off (503): no change made in JobNimbus{of} is learnt of, so a lifetime is the only bound of staleness."
        return [Finding(Level.WARN, "webhooks", f"{said} Set WEBHOOK_SECRET.")]
    if not any(settings.store_url_of(instance) for instance in settings.instances):
        return [Finding(Level.OK, "webhooks", "on; ask the server's get_webhooks what has been received.")]
    return list(await asyncio.gather(*(_deliveries(settings, probes, instance) for instance in settings.instances)))


async def _deliveries(settings: Settings, probes: Probes, instance: str) -> Finding:
    subject = f"webhooks of {instance}"
    if not settings.takes_webhooks(instance):
        variable = f"WEBHOOK_SECRET_{instance.upper().replace('-', '_')}"
        said = f"no secret opens them: set {variable}, or WEBHOOK_SECRET for all accounts."
        return Finding(Level.WARN, subject, said)
    try:
        age_s = await asyncio.wait_for(probes.last_webhook_age_s(instance), PROBE_BOUND_S)
    except (ProjectError, TimeoutError) as unsaid:
        why = unsaid.code if isinstance(unsaid, ProjectError) else "no answer in time"
        return Finding(Level.WARN, subject, f"on; what was received could not be read ({why}).")
    if age_s is None:
        said = "on, and none received yet: enter the URLs that get_webhooks tells in JobNimbus's automations."
        return Finding(Level.WARN, subject, said)
    return Finding(Level.OK, subject, f"on; the last one came {ago(age_s)} ago.")
