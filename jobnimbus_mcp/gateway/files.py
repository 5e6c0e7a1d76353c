"""Contents of files, asked for in a caller's name; never cached, since they are large and their links short-lived."""

from __future__ import annotations

from typing import Protocol

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.crm.files import FileContent, FileLink
from jobnimbus_mcp.gateway.identity import Caller

__all__ = ["FileStore", "StoredFiles"]


class FileStore(Protocol):
    """What this asks of the JobNimbus client."""

    async def content(
        self, jnid: str, *, max_bytes: int, instance: str, credential: str, call: Call
    ) -> FileContent: ...

    async def link(self, jnid: str, *, instance: str, credential: str, call: Call) -> FileLink: ...


class StoredFiles:
    """JobNimbus decides whether the caller may have the file, each time."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def content(self, jnid: str, caller: Caller, call: Call, *, max_bytes: int) -> FileContent:
        """The bytes.

        Raises:
            InvalidInput: there are more than `max_bytes`.
            UpstreamError, BudgetExhausted: by their kind.
        """
        return await self._store.content(
            jnid, max_bytes=max_bytes, instance=caller.instance, credential=caller.credential, call=call
        )

    async def link(self, jnid: str, caller: Caller, call: Call) -> str | None:
        """A URL that works for minutes without a key; None where JobNimbus answers with the bytes themselves. Raises as
        `content`."""
        found = await self._store.link(jnid, instance=caller.instance, credential=caller.credential, call=call)
        return found.url
