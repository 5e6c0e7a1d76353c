"""Write: one change to be made in JobNimbus, said in its own field names and in none of its dialects.

How each kind wants it (related or primary, whole or in part, flag or method) is the catalog's; nobody who makes a
`Write` needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobnimbus_mcp.crm.entities import Action, Entity

__all__ = ["Link", "Upload", "Write", "WriteResult"]


@dataclass(frozen=True, slots=True)
class Link:
    """A record that the written one shall hang on: its jnid, and its kind where that is known."""

    jnid: str
    entity: Entity | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One change. `action`: CREATED, UPDATED or DELETED. `record_id`: of what is updated or deleted, "" for a new one.

    `fields`: what is to be set, under JobNimbus's names and in its units (epoch seconds, dollars); of an update only
    what changes, and of each line of a document what changes of it (`crm.lines`). `links`: empty leaves them as they
    are; those of a document take the place of the links of their kind, elsewhere they are all there will be. `part`:
    which of the account's settings (`SETTINGS_PARTS`), with the id of the workflow a status belongs to in `record_id`.
    Fields hold customers' data, so they stay out of every repr.
    """

    entity: Entity
    action: Action
    record_id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    links: tuple[Link, ...] = ()
    part: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to be stored. `type_id`: of the account's file types. Exactly one of `content` and `source_url` is set:
    bytes, or where JobNimbus itself shall fetch them. `links`: at least one."""

    filename: str
    content_type: str
    type_id: int
    links: tuple[Link, ...]
    description: str = field(default="", repr=False)
    content: bytes | None = field(default=None, repr=False)
    source_url: str | None = field(default=None, repr=False)
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What came of a write.

    `record`: as JobNimbus answered it; of a deletion as it was before; of a settings part the part. `before`: the
    record as it was, None of a new one. `changed`: names of the fields that differ from before, in order. `replayed`:
    it had been carried out before, under the same idempotency key. `note`: what the caller should know, "" nothing.
    """

    entity: Entity
    action: Action
    record: Mapping[str, Any] = field(repr=False, hash=False)
    before: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    changed: tuple[str, ...] = ()
    replayed: bool = False
    note: str = ""

    @property
    def jnid(self) -> str:
        """Of the record; "" for a settings part."""
        return str(self.record.get("jnid") or "")
