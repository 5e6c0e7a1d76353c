"""A write, from what is wanted to what JobNimbus has: once, seen through, told to every cache, and audited."""

from __future__ import annotations

from typing import Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.writes import Upload, Write, WriteResult
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["Writer"]


class Writer(Protocol):
    """Changes JobNimbus in a caller's name."""

    async def write(
        self, write: Write, caller: Caller, call: Call, *, idempotency_key: str | None = None
    ) -> WriteResult:
        """Carry the change out.

        Raises:
            RecordNotFound: there is no such record to change.
            WriteRefused, DuplicateRecord: JobNimbus does not take it.
            WriteInProgress: the same key is being worked on.
            InvalidInput: the same key was used for another change.
            WriteOutcomeUnknown: it was sent, and whether it was carried out could not be seen.
            UpstreamError, BudgetExhausted: it was not carried out.
        """
        ...

    async def upload(
        self, upload: Upload, caller: Caller, call: Call, *, idempotency_key: str | None = None
    ) -> WriteResult:
        """Store a file; raises as `write`."""
        ...
