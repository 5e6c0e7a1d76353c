"""subscriptions/listen: one stream, the acknowledgment first, then a notification for each change."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    ResourceUpdatedNotification,
    ResourceUpdatedNotificationParams,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)

from jobnimbus_mcp.errors import ProjectError
from jobnimbus_mcp.tools.refusals_mcp import refusal
from jobnimbus_mcp.tools.requests_mcp import Calls, Ctx, proof_of
from jobnimbus_mcp.tools.resources import WATCH
from jobnimbus_mcp.tools.subscriptions import Unwatchable, Watches

__all__ = ["TAKEN_WITHIN_S", "Listening"]

TAKEN_WITHIN_S = 30.0
"""A subscriber that takes nothing for so long is gone, or might as well be: its place is another's."""


class Listening:
    """Streams of changes to whoever subscribed."""

    def __init__(self, watches: Watches, calls: Calls) -> None:
        self._watches = watches
        self._calls = calls

    async def listen(self, ctx: Ctx, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Until either side ends it."""
        request_id = ctx.request_id
        if request_id is None:
            raise MCPError(code=INVALID_REQUEST, message="A subscription needs a request id.")
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: request_id}
        call = self._calls.begin(ctx, WATCH)
        uris = tuple(dict.fromkeys(map(str, params.notifications.resource_subscriptions or ())))

        async def tell(notification: ServerNotification) -> None:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                await ctx.session.send_notification(notification, related_request_id=request_id)

        try:
            async with self._watches.opened(uris, proof_of(ctx), call) as watch:
                # what is offered does not change while a server runs, so of its lists nothing is promised
                granted = SubscriptionFilter(resource_subscriptions=list(uris) or None)
                acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=granted, _meta=meta)
                await tell(SubscriptionsAcknowledgedNotification(params=acknowledged))
                while (uri := await watch.next()) is not None:
                    changed = ResourceUpdatedNotificationParams(uri=uri, _meta=meta)
                    await tell(ResourceUpdatedNotification(params=changed))
        except Unwatchable as refused:
            raise refusal(refused.error, call.request_id, refused.uri, "Cannot subscribe to {uri}: ") from refused
        except ProjectError as error:
            raise refusal(error, call.request_id) from error
        except TimeoutError as slow:
            raise MCPError(code=INTERNAL_ERROR, message="Nothing was taken for too long; subscribe again.") from slow
        return SubscriptionsListenResult(_meta=meta)
