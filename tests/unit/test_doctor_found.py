"""doctor: where Sentinels or a cluster led to, and as whom the store is asked."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.doctor import BackgroundFacts, EventFacts, Level, Probes, StoreFacts, examine
from jobnimbus_mcp.events.watermark import Loss
from jobnimbus_mcp.settings import Settings


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (StoreFacts("7.0", 0.1, found="the master is 10.0.0.5:6379"), "(the master is 10.0.0.5:6379) answers in"),
        (StoreFacts("7.0", 0.1), "redis://cache answers in"),
        (StoreFacts("7.0", 0.1, tls=True, user="joe"), "as user joe, with TLS."),
        (StoreFacts("7.0", 0.1, user="default"), "as user default, without TLS"),
        (StoreFacts("7.0", 0.1), "as user (it does not tell)"),
    ],
)
async def test_the_way_to_the_store_is_told(facts: StoreFacts, said: str) -> None:
    async def store(_instance: str) -> StoreFacts:
        return facts

    async def never(_instance: str) -> None:
        return None

    async def no_events(_instance: str) -> EventFacts:
        return EventFacts(durable=True, lags=None)

    async def nothing(_instance: str) -> BackgroundFacts:
        return BackgroundFacts(now=0.0, polled_at=None, swept_at=None, loss=Loss(0, 0))

    async def no_issuer() -> int:
        raise AssertionError("there is none to be asked")

    probes = Probes(
        store=store,
        check_key=never,
        digest=lambda _instance: "0a" * 16,
        last_webhook_age_s=never,
        events=no_events,
        background=nothing,
        issuer=no_issuer,
    )
    findings = await examine(Settings.from_env({"REDIS_URL": "redis://cache"}), probes)
    assert [one.level for one in findings if said in one.sentence] == [Level.OK]
