"""Fetching an issuer's keys: where they are looked for, and what is not taken for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import httpx
import orjson
import pytest

from jobnimbus_mcp.web import jwks_http
from jobnimbus_mcp.web.jwks_http import BYTES_MOST, JwksHttp, metadata_urls
from jobnimbus_mcp.web.keyring import KeysUntold

ISSUER = "https://issuer.example.com"
JWKS = {"keys": []}
Pages = Mapping[str, Any]


class Net:
    """URLs and what they answer: an object as JSON, bytes as they are, a number as a status, an error as itself."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.asked.append(url)
        found = self.pages.get(url, 404)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, int):
            return httpx.Response(found, headers={"location": "https://elsewhere.example.com/keys"}, content=b"{}")
        return httpx.Response(200, content=found if isinstance(found, bytes) else orjson.dumps(found))


async def fetched(pages: Pages, issuer: str = ISSUER, jwks_url: str | None = None) -> tuple[Any, list[str]]:
    net = Net(pages)
    jwks = JwksHttp(issuer, jwks_url=jwks_url, transport=httpx.MockTransport(net))
    async with aclosing(jwks), asyncio.timeout(5):
        try:
            return await jwks(), net.asked
        except KeysUntold as untold:
            return str(untold), net.asked


def metadata(issuer: str = ISSUER, **changed: Any) -> dict[str, Any]:
    return {"issuer": issuer, "jwks_uri": f"{ISSUER}/keys"} | changed


def test_metadata_is_looked_for_where_the_standards_put_it() -> None:
    assert metadata_urls(ISSUER) == (
        f"{ISSUER}/.well-known/oauth-authorization-server",
        f"{ISSUER}/.well-known/openid-configuration",
    )
    assert (
        metadata_urls(f"{ISSUER}/realms/crm")
        == metadata_urls(f"{ISSUER}/realms/crm/")
        == (
            f"{ISSUER}/.well-known/oauth-authorization-server/realms/crm",
            f"{ISSUER}/.well-known/openid-configuration/realms/crm",
            f"{ISSUER}/realms/crm/.well-known/openid-configuration",
        )
    )


@pytest.mark.parametrize("at", range(2))
async def test_keys_are_found_through_the_first_metadata_there_is(at: int) -> None:
    urls = metadata_urls(ISSUER)
    told, asked = await fetched({urls[at]: metadata(), f"{ISSUER}/keys": JWKS})
    assert (told, asked) == (JWKS, [*urls[: at + 1], f"{ISSUER}/keys"])


async def test_where_the_keys_are_said_to_be_they_are_fetched_at_once() -> None:
    url = "https://keys.example.com/jwks?tenant=7"
    assert await fetched({url: JWKS}, jwks_url=url) == (JWKS, [url])


@pytest.mark.parametrize(
    "told", [metadata("https://other.example.com"), metadata(f"{ISSUER}/"), {"jwks_uri": f"{ISSUER}/keys"}, [], "x"]
)
async def test_metadata_of_another_issuer_is_not_followed(told: Any) -> None:
    """RFC 8414, section 3.3."""
    pages = {metadata_urls(ISSUER)[0]: told, f"{ISSUER}/keys": JWKS}
    assert await fetched(pages) == ("its metadata names another issuer", [metadata_urls(ISSUER)[0]])


@pytest.mark.parametrize(
    "uri", [None, 7, "", "keys", "http://issuer.example.com/keys", "file:///etc/keys", "https://", "https://[x/keys"]
)
async def test_keys_are_not_fetched_by_a_way_worse_than_the_issuer_s(uri: Any) -> None:
    pages = {metadata_urls(ISSUER)[0]: metadata(jwks_uri=uri), "http://issuer.example.com/keys": JWKS}
    assert await fetched(pages) == ("its metadata has no usable jwks_uri", [metadata_urls(ISSUER)[0]])


async def test_an_issuer_without_tls_may_have_keys_without_tls() -> None:
    issuer = "http://127.0.0.1:9999"
    pages = {
        f"{issuer}/.well-known/openid-configuration": metadata(issuer, jwks_uri=f"{issuer}/k"),
        f"{issuer}/k": JWKS,
    }
    assert (await fetched(pages, issuer))[0] == JWKS


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (302, "status 302"),
        (404, "status 404"),
        (500, "status 500"),
        (b"<html>", "an answer that is no JSON"),
        (b" " * (BYTES_MOST + 1), "an answer larger than any set of keys"),
        (httpx.ConnectError("x"), "no connection, or none to the end"),
        (httpx.ReadError("x"), "no connection, or none to the end"),
        (httpx.ReadTimeout("x"), "no answer in time"),
    ],
)
async def test_what_goes_wrong_is_said_without_following_or_quoting_anything(answer: Any, why: str) -> None:
    url = f"{ISSUER}/keys"
    assert await fetched({url: answer}, jwks_url=url) == (why, [url])


async def test_an_issuer_that_does_not_answer_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_http, "WITHIN_S", 0.02)

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    jwks = JwksHttp(ISSUER, transport=Silent())
    async with aclosing(jwks), asyncio.timeout(5):
        with pytest.raises(KeysUntold, match="no answer in time"):
            await jwks()
