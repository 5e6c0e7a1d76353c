"""create_attachment and get_attachment_content: bytes to JobNimbus and back."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.files import FileContent
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Upload
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.inputs import JobId, Name, NoArgs, RecordId, Truth, Whole
from jobnimbus_mcp.tools.spec import WRITE_OUTPUT, Effect, ToolSpec
from jobnimbus_mcp.tools.write_fields import LongText
from jobnimbus_mcp.tools.write_table import KeyArg
from jobnimbus_mcp.tools.writing import answered, linked_to, writer_of

__all__ = ["CONTENT_BYTES_MOST", "Files", "file_tools"]

CONTENT_BYTES_MOST = 1_048_576
"""Largest content that is answered. A model reads a few thousand words; more belongs behind the link."""

_TEXTUAL = ("text/", "application/json", "application/xml", "application/csv")


class Files(Protocol):
    """Contents of files, as JobNimbus gives them to this caller."""

    async def content(self, jnid: str, caller: Caller, call: Call, *, max_bytes: int) -> FileContent:
        """The bytes.

        Raises:
            InvalidInput: there are more than `max_bytes`.
            UpstreamError: by its kind.
        """
        ...

    async def link(self, jnid: str, caller: Caller, call: Call) -> str | None:
        """A URL that works for a short time without a key; None where JobNimbus answers with the bytes themselves."""
        ...


class UploadArgs(NoArgs):
    """create_attachment"""

    filename: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\\\x00-\x1f]+$")]
    file_type: Annotated[Name, Field(description="Document, Photo, ...: see get_settings.")] = "Document"
    text: Annotated[str | None, Field(max_length=500_000, description="The content, when it is text.")] = None
    content_base64: Annotated[str | None, Field(max_length=950_000, description="The content, base64.")] = None
    source_url: Annotated[
        str | None, Field(max_length=2_000, pattern=r"^https://", description="Where JobNimbus shall fetch it.")
    ] = None
    content_type: Annotated[
        str | None, Field(max_length=100, pattern=r"^[\w.+-]+/[\w.+-]+$", description="Left out: by the file name.")
    ] = None
    description: LongText = ""
    is_private: Truth = False
    job_id: Annotated[JobId | None, Field(description="Of this job: jnid or job number.")] = None
    contact_id: Annotated[RecordId | None, Field(description="Of this contact: jnid.")] = None
    related_to: Annotated[RecordId | None, Field(description="Of the record with this jnid, any kind.")] = None
    idempotency_key: KeyArg = None


class ContentArgs(NoArgs):
    """get_attachment_content"""

    attachment_id: RecordId
    format: Annotated[
        Literal["auto", "link", "text", "base64"],
        Field(description="auto: text as text, everything else as a link where there is one."),
    ] = "auto"
    max_bytes: Annotated[Whole, Field(ge=1, le=CONTENT_BYTES_MOST, description="Refuse larger content.")] = 16_384


_CONTENT_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "filename": {"type": "string"},
        "content_type": {"type": "string"},
        "size_bytes": {"type": "integer"},
        "url": {"type": "string", "description": "Works for minutes, without a key."},
        "text": {"type": "string"},
        "content_base64": {"type": "string"},
    },
    "required": ["filename"],
}


def file_tools(files: Files) -> tuple[ToolSpec, ...]:
    """Both tools."""

    async def content(ctx: ToolContext, args: ContentArgs) -> dict[str, Any]:
        meta = (await ctx.look_up(Read.record(Entity.ATTACHMENTS, args.attachment_id))).value()
        told: dict[str, Any] = {"filename": str(meta.get("filename") or args.attachment_id)}
        kind = str(meta.get("content_type") or "")
        if kind:
            told["content_type"] = kind
        if isinstance(meta.get("size"), int):
            told["size_bytes"] = meta["size"]
        textual = kind.startswith(_TEXTUAL)
        if args.format == "link" or (args.format == "auto" and not textual):
            url = await files.link(args.attachment_id, ctx.caller, ctx.call)
            if url is not None:
                return told | {"url": url}
            if args.format == "link":
                raise InvalidInput("JobNimbus has no link for this file; ask for its content.", field="format")
        fetched = await files.content(args.attachment_id, ctx.caller, ctx.call, max_bytes=args.max_bytes)
        told["size_bytes"] = len(fetched.body)
        told.setdefault("content_type", fetched.content_type)
        if args.format == "text" or (args.format == "auto" and told["content_type"].startswith(_TEXTUAL)):
            return told | {"text": fetched.body.decode("utf-8", "replace")}
        return told | {"content_base64": base64.b64encode(fetched.body).decode()}

    return (
        ToolSpec(
            "get_attachment_content",
            "Read a file",
            "A file's content: text as text, photos and PDFs as a link that works for some minutes, or base64.",
            Entity.ATTACHMENTS,
            ContentArgs,
            _CONTENT_OUTPUT,
            handler=content,
            toolset="files",
            default=False,
        ),
        ToolSpec(
            "create_attachment",
            "Upload a file",
            "Store a file at a job, a contact or another record: text, base64 or from a URL.",
            Entity.ATTACHMENTS,
            UploadArgs,
            WRITE_OUTPUT,
            handler=_upload,
            effect=Effect.CREATE,
            toolset="files",
            default=False,
        ),
    )


async def _upload(ctx: ToolContext, args: UploadArgs) -> dict[str, Any]:
    given = [name for name in ("text", "content_base64", "source_url") if getattr(args, name) is not None]
    if len(given) != 1:
        raise InvalidInput("Give the content as one of text, content_base64 and source_url.", field="text")
    links = await linked_to(ctx, args, ("job", "contact", "related"))
    if not links:
        raise InvalidInput("Say what the file belongs to: job_id, contact_id or related_to.", field="job_id")
    kind = await ctx.directory.type_fields(Entity.ATTACHMENTS, args.file_type, argument="file_type")
    guessed, _ = mimetypes.guess_type(args.filename)
    upload = Upload(
        filename=args.filename,
        content_type=args.content_type or guessed or "application/octet-stream",
        type_id=int(kind["record_type"]),
        links=links,
        description=args.description,
        content=_content_of(args),
        source_url=args.source_url,
        is_private=args.is_private,
    )
    result = await writer_of(ctx).upload(upload, ctx.caller, ctx.call, idempotency_key=args.idempotency_key)
    return await answered(ctx, result)


def _content_of(args: UploadArgs) -> bytes | None:
    if args.text is not None:
        return args.text.encode()
    if args.content_base64 is None:
        return None
    try:
        return base64.b64decode(args.content_base64, validate=True)
    except (binascii.Error, ValueError) as damaged:
        raise InvalidInput("content_base64 is not base64.", field="content_base64") from damaged
