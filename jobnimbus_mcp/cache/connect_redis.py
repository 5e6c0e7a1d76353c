"""The Redis client the way this project needs it: no retries, RESP3, bytes, and no connection used after a doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from jobnimbus_mcp.cache.pool_redis import ReadyPool

__all__ = ["connect"]


def connect(
    address: str | Mapping[str, Any],
    *,
    max_connections: int = 40,
    connect_timeout_s: float = 10.0,
    max_retries: int = 3,
    read_timeout_s: float | None = None,
) -> Redis:
    """A client over a pool of its own; nothing is connected yet. The caller closes it with `aclose`.

    `address`: a URL (`redis://`, `rediss://`, `unix://`), or host, port, password, db and tls in a mapping.
    `read_timeout_s` None: a reply is waited for until the caller gives up, so the caller must bound every command.
    Connecting is never a command's own work (`ReadyPool`): `connect_timeout_s` bounds one try of it, and `max_retries`
    is how many follow a failed one. A command waits for a connected connection, at most `connect_timeout_s`.

    A cancelled command's connection is closed by the library, never returned with an answer still to come. Commands are
    not retried: a call has no time for it, and one may have been carried out although its answer was lost.
    """
    options: dict[str, Any] = {
        "protocol": 3,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": read_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "max_connections": max_connections,
        "timeout": connect_timeout_s,
        "connect_timeout_s": connect_timeout_s,
        "max_retries": max_retries,
        # On, as it is with RESP3 by default, the pool no longer looks for unread data in a connection it hands out.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if not (isinstance(address, str) and address.startswith("unix:")):
        options["socket_keepalive"] = True
    if isinstance(address, str):
        return Redis.from_pool(ReadyPool.from_url(address, **options))
    return Redis.from_pool(
        ReadyPool(
            connection_class=SSLConnection if address.get("tls") else Connection,
            host=address.get("host", "localhost"),
            port=int(address.get("port", 6379)),
            password=address.get("password") or None,
            db=int(address.get("db", 0)),
            **options,
        )
    )
