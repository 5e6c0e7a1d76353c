"""What every request passes: its id, our hosts and origins, the shape of errors, a count; pure ASGI, so it is cheap."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import InternalError, InvalidInput, ProjectError
from jobnimbus_mcp.telemetry.defects import defect_fields
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.hosts import AllowedHosts
from jobnimbus_mcp.web.refusals import ForeignOrigin, HostNotAllowed, MethodNotAllowed, NoSuchPath
from jobnimbus_mcp.web.replies import refusal_reply

__all__ = ["OPEN_TO_ALL_HOSTS", "Front"]

OPEN_TO_ALL_HOSTS = frozenset({"/health", "/ready"})
"""Probes come by address, not by name, and these answers are nobody's secret."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_NOT_ANSWERED = 499


class Front:
    """The outermost layer. `ids` makes request ids; `access_log` writes one line per request, without query strings."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: AllowedHosts,
        ids: Callable[[], str],
        clock: Clock,
        recorder: Recorder,
        log: FilteringBoundLogger,
        access_log: bool = False,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._ids = ids
        self._clock = clock
        self._recorder = recorder
        self._log = log
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        scope["app"] = self  # with an "app" the router raises its 404 and 405 instead of writing them itself
        started = self._clock.monotonic()
        status = _NOT_ANSWERED

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *_with_ours(message, request_id, no_store=scope["path"] != "/mcp"),
                    *scope["state"].get("headers", ()),
                ]
            await send(message)

        try:
            self._refuse_strangers(scope)
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except (
            Exception
        ) as raised:  # the boundary of a request: whatever happened, the caller gets an answer of one shape
            error = _as_project_error(raised)
            # an InternalError that came from another error was logged with it by whoever made it
            if isinstance(error, InternalError) and not (raised is error and raised.__cause__ is not None):
                self._log.error("request failed through a defect", request_id=request_id, **defect_fields(raised))
            if status != _NOT_ANSWERED:
                raise  # half an answer is out: the server must close the connection
            await refusal_reply(error, request_id)(scope, receive, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._recorder.count("http_requests", route=route, status=str(status))
            if self._access_log:
                took_ms = round((self._clock.monotonic() - started) * 1000, 3)
                self._log.info(
                    "HTTP request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    ms=took_ms,
                    request_id=request_id,
                )

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else self._ids()
        return self._ids()

    def _refuse_strangers(self, scope: Scope) -> None:
        if scope["path"] in OPEN_TO_ALL_HOSTS:
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self._hosts.answers_for(hosts[0].decode("latin-1")):
            raise HostNotAllowed
        for name, value in scope["headers"]:
            if name == b"origin" and not self._hosts.is_home(value.decode("latin-1")):
                raise ForeignOrigin


def _with_ours(message: Message, request_id: str, *, no_store: bool) -> list[tuple[bytes, bytes]]:
    headers = list(message.get("headers", ()))
    headers.append((b"x-request-id", request_id.encode("ascii")))
    headers.append((b"x-content-type-options", b"nosniff"))
    if no_store:
        headers.append((b"cache-control", b"no-store"))
    return headers


def _as_project_error(raised: Exception) -> ProjectError:
    if isinstance(raised, ProjectError):
        return raised
    if isinstance(raised, HTTPException):
        if raised.status_code == 404:
            return NoSuchPath()
        if raised.status_code == 405:
            allow = (raised.headers or {}).get("Allow", "")
            return MethodNotAllowed([method.strip() for method in allow.split(",")])
        if raised.status_code < 500:
            return InvalidInput("The request could not be read.")
    return InternalError("The request failed through a defect of this server; its id finds it in the log.")
