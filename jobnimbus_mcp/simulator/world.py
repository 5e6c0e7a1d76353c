"""The simulated JobNimbus as one thing: accounts, their API, control routes and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobnimbus_mcp.clock import Clock, SystemClock
from jobnimbus_mcp.simulator.account import Account, Change
from jobnimbus_mcp.simulator.api_asgi import API2, UPLOADS, Api
from jobnimbus_mcp.simulator.calls import CallCounter
from jobnimbus_mcp.simulator.control_asgi import Control
from jobnimbus_mcp.simulator.dataset import DAY_S
from jobnimbus_mcp.simulator.faults import FaultPlan
from jobnimbus_mcp.simulator.files import FileContents
from jobnimbus_mcp.simulator.profiles import Profile
from jobnimbus_mcp.simulator.replies import web_app_page
from jobnimbus_mcp.simulator.seed import Seeded, seed_account, seed_keys
from jobnimbus_mcp.simulator.shapes import Record
from jobnimbus_mcp.simulator.signed import Signer
from jobnimbus_mcp.simulator.uploads import Uploads
from jobnimbus_mcp.simulator.uploads_asgi import CDN, Storage, UploadService
from jobnimbus_mcp.simulator.webhook_bodies import webhook_body
from jobnimbus_mcp.simulator.webhooks_http import WebhookSender

__all__ = ["Simulator"]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

# Accounts never change what they were seeded with, so many simulators of one day can share it.
_small_account = lru_cache(maxsize=4)(seed_account)


class Simulator:
    """A JobNimbus that runs in process: `app` is its ASGI application, with the API root at `/api1`, payments made at
    `/api2/v2/payments`, the upload service under `/files/v1` and contents by signed address under `/cdn`.

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
        self._seeds = {name: _seeded(seed, name, scale, day_s) for name in instances}
        self.keys: Mapping[str, tuple[str, str]] = MappingProxyType({name: seed_keys(seed, name) for name in instances})
        self.instances = tuple(instances)
        self._accounts: dict[str, Account] = {}
        self._contents = {name: FileContents() for name in instances}
        self._uploads = {name: Uploads() for name in instances}
        self._calls = CallCounter()
        self._faults = FaultPlan()
        self._webhooks = WebhookSender(webhook_url, webhook_transport)
        self.reset()
        profiles: dict[str, Profile] = {}
        for name, (full, restricted) in self.keys.items():
            seeded = self._seeds[name]
            profiles[full] = Profile(name, seeded.admin, None, may_set=True)
            profiles[restricted] = Profile(name, seeded.restricted_user, seeded.restricted_user, may_set=False)
        signer = Signer(f"signatures:{seed}", self._clock)
        api = Api(
            accounts=self._accounts,
            profiles=profiles,
            contents=self._contents,
            uploads=UploadService(uploads=self._uploads, contents=self._contents, signer=signer, publish=self._publish),
            signer=signer,
            faults=self._faults,
            calls=self._calls,
            clock=self._clock,
            latency_s=latency_ms / 1000,
            publish=self._publish,
        )
        storage = Storage(
            accounts=self._accounts,
            uploads=self._uploads,
            contents=self._contents,
            signer=signer,
            faults=self._faults,
            clock=self._clock,
        )
        control = Control(self, self._faults)

        async def answer_api(request: Request) -> Response:
            return await api(request)

        async def answer_payments(request: Request) -> Response:
            is_post = request.method == "POST" and request.path_params["path"] == "v2/payments"
            return await api(request, API2) if is_post else web_app_page()

        async def answer_uploads(request: Request) -> Response:
            return await api(request, UPLOADS)

        async def answer_storage(request: Request) -> Response:
            return await storage(request)

        async def answer_control(request: Request) -> Response:
            return await control(request)

        async def answer_other(request: Request) -> Response:
            return web_app_page()

        self.app = Starlette(
            routes=[
                Route("/api1", answer_api, methods=_METHODS),
                Route("/api1/{path:path}", answer_api, methods=_METHODS),
                Route(f"{API2}/{{path:path}}", answer_payments, methods=_METHODS),
                Route(f"{UPLOADS}/{{path:path}}", answer_uploads, methods=_METHODS),
                Route(f"{CDN}/{{path:path}}", answer_storage, methods=_METHODS),
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
        """API calls by path relative to the API root: `/jobs`, `/jobs/<jnid>`, `/v2/estimates`; what lies beside it by
        its full path: `/api2/v2/payments`, `/files/v1/uploads/url`."""
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
            self._uploads[name].clear()
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

        return [webhook_body(change.record, email_of, account.custom_fields) for change in changes]


def _seeded(seed: int, instance: str, scale: int, day_s: int) -> Seeded:
    return (_small_account if scale == 1 else seed_account)(seed, instance, scale, day_s)
