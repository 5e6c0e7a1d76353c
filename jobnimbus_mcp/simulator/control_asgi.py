"""The control routes under /_sim: keys, call counts, faults, reset, and changes behind the API's back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.simulator.faults import FaultPlan, parse_fault
from jobnimbus_mcp.simulator.shapes import Record, canonical

__all__ = ["Control", "Steering"]


class Steering(Protocol):
    """What the control routes steer."""

    @property
    def instances(self) -> tuple[str, ...]: ...
    @property
    def keys(self) -> Mapping[str, tuple[str, str]]: ...
    def call_report(self) -> dict[str, Any]: ...
    def reset(self) -> None: ...
    async def create(
        self, instance: str, entity: str, fields: Mapping[str, Any], *, webhook: bool = True
    ) -> Record: ...
    async def change(
        self, instance: str, entity: str, jnid: str, fields: Mapping[str, Any], *, webhook: bool = True
    ) -> Record: ...
    async def delete(self, instance: str, entity: str, jnid: str, *, webhook: bool = True) -> Record: ...


class _Problem(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """Answers requests under /_sim. Never delayed or failed by faults; errors are `{"error": ...}`.

    A fault may name the `method` it hits (`{"status": 500, "path": "/jobs", "method": "POST"}`), and with
    `"after": true` the call takes effect before its answer fails. Paths beside the API root are given in full:
    `/api2/v2/payments`, `/files/v1`, `/cdn`.
    """

    def __init__(self, steering: Steering, faults: FaultPlan) -> None:
        self._steering = steering
        self._faults = faults

    async def __call__(self, request: Request) -> Response:
        path = request.path_params.get("path", "").strip("/")
        try:
            answer = await self._route(request, path)
        except _Problem as problem:
            return Response(orjson.dumps({"error": str(problem)}), problem.status, media_type="application/json")
        return Response(orjson.dumps(answer), media_type="application/json")

    async def _route(self, request: Request, path: str) -> Any:
        method = request.method
        if path == "keys":
            _need(method, "GET")
            return {instance: list(pair) for instance, pair in self._steering.keys.items()}
        if path == "calls":
            _need(method, "GET")
            return self._steering.call_report()
        if path == "reset":
            _need(method, "POST")
            self._steering.reset()
            return {"status": "ok"}
        if path == "faults":
            _need(method, "POST")
            try:
                self._faults.add(parse_fault(_object(await request.body())))
            except ValueError as error:
                raise _Problem(400, str(error)) from error
            return {"status": "ok", "faults": len(self._faults.faults)}
        if path.startswith("records/"):
            return await self._records(request, method, path.removeprefix("records/"))
        raise _Problem(404, f"no control route {path}")

    async def _records(self, request: Request, method: str, path: str) -> Record:
        steering = self._steering
        instance = request.query_params.get("instance") or steering.instances[0]
        if instance not in steering.instances:
            raise _Problem(400, f"unknown instance {instance}")
        webhook = _flag(request.query_params.get("webhook", "true"))
        kind = canonical(path)
        if kind is not None:
            _need(method, "POST")
            return await steering.create(instance, kind, _object(await request.body()), webhook=webhook)
        parent, _, jnid = path.rpartition("/")
        kind = canonical(parent) if parent else None
        if kind is None:
            raise _Problem(404, f"unknown entity {parent or path}")
        _need(method, "PUT", "DELETE")
        try:
            if method == "DELETE":
                return await steering.delete(instance, kind, jnid, webhook=webhook)
            return await steering.change(instance, kind, jnid, _object(await request.body()), webhook=webhook)
        except KeyError as error:
            raise _Problem(404, f"unknown {kind} record {jnid}") from error


def _need(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise _Problem(405, f"use {' or '.join(allowed)}")


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise _Problem(400, "webhook must be true or false")
    return text.lower() in ("true", "1")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _Problem(400, "the body is not valid JSON") from error
    if not isinstance(value, dict):
        raise _Problem(400, "the body must be a JSON object")
    return value
