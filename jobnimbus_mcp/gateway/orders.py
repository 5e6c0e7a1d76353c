"""Order: a write or an upload in the terms in which both are carried out, looked for and told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobnimbus_mcp.crm.catalog import Deletion, LinkForm, facts_of
from jobnimbus_mcp.crm.encoding import landed, later_fields, missing, unlinked
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Is, NameIs, Where
from jobnimbus_mcp.crm.writes import Upload, Write
from jobnimbus_mcp.errors import InvalidInput

__all__ = ["CLOCK_MARGIN_S", "Order", "RecordOrder", "UploadOrder", "kind_name"]

CLOCK_MARGIN_S = 5
"""How far JobNimbus's clock may be behind ours when we look for what was made since a moment of ours."""

_KINDS: Mapping[Entity, str] = {
    Entity.WORKORDERS: "work order",
    Entity.MATERIALORDERS: "material order",
    Entity.ATTACHMENTS: "file",
    Entity.ACTIVITIES: "activity",
    Entity.SETTINGS: "setting",
}
_VERBS: Mapping[Action, str] = {Action.CREATED: "make", Action.UPDATED: "change", Action.DELETED: "delete"}


@dataclass(frozen=True, slots=True)
class RecordOrder:
    """A change of one record, or of the account's settings."""

    write: Write

    @property
    def entity(self) -> Entity:
        return self.write.entity

    @property
    def action(self) -> Action:
        return self.write.action

    @property
    def record_id(self) -> str:
        """Of what is changed; "" for what is made, and for settings."""
        return "" if self.action is Action.CREATED or self.entity is Entity.SETTINGS else self.write.record_id

    @property
    def whole(self) -> bool:
        """The document goes back as a whole, so nothing else may change it between."""
        return self.action is not Action.CREATED and facts_of(self.entity).writes.whole

    @property
    def fingerprint(self) -> str:
        """The same for equal orders only."""
        write = self.write
        links = [(link.jnid, link.entity) for link in write.links]
        return _digest("write", write.entity, write.action, write.record_id, write.fields, links, write.part)

    @property
    def names(self) -> tuple[str, ...]:
        """Of what is set."""
        if not self.write.links:
            return tuple(self.write.fields)
        by_primary = facts_of(self.entity).writes.links is LinkForm.PRIMARY
        return (*self.write.fields, "primary" if by_primary else "related")

    def check(self) -> None:
        """Return when JobNimbus takes such a change and everything it needs is there.

        Raises:
            InvalidInput: otherwise.
        """
        if not self._possible:
            verb = _VERBS[self.action]
            raise InvalidInput(f"JobNimbus has no way to {verb} a {kind_name(self.entity)} through its API.")
        absent = missing(self.write)
        if absent:
            raise InvalidInput(
                f"A new {kind_name(self.entity)} needs {', '.join(absent)}. Nothing was sent.", field=absent[0]
            )

    def later(self) -> dict[str, Any]:
        """What is to be set by a second step."""
        return later_fields(self.write)

    def where(self, since: float) -> Where:
        """The list in which a record made since then (epoch seconds, our clock) stands."""
        earliest = int(since) - CLOCK_MARGIN_S
        clauses: Where = ()
        dated = self.write.fields.get("date_created")
        if isinstance(dated, int) and dated < earliest:
            # written down under an earlier date, beside all that was made since then: what it hangs on tells it apart
            earliest, clauses = dated, tuple(_hangs_on(link.jnid) for link in self.write.links[:1])
        clauses = (*clauses, Between("date_created", earliest))
        unique = facts_of(self.entity).writes.unique
        name = self.write.fields.get(unique) if unique else None
        return (NameIs(unique, name), *clauses) if isinstance(name, str) and any(map(str.isalnum, name)) else clauses

    def unlike(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of what the row does not show as it was sent, the second step apart."""
        return landed(self._first, row)

    def resembles(self, row: Mapping[str, Any]) -> bool:
        """It may be the one, changed by JobNimbus or by somebody since: linked as asked, and half of it alike."""
        return not unlinked(self.write, row) and 2 * len(self.unlike(row)) <= len(self.names)

    @property
    def _possible(self) -> bool:
        if self.entity is Entity.SETTINGS:
            return True
        writes = facts_of(self.entity).writes
        ways = {
            Action.CREATED: bool(writes.create),
            Action.UPDATED: writes.update,
            Action.DELETED: writes.delete is not Deletion.NONE,
        }
        return ways[self.action]

    @property
    def _first(self) -> Write:
        later = self.later()
        fields = {name: value for name, value in self.write.fields.items() if name not in later}
        return replace(self.write, fields=fields)


@dataclass(frozen=True, slots=True)
class UploadOrder:
    """A file to be stored."""

    upload: Upload
    entity = Entity.ATTACHMENTS
    action = Action.CREATED
    record_id = ""
    whole = False

    @property
    def fingerprint(self) -> str:
        upload = self.upload
        content = None if upload.content is None else hashlib.sha256(upload.content).hexdigest()
        told = (upload.filename, upload.content_type, upload.type_id, upload.description, upload.is_private)
        links = [link.jnid for link in upload.links]
        return _digest("upload", *told, upload.source_url, content, links)

    @property
    def names(self) -> tuple[str, ...]:
        described = ("description",) if self.upload.description else ()
        return ("filename", "type", *described, "related")

    def check(self) -> None:
        """Return when everything JobNimbus needs is there.

        Raises:
            InvalidInput: something is missing.
        """
        upload = self.upload
        if not upload.filename.strip():
            raise InvalidInput("A file needs a name. Nothing was sent.", field="filename")
        if not upload.links:
            raise InvalidInput("A file needs a record to hang on. Nothing was sent.", field="related")
        if (upload.content is None) == (upload.source_url is None):
            raise InvalidInput("Give the file's content or its address, not both. Nothing was sent.", field="content")

    def later(self) -> dict[str, Any]:
        return {}

    def where(self, since: float) -> Where:
        return (Between("date_created", int(since) - CLOCK_MARGIN_S),)

    def unlike(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of what the row does not show as it was sent."""
        upload = self.upload
        shown = {
            "filename": row.get("filename") == upload.filename,
            "type": str(row.get("record_type")) == str(upload.type_id),
            "description": (row.get("description") or "") == upload.description,
            "size": upload.content is None or row.get("size") in (None, 0, len(upload.content)),
            "related": not unlinked(upload, row),
        }
        return tuple(name for name, alike in shown.items() if not alike)

    def resembles(self, row: Mapping[str, Any]) -> bool:
        return row.get("filename") == self.upload.filename

    def unlinked(self, record: Mapping[str, Any]) -> bool:
        return unlinked(self.upload, record)

    def of_record(self, jnid: str) -> Where:
        """The list in which the stored file stands alone."""
        return (Is("jnid", jnid),)


Order = RecordOrder | UploadOrder


def kind_name(entity: Entity) -> str:
    """`work order`; for people."""
    return _KINDS.get(entity, entity.value.removesuffix("s"))


def _hangs_on(jnid: str) -> AnyOf:
    return AnyOf((Is("primary.id", jnid), Is("related.id", jnid)))


def _digest(*parts: Any) -> str:
    """Of JSON values."""
    # not orjson: callers' numbers may be longer than it writes
    text = json.dumps(parts, default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
