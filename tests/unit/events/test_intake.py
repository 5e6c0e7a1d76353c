"""The order of the way in, what each refusal is, and that accepted means invalidated."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.errors import (
    CacheUnavailable,
    FeatureDisabled,
    InvalidInput,
    NotAuthenticated,
    ProjectError,
    UnknownPayload,
)
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.intake import Accepted, Delivery, Intake, WebhooksSeen
from jobnimbus_mcp.events.ports import Appended
from jobnimbus_mcp.events.signature import WebhookSecrets
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

SHARED, STAMFORD, SIGNING = "shared-secret-0123456789", "stamford-secret-012345", "signing-secret-0123456789"
JOB = "mjob0000000000000000j1"
UPDATED = {"event": "job.updated", "resource_type": "job", "resource_id": JOB}
RECORD = {"jnid": JOB, "type": "job", "date_updated": 1789400215, "name": "Whitfield - Re-roof"}
SECRETS = WebhookSecrets(shared=(SHARED,), per_instance={"stamford": STAMFORD}, signing=(SIGNING,))


class Log:
    """The port, in memory: remembers each event and knows duplicates by their key."""

    def __init__(self) -> None:
        self.bumped: list[Event] = []
        self.first: dict[str, str] = {}
        self.down = False
        self.journalled = False

    async def __call__(self, event: Event, call: Call) -> Appended:
        if self.journalled:
            return Appended(event.event_id, False, 0.0, journalled=True)
        if self.down:
            raise CacheUnavailable("The cache cannot be reached.")
        self.bumped.append(event)
        first = self.first.setdefault(event.dedupe_key, event.event_id) if event.dedupe_key else event.event_id
        return Appended(first, first != event.event_id, 1.25)


class World:
    def __init__(self, secrets: WebhookSecrets = SECRETS, instances: Sequence[str] = ("stamford", "guilford")) -> None:
        self.clock = ManualClock()
        self.log = Log()
        self.recorder = InMemoryRecorder()
        self.seen = WebhooksSeen()
        self.rejected: list[tuple[Event, str]] = []
        numbers = iter(range(1, 1000))
        self.intake = Intake(
            self.log,
            secrets=secrets,
            instances=instances,
            clock=self.clock,
            ids=lambda: f"evt_{next(numbers)}",
            recorder=self.recorder,
            log=structlog.get_logger(),
            seen=self.seen,
            rejected=self.reject,
        )

    async def reject(self, event: Event, reason: str) -> None:
        self.rejected.append((event, reason))

    async def deliver(
        self,
        body: Any = UPDATED,
        *,
        headers: dict[str, str] | None = None,
        tokens: Sequence[str] = (SHARED,),
        instances: Sequence[str] = ("stamford",),
    ) -> Accepted:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        delivery = Delivery(raw, headers or {}, tokens, instances)
        return await self.intake.receive(delivery, Call.begin(self.clock, "request-1"))

    async def refusal(self, *args: Any, **kwargs: Any) -> ProjectError:
        with pytest.raises(ProjectError) as caught:
            await self.deliver(*args, **kwargs)
        assert self.log.bumped == []
        return caught.value

    def counted(self, entity: str, outcome: str) -> float:
        return self.recorder.counts["webhooks", (("entity", entity), ("outcome", outcome))]


async def test_a_delivery_is_appended_with_everything_the_invalidation_needs() -> None:
    world = World()
    assert await world.deliver(RECORD) == Accepted("evt_1", duplicate=False)
    (event,) = world.log.bumped
    assert (event.event_id, event.instance, event.name, event.source) == ("evt_1", "stamford", "job.changed", "webhook")
    assert event.received_at == world.clock.now()
    assert event.change is not None
    assert event.change.ref.entity is Entity.JOBS
    assert event.change.action is Action.UNKNOWN
    assert event.tags == tags_of_change(event.change)
    assert f"jobs:detail:{JOB}" in event.tags
    assert event.dedupe_key.startswith("body:")
    assert world.counted("jobs", "applied") == 1


async def test_what_was_received_is_kept_with_the_event_and_so_is_the_version_it_tells_of() -> None:
    world = World()
    await world.deliver(RECORD)
    await world.deliver(UPDATED)
    told, untold = world.log.bumped
    assert orjson.loads(told.body) == RECORD
    assert told.request_id == "request-1"
    assert told.version_key.startswith("version:")
    assert untold.version_key == ""


async def test_what_is_not_understood_is_kept_for_the_trace_when_its_sender_is_known() -> None:
    world = World()
    assert isinstance(await world.refusal({"hello": "there"}), UnknownPayload)
    assert isinstance(await world.refusal(b"{"), UnknownPayload)
    assert isinstance(await world.refusal({"hello": "there"}, tokens=("wrong",)), NotAuthenticated)
    assert [(event.instance, event.body, reason) for event, reason in world.rejected] == [
        ("stamford", '{"hello":"there"}', "unknown_payload"),
        ("stamford", "{", "unknown_payload"),
    ]


@pytest.mark.parametrize(
    ("dates", "is_new"),
    [
        ({"date_created": 1789400215, "date_updated": 1789400215}, True),
        ({"date_created": 1789400214, "date_updated": 1789400215}, True),
        ({"date_created": 1789400200, "date_updated": 1789400215}, False),
        ({"date_updated": 1789400215}, False),
        ({}, False),
    ],
)
async def test_a_record_nobody_has_touched_since_it_was_made_is_new(dates: dict[str, int], is_new: bool) -> None:
    world = World()
    await world.deliver({"jnid": JOB, "type": "job", **dates})
    assert world.log.bumped[0].is_new is is_new


async def test_every_delivery_invalidates_and_a_duplicate_answers_the_first_event_id() -> None:
    world = World()
    assert await world.deliver(RECORD) == Accepted("evt_1", duplicate=False)
    assert await world.deliver(RECORD) == Accepted("evt_1", duplicate=True)
    assert await world.deliver(UPDATED) == Accepted("evt_3", duplicate=False)
    assert await world.deliver(UPDATED) == Accepted("evt_4", duplicate=False)
    assert await world.deliver(UPDATED, headers={"webhook-id": "msg_1"}) == Accepted("evt_5", duplicate=False)
    assert await world.deliver(UPDATED, headers={"webhook-id": "msg_1"}) == Accepted("evt_5", duplicate=True)
    assert len(world.log.bumped) == 6
    assert world.counted("jobs", "duplicate") == 2


@pytest.mark.parametrize(
    ("named", "tokens", "accepted"),
    [
        (["stamford"], [SHARED], True),
        (["guilford"], [SHARED], True),
        (["stamford", "stamford"], [SHARED], True),
        (["stamford"], [STAMFORD], True),
        (["guilford"], [STAMFORD], False),
        (["guilford"], ["wrong"], False),
    ],
)
async def test_an_accounts_own_secret_opens_that_account_alone(
    named: list[str], tokens: list[str], accepted: bool
) -> None:
    world = World()
    if accepted:
        await world.deliver(tokens=tokens, instances=named)
        assert world.log.bumped[0].instance == named[0]
    else:
        assert (await world.refusal(tokens=tokens, instances=named)).code == "invalid_signature"


async def test_the_account_may_be_left_out_when_one_is_served() -> None:
    world = World(instances=("stamford",))
    await world.deliver(instances=())
    assert world.log.bumped[0].instance == "stamford"


@pytest.mark.parametrize("named", [[], ["nowhere"], ["stamford", "guilford"], ["Stamford"], [""]])
@pytest.mark.parametrize("token", [SHARED, STAMFORD])
async def test_a_missing_unknown_or_contradictory_account_is_refused(named: list[str], token: str) -> None:
    world = World()
    refusal = await world.refusal(tokens=[token], instances=named)
    assert isinstance(refusal, InvalidInput)
    assert refusal.field == "instance"
    assert world.counted("unknown", "bad_instance") == 1


async def test_without_any_secret_webhooks_are_disabled() -> None:
    world = World(secrets=WebhookSecrets())
    refusal = await world.refusal()
    assert isinstance(refusal, FeatureDisabled)
    assert (refusal.http_status, refusal.code) == (503, "webhooks_disabled")


async def test_a_refusal_comes_before_any_look_at_account_or_body() -> None:
    world = World()
    refusal = await world.refusal(b"{not json", tokens=["wrong"], instances=["nowhere"])
    assert isinstance(refusal, NotAuthenticated)
    assert (refusal.http_status, refusal.code, refusal.public_message) == (
        401,
        "invalid_signature",
        "Invalid signature",
    )
    assert world.counted("unknown", "refused") == 1


@pytest.mark.parametrize("body", [b"", b"{not json", b"\xff\xfe", b"NaN", b'{"jnid":"\\ud800"}', {"type": "job"}, []])
async def test_a_body_that_names_no_record_is_counted_as_unknown(body: Any) -> None:
    world = World()
    assert isinstance(await world.refusal(body), UnknownPayload)
    assert world.counted("unknown", "unknown_payload") == 1


async def test_a_signed_delivery_needs_no_token() -> None:
    world = World()
    raw = orjson.dumps(UPDATED)
    signature = hmac.new(SIGNING.encode(), raw, hashlib.sha256).hexdigest()
    await world.deliver(raw, headers={"x-jobnimbus-signature": f"sha256={signature}"}, tokens=())
    assert len(world.log.bumped) == 1


async def test_when_the_invalidation_does_not_hold_nothing_is_accepted() -> None:
    world = World()
    world.log.down = True
    refusal = await world.refusal()
    assert isinstance(refusal, CacheUnavailable)
    assert world.seen.seen("stamford") == {}
    assert world.counted("jobs", "unavailable") == 1


async def test_what_the_journal_took_over_is_accepted_as_that_and_counted_apart() -> None:
    world = World()
    world.log.journalled = True
    with capture_logs() as lines:
        assert await world.deliver() == Accepted("evt_1", duplicate=False, journalled=True)
    assert [line["event"] for line in lines] == ["Invalidation journalled"]
    assert (world.counted("jobs", "journalled"), world.counted("jobs", "applied")) == (1, 0)
    assert world.seen.seen("stamford")["jobs"]["count"] == 1


async def test_what_was_received_when_is_told_per_account_and_kind() -> None:
    world = World()
    await world.deliver()
    world.clock.advance(60)
    await world.deliver()
    await world.deliver({"jnid": "t1", "type": "task"}, instances=["guilford"])
    assert world.seen.seen("stamford") == {"jobs": {"count": 2, "last_at": 1_790_000_060.0}}
    assert list(world.seen.seen("guilford")) == ["tasks"]
    assert world.seen.seen("elsewhere") == {}


async def test_one_log_line_names_the_event_and_the_tags_and_nothing_of_the_record_or_the_secret() -> None:
    world = World()
    with capture_logs() as lines:
        await world.deliver(RECORD)
    (line,) = lines
    assert line["event"] == "Cache invalidated"
    assert (line["event_name"], line["resource"], line["id"]) == ("job.changed", "jobs", JOB)
    assert line["tags"] == list(world.log.bumped[0].tags)
    assert "Whitfield" not in str(line)
    assert SHARED not in str(line)
