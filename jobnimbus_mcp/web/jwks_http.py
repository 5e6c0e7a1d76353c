"""Fetches an issuer's keys over HTTPS: found by the issuer's own metadata, unless it is said where they are.

Source: RFC 8414 (section 3) and OpenID Connect Discovery 1.0 for where the metadata is, RFC 7517 for the keys.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from jobnimbus_mcp import __version__
from jobnimbus_mcp.web.keyring import KeysUntold

__all__ = ["BYTES_MOST", "WITHIN_S", "JwksHttp", "metadata_urls"]

WITHIN_S = 5.0
"""For all requests of one fetch together: a caller waits for them."""

BYTES_MOST = 262_144


class JwksHttp:
    """The issuer's JWK set, as a `FetchKeys`. Whoever makes it closes it."""

    def __init__(
        self, issuer: str, *, jwks_url: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            headers={"Accept": "application/json", "User-Agent": f"jobnimbus-mcp/{__version__}"},
            follow_redirects=False,
            timeout=WITHIN_S,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __call__(self) -> Any:
        """The JWK set, parsed.

        Raises:
            KeysUntold: it cannot be had.
        """
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._document(self._jwks_url or await self._discovered())
        except (TimeoutError, httpx.TimeoutException) as late:
            raise KeysUntold("no answer in time") from late
        except (httpx.HTTPError, httpx.InvalidURL) as away:
            raise KeysUntold("no connection, or none to the end") from away

    async def _discovered(self) -> str:
        """Where the issuer says its keys are."""
        why = KeysUntold("no metadata")
        for url in metadata_urls(self._issuer):
            try:
                told = await self._document(url)
            except KeysUntold as untold:
                why = untold
                continue
            # else somebody else's document would make their keys ours (RFC 8414, section 3.3)
            if not isinstance(told, dict) or told.get("issuer") != self._issuer:
                raise KeysUntold("its metadata names another issuer")
            found = told.get("jwks_uri")
            if not isinstance(found, str) or not _as_safe(found, self._issuer):
                raise KeysUntold("its metadata has no usable jwks_uri")
            return found
        raise why

    async def _document(self, url: str) -> Any:
        async with self._client.stream("GET", url) as response:
            if response.status_code != 200:
                raise KeysUntold(f"status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > BYTES_MOST:
                    raise KeysUntold("an answer larger than any set of keys")
        try:
            return orjson.loads(bytes(body))
        except orjson.JSONDecodeError as unreadable:
            raise KeysUntold("an answer that is no JSON") from unreadable


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be, in the order in which to look."""
    at = urlsplit(issuer)
    origin, path = f"{at.scheme}://{at.netloc}", at.path.rstrip("/")
    oauth, openid = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    found = (f"{origin}{oauth}{path}", f"{origin}{openid}{path}", f"{origin}{path}{openid}")
    return tuple(dict.fromkeys(found))


def _as_safe(url: str, issuer: str) -> bool:
    """Whether keys from there come by a way no worse than the issuer's own."""
    try:
        at = urlsplit(url)
        return bool(at.hostname) and (at.scheme == "https" or (at.scheme, urlsplit(issuer).scheme) == ("http", "http"))
    except ValueError:
        return False
