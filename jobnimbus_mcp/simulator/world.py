"""The simulated JobNimbus as one thing: accounts, their API, control routes and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.simulator.account import Account, Change
from jobnimbus_mcp.simulator.api_asgi import Api, Profile, web_app_page
from jobnimbus_mcp.simulator.calls import CallCounter
from jobnimbus_mcp.simulator.control_asgi import Control
from jobnimbus_mcp.simulator.dataset import DAY_S
from jobnimbus_mcp.simulator.faults import FaultPlan
from jobnimbus_mcp.simulator.files import FileContents
from jobnimbus_mcp.simulator.seed import seed_account, seed_keys
from jobnimbus_mcp.simulator.shapes import Record
from jobnimbus_mcp.simulator.webhook_bodies import webhook_body
from jobnimbus_mcp.simulator.webhooks_http import WebhookSender

__all__ = ["Simulator"]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Simulator:
    """A JobNimbus that runs in process: `app` is its ASGI application, with the API root at `/api1`.

    The same seed gives the same accounts and keys; dates count from the day it was made. Close it with `aclose`.
    `index_lag_s`: how far lists and searches lag behind writes. `webhook_url`: where changes are posted; None: nowhere.

    Raises: ValueError for no instances, names given twice, or a scale below 1.
    """

    def __init__(
        self,
        *,
        instances: Sequence[str] = ("stamford", "guilford"),
        seed: int = 7,
        scale: int = 1,
        clock: Clock | None = None,
        latency_ms: float = 0,
        webhook_url: str | None = None,
        webhook_transport: httpx.AsyncBaseTransport | None = None,
        index_lag_s: float = 0,
    ) -> None:
        if not instances or len(set(instances)) != len(instances):
            raise ValueError("instances must be one or more different names")
        if scale < 1:
            raise ValueError("scale must be at least 1")
        self._clock = clock or SystemClock()
        self._index_lag_s = index_lag_s
        day_s = int(self._clock.now()) // DAY_S * DAY_S
        self._seeds = {name: seed_account(seed, name, scale, day_s) for name in instances}
        self.keys: Mapping[str, tuple[str, str]] = MappingProxyType({name: seed_keys(seed, name) for name in instances})
        self.instances = tuple(instances)
        self._accounts: dict[str, Account] = {}
        self._contents = {name: FileContents() for name in instances}
        self._calls = CallCounter()
        self._faults = FaultPlan()
        self._webhooks = WebhookSender(webhook_url, webhook_transport)
        self.reset()
        profiles: dict[str, Profile] = {}
        for name, (full, restricted) in self.keys.items():
            seeded = self._seeds[name]
            profiles[full] = Profile(name, seeded.admin, None)
            profiles[restricted] = Profile(name, seeded.restricted_user, seeded.restricted_user)
        api = Api(
            accounts=self._accounts,
            profiles=profiles,
            contents=self._contents,
            faults=self._faults,
            calls=self._calls,
            clock=self._clock,
            latency_s=latency_ms / 1000,
            publish=self._publish,
        )
        control = Control(self, self._faults)

        async def answer_api(request: Request) -> Response:
            return await api(request)

        async def answer_control(request: Request) -> Response:
            return await control(request)

        async def answer_other(request: Request) -> Response:
            return web_app_page()

        self.app = Starlette(
            routes=[
                Route("/api1", answer_api, methods=_METHODS),
                Route("/api1/{path:path}", answer_api, methods=_METHODS),
                Route("/_sim", answer_control, methods=_METHODS),
                Route("/_sim/{path:path}", answer_control, methods=_METHODS),
                Route("/{path:path}", answer_other, methods=_METHODS),
            ]
        )

    @property
    def calls(self) -> int:
        """API calls so far, since the start or the latest reset."""
        return self._calls.total

    def calls_by_path(self) -> dict[str, int]:
        """API calls by path relative to the API root: `/jobs`, `/jobs/<jnid>`, `/v2/estimates`."""
        return self._calls.by_path()

    def call_report(self) -> dict[str, Any]:
        """What GET /_sim/calls answers."""
        webhooks = {"delivered": self._webhooks.delivered, "failed": self._webhooks.failed}
        return {"total": self.calls, "byPath": self.calls_by_path(), "webhooks": webhooks}

    def account(self, instance: str) -> Account:
        """The account itself, past the API. After a reset it is another object.

        Raises: KeyError for an unknown instance.
        """
        return self._accounts[instance]

    def reset(self) -> None:
        """Data, faults and counters as at start; deliveries that wait are dropped."""
        for name, seeded in self._seeds.items():
            self._accounts[name] = Account(seeded, self._clock, index_lag_s=self._index_lag_s)
            self._contents[name].clear()
        self._calls.clear()
        self._faults.clear()
        self._webhooks.forget()

    async def create(self, instance: str, entity: str, fields: Mapping[str, Any], *, webhook: bool = True) -> Record:
        """Create a record without going through the API; returns it once its webhooks are delivered (5 s at most).

        Raises: KeyError for an unknown instance or entity.
        """
        return await self._done(instance, self.account(instance).create(entity, fields), webhook)

    async def change(
        self, instance: str, entity: str, jnid: str, fields: Mapping[str, Any], *, webhook: bool = True
    ) -> Record:
        """Change a record without going through the API, unchecked; `webhook` False loses the deliveries.

        Raises: KeyError for an unknown instance, entity or jnid.
        """
        return await self._done(instance, self.account(instance).update(entity, jnid, fields), webhook)

    async def delete(self, instance: str, entity: str, jnid: str, *, webhook: bool = True) -> Record:
        """Delete a record without going through the API; returns it as it was last.

        Raises: KeyError for an unknown instance, entity or jnid.
        """
        return await self._done(instance, self.account(instance).delete(entity, jnid), webhook)

    async def drain(self) -> None:
        """Return when every webhook of writes so far was delivered or given up."""
        await self._webhooks.drain()

    async def aclose(self) -> None:
        """Stop deliveries; what still waits is dropped."""
        await self._webhooks.aclose()

    async def _done(self, instance: str, changes: Sequence[Change], webhook: bool) -> Record:
        if webhook:
            await self._webhooks.post_and_wait(instance, self._bodies(instance, changes))
        return changes[0].record

    def _publish(self, instance: str, changes: Sequence[Change]) -> None:
        self._webhooks.post(instance, self._bodies(instance, changes))

    def _bodies(self, instance: str, changes: Sequence[Change]) -> list[dict[str, Any]]:
        if not self._webhooks.enabled:
            return []
        account = self._accounts[instance]

        def email_of(user_id: object) -> str | None:
            user = account.user(user_id)
            return None if user is None else user.email

        return [webhook_body(change.record, email_of) for change in changes]
