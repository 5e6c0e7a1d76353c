"""The REST surface under /api1, and what of it lies beside that root, as JobNimbus answers it.

A call is answered from the state at its arrival and then held back by its latency, so that a slow answer can be older
than a change made meanwhile, and a slow write has taken effect before its caller learns of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.simulator import file_rules, rules
from jobnimbus_mcp.simulator.account import Account, Change
from jobnimbus_mcp.simulator.calls import CallCounter
from jobnimbus_mcp.simulator.faults import Effect, FaultPlan
from jobnimbus_mcp.simulator.files import FileContents
from jobnimbus_mcp.simulator.profiles import Profile, acting_as
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.replies import as_json, cut_short, failure, not_allowed, not_found, refused
from jobnimbus_mcp.simulator.search import cut_fields
from jobnimbus_mcp.simulator.settings_seed import UNITS
from jobnimbus_mcp.simulator.settings_writes import is_creator
from jobnimbus_mcp.simulator.shapes import KINDS, Kind, Record
from jobnimbus_mcp.simulator.signed import Signer
from jobnimbus_mcp.simulator.uploads_asgi import UploadService, download_url

__all__ = ["API2", "UPLOADS", "Api"]

_BY_PATH: Mapping[str, Kind] = {kind.path: kind for kind in KINDS.values()}
_LISTED: Mapping[str, Kind] = {**_BY_PATH, **{kind.list_path: kind for kind in KINDS.values() if kind.list_path}}
_FRESH_FILE_S = 1.0

API2, UPLOADS = "/api2", "/files/v1"
"""The roots beside /api1: of payments, and of the upload service."""


class Api:
    """Answers requests under the API root and those beside it. `publish` is told of every change made by a write."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, Account],
        profiles: Mapping[str, Profile],
        contents: Mapping[str, FileContents],
        uploads: UploadService,
        signer: Signer,
        faults: FaultPlan,
        calls: CallCounter,
        clock: Clock,
        latency_s: float,
        publish: Callable[[str, Sequence[Change]], None],
    ) -> None:
        self._accounts = accounts
        self._profiles = profiles
        self._contents = contents
        self._uploads = uploads
        self._signer = signer
        self._faults = faults
        self._calls = calls
        self._clock = clock
        self._latency_s = latency_s
        self._publish = publish

    async def __call__(self, request: Request, root: str = "") -> Response:
        """`root`: "" for the API's own, else the one beside it."""
        path = request.path_params.get("path", "")
        self._calls.count(f"{root}/{path}")
        method = "GET" if request.method == "HEAD" else request.method
        is_list = not root and path in _LISTED and method == "GET"
        effect = self._faults.meet(f"{root}/{path}", is_list=is_list, method=method)
        body = await request.body()
        if effect.status is not None and not effect.after:
            response = failure(effect)
        else:
            response = self._answer(request, method, root, path, body, effect)
            if effect.status is not None:
                response = failure(effect)
        if effect.truncate:
            response = cut_short(response)
        if request.method == "HEAD":
            response.body = b""
        await self._clock.sleep(self._latency_s + effect.latency_s)
        return response

    def _answer(self, request: Request, method: str, root: str, path: str, body: bytes, effect: Effect) -> Response:
        profile = self._authenticate(request.headers.get("authorization", ""))
        if profile is None:
            return as_json({"status": 401, "body": "Authentication required"}, status=401)
        account = self._accounts[profile.instance]
        profile = acting_as(profile, request.query_params.get("actor"), account)
        try:
            if root == UPLOADS:
                return self._upload(request, method, path, body, profile, account)
            if root == API2:
                return self._pay(body, profile, account)
            return self._route(request, method, path, body, profile, account, effect)
        except Refusal as refusal:
            return refused(refusal)

    def _authenticate(self, header: str) -> Profile | None:
        scheme, _, key = header.partition(" ")
        return self._profiles.get(key.strip()) if scheme.lower() == "bearer" else None

    def _route(
        self,
        request: Request,
        method: str,
        path: str,
        body: bytes,
        profile: Profile,
        account: Account,
        effect: Effect,
    ) -> Response:
        params = dict(request.query_params)
        if is_creator(path):
            if method != "POST":
                raise not_allowed()
            if not profile.may_set:
                raise Refusal(403, "The access profile of this key does not allow changes to settings")
            return as_json(account.add_setting(path, _object(body)))
        if path in ("account/settings", "account/users"):
            if method != "GET":
                raise not_allowed()
            if path == "account/users":
                return as_json(account.users())
            field = params.get("field")
            return as_json(account.settings_field(field) if field else account.settings)
        if path == "utility/uoms":
            if method != "GET":
                raise not_allowed()
            return as_json(UNITS)
        collection = _LISTED.get(path)
        if collection is not None:
            if method == "GET":
                count, rows = account.list(collection.name, params, profile.viewer, lag_s=effect.stale_list_s)
                return as_json({"count": count, collection.envelope: rows})
            if method == "POST" and collection.is_created and path == collection.path:
                return self._create(collection, request, body, profile, account)
            raise not_allowed()
        if path == "files/fromUrl" and method == "POST":
            changes = account.create("files", file_rules.accepted_link(_object(body), account), actor=profile.user)
            self._publish(profile.instance, changes)
            return as_json({"id": changes[0].record["jnid"]})
        parent, _, jnid = path.rpartition("/")
        kind = _BY_PATH.get(parent)
        if kind is None or not kind.has_detail:
            raise not_found()
        if method not in ("GET", "PUT") and not (method == "DELETE" and kind.name == "files"):
            raise not_allowed()
        record = account.get(kind.name, jnid, profile.viewer)
        if record is None:
            raise not_found()
        if method == "GET":
            if kind.name == "files":
                return self._content(request, record, profile)
            return as_json(cut_fields(record, params.get("fields")))
        if method == "PUT":
            return self._change(kind, record, body, profile, account)
        return self._delete_file(record, profile, account)

    def _create(self, kind: Kind, request: Request, body: bytes, profile: Profile, account: Account) -> Response:
        if kind.name == "files":
            if request.headers.get("content-type", "").startswith("multipart/"):
                raise Refusal(500, "Invalid parameters")
            fields, content = file_rules.accepted_file(_object(body), account)
        else:
            fields, content = rules.accepted_new(kind.name, _object(body), account), None
        changes = account.create(kind.name, fields, actor=profile.user)
        record = changes[0].record
        if content is not None:
            self._contents[profile.instance].keep(record["jnid"], content)
        self._publish(profile.instance, changes)
        return as_json(record)

    def _change(self, kind: Kind, record: Record, body: bytes, profile: Profile, account: Account) -> Response:
        jnid = record["jnid"]
        fields = rules.accepted_change(kind.name, jnid, _object(body), account)
        changes = account.update(kind.name, jnid, fields, actor=profile.user, author=profile.author)
        self._publish(profile.instance, changes)
        return as_json(changes[0].record)

    def _content(self, request: Request, record: Record, profile: Profile) -> Response:
        """Pictures are on the CDN; anything else is answered with its bytes. Both occur, and nobody knows when."""
        content_type = str(record["content_type"])
        if content_type.startswith("image/"):
            url = download_url(self._signer, _host(request), profile.instance, record["jnid"])
            return Response(b"", status_code=302, headers={"location": url})
        return Response(self._contents[profile.instance].read(record), media_type=content_type)

    def _pay(self, body: bytes, profile: Profile, account: Account) -> Response:
        fields = rules.accepted_payment(_object(body), account)
        stamp = {"created_by": profile.user, "date_created": int(self._clock.now())}
        fields["invoices"] = [{**stamp, **entry} for entry in fields["invoices"]]
        changes = account.create("payments", fields, actor=profile.user)
        self._publish(profile.instance, changes)
        return as_json(changes[0].record)

    def _upload(
        self, request: Request, method: str, path: str, body: bytes, profile: Profile, account: Account
    ) -> Response:
        if method != "POST":
            raise not_allowed()
        sent = _object(body) if body else {}
        params = request.query_params
        return as_json(self._uploads.answer(path, params, sent, profile=profile, account=account, host=_host(request)))

    def _delete_file(self, record: Record, profile: Profile, account: Account) -> Response:
        age_s = account.age_s("files", record["jnid"])
        # Observed in production: a delete within a second of the upload says success and does nothing.
        if age_s is None or age_s >= _FRESH_FILE_S:
            self._publish(profile.instance, account.delete("files", record["jnid"], actor=profile.user))
        return as_json({"msg": "success"})


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "Invalid JSON") from error
    if not isinstance(value, dict):
        raise Refusal(400, "Invalid JSON - an object is needed")
    return value


def _host(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"
