"""Asks a Redis about itself, for doctor."""

from __future__ import annotations

import time
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.doctor import StoreAway, StoreFacts

__all__ = ["store_facts"]


async def store_facts(url: str, *, timeout_s: float = 5.0) -> StoreFacts:
    """The facts of the server at `url`, each command bounded by `timeout_s`: generous, for doctor measures as well.

    Raises:
        StoreAway: not reachable, or it refuses the credentials; the message holds neither.
    """
    client = redis.asyncio.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), protocol=3
    )
    try:
        await client.ping()
        # the second one, on an open connection, is what a call pays
        began = time.perf_counter()
        await client.ping()
        ping_ms = (time.perf_counter() - began) * 1_000
        info = await _info(client)
    except AuthenticationError as refused:
        raise StoreAway("it refuses the password") from refused
    except RedisTimeoutError as late:
        raise StoreAway("no answer in time") from late
    except (RedisError, OSError) as failed:
        raise StoreAway(type(failed).__name__) from failed
    finally:
        await client.aclose()
    return StoreFacts(
        version=str(info.get("valkey_version") or info.get("redis_version") or "unknown"),
        ping_ms=ping_ms,
        eviction=info.get("maxmemory_policy"),
        memory_max_bytes=info.get("maxmemory"),
        append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
    )


async def _info(client: redis.asyncio.Redis) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await client.info()
    except ResponseError:
        return {}  # managed services may refuse INFO; what it would have told is then "does not tell"
    return answer
