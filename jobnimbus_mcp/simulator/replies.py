"""The answers of the simulated API that look the same wherever they come from."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from jobnimbus_mcp.simulator.faults import Effect
from jobnimbus_mcp.simulator.refusal import Refusal

__all__ = ["as_json", "cut_short", "failure", "not_allowed", "not_found", "refused", "web_app_page"]


def as_json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def refused(refusal: Refusal) -> Response:
    return Response(refusal.message, status_code=refusal.status, media_type="text/plain")


def not_found() -> Refusal:
    return Refusal(404, "Not Found")


def not_allowed() -> Refusal:
    return Refusal(405, "Method Not Allowed")


def web_app_page() -> Response:
    """What any path that is not the API answers: 200 and the web app's HTML."""
    page = "<!doctype html><html><head><title>JobNimbus</title></head><body><div id='app'></div></body></html>"
    return Response(page, media_type="text/html")


def failure(effect: Effect) -> Response:
    """The answer of a fault that has a status."""
    status = effect.status or 500
    headers = {} if effect.retry_after_s is None else {"retry-after": str(effect.retry_after_s)}
    if status == 200:
        return web_app_page()
    if status == 401:
        return as_json({"status": 401, "body": "Authentication required"}, status=401)
    if status >= 500:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Response(page, status_code=status, headers=headers, media_type="text/html")
    text = {404: "Not Found", 429: "Too Many Requests", 403: "Forbidden"}.get(status, "Error")
    return Response(text, status_code=status, headers=headers, media_type="text/plain")


def cut_short(response: Response) -> Response:
    """The same headers and half of the body, so that its JSON cannot be read."""
    half = bytes(response.body[: len(response.body) // 2])
    kept = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(half, status_code=response.status_code, headers=kept)
