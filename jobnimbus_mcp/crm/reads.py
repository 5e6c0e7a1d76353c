"""Read: one question to JobNimbus, frozen and comparable. Equal questions are equal values with equal identifiers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST, Sort, Where

__all__ = ["BLOCK_ROWS", "SCAN_ROWS_MAX", "Operation", "Read", "Shape"]

BLOCK_ROWS = 100
"""Rows of one cached block of a list. Four default pages live in one block; ten times more would make a cold page wait
for several megabytes, ten times fewer would ask JobNimbus for each page."""

SCAN_ROWS_MAX = 5_000
"""Most rows a question that must see everything reads; beyond it the answer says that it is not complete."""


class Operation(StrEnum):
    """The middle of a cache key."""

    LIST = "list"
    SEARCH = "search"
    DETAIL = "detail"


class Shape(StrEnum):
    """How a question is put, and what its answer looks like (all are JSON objects).

    RECORD: one record by jnid; the record itself.
    BLOCK: `size` rows from `offset` of a list sorted by JobNimbus; `{"count": all that match, "rows": [...]}`, with
        `"incomplete": "<why>"` when rows had to be left out.
    SCAN: every row that matches, checked here, the first `size` in the order asked for;
        `{"rows": [...]}`, with `"incomplete": "<why>"` when not all were seen.
    WHOLE: a document that is no list of records: `{"rows": [...]}` for users, groups and units, the settings object
        for settings.
    """

    RECORD = "record"
    BLOCK = "block"
    SCAN = "scan"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Read:
    """One question. `scope`: ids of the records the rows hang on, empty for the whole account. `part`: which of the
    documents of its kind, where there are several ("" the main one)."""

    entity: Entity
    operation: Operation
    shape: Shape
    record_id: str = ""
    where: Where = ()
    sort: Sort = NEWEST_FIRST
    offset: int = 0
    size: int = BLOCK_ROWS
    scope: frozenset[str] = frozenset()
    part: str = ""

    @classmethod
    def record(cls, entity: Entity, jnid: str) -> Read:
        return cls(entity, Operation.DETAIL, Shape.RECORD, record_id=jnid)

    @classmethod
    def block(
        cls,
        entity: Entity,
        where: Where,
        sort: Sort,
        offset: int,
        size: int = BLOCK_ROWS,
        scope: frozenset[str] = frozenset(),
    ) -> Read:
        return cls(entity, Operation.LIST, Shape.BLOCK, where=where, sort=sort, offset=offset, size=size, scope=scope)

    @classmethod
    def scan(
        cls,
        entity: Entity,
        where: Where,
        *,
        sort: Sort = NEWEST_FIRST,
        operation: Operation = Operation.LIST,
        scope: frozenset[str] = frozenset(),
    ) -> Read:
        return cls(entity, operation, Shape.SCAN, where=where, sort=sort, size=SCAN_ROWS_MAX, scope=scope)

    @classmethod
    def whole(cls, entity: Entity, part: str = "") -> Read:
        return cls(entity, Operation.LIST, Shape.WHOLE, part=part)

    @property
    def form(self) -> Mapping[str, Any]:
        """The canonical form: what makes two questions the same one, order of clauses apart."""
        made: dict[str, Any] = {"shape": self.shape.value}
        if self.where:
            made["where"] = sorted((clause.form() for clause in self.where), key=str)
        if self.shape in (Shape.BLOCK, Shape.SCAN):  # of a scan too large to see whole, the first rows are seen
            made |= {"sort": [self.sort.field, "desc" if self.sort.descending else "asc"]}
        if self.shape is Shape.BLOCK:
            made |= {"offset": self.offset, "size": self.size}
        return made

    @property
    def identifier(self) -> str:
        """The key's last segment: the jnid of a record, a digest of the canonical form for a search, else that form.

        Values out of the account (names, phone numbers) never show in a key: whatever has a text or is longer than
        120 characters is a digest.
        """
        if self.shape is Shape.RECORD:
            return self.record_id
        if self.shape is Shape.WHOLE:
            return self.part or "all"
        text = json.dumps(self.form, separators=(",", ":"), sort_keys=True)
        if self.operation is Operation.SEARCH or self.where or len(text) > 120:
            return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return f"{self.sort.field}.{'desc' if self.sort.descending else 'asc'}.{self.offset}.{self.size}"
