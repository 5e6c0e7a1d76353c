"""What the API refuses and what it makes of a file, on each of the ways a file comes in.

Source: JobNimbus API documentation, files: links are plain ids, types are numbers but where a name was seen to work.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from jobnimbus_mcp.simulator.account import Account
from jobnimbus_mcp.simulator.known import known_fields
from jobnimbus_mcp.simulator.refusal import UNRELATED, Refusal
from jobnimbus_mcp.simulator.settings_seed import find_type
from jobnimbus_mcp.simulator.shapes import KINDS, Record

__all__ = ["accepted_file", "accepted_link", "accepted_upload", "guessed_type", "measured", "refiled"]


def accepted_file(body: Mapping[str, Any], account: Account) -> tuple[Record, bytes]:
    """The fields and the content of a POST to /files (JSON, base64).

    Links are made only by `type` with a list of plain ids; other shapes are taken without an error and lose the link.

    Raises: Refusal for what the service would refuse.
    """
    missing = [name for name in ("data", "filename") if not body.get(name)]
    if missing:
        raise Refusal(400, f"Missing required field(s): {', '.join(missing)}")
    try:
        content = base64.b64decode(str(body["data"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "Invalid data - not base64") from error
    return {**_filed(body, account), **measured(content)}, content


def accepted_upload(body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a file whose bytes are to follow: the same links and types as of a POST to /files.

    Raises: Refusal for what the service would refuse.
    """
    if not body.get("filename"):
        raise Refusal(400, "Missing required field(s): filename")
    return {**_filed(body, account), "is_private": body.get("isPrivate") is True}


def accepted_link(body: Mapping[str, Any], account: Account) -> Record:
    """The fields of a POST to /files/fromUrl. Its type may be a name.

    Raises: Refusal for what the service would refuse.
    """
    url = body.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise Refusal(400, f"Invalid url - {url}")
    sent = dict(body)
    if isinstance(sent.get("type"), str):
        sent["type"] = _file_type(sent["type"], account)
    filename = body.get("name") or urlsplit(url).path.rpartition("/")[2] or "file"
    return {**_filed(sent, account), "filename": str(filename), "content_type": guessed_type(str(filename))}


def measured(content: bytes) -> Record:
    """What a file's bytes say of themselves."""
    return {"size": len(content), "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}


def guessed_type(filename: str) -> str:
    """The content type that goes with a file's name."""
    return mimetypes.guess_type(filename)[0] or "application/octet-stream"


def _filed(body: Mapping[str, Any], account: Account) -> Record:
    number = body.get("type")
    if number is not None:
        found = None if isinstance(number, str) else find_type(account.settings, "files", number)
        if found is None:
            raise _no_file_type(number, account)
    fields = known_fields("files", {**body, "record_type": number if number is not None else 1}, account)
    for name in ("primary", "related", "record_type_name"):
        fields.pop(name, None)
    related = body.get("related")
    if isinstance(related, list):
        links = _file_links(related, account)
        if number is not None:
            fields |= links
    return fields


def refiled(body: Mapping[str, Any], account: Account) -> Record:
    """Type and links of a PUT to a file: its type may be a name, as the one PUT on record has it."""
    fields: Record = {}
    if body.get("type") not in (None, KINDS["files"].type):
        fields["record_type"] = _file_type(body["type"], account)
    if isinstance(body.get("related"), list):
        fields |= _file_links(body["related"], account)
    return fields


def _file_links(related: list[Any], account: Account) -> Record:
    if not all(isinstance(one, str) and account.find(one) is not None for one in related):
        raise Refusal(500, UNRELATED)
    jobs = [one for one in related if account.get("jobs", one) is not None]
    return {"primary": (jobs or related)[0], "related": related} if related else {}


def _file_type(name_or_id: Any, account: Account) -> int:
    found = find_type(account.settings, "files", name_or_id)
    if found is None:
        raise _no_file_type(name_or_id, account)
    return found[0]


def _no_file_type(asked: Any, account: Account) -> Refusal:
    valid = [row["FileTypeId"] for row in account.settings["fileTypes"] if row["IsActive"]]
    return Refusal(400, f"Invalid type - {asked}. Valid FileTypeIds: {', '.join(map(str, valid))}")
