"""The upload service beside the API, and the storage behind signed addresses that bytes go to and come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.simulator.account import Account, Change
from jobnimbus_mcp.simulator.faults import FaultPlan
from jobnimbus_mcp.simulator.file_rules import accepted_upload
from jobnimbus_mcp.simulator.files import FileContents
from jobnimbus_mcp.simulator.profiles import Profile
from jobnimbus_mcp.simulator.refusal import Refusal
from jobnimbus_mcp.simulator.replies import cut_short, failure, not_allowed, not_found, refused
from jobnimbus_mcp.simulator.shapes import Record
from jobnimbus_mcp.simulator.signed import Signer
from jobnimbus_mcp.simulator.uploads import MOST_BYTES, Upload, Uploads, etag_of, parts_of

__all__ = ["CDN", "Storage", "UploadService", "download_url"]

CDN = "/cdn"
_UPLOAD_LASTS_S = 900.0
_DOWNLOAD_LASTS_S = 300.0


def download_url(signer: Signer, host: str, instance: str, jnid: str) -> str:
    """Where the content of a file is for the next minutes."""
    return signer.url(host, "GET", f"{CDN}/{instance}/files/{jnid}", lasts_s=_DOWNLOAD_LASTS_S)


class UploadService:
    """What lies under /files/v1. `publish` is told of every file that came to be."""

    def __init__(
        self,
        *,
        uploads: Mapping[str, Uploads],
        contents: Mapping[str, FileContents],
        signer: Signer,
        publish: Callable[[str, Sequence[Change]], None],
    ) -> None:
        self._uploads = uploads
        self._contents = contents
        self._signer = signer
        self._publish = publish

    def answer(
        self,
        path: str,
        params: Mapping[str, str],
        body: Mapping[str, Any],
        *,
        profile: Profile,
        account: Account,
        host: str,
    ) -> Record:
        """What a POST is answered with.

        Raises: Refusal for what the service would refuse.
        """
        if path == "uploads/url":
            jnid, urls = self._announce(body, 1, profile, account, host)
            return {"data": {"url": urls[0], "jnid": jnid}}
        if path == "uploads/multi-urls":
            jnid, urls = self._announce(body, parts_of(body), profile, account, host)
            numbered = [{"partNumber": part, "url": url} for part, url in enumerate(urls, start=1)]
            return {"data": {"jnid": jnid, "uploadId": f"multi-{jnid}", "urls": numbered}}
        if path == "uploads/multi-complete":
            return self._complete_parts(body, profile, account)
        if path.startswith("uploads/") and path.endswith("/complete"):
            jnid = path.removeprefix("uploads/").removesuffix("/complete")
            record = self._complete(jnid, profile, account)
            pictured = params.get("generateThumbnail") == "true" and record["content_type"].startswith("image/")
            thumbnail = download_url(self._signer, host, profile.instance, jnid) if pictured else None
            return {"data": {"jnid": jnid, "thumbnailUrl": thumbnail}}
        raise not_found()

    def _announce(
        self, body: Mapping[str, Any], parts: int, profile: Profile, account: Account, host: str
    ) -> tuple[str, list[str]]:
        fields = accepted_upload(body, account)
        jnid = account.new_id()
        self._uploads[profile.instance].announce(jnid, Upload(fields, profile.user, parts))
        at = f"{CDN}/{profile.instance}/uploads/{jnid}"
        numbers = range(1, parts + 1)
        return jnid, [self._signer.url(host, "PUT", f"{at}/{part}", lasts_s=_UPLOAD_LASTS_S) for part in numbers]

    def _complete_parts(self, body: Mapping[str, Any], profile: Profile, account: Account) -> Record:
        jnid, parts = body.get("jnid"), body.get("parts")
        upload = self._uploads[profile.instance].get(jnid) if isinstance(jnid, str) else None
        if upload is None or not isinstance(parts, list):
            raise Refusal(400, "Missing required field(s): jnid, parts")
        told = [(part.get("partNumber"), part.get("eTag")) for part in parts if isinstance(part, dict)]
        if told != [(part, etag_of(content)) for part, content in sorted(upload.received.items())]:
            raise Refusal(400, "InvalidPart - the parts are not those that were uploaded, in order")
        record = self._complete(str(jnid), profile, account)
        return {"data": {"jnid": record["jnid"]}}

    def _complete(self, jnid: str, profile: Profile, account: Account) -> Record:
        """The file's record; one that was complete before stays as it is."""
        record = account.get("files", jnid, profile.viewer)
        if record is not None:
            return record
        upload = self._uploads[profile.instance].get(jnid)
        if upload is None:
            raise not_found()
        fields, content = upload.whole()
        changes = account.create("files", fields, actor=upload.actor, jnid=jnid)
        self._contents[profile.instance].keep(jnid, content)
        self._uploads[profile.instance].done(jnid)
        self._publish(profile.instance, changes)
        return changes[0].record


class Storage:
    """What lies under /cdn: bytes by signed address, taken and given to whoever has it. A key is not wanted here: as
    object stores do, it refuses a request that carries one. Its calls are no calls of the API and are not counted."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, Account],
        uploads: Mapping[str, Uploads],
        contents: Mapping[str, FileContents],
        signer: Signer,
        faults: FaultPlan,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._uploads = uploads
        self._contents = contents
        self._signer = signer
        self._faults = faults
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        path = f"{CDN}/{request.path_params['path']}"
        method = "GET" if request.method == "HEAD" else request.method
        effect = self._faults.meet(path, is_list=False, method=method)
        content = await request.body()
        if effect.status is not None and not effect.after:
            response = failure(effect)
        else:
            try:
                response = self._answer(request, method, path, content)
            except Refusal as refusal:
                response = refused(refusal)
            if effect.status is not None:
                response = failure(effect)
        if effect.truncate:
            response = cut_short(response)
        if request.method == "HEAD":
            response.body = b""
        await self._clock.sleep(effect.latency_s)
        return response

    def _answer(self, request: Request, method: str, path: str, content: bytes) -> Response:
        if "authorization" in request.headers:
            raise Refusal(400, "Only one auth mechanism allowed")
        self._signer.check(method, path, request.query_params)
        instance, what, *rest = path.removeprefix(f"{CDN}/").split("/")
        if method == "GET" and what == "files":
            record = self._accounts[instance].get("files", rest[0])
            if record is None:
                raise not_found()
            return Response(self._contents[instance].read(record), media_type=str(record["content_type"]))
        if method == "PUT" and what == "uploads":
            upload = self._uploads[instance].get(rest[0])
            if upload is None:
                raise not_found()
            if len(content) > MOST_BYTES:
                raise Refusal(400, "EntityTooLarge")
            etag = upload.receive(int(rest[1]), content, request.headers.get("content-type"))
            return Response(b"", headers={"etag": etag})
        raise not_allowed()
