"""doctor: a finding for each part, its level, and what it says to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobnimbus_mcp.doctor import (
    BackgroundFacts,
    EventFacts,
    EventsAway,
    Finding,
    IssuerAway,
    Level,
    Probes,
    StoreAway,
    StoreFacts,
    examine,
    is_loopback,
    worst,
)
from jobnimbus_mcp.doctor_redis import store_facts
from jobnimbus_mcp.errors import CacheUnavailable, ProjectError, UpstreamTimeout, UpstreamUnauthorized
from jobnimbus_mcp.events.ports import Lag
from jobnimbus_mcp.events.watermark import Loss
from jobnimbus_mcp.settings import Settings

KEY = "k3y-of-the-account-0001"
TOKEN = "t0ken-of-the-test-00001"
GOOD = StoreFacts(version="7.0.15", ping_ms=0.3, eviction="volatile-ttl", memory_max_bytes=0, append_only=True)
FULL = {
    "REDIS_URL": "redis://:pa55word-of-redis@cache:6379",
    "JOBNIMBUS_API_KEY": KEY,
    "MCP_AUTH_TOKENS": TOKEN,
    "ADMIN_TOKEN": TOKEN[::-1],
    "WEBHOOK_SECRET": TOKEN * 2,
}


NOW = 1_790_000_000.0
CALM = EventFacts(durable=True, lags={"settle": Lag(0, 2, 0.0, 0), "notify": Lag(1, 0, 0.2, 0)}, workers=1)
POLLED = BackgroundFacts(now=NOW, polled_at=NOW - 40, swept_at=NOW - 3_600, loss=Loss(1, 99))


def probes(
    store: StoreFacts | Exception = GOOD,
    key: Exception | None = None,
    webhook_age_s: float | Exception | None = 30,
    events: EventFacts | Exception = CALM,
    background: BackgroundFacts | Exception = POLLED,
    issuer_keys: int | Exception = 2,
) -> Probes:
    async def ask_store(_instance: str) -> StoreFacts:
        if isinstance(store, Exception):
            raise store
        return store

    async def check_key(_instance: str) -> None:
        if key is not None:
            raise key

    async def last_webhook_age_s(_instance: str) -> float | None:
        if isinstance(webhook_age_s, Exception):
            raise webhook_age_s
        return webhook_age_s

    async def ask_events(_instance: str) -> EventFacts:
        if isinstance(events, Exception):
            raise events
        return events

    async def ask_background(_instance: str) -> BackgroundFacts:
        if isinstance(background, Exception):
            raise background
        return background

    async def ask_issuer() -> int:
        if isinstance(issuer_keys, Exception):
            raise issuer_keys
        return issuer_keys

    return Probes(
        store=ask_store,
        check_key=check_key,
        digest=lambda _instance: "0a" * 16,
        last_webhook_age_s=last_webhook_age_s,
        events=ask_events,
        background=ask_background,
        issuer=ask_issuer,
    )


async def finding(env: dict[str, str], subject: str, asked: Probes) -> Finding:
    (one,) = [one for one in await examine(Settings.from_env(env), asked) if one.subject == subject]
    return one


async def test_all_is_well_when_everything_is_set_and_answers() -> None:
    findings = await examine(Settings.from_env(FULL), probes())
    assert {one.level for one in findings} == {Level.OK}
    assert worst(findings) is Level.OK


async def test_nothing_set_works_and_says_what_is_off() -> None:
    findings = await examine(Settings.from_env({}), probes())
    off = {one.subject: one.sentence for one in findings if one.level is Level.WARN}
    assert off.keys() == {
        *("store", "consistency of default", "key of default", "admin", "webhooks"),
        *("events of default", "catch-up, sweep and warming of default"),
    }
    assert "REDIS_URL" in off["store"]
    assert "JOBNIMBUS_API_KEY" in off["key of default"]
    assert "ADMIN_TOKEN" in off["admin"]
    assert "WEBHOOK_SECRET" in off["webhooks"]
    assert off["consistency of default"].startswith("ttl: ")
    assert "lifetimes are the only bound" in off["consistency of default"]
    assert worst(findings) is Level.WARN


@pytest.mark.parametrize(
    ("env", "asked", "subject", "level", "said"),
    [
        ({}, probes(StoreAway("no answer in time")), "redis", Level.BAD, "no answer in time"),
        ({}, probes(StoreFacts("7.0.15", 80.0)), "redis", Level.WARN, "REDIS_COMMAND_TIMEOUT_MS=100"),
        ({}, probes(StoreFacts("5.0.7", 0.1)), "redis version", Level.BAD, "6.2 or later"),
        ({}, probes(StoreFacts("unknown", 0.1)), "redis version", Level.WARN, "does not tell its version"),
        ({}, probes(StoreFacts("8.0", 0.1, eviction="allkeys-lru")), "redis eviction", Level.WARN, "volatile-ttl"),
        ({}, probes(StoreFacts("8.0", 0.1, eviction="noeviction")), "redis eviction", Level.OK, "nothing new is kept"),
        ({}, probes(StoreFacts("8.0", 0.1)), "redis eviction", Level.WARN, "does not tell"),
        ({}, probes(StoreFacts("8.0", 0.1)), "redis persistence", Level.WARN, "does not tell"),
        ({}, probes(StoreFacts("8.0", 0.1, append_only=False)), "redis persistence", Level.WARN, "appendonly yes"),
        ({}, probes(key=UpstreamUnauthorized("no")), "key of default", Level.BAD, "refuses it"),
        ({}, probes(key=UpstreamTimeout("late")), "key of default", Level.BAD, "upstream_timeout"),
        ({}, probes(), "key of default", Level.OK, "0a" * 16),
        ({"MCP_AUTH_TOKENS": ""}, probes(), "callers", Level.BAD, "--insecure-loopback"),
        ({"ADMIN_TOKEN": TOKEN}, probes(), "admin", Level.WARN, "every caller is an administrator"),
        ({}, probes(webhook_age_s=None), "webhooks of default", Level.WARN, "get_webhooks"),
        ({}, probes(webhook_age_s=CacheUnavailable("x")), "webhooks of default", Level.WARN, "cache_unavailable"),
        ({}, probes(webhook_age_s=7_300), "webhooks of default", Level.OK, "2 hours ago"),
        ({"CACHE_ENABLED": "false"}, probes(), "cache", Level.WARN, "CACHE_ENABLED"),
        ({"JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1"}, probes(), "jobnimbus", Level.WARN, "instead of"),
        ({"JOBNIMBUS_API_BASE_URL": "http://crm.example.com"}, probes(), "jobnimbus", Level.BAD, "without TLS"),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_change(
    env: dict[str, str], asked: Probes, subject: str, level: Level, said: str
) -> None:
    told = await finding(FULL | env, subject, asked)
    assert (told.level, said in told.sentence) == (level, True), told


OTHER_TOKEN = "t0ken-of-somebody-0002"
CLIENTS = json.dumps(
    [
        {"name": "ana", "token": OTHER_TOKEN, "read_only": True, "requests_per_minute": 60},
        {
            "name": "zap",
            "token": "t0ken-of-another-0003",
            "instances": ["default"],
            "toolsets": ["work", "crm"],
            "tools": ["get_users"],
            "requests_per_minute": 0,
        },
        {"name": "ops", "token": "t0ken-of-the-third-04"},
    ]
)
NAMED = {"MCP_AUTH_TOKENS": "", "MCP_CLIENTS": CLIENTS}
OAUTH = {
    "MCP_AUTH_TOKENS": "",
    "OAUTH_ISSUER_URL": "https://issuer.example.com",
    "OAUTH_RESOURCE_URL": "https://mcp.example.com/mcp",
    "ALLOWED_HOSTS": "mcp.example.com",
}


@pytest.mark.parametrize(
    ("env", "asked", "subject", "level", "sentence"),
    [
        ({"MCP_AUTH_TOKENS": f"{TOKEN},{OTHER_TOKEN}"}, probes(), "callers", Level.OK, "2 bearer token(s) open /mcp."),
        (
            NAMED,
            probes(),
            "clients",
            Level.OK,
            (
                "3 in MCP_CLIENTS: ana (read-only; 60 requests a minute), zap (accounts default; toolsets crm+work; "
                "tools get_users; no limit of requests), ops."
            ),
        ),
        (
            NAMED | {"ADMIN_TOKEN": OTHER_TOKEN},
            probes(),
            "admin",
            Level.WARN,
            "ADMIN_TOKEN is also the token of ana in MCP_CLIENTS, who is an administrator so; use another.",
        ),
        (
            OAUTH,
            probes(issuer_keys=3),
            "oauth",
            Level.OK,
            "access tokens of https://issuer.example.com for https://mcp.example.com/mcp open /mcp; it tells 3 key(s).",
        ),
        (
            OAUTH,
            probes(issuer_keys=IssuerAway("status 503")),
            "oauth",
            Level.BAD,
            (
                "the keys of https://issuer.example.com cannot be had (status 503), so no access token opens anything; "
                "start it, or correct OAUTH_ISSUER_URL or OAUTH_JWKS_URL."
            ),
        ),
        (
            OAUTH,
            probes(issuer_keys=TimeoutError()),
            "oauth",
            Level.BAD,
            (
                "the keys of https://issuer.example.com cannot be had (no answer in time), so no access token opens "
                "anything; start it, or correct OAUTH_ISSUER_URL or OAUTH_JWKS_URL."
            ),
        ),
        (
            OAUTH,
            probes(issuer_keys=0),
            "oauth",
            Level.BAD,
            (
                "https://issuer.example.com tells no key that tokens may be signed with here (RS256, PS256, ES256 or "
                "EdDSA)."
            ),
        ),
        ({}, probes(), "writes", Level.OK, "on; MCP_READ_ONLY=true takes them away."),
        (
            NAMED | OAUTH,
            probes(),
            "writes",
            Level.OK,
            (
                "on to all but 1 client(s) of MCP_CLIENTS and access tokens without jobnimbus:write; "
                "MCP_READ_ONLY=true takes them away."
            ),
        ),
        (
            {"MCP_READ_ONLY": "true"},
            probes(),
            "writes",
            Level.OK,
            "off by MCP_READ_ONLY: nobody changes JobNimbus through this server.",
        ),
        (
            {"MCP_TOOLSETS": "sales,crm"},
            probes(),
            "toolsets",
            Level.OK,
            "tools/list shows crm+sales (MCP_TOOLSETS); find_tools and use_tool lead to the others.",
        ),
        ({"MCP_TOOLSETS": "all"}, probes(), "toolsets", Level.OK, "tools/list shows every tool (MCP_TOOLSETS)."),
        (
            {"CALLER_MAX_REQUESTS_PER_MINUTE": "120"},
            probes(),
            "calls per caller",
            Level.OK,
            "at most 120 a minute (CALLER_MAX_REQUESTS_PER_MINUTE), then 429.",
        ),
        ({}, probes(), "calls per caller", Level.OK, "no limit; CALLER_MAX_REQUESTS_PER_MINUTE sets one."),
        *(
            (
                env,
                probes(),
                "calls per caller",
                Level.WARN,
                (
                    "no limit, so one of several callers can use up an account's request budget. Set "
                    "CALLER_MAX_REQUESTS_PER_MINUTE."
                ),
            )
            for env in (OAUTH, {"MCP_CLIENTS": CLIENTS}, {"MCP_AUTH_TOKENS": f"{TOKEN},{OTHER_TOKEN}"})
        ),
    ],
)
async def test_who_may_call_is_told_and_no_token(
    env: dict[str, str], asked: Probes, subject: str, level: Level, sentence: str
) -> None:
    assert await finding(FULL | env, subject, asked) == Finding(level, subject, sentence)


@pytest.mark.parametrize("door", [NAMED, OAUTH])
async def test_a_server_with_a_door_of_any_kind_is_not_said_to_refuse_to_start(door: dict[str, str]) -> None:
    settings = Settings.from_env(FULL | door)
    findings = await examine(settings, probes())
    assert {one.level for one in findings if one.subject == "callers"} == set()
    assert not [one for one in findings if "refuses to start" in one.sentence]


async def test_of_many_clients_the_first_ten_are_named() -> None:
    many = ",".join(f'{{"name": "c{number}", "token": "t0ken-of-many-{number:06}"}}' for number in range(13))
    told = await finding(FULL | {"MCP_CLIENTS": f"[{many}]"}, "clients", probes())
    named = ", ".join(f"c{number}" for number in range(10))
    assert told.sentence == f"13 in MCP_CLIENTS: {named}, and 3 more."


async def test_an_issuer_is_not_asked_where_there_is_none() -> None:
    findings = await examine(Settings.from_env(FULL), probes(issuer_keys=AssertionError("asked")))
    assert not [one for one in findings if one.subject == "oauth"]


POSTGRES = {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "postgresql://u:pa55word-of-pg@db/events"}
KAFKA = {"EVENTS_TRANSPORT": "kafka", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}


def lagging(**lag: Any) -> EventFacts:
    """`settle` behind, `notify` calm."""
    return replace(CALM, lags={"settle": Lag(0, 0, 0.0, 0)._replace(**lag), "notify": Lag(0, 0, 0.0, 0)})


@pytest.mark.parametrize(
    ("env", "facts", "subject", "level", "said"),
    [
        ({}, CALM, "events of default", Level.OK, "keeps them over a restart"),
        ({}, replace(CALM, durable=False), "events of default", Level.WARN, "(DATA_DIR); set appendonly yes."),
        ({}, replace(CALM, durable=None), "events of default", Level.WARN, "set appendonly yes."),
        (POSTGRES, CALM, "events of default", Level.OK, "the PostgreSQL of DATABASE_URL, which keeps them"),
        (POSTGRES, replace(CALM, durable=False), "events of default", Level.WARN, "synchronous_commit on"),
        (KAFKA, CALM, "events of default", Level.OK, "the brokers of KAFKA_BOOTSTRAP_SERVERS, which keep"),
        ({}, EventsAway("timeout"), "events of default", Level.BAD, "the stream in Redis cannot be used: timeout."),
        (KAFKA, EventsAway("install x[kafka]"), "events of default", Level.BAD, "cannot be used: install x[kafka]."),
        (POSTGRES, TimeoutError(), "events of default", Level.BAD, "cannot be used: no answer in time."),
        ({}, CALM, "lag of default", Level.OK, "1 events wait for notify; 2 wait for their time (2 consumers)."),
        ({}, lagging(due=3), "lag of default", Level.OK, "3 events wait for settle; 0"),
        ({}, lagging(due=100), "lag of default", Level.OK, "100 events wait for settle"),
        ({}, lagging(delayed=5_000), "lag of default", Level.OK, "no event waits; 5000 wait for their time"),
        ({}, lagging(due=101), "lag of default", Level.WARN, "101 events wait for settle; add a"),
        ({}, lagging(due=1, oldest_s=300), "lag of default", Level.WARN, "has waited 5 minutes for settle"),
        (
            {},
            lagging(dead=3),
            "dead letters of default",
            Level.WARN,
            "3 (settle 3); see why with `jobnimbus-mcp events",
        ),
        ({}, replace(CALM, workers=0), "consumers of default", Level.WARN, "no process acts on events now: start"),
        ({}, replace(CALM, lags={}), "consumers of default", Level.WARN, "nobody has ever registered"),
        (POSTGRES, replace(CALM, lags=None), "consumers of default", Level.WARN, "nobody has ever registered"),
    ],
)
async def test_the_event_log_is_told_of_with_what_to_change(
    env: dict[str, str], facts: EventFacts | Exception, subject: str, level: Level, said: str
) -> None:
    told = await finding(FULL | env, subject, probes(events=facts))
    assert (told.level, said in told.sentence) == (level, True), told


async def test_a_log_that_cannot_tell_its_workers_is_not_taken_to_have_none() -> None:
    findings = await examine(Settings.from_env(FULL), probes(events=replace(CALM, workers=None)))
    assert not [one for one in findings if one.subject.startswith(("consumers", "dead letters"))]


async def test_events_in_memory_are_not_asked_for_and_said_to_end_with_the_process() -> None:
    told = await finding({}, "events of default", probes(events=EventsAway("not to be asked")))
    assert (told.level, "Set REDIS_URL" in told.sentence) == (Level.WARN, True)


@pytest.mark.parametrize(
    ("env", "facts", "subject", "level", "said"),
    [
        ({}, POLLED, "catch-up of default", Level.OK, "on, every 60 s; the last round was 40 s ago."),
        ({}, replace(POLLED, polled_at=None), "catch-up of default", Level.OK, "not begun yet"),
        ({}, replace(POLLED, polled_at=NOW - 7_200), "catch-up of default", Level.WARN, "last round was 2 hours ago"),
        ({"CATCH_UP_INTERVAL_S": "7200"}, replace(POLLED, polled_at=NOW - 7_200), "catch-up of default", Level.OK, ""),
        ({"CATCH_UP_INTERVAL_S": "0"}, POLLED, "catch-up of default", Level.WARN, "off by CATCH_UP_INTERVAL_S=0"),
        ({}, POLLED, "webhook loss of default", Level.OK, "1.0% of 100 changes in 24 hours"),
        ({}, replace(POLLED, loss=Loss(5, 95)), "webhook loss of default", Level.OK, "5.0% of 100"),
        ({}, replace(POLLED, loss=Loss(6, 94)), "webhook loss of default", Level.WARN, "get_webhooks"),
        ({}, POLLED, "sweep of default", Level.OK, "on, every 24 hours; due in 23 hours."),
        ({}, replace(POLLED, swept_at=NOW - 90_000), "sweep of default", Level.OK, "due now"),
        ({}, replace(POLLED, swept_at=NOW - 3 * 86_400), "sweep of default", Level.WARN, "overdue for 2 days"),
        ({}, replace(POLLED, swept_at=None), "sweep of default", Level.OK, "not begun yet"),
        ({"SWEEP_INTERVAL_S": "0"}, POLLED, "sweep of default", Level.WARN, "off by SWEEP_INTERVAL_S=0"),
        ({}, CacheUnavailable("x"), "catch-up and sweep of default", Level.WARN, "(cache_unavailable)"),
        ({}, POLLED, "warming of default", Level.OK, "on: after changes, and every 60 minutes"),
        ({"CACHE_WARM_EVERY_S": "0"}, POLLED, "warming of default", Level.OK, "off by CACHE_WARM_EVERY_S=0"),
        ({"CACHE_ENABLED": "false"}, POLLED, "warming of default", Level.WARN, "CACHE_ENABLED"),
    ],
)
async def test_what_goes_on_in_the_background_is_told_of(
    env: dict[str, str], facts: BackgroundFacts | ProjectError, subject: str, level: Level, said: str
) -> None:
    told = await finding(FULL | env, subject, probes(background=facts))
    assert (told.level, said in told.sentence) == (level, True), told


async def test_no_loss_is_told_of_before_anything_has_changed() -> None:
    findings = await examine(Settings.from_env(FULL), probes(background=replace(POLLED, loss=Loss(0, 0))))
    assert not [one for one in findings if one.subject.startswith("webhook loss")]


async def test_without_a_key_of_the_servers_own_nothing_goes_on_in_the_background() -> None:
    env = {name: value for name, value in FULL.items() if name != "JOBNIMBUS_API_KEY"}
    told = await finding(
        env, "catch-up, sweep and warming of default", probes(background=CacheUnavailable("not asked"))
    )
    assert (told.level, told.sentence.startswith("off: ")) == (Level.WARN, True)


async def test_catch_up_alone_is_counted_as_hearing_of_changes() -> None:
    told = {one.subject: one for one in await examine(Settings.from_env({"JOBNIMBUS_API_KEY": KEY}), probes())}
    learnt = "a change made in JobNimbus is learnt of by catch-up alone, up to 60 s later"
    for subject, said in (
        ("consistency of default", f"barrier, but no webhook secret is set: {learnt}; see webhooks."),
        ("webhooks", f"off (503): {learnt}. Set WEBHOOK_SECRET."),
    ):
        assert (told[subject].level, told[subject].sentence) == (Level.WARN, said)


async def test_without_webhooks_and_catch_up_nothing_is_learnt_and_of_whom_is_said() -> None:
    off = {"JOBNIMBUS_API_KEY": KEY, "CATCH_UP_INTERVAL_S": "0"}
    assert (await finding(off, "consistency of default", probes())).sentence.startswith("ttl: neither a webhook nor")
    assert "no change made in JobNimbus is learnt of" in (await finding(off, "webhooks", probes())).sentence
    one_key = {"JOBNIMBUS_INSTANCES": "stamford,guilford", "JOBNIMBUS_API_KEY_STAMFORD": KEY}
    told = await finding(one_key, "webhooks", probes())
    assert "no change made in JobNimbus of guilford is learnt of" in told.sentence
    assert (await finding(one_key, "consistency of stamford", probes())).sentence.startswith("barrier, but")
    assert (await finding(one_key, "consistency of guilford", probes())).sentence.startswith("ttl: ")


async def test_on_the_embedded_store_polling_is_on_and_nobody_is_asked_how_far_it_is() -> None:
    env = {"JOBNIMBUS_API_KEY": KEY}
    told = await finding(env, "catch-up of default", probes(background=CacheUnavailable("not asked")))
    assert (told.level, told.sentence) == (Level.OK, "on, every 60 s while a server runs.")


TARGETS = (
    '[{"name": "zaps", "url": "https://hooks.example.com/catch/s3cret-path?token=s3cret-query", "events": ["job.*"]}]'
)
RELAYED = {"RELAY_TARGETS": TARGETS, "RELAY_SIGNING_SECRET": "s3cret-of-the-relay-01"}


@pytest.mark.parametrize(
    ("env", "subject", "level", "said"),
    [
        ({}, "relay", Level.OK, "RELAY_TARGETS"),
        (RELAYED, "relay to zaps", Level.OK, "hooks.example.com is told of job.*, signed."),
        (
            RELAYED
            | {"RELAY_TARGETS": TARGETS.replace("https://hooks.example.com", "http://10.1.2.3")}
            | {"RELAY_ALLOW_PRIVATE": "true"},
            "relay to zaps",
            Level.WARN,
            "10.1.2.3 is told without TLS",
        ),
        (
            RELAYED | {"RELAY_ALLOW_PRIVATE": "true", "ALLOWED_HOSTS": "mcp.example.com"},
            "relay",
            Level.WARN,
            "RELAY_ALLOW_PRIVATE lets a target reach into your own network",
        ),
    ],
)
async def test_relay_targets_are_told_by_name_and_host_alone(
    env: dict[str, str], subject: str, level: Level, said: str
) -> None:
    findings = await examine(Settings.from_env(FULL | env), probes())
    (told,) = [one for one in findings if one.subject == subject]
    assert (told.level, said in told.sentence) == (level, True), told
    assert "s3cret" not in repr(findings)


async def test_private_targets_of_a_server_that_only_this_machine_asks_are_no_worry() -> None:
    findings = await examine(Settings.from_env(FULL | RELAYED | {"RELAY_ALLOW_PRIVATE": "true"}), probes())
    assert {one.level for one in findings if "relay" in one.subject} == {Level.OK}


async def test_accounts_are_told_apart() -> None:
    env = {
        "JOBNIMBUS_INSTANCES": "stamford,new-haven",
        "REDIS_URL": "redis://cache",
        "JOBNIMBUS_API_KEY_STAMFORD": KEY,
        "WEBHOOK_SECRET_STAMFORD": TOKEN,
    }
    assert (await finding(env, "key of stamford", probes())).level is Level.OK
    assert "JOBNIMBUS_API_KEY_NEW_HAVEN" in (await finding(env, "key of new-haven", probes())).sentence
    assert (await finding(env, "webhooks of stamford", probes())).level is Level.OK
    assert "WEBHOOK_SECRET_NEW_HAVEN" in (await finding(env, "webhooks of new-haven", probes())).sentence
    promised, bounded = [await finding(env, f"consistency of {name}", probes()) for name in ("stamford", "new-haven")]
    assert (promised.level, promised.sentence.partition(":")[0]) == (Level.OK, "barrier")
    assert (bounded.level, bounded.sentence.partition(":")[0]) == (Level.WARN, "ttl")


@pytest.mark.parametrize("variable", ["WEBHOOK_SECRET", "WEBHOOK_SECRET_DEFAULT", "WEBHOOK_SIGNING_SECRET"])
async def test_any_webhook_secret_of_an_account_makes_its_reads_fresh(variable: str) -> None:
    told = await finding({variable: TOKEN}, "consistency of default", probes())
    assert (told.level, told.sentence.partition(":")[0]) == (Level.OK, "barrier")


async def test_a_redis_of_an_accounts_own_is_told_of_by_itself() -> None:
    asked: list[str] = []

    async def ask_store(instance: str) -> StoreFacts:
        asked.append(instance)
        if instance == "new-haven":
            raise StoreAway("refused")
        return GOOD

    env = {"JOBNIMBUS_INSTANCES": "stamford,hamden,new-haven", "REDIS_URL": "redis://cache"}
    env |= {"REDIS_URL_NEW_HAVEN": "redis://other"}
    found = await examine(Settings.from_env(env), replace(probes(), store=ask_store))
    told = {one.subject: one for one in found}
    assert asked == ["stamford", "new-haven"]
    assert told["redis of stamford, hamden"].level is Level.OK
    assert (told["redis of new-haven"].level, "redis://other" in told["redis of new-haven"].sentence) == (
        Level.BAD,
        True,
    )


async def test_a_journal_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    told = await finding(FULL | {"DATA_DIR": str(in_the_way / "data")}, "journal", probes())
    assert (told.level, "DATA_DIR" in told.sentence) == (Level.BAD, True)
    (tmp_path / "made" / "journal").parent.mkdir()
    (tmp_path / "made" / "journal").touch()
    told = await finding(FULL | {"DATA_DIR": str(tmp_path / "made")}, "journal", probes())
    assert told.level is Level.BAD
    told = await finding(FULL | {"DATA_DIR": str(tmp_path / "not" / "yet")}, "journal", probes())
    assert told.level is Level.OK


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"CACHE_CONSISTENCY": "bounded"}, "bounded: no read that starts 2 s after"),
        ({"CACHE_CONSISTENCY_JOBS_LIST": "any"}, "Otherwise: jobs list any."),
    ],
)
async def test_a_weaker_promise_is_told_as_what_it_is(env: dict[str, str], said: str) -> None:
    assert said in (await finding(FULL | env, "consistency of default", probes())).sentence


async def test_no_finding_holds_a_secret() -> None:
    settings = Settings.from_env(FULL | POSTGRES | RELAYED | {"MCP_CLIENTS": CLIENTS})
    assert OTHER_TOKEN in settings.secret_values()
    for asked in (probes(), probes(StoreAway("x"), key=UpstreamTimeout("x"), events=EventsAway("x"))):
        told = repr(await examine(settings, asked))
        assert not [secret for secret in settings.secret_values() if secret in told]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_a_real_redis_tells_its_facts(redis_url: str) -> None:
    facts = await store_facts(redis_url, timeout_s=5)
    assert int(facts.version.split(".")[0]) >= 6
    assert (facts.eviction, facts.append_only) == ("noeviction", False)
    assert 0 < facts.ping_ms < 1_000


async def test_a_redis_that_is_away_or_refuses_the_password_is_told_apart(start_redis: Callable[..., Any]) -> None:
    server = start_redis("--requirepass", "pa55word")
    with pytest.raises(StoreAway, match="refuses the password"):
        await store_facts(server.url.replace("://", "://:wrong@"), timeout_s=5)
    server.stop()
    with pytest.raises(StoreAway, match="ConnectionError"):
        await store_facts(server.url, timeout_s=5)
