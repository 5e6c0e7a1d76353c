"""The REST surface under /api1, as JobNimbus answers it.

A call is answered from the state at its arrival and then held back by its latency, so that a slow answer can be older
than a change made meanwhile, and a slow write has taken effect before its caller learns of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.simulator import rules
from jobnimbus_mcp.simulator.account import Account, Change
from jobnimbus_mcp.simulator.calls import CallCounter
from jobnimbus_mcp.simulator.faults import Effect, FaultPlan
from jobnimbus_mcp.simulator.files import FileContents
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.search import cut_fields
from jobnimbus_mcp.simulator.shapes import KINDS, Kind, Record

__all__ = ["Api", "Profile", "web_app_page"]

_BY_PATH: Mapping[str, Kind] = {kind.path: kind for kind in KINDS.values()}
# POST only in JobNimbus; the simulator has none of them, so nothing but 405.
_SETTINGS_CREATORS = frozenset(
    f"account/{name}"
    for name in ("workflow", "leadsource", "customfield", "filetype", "tasktype", "activitytype", "location")
)
_FRESH_FILE_S = 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What a key may do. `viewer`: the user whose records alone are visible; None: all are."""

    instance: str
    user: str
    viewer: str | None


def web_app_page() -> Response:
    """What any path that is not the API answers: 200 and the web app's HTML."""
    page = "<!doctype html><html><head><title>JobNimbus</title></head><body><div id='app'></div></body></html>"
    return Response(page, media_type="text/html")


class Api:
    """Answers requests under the API root. `publish` is told of every change made by a write."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, Account],
        profiles: Mapping[str, Profile],
        contents: Mapping[str, FileContents],
        faults: FaultPlan,
        calls: CallCounter,
        clock: Clock,
        latency_s: float,
        publish: Callable[[str, Sequence[Change]], None],
    ) -> None:
        self._accounts = accounts
        self._profiles = profiles
        self._contents = contents
        self._faults = faults
        self._calls = calls
        self._clock = clock
        self._latency_s = latency_s
        self._publish = publish

    async def __call__(self, request: Request) -> Response:
        path = request.path_params.get("path", "")
        self._calls.count(f"/{path}")
        effect = self._faults.meet(f"/{path}", is_list=path in _BY_PATH and request.method in ("GET", "HEAD"))
        body = await request.body()
        response = _failure(effect) if effect.status is not None else self._answer(request, path, body, effect)
        if effect.truncate:
            response = _cut_short(response)
        if request.method == "HEAD":
            response.body = b""
        await self._clock.sleep(self._latency_s + effect.latency_s)
        return response

    def _answer(self, request: Request, path: str, body: bytes, effect: Effect) -> Response:
        profile = self._authenticate(request.headers.get("authorization", ""))
        if profile is None:
            return _json({"status": 401, "body": "Authentication required"}, status=401)
        try:
            return self._route(request, path, body, profile, effect)
        except Refusal as refusal:
            return Response(refusal.message, status_code=refusal.status, media_type="text/plain")

    def _authenticate(self, header: str) -> Profile | None:
        scheme, _, key = header.partition(" ")
        return self._profiles.get(key.strip()) if scheme.lower() == "bearer" else None

    def _route(self, request: Request, path: str, body: bytes, profile: Profile, effect: Effect) -> Response:
        account = self._accounts[profile.instance]
        method = "GET" if request.method == "HEAD" else request.method
        params = dict(request.query_params)
        if path in _SETTINGS_CREATORS or (path.startswith("account/workflow/") and path.endswith("/status")):
            raise _not_allowed()
        if path in ("account/settings", "account/users"):
            if method != "GET":
                raise _not_allowed()
            if path == "account/users":
                return _json(account.users())
            field = params.get("field")
            return _json(account.settings_field(field) if field else account.settings)
        collection = _BY_PATH.get(path)
        if collection is not None:
            if method == "GET":
                count, rows = account.list(collection.name, params, profile.viewer, lag_s=effect.stale_list_s)
                return _json({"count": count, collection.envelope: rows})
            if method == "POST":
                return self._create(collection, request, body, profile, account)
            raise _not_allowed()
        parent, _, jnid = path.rpartition("/")
        kind = _BY_PATH.get(parent)
        if kind is None:
            raise _not_found()
        if method not in ("GET", "PUT") and not (method == "DELETE" and kind.name == "files"):
            raise _not_allowed()
        record = account.get(kind.name, jnid, profile.viewer)
        if record is None:
            raise _not_found()
        if method == "GET":
            if kind.name == "files":
                content = self._contents[profile.instance].read(record)
                return Response(content, media_type=str(record["content_type"]))
            return _json(cut_fields(record, params.get("fields")))
        if method == "PUT":
            return self._change(kind, record, body, profile, account)
        return self._delete_file(record, profile, account)

    def _create(self, kind: Kind, request: Request, body: bytes, profile: Profile, account: Account) -> Response:
        if kind.name == "files":
            if request.headers.get("content-type", "").startswith("multipart/"):
                raise Refusal(500, "Invalid parameters")
            fields, content = rules.accepted_file(_object(body), account)
        else:
            fields, content = rules.accepted_new(kind.name, _object(body), account), None
        changes = account.create(kind.name, fields, actor=profile.user)
        record = changes[0].record
        if content is not None:
            self._contents[profile.instance].keep(record["jnid"], content)
        self._publish(profile.instance, changes)
        return _json(record)

    def _change(self, kind: Kind, record: Record, body: bytes, profile: Profile, account: Account) -> Response:
        jnid = record["jnid"]
        fields = rules.accepted_change(kind.name, jnid, _object(body), account)
        changes = account.update(kind.name, jnid, fields, actor=profile.user)
        self._publish(profile.instance, changes)
        return _json(changes[0].record)

    def _delete_file(self, record: Record, profile: Profile, account: Account) -> Response:
        age_s = account.age_s("files", record["jnid"])
        # Observed in production: a delete within a second of the upload says success and does nothing.
        if age_s is None or age_s >= _FRESH_FILE_S:
            self._publish(profile.instance, account.delete("files", record["jnid"], actor=profile.user))
        return _json({"msg": "success"})


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "Invalid JSON") from error
    if not isinstance(value, dict):
        raise Refusal(400, "Invalid JSON - an object is needed")
    return value


def _not_found() -> Refusal:
    return Refusal(404, "Not Found")


def _not_allowed() -> Refusal:
    return Refusal(405, "Method Not Allowed")


def _failure(effect: Effect) -> Response:
    status = effect.status or 500
    headers = {} if effect.retry_after_s is None else {"retry-after": str(effect.retry_after_s)}
    if status == 200:
        return web_app_page()
    if status == 401:
        return _json({"status": 401, "body": "Authentication required"}, status=401)
    if status >= 500:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Response(page, status_code=status, headers=headers, media_type="text/html")
    text = {404: "Not Found", 429: "Too Many Requests", 403: "Forbidden"}.get(status, "Error")
    return Response(text, status_code=status, headers=headers, media_type="text/plain")


def _cut_short(response: Response) -> Response:
    """The same headers and half of the body, so that its JSON cannot be read."""
    half = bytes(response.body[: len(response.body) // 2])
    kept = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(half, status_code=response.status_code, headers=kept)
