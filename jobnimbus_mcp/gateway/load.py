"""One load: what is asked, what may be asked for it besides, and how its answer is told to the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson

from jobnimbus_mcp.cache.outcome import Loaded, Lying, Outcome
from jobnimbus_mcp.cache.ports import History
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import epoch_s
from jobnimbus_mcp.crm.query import OneOf
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.relations import record_floor
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["Asked", "Kept", "Made", "Reads", "loaded_of", "made_of", "versions_of"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One load. `max_age_s`: what its reader accepts, None any age, 0 none."""

    read: Read
    question: Question
    caller: Caller
    call: Call
    max_age_s: float | None = None

    @property
    def whose(self) -> tuple[str, str]:
        return self.caller.instance, self.caller.partition


class Made(NamedTuple):
    """An answer: its `value`, and that as the cache keeps it. `epoch`: of the log that its position is one of."""

    loaded: Loaded
    value: Mapping[str, Any]
    epoch: bytes = b""


class Kept(Protocol):
    """What is asked of the cache: see `ReadThrough`."""

    async def lying(self, question: Question, call: Call) -> Lying | None: ...

    async def history(self, tenant: str, after: str, back_s: float, call: Call) -> History | None: ...


class Reads(Protocol):
    """How further reads are made on behalf of a load."""

    def question(self, read: Read, caller: Caller) -> Question:
        """The read as a question whose answer is never older than an acknowledged change."""
        ...

    async def through(self, read: Read, caller: Caller, call: Call, max_age_s: float | None) -> Outcome:
        """The answer to such a question, through the cache."""
        ...

    async def ask(self, read: Read, caller: Caller, call: Call) -> dict[str, Any]:
        """JobNimbus's own answer now."""
        ...


def versions_of(entity: Entity, rows: Sequence[Any]) -> dict[str, int]:
    """The version of each record shown, for the floors: its `date_updated`. Without id or date, a record has none."""
    found: dict[str, int] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        jnid, version = row.get("jnid"), epoch_s(row.get("date_updated"))
        if isinstance(jnid, str) and version is not None:
            found[record_floor(entity, jnid)] = version
    return found


def loaded_of(read: Read, value: Mapping[str, Any], **known: Any) -> Loaded:
    """The answer to `read` as the cache keeps it. `known`: what else is known of it, by `Loaded`'s names."""
    versions = versions_of(read.entity, [value] if read.shape is Shape.RECORD else value.get("rows", ()))
    # a number that nothing carries is a "not found" too, and must not outlive the record's creation by long
    negative = (
        read.shape is Shape.SCAN
        and not value["rows"]
        and any(isinstance(clause, OneOf) and clause.field == "number" for clause in read.where)
    )
    return Loaded(orjson.dumps(value), negative=negative, versions=versions, **known)


def made_of(read: Read, value: Mapping[str, Any], history: History | None = None, **known: Any) -> Made:
    """As `loaded_of`. `history`: what its position was found in."""
    return Made(loaded_of(read, value, **known), value, b"" if history is None else history.epoch)
