"""Asks a Redis about itself, for doctor."""

from __future__ import annotations

import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.cache.address import Address, Kind, parse
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.locate_redis import NotLocated
from jobnimbus_mcp.cache.pool_redis import ReadyPool
from jobnimbus_mcp.doctor import StoreAway, StoreFacts
from jobnimbus_mcp.errors import CacheUnavailable
from jobnimbus_mcp.events.keys_redis import owners_key
from jobnimbus_mcp.events.ports import RedisRunner

__all__ = ["store_facts", "workers_alive"]

_WORKER = b"w:"


async def store_facts(url: str, *, tenant: str = "default", timeout_s: float = 5.0) -> StoreFacts:
    """The facts of the server at `url`, each command bounded by `timeout_s`: generous, for doctor measures as well.

    Behind Sentinels they are the master's, in a cluster those of the node that has `tenant`'s slot.

    Raises:
        StoreAway: not reachable, or it refuses the credentials; the message holds neither.
    """
    address = parse(url)
    client = connect(
        url,
        tenant=tenant,
        max_connections=1,
        connect_timeout_s=timeout_s,
        read_timeout_s=timeout_s,
        max_retries=0,
    )
    try:
        await client.ping()
        # the second one, on an open connection, is what a call pays
        began = time.perf_counter()
        await client.ping()
        ping_ms = (time.perf_counter() - began) * 1_000
        info = await _info(client)
        found = await _found(client, address)
        user = await _user(client) or address.username
    except AuthenticationError as refused:
        raise StoreAway("it refuses the password") from refused
    except RedisTimeoutError as late:
        raise StoreAway("no answer in time") from late
    except NotLocated as lost:
        asked = "no Sentinel names its master" if address.kind is Kind.SENTINEL else "no node of the cluster answers"
        raise StoreAway(asked) from lost
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
        found=found,
        tls=address.tls is not None,
        user=user,
    )


async def workers_alive(runner: RedisRunner, tenant: str, *, timeout_s: float = 2.0) -> int:
    """How many processes act on the account's events now, by the leases they have told of.

    Raises:
        StoreAway: it could not be asked.
    """

    async def told(*command: str) -> Any:
        return await runner.blocked(command, tenants=(tenant,), within_s=timeout_s)

    try:
        seconds, microseconds = await told("TIME")
        owners = await told("HGETALL", owners_key(tenant))
    except CacheUnavailable as away:
        raise StoreAway(away.code) from away
    now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
    pairs = owners.items() if isinstance(owners, dict) else zip(owners[::2], owners[1::2], strict=True)
    ends = [value.partition(b"|")[0] for name, value in pairs if name.startswith(_WORKER)]
    return sum(int(end) > now_ms for end in ends)


async def _info(client: Redis) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await client.info()
    except ResponseError:
        return {}  # managed services may refuse INFO; what it would have told is then "does not tell"
    return answer


async def _found(client: Redis, address: Address) -> str:
    pool = client.connection_pool
    if not isinstance(pool, ReadyPool) or pool.place is None:
        return ""
    host, port = pool.place
    if address.kind is Kind.SENTINEL:
        return f"the master is {host}:{port}"
    try:
        told: Any = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # redis-py has no types
    except ResponseError:
        return f"a cluster; asked was {host}:{port}"  # not among the rights that the server needs
    return f"{told.get('cluster_size')} primaries; asked was {host}:{port}"


async def _user(client: Redis) -> str | None:
    try:
        name: Any = await client.acl_whoami()
    except ResponseError:
        return None  # not among the rights that the server needs
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
