"""Says which server is to be asked, where that changes: the master that Sentinels name, or the node of a cluster that
has a tenant's slot. Both are found by the library; all of a tenant's keys are in one slot, so one node is all it needs.

Never a replica, not even for reads: replication is asynchronous, so a replica may not have an invalidation yet that was
acknowledged a moment ago, and would answer with what it was about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobnimbus_mcp.cache.address import Place

__all__ = ["ClusterLocator", "Locator", "NotLocated", "SentinelLocator"]

ANSWER_S = 0.5
"""How long one Sentinel or node is waited for before the next is asked: little of a failover's time, and many times
what one that is alive takes."""


_LATE_S = 0.15
"""How long others are waited for once one has named a master: little of a command's patience, and many times what one
that is alive takes."""


class NotLocated(RedisConnectionError):
    """Nobody said where the server is."""


class Locator(Protocol):
    """`watch_s`: how often to ask although nothing fails; None: a server that is no longer the one says so itself."""

    @property
    def watch_s(self) -> float | None: ...

    async def locate(self, failed: Place | None, hint: Exception | None) -> Place:
        """Where the server is. `failed`: where it was, and does not answer as it should, lately by `hint`.

        Raises:
            RedisError, OSError: nobody could say.
        """
        ...

    async def aclose(self) -> None: ...


class SentinelLocator:
    """Asks all Sentinels and believes the one that knows of the latest failover. `options`: of the connections to them,
    TLS and credentials included.

    A master that was cut off or frozen while another was made does not know it, and answers as it did; so does a
    Sentinel that was cut off with it. So the Sentinels are asked again each second, and what most recently was agreed
    on counts, not what the old ones say.
    """

    watch_s: float | None = 1.0

    def __init__(self, places: Sequence[Place], master: str, options: Mapping[str, Any]) -> None:
        self._master = master
        self._sentinel = Sentinel(places, sentinel_kwargs=_bounded(options))  # type: ignore[no-untyped-call]  # redis-py has no types

    async def locate(self, failed: Place | None, hint: Exception | None) -> Place:
        asked = [asyncio.ensure_future(self._masters(sentinel)) for sentinel in self._sentinel.sentinels]
        pending = set(asked)
        named: dict[int, Place] = {}
        errors: list[BaseException] = []
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=_LATE_S if named else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for one in done:
                    error = one.exception()
                    if error is not None:
                        errors.append(error)
                        continue
                    state = one.result().get(self._master)
                    if state and self._sentinel.check_master_state(state, self._master):
                        named[int(state["config-epoch"])] = (str(state["ip"]), int(state["port"]))
        finally:
            for one in pending:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not named:
            refused = (error for error in errors if not isinstance(error, (RedisConnectionError, RedisTimeoutError)))
            raise next(refused, MasterNotFoundError("no master found"))
        return named[max(named)]

    async def aclose(self) -> None:
        await self._sentinel.aclose()

    async def _masters(self, sentinel: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await sentinel.sentinel_masters()
        return found


class ClusterLocator:
    """Asks the cluster for the node of `tenant`'s slot. `places`: some of its nodes; it tells the others itself.

    A node that lost the slot says so (MOVED), also one that was cut off: it stops answering within the node time-out.
    """

    watch_s: float | None = None

    def __init__(self, places: Sequence[Place], tenant: str, options: Mapping[str, Any]) -> None:
        self._places = tuple(places)
        self._slot = key_slot(tenant.encode())
        self._options = _bounded(options)
        self._known: tuple[Place, ...] = ()
        self._cluster: RedisCluster | None = None

    async def locate(self, failed: Place | None, hint: Exception | None) -> Place:
        if self._cluster is None:
            nodes = [ClusterNode(host, port) for host, port in dict.fromkeys((*self._known, *self._places))]
            self._cluster = RedisCluster(startup_nodes=nodes, **self._options)
        manager = self._cluster.nodes_manager
        try:
            if isinstance(hint, MovedError) and hint.host and self._slot in manager.slots_cache:
                await manager.move_slot(hint)
            else:
                # The one that failed is asked last: frozen, it would cost its time-out.
                await manager.initialize(last_failed_node_name=None if failed is None else f"{failed[0]}:{failed[1]}")
            node = manager.get_node_from_slot(self._slot)
        except RedisClusterException as error:
            # What is known of it may be outdated as a whole: the next time begins with the given nodes as well.
            await self.aclose()
            raise RedisConnectionError(type(error).__name__) from error
        self._known = tuple((str(known.host), int(known.port)) for known in manager.nodes_cache.values())
        return str(node.host), int(node.port)

    async def aclose(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.nodes_manager.aclose()
            await cluster.nodes_manager.aclose("startup_nodes")


def _bounded(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **options,
        "protocol": 3,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": ANSWER_S,
    }
