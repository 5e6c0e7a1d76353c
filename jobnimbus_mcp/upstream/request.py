"""A question or a change as JobNimbus is sent it: method, path, query parameters and body.

Source of all: JobNimbus API documentation, list parameters, filter, and the notes on writing of each entity. Parameters
it does not know are ignored without a word, so only known ones are ever made here; order and page are always spelled
out, since rows come in no useful order by themselves.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import quote

import orjson

from jobnimbus_mcp.crm.catalog import SETTINGS_PARTS, WHOLE_PARTS, Deletion, facts_of
from jobnimbus_mcp.crm.encoding import body_of
from jobnimbus_mcp.crm.entities import Action, Entity, is_jnid
from jobnimbus_mcp.crm.query import Is, Sort, Where, filter_of
from jobnimbus_mcp.crm.writes import Upload, Write
from jobnimbus_mcp.errors import InvalidInput

__all__ = [
    "FILTER_CHARS_MAX",
    "Base",
    "Repeat",
    "Request",
    "content_request",
    "create_request",
    "credential_check",
    "delete_request",
    "fetch_request",
    "page_request",
    "record_request",
    "scan_filter",
    "setting_request",
    "update_request",
    "upload_base64",
    "upload_bytes",
    "upload_complete",
    "upload_from_url",
    "upload_start",
    "whole_request",
    "write_request",
]

FILTER_CHARS_MAX = 6_000
"""Longest filter, percent-encoded: with path and the other parameters the URL stays under 8 KB."""


_GUID_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_WORKFLOW_ID = re.compile(r"[0-9]{1,12}")
_UPLOADS = "/files/v1/uploads"
_OTHER_API = re.compile(r"/api\d+/")


class Base(Enum):
    """What a path is relative to. API: the API root. HOST: what the API root is relative to, for its neighbours.
    UPLOAD: the upload service. ABSOLUTE: nothing, there is a `url` instead, and no key goes there."""

    API = auto()
    HOST = auto()
    UPLOAD = auto()
    ABSOLUTE = auto()


class Repeat(Enum):
    """When a request that failed may be sent again.

    ANY_FAILURE: it changes nothing, or the same thing. IF_UNDONE: it surely was not carried out, since JobNimbus was
    too busy or never reached. IF_THROTTLED: JobNimbus was too busy.
    """

    ANY_FAILURE = auto()
    IF_UNDONE = auto()
    IF_THROTTLED = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Parameters, bodies and URLs hold what customers are called, or are signed, so no repr.

    `media`: of the body. `bytes_max`: a larger answer is not read, None for the sender's own bound, which is an error
    to exceed. `slow`: may take all the time that its call has.
    """

    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)
    base: Base = Base.API
    url: str = field(default="", repr=False)
    media: str = "application/json"
    repeat: Repeat = Repeat.ANY_FAILURE
    bytes_max: int | None = None
    slow: bool = False

    @property
    def writes(self) -> bool:
        """It may change something, so that a refusal may quote what was sent."""
        return self.method != "GET"


def record_request(entity: Entity, jnid: str) -> Request:
    """One record by id; a list of one where the kind has no GET by id, or answers it with a file's content.

    Raises:
        InvalidInput: `jnid` is none, so it must not get near a path.
    """
    _check_id(entity, jnid)
    facts = facts_of(entity)
    if facts.has_detail:
        return Request(f"{facts.path}/{jnid}")
    return page_request(entity, (Is("jnid", jnid),), Sort(), offset=0, size=1)


def whole_request(entity: Entity, part: str = "") -> Request:
    """A document that is no list of records: users, settings, groups, units.

    Raises:
        KeyError: there is no such document.
    """
    path, params = WHOLE_PARTS[entity, part]
    return Request(path, params)


def page_request(
    entity: Entity, where: Where, sort: Sort, *, offset: int, size: int, fields: Sequence[str] = ()
) -> Request:
    """`size` rows of a list from `offset`, sorted by JobNimbus; with `fields`, of each row these alone.

    Raises:
        InvalidInput: the conditions are too many for one URL.
    """
    params = [
        ("size", str(size)),
        ("from", str(offset)),
        ("sort_field", sort.field),
        ("sort_direction", "desc" if sort.descending else "asc"),
    ]
    asked = filter_of(where)
    if asked is not None:
        text = _compact(asked)
        if _encoded_length(text) > FILTER_CHARS_MAX:
            raise InvalidInput("These conditions are too long for JobNimbus: give fewer or shorter ones.")
        params.append(("filter", text))
    if fields:
        params.append(("fields", ",".join(fields)))
    return Request(facts_of(entity).path, tuple(params))


def scan_filter(where: Where) -> Where:
    """The clauses to ask for when every row is checked here anyway: as many, in order, as one URL holds.

    Asking fewer gives more rows, never other ones.
    """
    asked: Where = ()
    for clause in where:
        longer = (*asked, clause)
        if _encoded_length(_compact(filter_of(longer))) <= FILTER_CHARS_MAX:
            asked = longer
    return asked


def credential_check() -> Request:
    """The cheapest question that JobNimbus answers to every key it accepts."""
    return Request(facts_of(Entity.CONTACTS).path, (("size", "1"), ("fields", "jnid")))


def write_request(write: Write, base: Mapping[str, Any] | None) -> Request:
    """The one request that carries `write` out.

    Raises:
        InvalidInput: the id is none.
        ValueError: its kind takes no such change, or the record to overwrite is not there.
    """
    if write.entity is Entity.SETTINGS:
        return setting_request(write)
    match write.action:
        case Action.CREATED:
            return create_request(write)
        case Action.UPDATED:
            return update_request(write, base)
        case Action.DELETED:
            return delete_request(write)
        case Action.UNKNOWN:
            raise ValueError("a write says what it does")


