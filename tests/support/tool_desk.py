"""The tools over an account that is a dictionary: no cache, no HTTP, JobNimbus's own way of filtering and sorting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.cache.read_through import Admit, Loader
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import matches
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.errors import UpstreamNotFound
from jobnimbus_mcp.gateway.access import EVERYTHING, Access
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.registry import all_tools
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import Toolbox

__all__ = ["Desk", "Rows"]

Rows = list[dict[str, Any]]
QUIET = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[])


class NoCache:
    """Asks every time."""

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome:
        loaded = await loader(call)
        return Outcome(
            loaded.value, loaded.negative, Status.MISS, Tier.UPSTREAM, 1_790_000_000.0, 60.0, False, "", None
        )

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None: ...


class Account:
    """What JobNimbus has. `parts`: (kind, part) -> the document told all at once."""

    def __init__(self, records: Mapping[Entity, Rows], parts: Mapping[tuple[Entity, str], Any]) -> None:
        self.records = records
        self.parts = parts
        self.asked: list[Read] = []

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        self.asked.append(read)
        rows = self.records.get(read.entity, [])
        match read.shape:
            case Shape.WHOLE:
                told: dict[str, Any] = self.parts[read.entity, read.part]
                return told
            case Shape.RECORD:
                for row in rows:
                    if row["jnid"] == read.record_id:
                        return row
                raise UpstreamNotFound("there is none")
            case _:
                found = [row for row in rows if matches(read.where, row)]
                found.sort(key=lambda row: row.get(read.sort.field) or 0, reverse=read.sort.descending)
                return {"count": len(found), "rows": found[read.offset : read.offset + read.size]}

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None: ...


async def no_webhooks(*_: object) -> dict[str, Any]:
    return {"as_of": "1970-01-01T00:00:00Z"}


class Desk:
    """Somebody who calls tools."""

    def __init__(
        self,
        records: Mapping[Entity, Rows] | None = None,
        parts: Mapping[tuple[Entity, str], Any] | None = None,
        *,
        writes: Sequence[ToolSpec] = (),
        answer_max_bytes: int = 24_576,
        zone: str = "UTC",
    ) -> None:
        self.clock = ManualClock()
        self.account = Account(records or {}, {(Entity.USERS, ""): {"rows": []}, **(parts or {})})
        gateway = Gateway(NoCache(), self.account, Policies(), Tally(), lambda _: "ttl")
        self.specs = all_tools(no_webhooks, writes, lambda spec, access: self.toolbox.usable(spec, access))
        self.toolbox = Toolbox(
            self.specs,
            gateway,
            self.clock,
            ZoneInfo(zone),
            answer_max_bytes,
            Tally(),
            InMemoryRecorder(),
            QUIET,
            AnswerMemo(0),
        )

    async def ask(self, tool: str, access: Access = EVERYTHING, **arguments: Any) -> dict[str, Any]:
        """The structured result; raises as the tool does."""
        who = Caller("stamford", "k" * 16, "p" * 32, own_key=True, access=access)
        answer = await self.toolbox.call(tool, arguments, who, Call.begin(self.clock, "r"))
        return answer.structured

    async def ids(self, tool: str, **arguments: Any) -> list[str]:
        """The ids of all records of the answer, in its order."""
        told = await self.ask(tool, **arguments)
        assert told["next_cursor"] is None
        assert told.get("complete") is not False
        return [row.get("jnid") or row["id"] for row in told["results"]]
