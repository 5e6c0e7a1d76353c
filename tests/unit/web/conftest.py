"""The web app over fakes of everything inside, and a client that speaks to it in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
import structlog

from jobnimbus_mcp.cache.notice import Applied, Notice
from jobnimbus_mcp.cache.ports import StoreHealth
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.errors import CacheUnavailable, UnknownTool
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.intake import Intake, WebhooksSeen
from jobnimbus_mcp.events.ports import Appended, EventPage, EventQuery, Traced
from jobnimbus_mcp.events.signature import WebhookSecrets
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.answers import ToolAnswer
from jobnimbus_mcp.gateway.identity import Caller, Identities, Partitions
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder
from jobnimbus_mcp.web.ports import Part
from jobnimbus_mcp.web.routes import WebParts, create_app

ADMIN, MCP, HOOK, SIGNING = (
    "admin-token-0123456789",
    "mcp-token-0123456789ab",
    "hook-secret-0123456789",
    "sign-secret-0123456789",
)
KEY = "key-0123456789abcdef"


class Tools:
    """One tool, `echo`, and whatever error it is told to raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Mapping[str, Any], Caller, Call]] = []
        self.listed_for: list[Access] = []
        self.error: Exception | None = None

    def listing(self, access: Access) -> list[dict[str, Any]]:
        self.listed_for.append(access)
        return [{"name": "echo", "inputSchema": {"type": "object"}}]

    async def call(self, name: str, arguments: Mapping[str, Any], who: Caller, call: Call) -> ToolAnswer:
        if name != "echo":
            raise UnknownTool("There is no tool of that name.")
        if self.error is not None:
            raise self.error
        self.calls.append((name, arguments, who, call))
        return ToolAnswer(orjson.dumps({"results": [dict(arguments)]}), {"status": "miss", "tier": "upstream"})


class Invalidator:
    """Remembers what it was asked; `down` names the accounts whose store is away."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.notices: list[Notice] = []
        self.down: set[str] = set()
        self.log: dict[str, list[dict[str, Any]]] = {}

    def _reach(self, tenant: str) -> None:
        if tenant in self.down:
            raise CacheUnavailable("The cache cannot be reached.")

    async def append_and_bump(self, tenant: str, tags: Sequence[str], notice: Notice, call: Call) -> Applied:
        self._reach(tenant)
        self.asked.append(("bump", tenant, tuple(tags)))
        self.notices.append(notice)
        return Applied(notice.event_id, False, 0.5, len(tags))

    async def renew_epoch(self, tenant: str, call: Call, *, reason: str) -> None:
        self._reach(tenant)
        self.asked.append(("epoch", tenant, reason))

    async def invalidate_pattern(self, tenant: str, *, pattern: str, notice: Notice, call: Call) -> int:
        self._reach(tenant)
        self.asked.append(("scan", tenant, pattern))
        self.notices.append(notice)
        return 7

    async def recent(self, tenant: str, *, limit: int, since: float | None, call: Call) -> Sequence[Mapping[str, Any]]:
        self._reach(tenant)
        self.asked.append(("recent", tenant, limit, since))
        return self.log.get(tenant, [])[:limit]

    async def rates(self, tenant: str, *, hours: int, call: Call) -> Mapping[str, Any]:
        self._reach(tenant)
        return {"jobs": {"webhook": hours}}


class Trace:
    """Events by account, as their log would tell them, two a page; `down`: it is away."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Traced]] = {}
        self.asked: list[tuple[str, EventQuery]] = []
        self.down = False

    async def find(self, instance: str, query: EventQuery) -> EventPage:
        if self.down:
            raise CacheUnavailable("The event log cannot be reached.")
        self.asked.append((instance, query))
        kept = sorted(self.kept.get(instance, ()), key=lambda row: row.event.event_id, reverse=True)
        older = [row for row in kept if query.before is None or row.event.event_id < query.before]
        page = older[: min(2, query.limit)]
        return EventPage(tuple(page), page[-1].event.event_id if len(page) < len(older) else None)

    async def show(self, instance: str, event_id: str) -> Traced | None:
        return next((row for row in self.kept.get(instance, ()) if row.event.event_id == event_id), None)


