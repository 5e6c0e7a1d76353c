"""Sends events to targets over HTTP: to the address that was checked, and to no other.

A host name is resolved once per connection, here; every address it has is checked; and the connection goes to one of
those, while the certificate and the Host header stay the name's. A name that answers differently the next time can
therefore not lead past the check. Proxies of the environment are not asked: they would resolve the name again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from threading import Thread
from typing import Any, cast
from urllib.parse import urlsplit

import httpcore
import httpx

from jobnimbus_mcp import __version__
from jobnimbus_mcp.consumers.relay import PARALLEL, Answered, Failed
from jobnimbus_mcp.consumers.relay_addresses import refusal
from jobnimbus_mcp.consumers.relay_targets import RelayTarget

__all__ = ["ANSWER_BYTES_MOST", "ANSWER_WITHIN_S", "RelayHttp", "Resolve"]

ANSWER_WITHIN_S = 10.0
ANSWER_BYTES_MOST = 65_536

CONNECT_WITHIN_S = 5.0
IDLE_S = 30.0
ADDRESSES_TRIED = 4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> its addresses; raises OSError when it has none or nobody can say."""


class RelayHttp:
    """Implements `Poster` for these targets. Whoever makes it closes it.

    Each target has connections of its own, and a thread of its own for its name, so that one whose server or name
    server hangs takes nothing from the others.
    """

    def __init__(
        self,
        targets: Sequence[RelayTarget],
        *,
        allow_private: bool,
        within_s: float = ANSWER_WITHIN_S,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """`within_s`: bound on one delivery. `tls`: whose certificates are trusted; None: those of the environment.
        `resolve`, `network`: None for the machine's own."""
        # at DEBUG it logs URLs
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        context = httpx.create_ssl_context() if tls is None else tls
        self._within_s = within_s
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        for target in targets:
            self._pools[target.name] = httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=PARALLEL,
                max_keepalive_connections=PARALLEL,
                keepalive_expiry=IDLE_S,
                network_backend=_CheckedNetwork(
                    _Names().resolve if resolve is None else resolve,
                    httpcore.AnyIOBackend() if network is None else network,
                    plain=target.plain,
                    allow_private=allow_private,
                ),
            )

    async def post(self, target: RelayTarget, body: bytes, headers: Mapping[str, str]) -> Answered | Failed:
        status: int | None = None
        answer = bytearray()
        try:
            async with (
                asyncio.timeout(self._within_s),
                self._pools[target.name].stream(
                    "POST",
                    _url(target),
                    headers=_headers(target, headers),
                    content=body,
                    extensions={"timeout": {"connect": CONNECT_WITHIN_S}},
                ) as response,
                aclosing(cast(AsyncGenerator[bytes, None], response.aiter_stream())) as pieces,
            ):
                status = response.status
                async for piece in pieces:
                    answer += piece[: ANSWER_BYTES_MOST - len(answer)]
                    if len(answer) >= ANSWER_BYTES_MOST:
                        break
        except (TimeoutError, httpcore.TimeoutException):
            failed = Failed("timeout")
        except _NotConnected as error:
            failed = Failed(error.word, error.retry)
        except httpcore.ConnectError as error:
            # the pool takes the cause off it; what it was made of stays
            failed = Failed("tls" if isinstance(next(iter(error.args), None), ssl.SSLError) else "unreachable")
        except ssl.SSLError:  # after the handshake: it wants a certificate of ours
            failed = Failed("tls")
        except (httpcore.NetworkError, httpcore.RemoteProtocolError):
            failed = Failed("no_answer")
        else:
            return Answered(response.status, bytes(answer))
        # the status is the answer; words that stop on the way make it no other
        return failed if status is None else Answered(status, bytes(answer))

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()


class _NotConnected(Exception):
    """The name leads nowhere, or to an address that nothing may be sent to; `word` says which."""

    def __init__(self, word: str, retry: bool) -> None:
        super().__init__(word)
        self.word = word
        self.retry = retry


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever the name."""

    def __init__(
        self, resolve: Resolve, network: httpcore.AsyncNetworkBackend, *, plain: bool, allow_private: bool
    ) -> None:
        self._resolve = resolve
        self._network = network
        self._plain = plain
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is the transport's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except OSError as error:
            raise _NotConnected("unresolved", retry=True) from error
        # one bad address among good ones is a trap as well: which of them is used would be chance
        for address in addresses:
            word = refusal(address, plain=self._plain, allow_private=self._allow_private)
            if word is not None:
                raise _NotConnected(word, retry=False)
        failure: Exception = _NotConnected("unresolved", retry=True)
        tried = addresses[:ADDRESSES_TRIED]
        for address in tried:
            try:
                return await self._network.connect_tcp(
                    address, port, None if timeout is None else timeout / len(tried), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


class _Names:
    """One target's name, resolved by a thread of its own: the event loop's few threads resolve the names of Redis and
    JobNimbus too, and a name server may be silent for half a minute. The process need not wait for it to end."""

    def __init__(self) -> None:
        self._asked: Future[Sequence[str] | OSError] | None = None

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if self._asked is None or self._asked.done():
            self._asked = Future()
            Thread(target=_ask, args=(self._asked, host, port), name="relay-names", daemon=True).start()
        # shielded: whoever gives up waiting must not take the answer from the others
        found = await asyncio.shield(asyncio.wrap_future(self._asked))
        if isinstance(found, OSError):
            raise found
        return found


def _ask(asked: Future[Sequence[str] | OSError], host: str, port: int) -> None:
    asked.set_result(_addresses(host, port))


def _addresses(host: str, port: int) -> Sequence[str] | OSError:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError:  # a label that is too long for a name
        return socket.gaierror(socket.EAI_NONAME, "no host name")
    except OSError as error:
        return error


def _url(target: RelayTarget) -> httpcore.URL:
    parts = urlsplit(target.url)
    # put together here: the transport's own reading of a URL drops what follows a ; in its path
    return httpcore.URL(
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _headers(target: RelayTarget, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    # as the URL spells it: of an IPv6 address the transport would forget the brackets
    told = {"Host": urlsplit(target.url).netloc, **headers, "User-Agent": f"jobnimbus-mcp/{__version__}"}
    # an answer that is read for its first words is not worth unpacking
    told |= {"Accept": "*/*", "Accept-Encoding": "identity"}
    return [(name.encode(), value.encode()) for name, value in told.items()]