def create_request(write: Write) -> Request:
    """Raises as `write_request`."""
    path = facts_of(write.entity).writes.create
    if not path:
        raise _impossible(write)
    return _sending("POST", path, body_of(write))


def update_request(write: Write, base: Mapping[str, Any] | None) -> Request:
    """`base`: the record as it is now. Raises as `write_request`."""
    if not facts_of(write.entity).writes.update:
        raise _impossible(write)
    return _sending("PUT", _record_path(write), body_of(write, base=base))


def delete_request(write: Write) -> Request:
    """Raises as `write_request`."""
    match facts_of(write.entity).writes.delete:
        case Deletion.FLAG:
            return _sending("PUT", _record_path(write), body_of(write))
        case Deletion.METHOD:
            return Request(_record_path(write), method="DELETE", repeat=Repeat.IF_UNDONE)
        case Deletion.NONE:
            raise _impossible(write)


def setting_request(write: Write) -> Request:
    """Adds a piece to the account's settings.

    Raises:
        InvalidInput: a status without the id of its workflow.
        ValueError: not an addition.
        KeyError: there is no such part.
    """
    if write.action is not Action.CREATED:
        raise _impossible(write)
    path = SETTINGS_PARTS[write.part].path
    if "{workflow_id}" in path:
        if not _WORKFLOW_ID.fullmatch(write.record_id):
            raise InvalidInput("A status needs the id of its workflow, a whole number.", field="workflow_id")
        path = path.format(workflow_id=write.record_id)
    return _sending("POST", path, body_of(write))


def upload_start(upload: Upload, *, repeat: Repeat = Repeat.IF_UNDONE) -> Request:
    """Asks the upload service for a place for the file's bytes; nothing shows until they are there."""
    body = {
        "related": _ids(upload),
        "type": upload.type_id,
        "filename": upload.filename,
        "description": upload.description,
        "isPrivate": upload.is_private,
    }
    return Request(f"{_UPLOADS}/url", method="POST", body=_json(body), base=Base.UPLOAD, repeat=repeat)


def upload_bytes(url: str, upload: Upload) -> Request:
    """Puts the bytes into that place: as often as need be, since it is the same place."""
    return Request(
        "",
        method="PUT",
        body=upload.content,
        base=Base.ABSOLUTE,
        url=url,
        media=upload.content_type or "application/octet-stream",
        slow=True,
    )


def upload_complete(jnid: str) -> Request:
    """Says that the bytes are there.

    Raises:
        InvalidInput: `jnid` is none.
    """
    _check_id(Entity.ATTACHMENTS, jnid)
    params = (("generateThumbnail", "true"),)
    path = f"{_UPLOADS}/{jnid}/complete"
    return Request(path, params, method="POST", body=b"", base=Base.UPLOAD, repeat=Repeat.IF_UNDONE)


def upload_base64(upload: Upload) -> Request:
    """The whole file in one body: the older way, a third longer than the file."""
    body = {
        "data": base64.b64encode(upload.content or b"").decode(),
        "filename": upload.filename,
        "content_type": upload.content_type,
        "description": upload.description,
        "type": upload.type_id,
        "related": _ids(upload),
        "persist": True,
        "is_active": True,
        "is_private": upload.is_private,
    }
    return Request("/files", method="POST", body=_json(body), repeat=Repeat.IF_UNDONE, slow=True)


def upload_from_url(upload: Upload) -> Request:
    """Has JobNimbus fetch the file itself."""
    body = {
        "related": _ids(upload),
        "type": upload.type_id,
        "url": upload.source_url,
        "name": upload.filename,
        "description": upload.description,
    }
    if upload.is_private:
        body["is_private"] = True
    return Request("/files/fromUrl", method="POST", body=_json(body), repeat=Repeat.IF_UNDONE, slow=True)


def content_request(jnid: str, *, bytes_max: int) -> Request:
    """A file's content, or the way to it. Source: JobNimbus API documentation, files: ids have a `file-` prefix in
    places.

    Raises:
        InvalidInput: `jnid` is none.
    """
    bare = jnid.removeprefix("file-")
    _check_id(Entity.ATTACHMENTS, bare)
    return Request(f"{facts_of(Entity.ATTACHMENTS).path}/{bare}", bytes_max=bytes_max, slow=True)


def fetch_request(url: str, *, bytes_max: int) -> Request:
    """What lies at the place that JobNimbus named."""
    return Request("", base=Base.ABSOLUTE, url=url, bytes_max=bytes_max, slow=True)


def _check_id(entity: Entity, jnid: str) -> None:
    """Estimates of the quoting product have GUIDs. Source: JobNimbus API documentation, identifiers."""
    if not is_jnid(jnid) and not (entity is Entity.ESTIMATES and _GUID_LIKE.fullmatch(jnid)):
        raise InvalidInput("A JobNimbus id has 1 to 64 letters and digits and nothing else.")


def _record_path(write: Write) -> str:
    _check_id(write.entity, write.record_id)
    return f"{facts_of(write.entity).path}/{write.record_id}"


def _sending(method: str, path: str, body: Mapping[str, Any]) -> Request:
    base = Base.HOST if _OTHER_API.match(path) else Base.API
    return Request(path, method=method, body=_json(body), base=base, repeat=Repeat.IF_UNDONE)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        # its own words may quote the value
        raise InvalidInput("The record holds a text or number that cannot be written as JSON.") from error


def _ids(upload: Upload) -> list[str]:
    # objects are refused, and a link in any other form is dropped without a word
    return [link.jnid for link in upload.links]


def _impossible(write: Write) -> ValueError:
    return ValueError(f"JobNimbus takes no such change: {write.entity.value} {write.action.value}")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _encoded_length(text: str) -> int:
    return len(quote(text, safe=""))