class Inside:
    """All the fakes, and the parts made of them; `app()` builds the app anew with some parts replaced."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.recorder = InMemoryRecorder()
        self.tools = Tools()
        self.invalidator = Invalidator()
        self.events: list[Event] = []
        self.first: dict[str, str] = {}
        self.store_down = False
        self.probes = 0
        self.health = StoreHealth(True, "CLOSED", 0.41234, None)
        self.trace = Trace()
        self.rejected: list[tuple[Event, str]] = []
        self.warmed: list[tuple[str | None, Any]] = []
        self.parts_told: dict[str, Part] = {"redis": Part("up"), "jobnimbus": Part("up", essential=True)}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.listed: list[tuple[Any, ...]] = []
        self.counted: dict[str, dict[str, int]] = {}
        self.mcp_requests: list[tuple[str, list[tuple[bytes, bytes]], bytes]] = []
        self.mcp_access: list[Access] = []
        self._number = 0
        instances = ("stamford", "guilford")
        self.parts = WebParts(
            clock=self.clock,
            ids=self.next_id,
            recorder=self.recorder,
            log=structlog.get_logger(),
            version="1.2.3",
            instances=instances,
            allowed_hosts=("localhost", "crm.example.com:8443"),
            mcp_tokens=(MCP, "another-token-012345678"),
            admin_token=ADMIN,
            tools=self.tools,
            identities=Identities(instances, {}, Partitions()),
            intake=self.intake(
                WebhookSecrets(shared=(HOOK,), per_instance={"guilford": "own-secret-0123456789"}, signing=(SIGNING,))
            ),
            invalidations=self.invalidator,
            entries=self.entries,
            explain=self.explain,
            events=self.trace,
            warm=self.warm,
            counts=self,
            probe_store=self.probe,
            circuit_state=lambda: "OPEN",
            store_facts=lambda: {"kind": "embedded"},
            breaker_facts=lambda: {"state": "CLOSED"},
            l1_facts=lambda: {"entries": 3},
            event_facts=self.event_facts,
            readiness=self.readiness,
            exposition=lambda: (b"# metrics\n", "text/plain; version=0.0.4; charset=utf-8"),
            mcp_app=self.mcp,
        )

    def next_id(self) -> str:
        self._number += 1
        return f"made-id-{self._number}"

    def intake(self, secrets: WebhookSecrets) -> Intake:
        return Intake(
            self.append,
            secrets=secrets,
            instances=("stamford", "guilford"),
            clock=self.clock,
            ids=self.next_id,
            recorder=self.recorder,
            log=structlog.get_logger(),
            seen=WebhooksSeen(),
            rejected=self.reject,
        )

    async def append(self, event: Event, call: Call) -> Appended:
        if self.store_down:
            raise CacheUnavailable("The cache cannot be reached.")
        self.events.append(event)
        first = self.first.setdefault(event.dedupe_key or event.event_id, event.event_id)
        return Appended(first, first != event.event_id, 0.5)

    async def explain(self, tenant: str, key_text: str, call: Call) -> Mapping[str, Any] | None:
        self.listed.append(("explain", tenant, key_text))
        return next((row for row in self.rows.get(tenant, []) if row["key"] == key_text), None)

    async def entries(
        self, tenant: str, *, entity: str | None, operation: str | None, limit: int, call: Call
    ) -> Sequence[Mapping[str, Any]]:
        if self.store_down:
            raise CacheUnavailable("The cache cannot be reached.")
        self.listed.append((tenant, entity, operation, limit))
        return self.rows.get(tenant, [])[:limit]

    async def shared(self, instance: str) -> Mapping[str, int]:
        if self.store_down:
            raise CacheUnavailable("The cache cannot be reached.")
        return self.counted.get(instance, {})

    def own(self, instance: str) -> Mapping[str, int]:
        return {"hits": 1}

    async def probe(self) -> StoreHealth:
        self.probes += 1
        return self.health

    async def event_facts(self) -> Mapping[str, Any]:
        return {"stamford": {"consumers": {"settle": {"due": 2}}}}

    async def reject(self, event: Event, reason: str) -> None:
        self.rejected.append((event, reason))

    async def warm(self, instance: str | None, queries: Sequence[Any] | None) -> int:
        self.warmed.append((instance, queries))
        return 3

    async def readiness(self) -> Mapping[str, Part]:
        return self.parts_told

    async def mcp(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        self.mcp_requests.append((scope["path"], scope["headers"], body))
        self.mcp_access.append(scope["state"]["access"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"jsonrpc":"2.0"}'})

    def app(self, **replaced: Any) -> Any:
        return create_app(replace(self.parts, **replaced))

    def client(self, **replaced: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app(**replaced), raise_app_exceptions=True)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
async def web(inside: Inside) -> AsyncIterator[httpx.AsyncClient]:
    async with inside.client() as client:
        yield client


@pytest.fixture
def admin() -> dict[str, str]:
    return {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def caller() -> dict[str, str]:
    return {"authorization": f"Bearer {MCP}", "x-jobnimbus-api-key": KEY, "x-jobnimbus-instance": "stamford"}


@pytest.fixture
def hook_secret() -> str:
    return HOOK


@pytest.fixture
def signing_secret() -> str:
    return SIGNING


@pytest.fixture
def error_of() -> Callable[[httpx.Response], tuple[int, str]]:
    """Checks the one shape of errors, and gives status and code."""

    def check(response: httpx.Response) -> tuple[int, str]:
        told = response.json()
        assert set(told) - {"field"} == {"error", "code", "requestId"}
        assert isinstance(told["error"], str)
        assert told["error"]
        assert told["requestId"] == response.headers["x-request-id"]
        assert response.headers["content-type"] == "application/json"
        return response.status_code, told["code"]

    return check
