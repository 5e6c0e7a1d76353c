"""TLS: the certificate is checked, against an authority of one's own too, and all kinds of servers are reached so."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.ports import Store
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.doctor_redis import store_facts

Exercise = Callable[[Store, str], Awaitable[None]]


async def test_all_of_a_store_works_over_tls(redis_tls: Any, certificates: Any, exercise: Exercise) -> None:
    url = f"rediss://localhost:{redis_tls.tls_port}/0?ssl_ca_certs={certificates.authority}"
    client = connect(url)
    await exercise(RedisStore(client), "stamford")
    await client.aclose()
    assert (await store_facts(url)).tls is True


async def test_a_certificate_of_an_unknown_authority_is_refused(redis_tls: Any) -> None:
    client = connect(f"rediss://localhost:{redis_tls.tls_port}", max_retries=0)
    with pytest.raises(RedisConnectionError):
        await client.ping()
    await client.aclose()


async def test_a_certificate_of_another_host_is_refused_unless_told_otherwise(
    start_tls: Callable[..., Any], certificates: Any
) -> None:
    server = start_tls("--bind", "127.0.0.1", "127.0.0.2")
    url = f"rediss://127.0.0.2:{server.tls_port}?ssl_ca_certs={certificates.authority}"
    strict, lax = connect(url, max_retries=0), connect(url + "&ssl_check_hostname=false", max_retries=0)
    with pytest.raises(RedisConnectionError):
        await strict.ping()
    assert await lax.ping() is True
    await strict.aclose()
    await lax.aclose()


async def test_a_client_shows_its_own_certificate_where_one_is_wanted(
    start_tls: Callable[..., Any], certificates: Any
) -> None:
    server = start_tls("--tls-auth-clients", "yes")
    url = f"rediss://127.0.0.1:{server.tls_port}?ssl_ca_certs={certificates.authority}"
    without = connect(url, max_retries=0)
    with pytest.raises(RedisConnectionError):
        await without.ping()
    await without.aclose()
    client = connect(f"{url}&ssl_certfile={certificates.certificate}&ssl_keyfile={certificates.key}")
    assert await client.ping() is True
    await client.aclose()


async def test_a_cluster_is_reached_over_tls(
    start_tls: Callable[..., Any], certificates: Any, exercise: Exercise
) -> None:
    node = start_tls("--cluster-enabled", "yes", "--tls-cluster", "yes")
    node.own_all_slots()
    client = connect(
        f"rediss+cluster://127.0.0.1:{node.tls_port}?ssl_ca_certs={certificates.authority}", tenant="stamford"
    )
    await exercise(RedisStore(client, probe="stamford"), "stamford")
    assert {connection.port for connection in client.connection_pool._available_connections} == {node.tls_port}
    await client.aclose()


@pytest.fixture
def tls_sentinel(redis_binary: str, redis_tls: Any, certificates: Any, tmp_path: Path) -> Iterator[str]:
    """URL of a Sentinel that speaks TLS alone, to the server as well, and wants a password."""
    port = free_port()
    options = dict(zip(certificates.server_arguments[::2], certificates.server_arguments[1::2], strict=True))
    (tmp_path / "conf").write_text(
        "\n".join(
            (
                "port 0",
                f"tls-port {port}",
                "tls-replication yes",
                "bind 127.0.0.1",
                f"dir {tmp_path}",
                f"logfile {tmp_path / 'log'}",
                "requirepass s3ntinel",
                f"sentinel monitor jobs 127.0.0.1 {redis_tls.tls_port} 1",
                *(f"{name.removeprefix('--')} {value}" for name, value in options.items()),
                "",
            )
        )
    )
    process = subprocess.Popen([redis_binary, str(tmp_path / "conf"), "--sentinel"])
    yield (f"rediss+sentinel://127.0.0.1:{port}/jobs?sentinel_password=s3ntinel&ssl_ca_certs={certificates.authority}")
    process.kill()
    process.wait(5)


async def test_sentinels_and_their_master_are_reached_over_tls(tls_sentinel: str, redis_tls: Any) -> None:
    client = connect(tls_sentinel, max_retries=50)
    assert await client.ping() is True
    assert client.connection_pool.place == ("127.0.0.1", redis_tls.tls_port)
    await client.aclose()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
