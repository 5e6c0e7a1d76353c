"""doctor over real parts: a Redis as it is set up, and JobNimbus's own word on the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobnimbus_mcp.app import doctor_probes
from jobnimbus_mcp.doctor import Finding, Level, examine
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

INSTANCE = "stamford"


def files_in(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def findings(jobnimbus: str) -> Callable[..., Any]:
    """`await findings(url, key)`: by subject, with the simulator in JobNimbus's place."""

    async def ask(redis_url: str, key: str) -> dict[str, Finding]:
        settings = Settings.from_env(
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "JOBNIMBUS_API_KEY": key,
                "REDIS_URL": redis_url,
            }
        )
        async with doctor_probes(settings) as probes:
            told = await examine(settings, probes)
        assert key not in repr(told)
        return {finding.subject: finding for finding in told}

    return ask


@pytest.mark.parametrize(
    ("arguments", "subject", "level", "said"),
    [
        ((), "redis persistence", Level.WARN, "Set appendonly yes"),
        (("--appendonly", "yes"), "redis persistence", Level.OK, "append-only file"),
        ((), "redis eviction", Level.OK, "noeviction"),
        (("--maxmemory-policy", "volatile-ttl"), "redis eviction", Level.OK, "entries make room"),
        (("--maxmemory-policy", "allkeys-lru"), "redis eviction", Level.WARN, "set maxmemory-policy to volatile-ttl"),
    ],
)
async def test_a_redis_is_told_by_how_it_is_set_up(
    start_redis: Callable[..., Any],
    findings: Callable[..., Any],
    simulator: Simulator,
    arguments: tuple[str, ...],
    subject: str,
    level: Level,
    said: str,
) -> None:
    told = (await findings(start_redis(*arguments).url, simulator.keys[INSTANCE][0]))[subject]
    assert (told.level, said in told.sentence) == (level, True), told


@pytest.mark.parametrize("away", [False, True])
async def test_asking_leaves_the_journal_as_it_is_and_makes_none(
    start_redis: Callable[..., Any], jobnimbus: str, tmp_path: Path, away: bool
) -> None:
    """It may be run by another user than the servers, who then could not write there; and with their Redis away."""
    server = start_redis()
    if away:
        server.stop()
    for kept in (None, b"left by a server\n"):
        data_dir = tmp_path / ("empty" if kept is None else "used")
        left = data_dir / "journal" / f"{INSTANCE}.1-a.jsonl"
        if kept is not None:
            left.parent.mkdir(parents=True)
            left.write_bytes(kept)
        settings = Settings.from_env(
            {
                "JOBNIMBUS_INSTANCES": INSTANCE,
                "JOBNIMBUS_API_BASE_URL": jobnimbus,
                "REDIS_URL": server.url,
                "WEBHOOK_SECRET": "s3cret-of-the-webhooks-01",
                "DATA_DIR": str(data_dir),
            }
        )
        async with doctor_probes(settings) as probes:
            told = {finding.subject: finding for finding in await examine(settings, probes)}
        assert told["redis"].level is (Level.BAD if away else Level.OK)
        assert told[f"webhooks of {INSTANCE}"].sentence.startswith("on; what" if away else "on, and none received yet")
        assert files_in(data_dir) == ({} if kept is None else {left: kept})
        assert data_dir.exists() is (kept is not None)


async def test_a_redis_that_is_away_is_bad_and_the_key_is_checked_all_the_same(
    start_redis: Callable[..., Any], findings: Callable[..., Any], simulator: Simulator
) -> None:
    server = start_redis()
    server.stop()
    async with asyncio.timeout(10):
        told = await findings(server.url, simulator.keys[INSTANCE][0])
    assert told["redis"].level is Level.BAD
    assert told[f"key of {INSTANCE}"].level is Level.OK


@pytest.mark.parametrize("profile", ["full", "restricted"])
async def test_a_key_that_jobnimbus_accepts_is_good(
    redis_url: str, findings: Callable[..., Any], simulator: Simulator, profile: str
) -> None:
    key = simulator.keys[INSTANCE][profile == "restricted"]
    assert (await findings(redis_url, key))[f"key of {INSTANCE}"].level is Level.OK


async def test_a_key_that_jobnimbus_refuses_is_bad(redis_url: str, findings: Callable[..., Any]) -> None:
    told = (await findings(redis_url, "inv3nted-key-of-nobody"))[f"key of {INSTANCE}"]
    assert told.level is Level.BAD
    assert "refuses" in told.sentence
