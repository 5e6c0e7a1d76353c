"""Files come and go: an upload in three steps or one, a download from JobNimbus or from where it points.

Source: JobNimbus API documentation, files: uploads A, C and D, and downloads, which answer with the bytes or redirect
once to a signed URL.
"""

from __future__ import annotations

from typing import Any

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.crm.entities import is_jnid
from jobnimbus_mcp.crm.files import FileContent, FileLink
from jobnimbus_mcp.crm.writes import Upload
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    InvalidInput,
    UpstreamError,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.upstream.attempts import Asking, Attempts
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import (
    Repeat,
    content_request,
    fetch_request,
    upload_base64,
    upload_bytes,
    upload_complete,
    upload_from_url,
    upload_start,
)
from jobnimbus_mcp.upstream.response import interpret, refusal_of

__all__ = ["BASE64_BYTES_MAX", "Files"]

BASE64_BYTES_MAX = 5 * 1024 * 1024
"""Largest file for the older way, whose body is a third longer than the file; larger ones need the upload service."""

_NO_SUCH_SERVICE = (404, 405)


class Files:
    """What `JobNimbusClient` does with the content of files; it documents the methods, and bounds their time."""

    def __init__(self, attempts: Attempts, clock: Clock) -> None:
        self._attempts = attempts
        self._clock = clock

    async def upload(self, asking: Asking, upload: Upload) -> dict[str, Any]:
        if (upload.content is None) is (upload.source_url is None):
            raise InvalidInput("A file is given either by its content or by a URL.", field="content")
        if upload.content is None:
            return await self._attempts.ask(asking, upload_from_url(upload), _stored_record)
        small = len(upload.content) <= BASE64_BYTES_MAX
        try:
            started = await self._start(asking, upload, small=small)
        except (UpstreamUnreachable, UpstreamTimeout):
            # a file that was begun and never given its bytes does not show, so another way makes no second one
            if not small:
                raise
            started = None
        if started is None:
            if not small:
                raise UpstreamRejected(
                    f"JobNimbus's upload service is not there, and without it a file may have at most "
                    f"{BASE64_BYTES_MAX} bytes."
                )
            return await self._attempts.ask(asking, upload_base64(upload), _stored_record)
        url, jnid = started
        await self._attempts.ask_raw(asking, upload_bytes(url, upload), _accept_bytes)
        try:
            await self._attempts.ask_raw(asking, upload_complete(jnid), lambda answer: self._accept(asking, answer))
        except (UpstreamError, BudgetExhausted) as error:
            # of a file in one part the documentation calls this step optional: it may show all the same
            raise UpstreamUnreadable("JobNimbus has the file's bytes and did not say that it is complete.") from error
        return {"jnid": jnid}

    async def content(self, asking: Asking, jnid: str, *, max_bytes: int) -> FileContent:
        answer = await self._ask(asking, jnid, bytes_max=max_bytes)
        if _is_redirect(answer):
            place = fetch_request(answer.headers["location"], bytes_max=max_bytes)
            answer = await self._attempts.ask_raw(asking, place, _fetched)
        elif _media_of(answer) == "text/html":
            # paths outside the API root answer 200 with the web application's page
            raise UpstreamUnreadable("JobNimbus answered with a web page instead of the file.")
        if answer.too_large is not None:
            raise InvalidInput(
                f"The file has at least {answer.too_large} bytes, and at most {max_bytes} can be given here.",
                field="max_bytes",
            )
        return FileContent(answer.body, _media_of(answer) or "application/octet-stream")

    async def link(self, asking: Asking, jnid: str) -> FileLink:
        answer = await self._ask(asking, jnid, bytes_max=0)
        return FileLink(answer.headers["location"] if _is_redirect(answer) else None)

    async def _start(self, asking: Asking, upload: Upload, *, small: bool) -> tuple[str, str] | None:
        """Where the bytes go, and the new file's id; None: there is no upload service."""

        def read(answer: RawAnswer) -> tuple[str, str] | None:
            if answer.status in _NO_SUCH_SERVICE:
                return None
            now = self._clock.now()
            told = interpret(answer, now=now, credential=asking.credential, writes=True)
            data = told.get("data", told) if isinstance(told, dict) else None
            if isinstance(data, dict):
                url, jnid = data.get("url"), data.get("jnid")
                if isinstance(url, str) and isinstance(jnid, str) and is_jnid(jnid):
                    return url, jnid
            raise UpstreamUnreadable("JobNimbus's upload service did not say where the file goes.")

        # where there is another way, a service out of reach is not waited for
        request = upload_start(upload, repeat=Repeat.IF_THROTTLED if small else Repeat.IF_UNDONE)
        return await self._attempts.ask_raw(asking, request, read)

    async def _ask(self, asking: Asking, jnid: str, *, bytes_max: int) -> RawAnswer:
        """JobNimbus's own answer to a question for the content: bytes, or a redirect."""

        def read(answer: RawAnswer) -> RawAnswer:
            if 200 <= answer.status < 300 or _is_redirect(answer):
                return answer
            raise refusal_of(answer, now=self._clock.now(), credential=asking.credential)

        return await self._attempts.ask_raw(asking, content_request(jnid, bytes_max=bytes_max), read)

    def _accept(self, asking: Asking, answer: RawAnswer) -> None:
        """The last step's answer says nothing that is not known but a thumbnail's address."""
        if not 200 <= answer.status < 300:
            raise refusal_of(answer, now=self._clock.now(), credential=asking.credential, writes=True)
        if _media_of(answer) == "text/html":
            raise UpstreamUnreadable("JobNimbus's upload service answered with a web page instead of data.")


def _stored_record(value: Any) -> dict[str, Any]:
    """The new file's record, or no more than its id. Source: JobNimbus API documentation, files: `fromUrl` answers
    with `id` alone."""
    record = value.get("data", value) if isinstance(value, dict) and "jnid" not in value else value
    if isinstance(record, dict):
        jnid = record.get("jnid", record.get("id"))
        if isinstance(jnid, str) and is_jnid(jnid):
            return {name: part for name, part in record.items() if name != "id"} | {"jnid": jnid}
    raise UpstreamUnreadable("JobNimbus did not say which file it stored.")


def _accept_bytes(answer: RawAnswer) -> None:
    if not 200 <= answer.status < 300:
        raise _storage_error(answer.status, "take")


def _fetched(answer: RawAnswer) -> RawAnswer:
    if not 200 <= answer.status < 300:  # a second redirect is not followed
        raise _storage_error(answer.status, "give")
    return answer


def _storage_error(status: int, deed: str) -> UpstreamError:
    # its own words name paths and signatures, and its 401 and 403 say nothing of the key
    message = f"The place where JobNimbus keeps files did not {deed} the file (status {status})."
    if status == 429 or status >= 500:
        return UpstreamServerError(message)
    return UpstreamRejected(message)


def _is_redirect(answer: RawAnswer) -> bool:
    return answer.status in (301, 302, 303, 307, 308) and "location" in answer.headers


def _media_of(answer: RawAnswer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()
