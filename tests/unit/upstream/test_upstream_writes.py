"""Changes: one request of each, when it is sent again and when it never is, and what its answer means."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from upstream_world import GOOD, JSON, KEY, Answer, World, in_turn, json

from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.writes import Link, Write
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    InvalidInput,
    ProjectError,
    UpstreamCircuitOpen,
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.resilience.breaker import State
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Base, Request

CREATE = Write(Entity.JOBS, Action.CREATED, fields={"name": "Re-roof"}, links=(Link("c1", Entity.CONTACTS),))
UPDATE = Write(Entity.JOBS, Action.UPDATED, "j1", fields={"name": "Re-roof"})
DELETE = Write(Entity.JOBS, Action.DELETED, "j1")
DELETE_FILE = Write(Entity.ATTACHMENTS, Action.DELETED, "f1")
A_SOURCE = Write(Entity.SETTINGS, Action.CREATED, fields={"SourceName": "Fair"}, part="source")
A_PAYMENT = Write(Entity.PAYMENTS, Action.CREATED, fields={"total": 5}, links=(Link("i1", Entity.INVOICES),))
EVERY_WRITE = pytest.mark.parametrize(
    "write", [CREATE, UPDATE, DELETE, DELETE_FILE, A_PAYMENT], ids=["post", "put", "flag", "delete", "payment"]
)
WEB_PAGE = RawAnswer(200, {"content-type": "text/html"}, b"<html>")


def sent(request: Request) -> tuple[str, str, Any]:
    return request.method, request.path, orjson.loads(request.body) if request.body else None


# ---- what is sent, and what comes back


@pytest.mark.parametrize(
    ("write", "request_sent", "answered", "record"),
    [
        (CREATE, ("POST", "/jobs", {"name": "Re-roof", "primary": {"id": "c1"}}), {"jnid": "j9"}, {"jnid": "j9"}),
        (UPDATE, ("PUT", "/jobs/j1", {"name": "Re-roof"}), {"jnid": "j1", "x": 1}, {"jnid": "j1", "x": 1}),
        (UPDATE, ("PUT", "/jobs/j1", {"name": "Re-roof"}), {"count": 1, "results": [{"jnid": "j1"}]}, {"jnid": "j1"}),
        (UPDATE, ("PUT", "/jobs/j1", {"name": "Re-roof"}), {"data": {"jnid": "j1"}}, {"jnid": "j1"}),
        (
            DELETE,
            ("PUT", "/jobs/j1", {"is_active": False}),
            {"jnid": "j1", "is_active": False},
            {"jnid": "j1", "is_active": False},
        ),
        (DELETE, ("PUT", "/jobs/j1", {"is_active": False}), {"msg": "success"}, {}),
        (DELETE_FILE, ("DELETE", "/files/f1", None), {"msg": "success"}, {}),
        (A_SOURCE, ("POST", "/account/leadsource", {"SourceName": "Fair"}), {"JobSourceId": 9}, {"JobSourceId": 9}),
    ],
)
async def test_a_change_is_one_request_and_its_answer_is_the_record(
    write: Write, request_sent: tuple[str, str, Any], answered: Any, record: dict[str, Any]
) -> None:
    world = World(lambda _: json(answered))
    assert await world.write(write) == record
    assert [sent(request) for request in world.sender.sent] == [request_sent]
    assert world.sender.keys == [KEY]
    assert world.calls == {("stamford", write.entity): 1}


async def test_a_payment_goes_to_the_other_api() -> None:
    world = World(lambda _: json({"jnid": "y1"}))
    assert await world.write(A_PAYMENT) == {"jnid": "y1"}
    (request,) = world.sender.sent
    assert (request.path, request.base) == ("/api2/v2/payments", Base.HOST)


async def test_a_document_is_changed_by_all_of_it() -> None:
    world = World(lambda _: json({"jnid": "e1"}))
    write = Write(Entity.ESTIMATES, Action.UPDATED, "e1", fields={"note": "x"})
    await world.write(write, {"jnid": "e1", "items": [{"name": "Nail", "amount": 3}], "total": 3})
    body = {"jnid": "e1", "type": "estimate", "items": [{"name": "Nail"}], "note": "x"}
    assert [sent(request) for request in world.sender.sent] == [("PUT", "/v2/estimates/e1", body)]


async def test_a_deletion_answered_with_nothing_is_done() -> None:
    assert await World(lambda _: RawAnswer(200, {}, b" ")).write(DELETE_FILE) == {}
    assert await World(lambda _: RawAnswer(204, {}, b"")).write(DELETE) == {}


@pytest.mark.parametrize(
    ("write", "answer"),
    [
        (CREATE, json({"msg": "success"})),
        (CREATE, json([])),
        (CREATE, RawAnswer(200, {}, b"")),
        (UPDATE, json({"jnid": "j2"})),
        (UPDATE, json({"count": 2, "results": [{"jnid": "j1"}, {"jnid": "j2"}]})),
        (DELETE, json({"jnid": "j2"})),
        (DELETE, WEB_PAGE),
        (A_SOURCE, json([])),
        (UPDATE, RawAnswer(200, JSON, b'{"jnid":')),
    ],
)
async def test_an_answer_that_is_not_the_record_is_unreadable_and_leaves_open_what_was_done(
    write: Write, answer: Answer
) -> None:
    world = World(lambda _: answer)
    with pytest.raises(UpstreamUnreadable) as caught:
        await world.write(write)
    assert caught.value.sent
    assert len(world.sender.sent) == 1


async def test_what_cannot_be_written_is_refused_before_anything_is_sent() -> None:
    world = World(lambda _: GOOD)
    for write in (
        Write(Entity.JOBS, Action.UPDATED, "../x", fields={"name": "n"}),
        Write(Entity.JOBS, Action.UPDATED, "j1", fields={"name": "\ud800"}),
        Write(Entity.JOBS, Action.UPDATED, "j1", fields={"number": 2**70}),
        Write(Entity.SETTINGS, Action.CREATED, "7/../8", fields={"name": "Lost"}, part="status"),
    ):
        assert await world.outcome(world.write(write)) is InvalidInput
    for write in (
        Write(Entity.PAYMENTS, Action.UPDATED, "y1"),
        Write(Entity.ACTIVITIES, Action.DELETED, "a1"),
        Write(Entity.BUDGETS, Action.CREATED),
        Write(Entity.ESTIMATES, Action.UPDATED, "e1"),
        Write(Entity.SETTINGS, Action.DELETED, part="source"),
        Write(Entity.JOBS, Action.UNKNOWN, "j1"),
    ):
        with pytest.raises(ValueError, match=r"no such change|as it is|what it does"):
            await world.write(write)
    assert world.sender.sent == []


# ---- what is sent again


@EVERY_WRITE
@pytest.mark.parametrize(
    "failure",
    [json({}, 429), UpstreamUnreachable("u").unsent(), UpstreamTimeout("no connection").unsent()],
    ids=["429", "unreachable", "no-connection-in-time"],
)
async def test_a_change_that_was_surely_not_made_is_sent_again(write: Write, failure: Answer) -> None:
    world = World(in_turn(failure, failure, json({"jnid": write.record_id or "n1"})))
    await world.run(world.write(write))
    assert len(world.sender.sent) == 3
    assert len(set(world.sender.sent)) == 1
    assert world.recorder.total("upstream_retries") == 2


@EVERY_WRITE
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (UpstreamTimeout("t"), UpstreamTimeout),
        (UpstreamUnreachable("reset"), UpstreamUnreachable),
        (UpstreamUnreadable("cut"), UpstreamUnreadable),
        (WEB_PAGE, UpstreamUnreadable),
        (json({}, 500), UpstreamServerError),
        (json({}, 502), UpstreamServerError),
        (json({}, 503, retry_after="1"), UpstreamServerError),
        (json({}, 504), UpstreamServerError),
        (json({}, 408), UpstreamTimeout),
        (RawAnswer(302, {"location": "https://x.example/"}, b""), UpstreamUnreadable),
    ],
)
async def test_a_change_that_may_have_been_made_is_never_sent_again(
    write: Write, failure: Answer, kind: type[UpstreamError]
) -> None:
    world = World(lambda _: failure)
    with pytest.raises(UpstreamError) as caught:
        await world.run(world.write(write))
    assert type(caught.value) is kind
    assert caught.value.sent
    assert len(world.sender.sent) == 1
    assert world.recorder.total("upstream_retries") == 0


@EVERY_WRITE
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UpstreamRejected),
        (401, UpstreamUnauthorized),
        (403, UpstreamForbidden),
        (404, UpstreamNotFound),
        (405, UpstreamRejected),
        (409, UpstreamRejected),
        (422, UpstreamRejected),
    ],
)
async def test_a_refused_change_is_not_sent_again(write: Write, status: int, kind: type[ProjectError]) -> None:
    world = World(lambda _: json({}, status), random01=0.0)
    assert await world.outcome(world.write(write)) is kind
    assert len(world.sender.sent) == 1


async def test_a_change_is_sent_again_at_most_three_times() -> None:
    world = World(lambda _: json({}, 429))
    assert await world.outcome(world.write(CREATE)) is UpstreamRateLimited
    assert len(world.sender.sent) == 4


async def test_a_change_throttled_first_and_then_left_without_an_answer_ends_there() -> None:
    world = World(in_turn(json({}, 429), UpstreamTimeout("t"), GOOD))
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(world.write(CREATE))
    assert caught.value.sent
    assert len(world.sender.sent) == 2


# ---- time


async def never(_: Request) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_change_without_an_answer_by_the_deadline_may_have_been_made() -> None:
    world = World(never)
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(world.write(CREATE))
    assert caught.value.sent
    assert world.sender.under_way == 0


async def test_a_change_that_waited_for_its_turn_until_the_deadline_was_not_sent() -> None:
    world = World(never, max_concurrent=1)
    holder = asyncio.ensure_future(world.write(UPDATE, within_s=100))
    await world.settle()
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(world.write(CREATE))
    assert not caught.value.sent
    assert len(world.sender.sent) == 1
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder


async def test_a_throttled_change_that_ran_out_of_time_waiting_for_its_turn_was_not_made() -> None:
    world = World(lambda _: json({}, 429), max_concurrent=1)
    throttled = asyncio.ensure_future(world.write(CREATE))
    await world.settle()
    world.sender.answer = never
    holder = asyncio.ensure_future(world.write(UPDATE, within_s=100))
    await world.settle()
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(_result(throttled))
    assert not caught.value.sent
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder


async def test_a_change_without_time_is_not_sent() -> None:
    world = World(lambda _: GOOD)
    with pytest.raises(UpstreamTimeout) as caught:
        await world.write(CREATE, within_s=0)
    assert not caught.value.sent
    assert world.sender.sent == []


# ---- budget, breaker, slots


async def test_changes_spend_the_same_budget_as_questions() -> None:
    world = World(lambda _: json({"jnid": "j1"}), rate=1)
    ends = [asyncio.ensure_future(world.write(UPDATE)) for _ in range(4)]
    ends += [asyncio.ensure_future(world.load()) for _ in range(4)]
    await world.settle()
    refused = [end for end in ends if end.done() and isinstance(end.exception(), BudgetExhausted)]
    assert len(refused) == 2
    assert len(world.sender.sent) == 1
    await world.run(_all(ends))
    assert len(world.sender.sent) == 6


async def test_failed_changes_open_the_breaker_and_an_open_one_sends_none() -> None:
    world = World(lambda _: json({}, 503))
    for _ in range(20):
        assert await world.outcome(world.write(CREATE)) is UpstreamServerError
    assert world.breakers["stamford"].state is State.OPEN
    with pytest.raises(UpstreamCircuitOpen) as caught:
        await world.write(CREATE)
    assert not caught.value.sent
    assert len(world.sender.sent) == 20


@pytest.mark.parametrize(
    "answer", [json({}, 400), json({"message": "Duplicate job exists"}, 500), json({}, 401), json({}, 429)]
)
async def test_refused_changes_never_open_the_breaker(answer: Answer) -> None:
    world = World(lambda _: answer, random01=0.0)
    for _ in range(30):
        await world.outcome(world.write(CREATE))
    assert world.breakers["stamford"].state is State.CLOSED


async def test_changes_and_questions_share_the_slots() -> None:
    world = World(never, max_concurrent=3)
    ends = [asyncio.ensure_future(work) for _ in range(3) for work in (world.write(CREATE), world.load())]
    await world.settle()
    assert world.sender.most_under_way == 3
    for end in ends:
        end.cancel()
    await _all(ends)


# ---- JobNimbus's words


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "Invalid record_type_name - Gutter"),
        (409, "Duplicate contact exists"),
        (422, "x"),
        (500, "Attempt to relate to invalid document"),
        (500, "Invalid parameters"),
        (500, "Duplicate job exists"),
        (500, "CouchbaseError: the key does not exist on the server - user::u1"),
        (500, "key not found"),
        (500, "Missing required field(s): total"),
        (500, "total is required"),
    ],
)
async def test_what_jobnimbus_says_of_a_record_is_told_apart_from_the_message(status: int, said: str) -> None:
    world = World(lambda _: RawAnswer(status, {"content-type": "text/plain"}, said.encode()))
    with pytest.raises(UpstreamRejected) as caught:
        await world.run(world.write(CREATE))
    assert caught.value.said == said
    assert caught.value.public_message == f"JobNimbus does not take the record (status {status})."
    assert len(world.sender.sent) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html><h1>Duplicate key: required</h1></html>"),
        (500, b"Internal Server Error"),
        (500, b"The monkey exists"),
        (500, b"The connection is missing in action"),
        (500, b""),
        (503, b"Invalid parameters"),
        (502, b"Duplicate"),
    ],
)
async def test_a_failure_of_jobnimbus_itself_is_no_refusal(status: int, body: bytes) -> None:
    world = World(lambda _: RawAnswer(status, {"content-type": "text/plain"}, body))
    assert await world.outcome(world.write(CREATE)) is UpstreamServerError


async def test_the_words_are_cut_and_hold_no_key() -> None:
    body = {"message": f"no {KEY} here: " + "x" * 600}
    with pytest.raises(UpstreamRejected) as caught:
        await World(lambda _: json(body, 400)).write(CREATE)
    assert caught.value.said == ("no [key] here: " + "x" * 600)[:500]
    assert KEY not in caught.value.public_message


async def test_a_refused_question_tells_its_words_in_both_places() -> None:
    with pytest.raises(UpstreamRejected, match="unknown clause") as caught:
        await World(lambda _: json({"message": "unknown clause"}, 400)).load()
    assert caught.value.said == "unknown clause"


async def test_a_500_on_a_question_is_a_failure_whatever_it_says() -> None:
    world = World(lambda _: json({"message": "Invalid parameters"}, 500), random01=0.0)
    assert await world.outcome(world.load()) is UpstreamServerError
    assert len(world.sender.sent) == 4


# ---- further reads


async def test_groups_and_units_come_as_rows() -> None:
    groups = World(lambda _: json([{"name": "Sales"}]))
    assert await groups.load(Read.whole(Entity.SETTINGS, "groups")) == {"rows": [{"name": "Sales"}]}
    assert groups.sender.sent == [Request("/account/settings", (("field", "groups"),))]
    units = World(lambda _: json(["SQ", "LF"]))
    assert await units.load(Read.whole(Entity.PRODUCTS, "uoms")) == {"rows": [{"name": "SQ"}, {"name": "LF"}]}
    assert units.sender.sent == [Request("/utility/uoms")]
    assert await World(lambda _: json([])).load(Read.whole(Entity.SETTINGS, "groups")) == {"rows": []}


async def test_an_estimate_is_asked_for_by_its_guid() -> None:
    guid = "7B1C0B52-0000-4000-8000-0000000000E1"
    world = World(lambda _: json({"jnid": guid}))
    assert await world.load(Read.record(Entity.ESTIMATES, guid)) == {"jnid": guid}
    assert [request.path for request in world.sender.sent] == [f"/v2/estimates/{guid}"]


async def _result(task: asyncio.Future[Any]) -> Any:
    return await task


async def _all(tasks: list[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
