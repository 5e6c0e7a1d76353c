"""The account itself: its people, and how its webhooks are set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.payloads import rfc3339
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.filters import Condition, Filter, Given
from jobnimbus_mcp.tools.inputs import NoArgs, Truth

__all__ = ["ACTIVE_ONLY", "RECORD_KINDS", "SCENARIOS", "WebhooksReceived", "get_webhooks_of"]

RECORD_KINDS: Mapping[str, Entity] = {
    "Contact": Entity.CONTACTS,
    "Job": Entity.JOBS,
    "Task": Entity.TASKS,
    "Work Order": Entity.WORKORDERS,
    "Material Order": Entity.MATERIALORDERS,
    "Attachment": Entity.ATTACHMENTS,
    "Activity": Entity.ACTIVITIES,
    "Estimate": Entity.ESTIMATES,
    "Invoice": Entity.INVOICES,
    "Payment": Entity.PAYMENTS,
}
"""Record kinds of JobNimbus's automations. Source: JobNimbus help pages on automations; the three document kinds are
known from accounts that receive them."""

SCENARIOS = ("Created", "Modified", "Deleted")

WebhooksReceived = Callable[[str], Awaitable[Mapping[str, Mapping[str, Any]]]]
"""instance -> {entity: {"count", "last_at" (RFC 3339)}}"""


async def _active_only(ctx: ToolContext, entity: Entity, given: Given) -> Condition:
    return Condition(keep=(lambda row: row.get("is_active") is not False) if given["active_only"] else None)


ACTIVE_ONLY = Filter(
    {"active_only": Annotated[Truth, Field(description="false: former users too.")]},
    _active_only,
    {"active_only": True},
)


def get_webhooks_of(
    base_url: str, enabled: Callable[[str], bool], received: WebhooksReceived
) -> Callable[[ToolContext, NoArgs], Awaitable[dict[str, Any]]]:
    """The tool, given where this server is reached, whether it accepts webhooks, and what has arrived."""

    async def get_webhooks(ctx: ToolContext, args: NoArgs) -> dict[str, Any]:
        """What to enter in JobNimbus's automations, and what has been received of each kind."""
        await ctx.admitted()
        instance = ctx.caller.instance
        arrived = await received(instance)
        url = f"{base_url}/webhooks/jobnimbus?token=<WEBHOOK_SECRET>&instance={instance}"
        hooks: list[dict[str, Any]] = []
        for kind, entity in RECORD_KINDS.items():
            seen = arrived.get(entity.value, {})
            told = {"received_of_this_kind": int(seen.get("count", 0)), "last_received_at": seen.get("last_at")}
            hooks += [
                {"record_kind": kind, "scenario": scenario, "method": "POST", "url": url, **told}
                for scenario in SCENARIOS
            ]
        return {
            "enabled": enabled(instance),
            "how": "JobNimbus has no endpoint for webhooks: in its Settings > Automations, make one automation per "
            "record kind and scenario with the action Webhook (POST) to the URL, the placeholder replaced by the "
            "server's WEBHOOK_SECRET, percent-encoded (+ is %2B, / is %2F, = is %3D). JobNimbus does not say in "
            "the body what happened, so the kinds are counted together.",
            "webhooks": hooks,
            "as_of": rfc3339(ctx.now()),
        }

    return get_webhooks
