"""The Redis client the way this project needs it: no retries, RESP3, bytes, and no connection used after a doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from jobnimbus_mcp.cache.address import Address, Kind, parse
from jobnimbus_mcp.cache.locate_redis import ClusterLocator, Locator, SentinelLocator
from jobnimbus_mcp.cache.pool_redis import ReadyPool

__all__ = ["connect", "is_cluster", "locator_of"]


def connect(
    address: str | Mapping[str, Any],
    *,
    tenant: str | None = None,
    max_connections: int = 40,
    connect_timeout_s: float = 10.0,
    max_retries: int = 3,
    read_timeout_s: float | None = None,
    on_moved: Callable[[], None] | None = None,
) -> Redis:
    """A client over a pool of its own; nothing is connected yet. The caller closes it with `aclose`.

    `address`: a URL as `address.parse` takes it, or host, port, password, db and tls in a mapping. `tenant`: in a
    cluster the client is one tenant's, and speaks to the node of its slot; elsewhere it serves all. `on_moved`: called
    when Sentinels or the cluster named another server and it has answered.

    `read_timeout_s` None: a reply is waited for until the caller gives up, so the caller must bound every command.
    Connecting is never a command's own work (`ReadyPool`): `connect_timeout_s` bounds one try of it, and `max_retries`
    is how many follow a failed one. A command waits for a connected connection, at most `connect_timeout_s`.

    A cancelled command's connection is closed by the library, never returned with an answer still to come. Commands are
    not retried: a call has no time for it, and one may have been carried out although its answer was lost.

    Raises:
        ValueError: the address is none, or a cluster's and there is no tenant.
    """
    where = parse(address) if isinstance(address, str) else _of_parts(address)
    options: dict[str, Any] = {
        "protocol": 3,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": read_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        # On, as it is with RESP3 by default, the pool no longer looks for unread data in a connection it hands out.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # Two commands less for each connection, and two rights less for the user.
        "driver_info": None,
        "username": where.username,
        "password": where.password,
        "db": where.database,
    }
    if where.kind is Kind.SOCKET:
        options |= {"connection_class": UnixDomainSocketConnection, "path": where.path}
    else:
        tls = where.tls or {}
        options |= {"connection_class": Connection if where.tls is None else SSLConnection, "socket_keepalive": True}
        options |= tls
    if where.kind is Kind.SERVER:
        options["host"], options["port"] = where.places[0]
    pool = ReadyPool(
        max_connections=max_connections,
        connect_timeout_s=connect_timeout_s,
        max_retries=max_retries,
        timeout=connect_timeout_s,
        locator=locator_of(where, tenant),
        on_moved=on_moved,
        **options,
    )
    return _Client.from_pool(pool)


def is_cluster(url: str) -> bool:
    """Does every tenant need a client of its own?"""
    return parse(url).kind is Kind.CLUSTER


def locator_of(address: Address, tenant: str | None) -> Locator | None:
    """What says where the server is; None where the address itself does.

    Raises:
        ValueError: a cluster's, and there is no tenant.
    """
    tls = {} if address.tls is None else {"ssl": True, **address.tls}
    if address.kind is Kind.SENTINEL:
        credentials = {"username": address.sentinel_username, "password": address.sentinel_password}
        return SentinelLocator(address.places, address.master, credentials | tls)
    if address.kind is Kind.CLUSTER:
        if not tenant:
            raise ValueError("in a cluster a client is one tenant's")
        return ClusterLocator(
            address.places, tenant, {"username": address.username, "password": address.password} | tls
        )
    return None


class _Client(Redis):
    """Tells the pool also of what is answered to commands that the library carries out by itself."""

    async def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        try:
            return await super().parse_response(connection, command_name, **options)
        except RedisError as error:
            pool = self.connection_pool
            if isinstance(pool, ReadyPool):
                await pool.report(connection, error)
            raise


def _of_parts(parts: Mapping[str, Any]) -> Address:
    return Address(
        Kind.SERVER,
        places=((parts.get("host", "localhost"), int(parts.get("port", 6379))),),
        database=int(parts.get("db", 0)),
        password=parts.get("password") or None,
        tls={} if parts.get("tls") else None,
    )
