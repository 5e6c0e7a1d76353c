"""The number behind a status name of an estimate, an invoice or a material order.

No setting lists them. What the account's newest documents carry is taken first, then what was observed elsewhere.
Source: JobNimbus API documentation, estimates, invoices, material orders (numbers observed, not documented).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import NEWEST_FIRST
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.tools.context import ToolContext

__all__ = ["OBSERVED", "document_status"]

OBSERVED: Mapping[Entity, Mapping[str, int]] = MappingProxyType(
    {
        Entity.ESTIMATES: {"Draft": 1, "Sent": 2, "Viewed": 3, "Approved": 4, "Invoiced": 5, "Declined": 6},
        Entity.INVOICES: {"Draft": 1, "Open": 2, "Sent": 3, "Closed": 4},
        Entity.MATERIALORDERS: {"Draft": 0},
    }
)


async def document_status(ctx: ToolContext, entity: Entity, name: str) -> dict[str, Any]:
    """`{"status", "status_name"}` of the status of this name, whatever its case.

    Raises:
        InvalidInput: no document of the account has it, and it was not seen elsewhere; the message lists those known.
    """
    rows = (await ctx.look_up(Read.block(entity, (), NEWEST_FIRST, 0))).value()["rows"]
    known: dict[str, int] = dict(OBSERVED[entity])
    for row in reversed(rows):
        number, told = row.get("status"), row.get("status_name")
        if isinstance(number, int) and not isinstance(number, bool) and isinstance(told, str) and told:
            known[told] = number
    for told, number in reversed(known.items()):
        if told.casefold() == name.strip().casefold():
            return {"status": number, "status_name": told}
    raise InvalidInput(f"There is no status of that name here. Known: {', '.join(sorted(known))}.", field="status")
