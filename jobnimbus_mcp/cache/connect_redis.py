"""The Redis client the way this project needs it: no retries, RESP3, bytes, and no connection used after a doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

__all__ = ["connect"]


def connect(
    address: str | Mapping[str, Any],
    *,
    max_connections: int = 40,
    connect_timeout_s: float = 10.0,
    read_timeout_s: float | None = None,
) -> Redis:
    """A client over a pool of its own; nothing is connected yet. The caller closes it with `aclose`.

    `address`: a URL (`redis://`, `rediss://`, `unix://`), or host, port, password, db and tls in a mapping.
    `read_timeout_s` None: a reply is waited for until the caller gives up, so the caller must bound every command.
    When all connections are busy a command waits for one, at most `connect_timeout_s`.

    A cancelled command's connection is closed by the library, never returned with an answer still to come. Retries are
    off: a call has no time for them, and a command may have been carried out although its answer was lost.
    """
    options: dict[str, Any] = {
        "protocol": 3,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": read_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "max_connections": max_connections,
        "timeout": connect_timeout_s,
        # On, as it is with RESP3 by default, the pool no longer looks for unread data in a connection it hands out.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if not (isinstance(address, str) and address.startswith("unix:")):
        options["socket_keepalive"] = True
    if isinstance(address, str):
        return Redis.from_pool(BlockingConnectionPool.from_url(address, **options))
    return Redis.from_pool(
        BlockingConnectionPool(
            connection_class=SSLConnection if address.get("tls") else Connection,
            host=address.get("host", "localhost"),
            port=int(address.get("port", 6379)),
            password=address.get("password") or None,
            db=int(address.get("db", 0)),
            **options,
        )
    )
