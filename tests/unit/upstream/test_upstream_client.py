"""The client: shapes, retries, deadline, slots, breaker and budget, against a JobNimbus made of a function."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from upstream_world import DOWN, GOOD, JSON, KEY, Answer, World, in_turn, json

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, NameIs, Sort, Word
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    ProjectError,
    UpstreamCircuitOpen,
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
from jobnimbus_mcp.upstream.request import Request

T = TypeVar("T")


def row(n: int, **more: Any) -> dict[str, Any]:
    return {"jnid": f"r{n}", "date_created": n, **more}


def listing(
    rows: list[dict[str, Any]], *, envelope: str = "results", clamp: int = 1_000, count: int | None = -1
) -> Callable[[Request], Answer]:
    """A JobNimbus list that honours page and direction and ignores every filter."""

    def answer(request: Request) -> Answer:
        params = dict(request.params)
        ordered = rows if params["sort_direction"] == "asc" else rows[::-1]
        start, size = int(params["from"]), min(int(params["size"]), clamp)
        page: dict[str, Any] = {envelope: ordered[start : start + size]}
        if count is not None:
            page["count"] = len(rows) if count == -1 else count
        return json(page)

    return answer


# ---- shapes


async def test_a_record_is_the_record_itself() -> None:
    world = World(lambda _: json({"jnid": "j1", "name": "Re-roof"}))
    assert await world.load() == {"jnid": "j1", "name": "Re-roof"}
    assert [request.path for request in world.sender.sent] == ["/jobs/j1"]
    assert world.sender.keys == [KEY]
    assert world.calls == {("stamford", Entity.JOBS): 1}


async def test_a_record_that_jobnimbus_lacks_is_not_found_after_one_request() -> None:
    world = World(lambda _: RawAnswer(404, {"content-type": "text/plain"}, b"Not Found"))
    with pytest.raises(UpstreamNotFound):
        await world.load()
    assert len(world.sender.sent) == 1


async def test_a_block_is_its_rows_and_the_count_of_all() -> None:
    world = World(listing([row(n) for n in range(250)]))
    answer = await world.load(Read.block(Entity.JOBS, (), Sort(), offset=100))
    assert answer == {"count": 250, "rows": [row(n) for n in range(149, 49, -1)]}
    (request,) = world.sender.sent
    assert dict(request.params) == {
        "size": "100",
        "from": "100",
        "sort_field": "date_created",
        "sort_direction": "desc",
    }


async def test_rows_of_a_block_that_do_not_match_are_left_out_and_said() -> None:
    world = World(listing([row(n, status=n % 2) for n in range(10)]))
    answer = await world.load(Read.block(Entity.JOBS, (Is("status", 1),), Sort(descending=False), offset=0))
    assert [found["jnid"] for found in answer["rows"]] == ["r1", "r3", "r5", "r7", "r9"]
    assert answer["count"] == 10
    assert "5 rows that do not match" in answer["incomplete"]


async def test_a_block_across_the_paging_window_asks_for_the_part_inside() -> None:
    world = World(listing([row(n) for n in range(1_200)], envelope="activity"))
    answer = await world.load(Read.block(Entity.ACTIVITIES, (), Sort(descending=False), offset=950))
    assert [found["jnid"] for found in answer["rows"]] == [f"r{n}" for n in range(950, 1_000)]
    assert answer["count"] == 1_200
    assert "first 1000 of 1200" in answer["incomplete"]
    assert dict(world.sender.sent[0].params)["size"] == "50"


@pytest.mark.parametrize(("count", "incomplete"), [(1_200, True), (700, False)])
async def test_a_block_beyond_the_paging_window_asks_for_the_count_alone(count: int, incomplete: bool) -> None:
    world = World(listing([row(n) for n in range(count)], envelope="activity"))
    answer = await world.load(Read.block(Entity.ACTIVITIES, (), Sort(), offset=1_000))
    assert (answer["count"], answer["rows"]) == (count, [])
    assert ("incomplete" in answer) is incomplete
    assert [(dict(request.params)["from"], dict(request.params)["size"]) for request in world.sender.sent] == [
        ("0", "1")
    ]


async def test_a_block_without_a_count_counts_what_it_saw_and_says_so() -> None:
    world = World(listing([row(n) for n in range(130)], count=None))
    answer = await world.load(Read.block(Entity.JOBS, (), Sort(), offset=100))
    assert (answer["count"], len(answer["rows"])) == (130, 30)
    assert "did not say" in answer["incomplete"]


@pytest.mark.parametrize(("sort", "direction"), [(Sort(), "desc"), (Sort("date_updated", descending=False), "asc")])
async def test_a_scan_reads_every_page_in_the_order_asked_for_and_checks_every_row(sort: Sort, direction: str) -> None:
    rows = [row(n, name="Hail damage" if n % 100 == 0 else "Leak") for n in range(1_730)]
    world = World(listing(rows))
    answer = await world.load(Read.scan(Entity.JOBS, (Word("hail", ("name",)),), sort=sort))
    ordered = rows[::-1] if direction == "desc" else rows
    assert answer == {"rows": [found for found in ordered if found["name"] == "Hail damage"]}
    asked = [dict(sent.params) for sent in world.sender.sent]
    pages = sorted((int(params["from"]), int(params["size"])) for params in asked)
    assert pages == [(0, 500), (500, 500), (1_000, 500), (1_500, 230)]
    assert {(params["sort_field"], params["sort_direction"]) for params in asked} == {(sort.field, direction)}
    assert all("hail" in params["filter"] for params in asked)


async def test_a_scan_is_asked_newest_first_when_no_order_was_asked_for() -> None:
    world = World(listing([row(n) for n in range(3)]))
    answer = await world.load(Read.scan(Entity.JOBS, ()))
    assert [found["jnid"] for found in answer["rows"]] == ["r2", "r1", "r0"]
    (request,) = world.sender.sent
    assert dict(request.params)["sort_field"] == "date_created"


async def test_the_further_pages_of_a_scan_are_asked_for_together() -> None:
    world = World(lambda request: Exception())
    list_of = listing([row(n) for n in range(3_000)])

    async def slow(request: Request) -> Answer:
        await world.clock.sleep(1)
        return list_of(request)

    world.sender.answer = slow
    answer = await world.run(world.load(Read.scan(Entity.JOBS, ())))
    assert len(answer["rows"]) == 3_000
    assert world.sender.most_under_way == 5
    assert world.clock.monotonic() < 3


async def test_a_scan_reads_whole_lists_from_a_jobnimbus_that_clamps_its_pages() -> None:
    world = World(listing([row(n) for n in range(450)], clamp=200))
    answer = await world.load(Read.scan(Entity.JOBS, ()))
    assert len(answer["rows"]) == 450
    assert "incomplete" not in answer


@pytest.mark.parametrize(
    ("entity", "total", "read", "why"),
    [
        (Entity.JOBS, 6_000, 5_000, "only 5000 of 6000 rows were looked at, those with the newest date_created"),
        (Entity.ACTIVITIES, 1_300, 1_000, "first 1000 of 1300"),
    ],
)
async def test_a_scan_says_when_there_is_more_than_it_may_read(entity: Entity, total: int, read: int, why: str) -> None:
    world = World(listing([row(n) for n in range(total)], envelope="activity"))
    answer = await world.load(Read.scan(entity, ()))
    assert [found["jnid"] for found in answer["rows"]] == [f"r{n}" for n in range(total - 1, total - 1 - read, -1)]
    assert why in answer["incomplete"]


async def test_a_scan_says_when_rows_counted_did_not_come() -> None:
    world = World(listing([row(n) for n in range(600)], count=610))
    answer = await world.load(Read.scan(Entity.JOBS, ()))
    assert len(answer["rows"]) == 600
    assert "counts 610 rows and gave 600" in answer["incomplete"]


async def test_a_row_that_comes_on_two_pages_is_one_row() -> None:
    rows = [row(n) for n in range(600)]
    rows[500] = rows[499]
    world = World(listing(rows, count=599))
    answer = await world.load(Read.scan(Entity.JOBS, ()))
    assert len(answer["rows"]) == len({found["jnid"] for found in answer["rows"]}) == 599 - 1
    assert "incomplete" in answer


async def test_a_jobnimbus_that_gives_more_rows_than_asked_for_is_cut_to_what_was_asked() -> None:
    world = World(lambda _: json({"count": 700, "results": [row(n) for n in range(700)]}))
    answer = await world.load(Read.block(Entity.JOBS, (), Sort(descending=False), offset=0))
    assert [found["jnid"] for found in answer["rows"]] == [f"r{n}" for n in range(100)]


@pytest.mark.parametrize(
    ("sort", "read"),
    [
        (Sort(descending=False), 600),
        (Sort(), 599),  # the new row stands first and pushes one seen before onto the second page
    ],
)
async def test_a_scan_notices_rows_that_came_while_it_read(sort: Sort, read: int) -> None:
    rows = [row(n) for n in range(600)]

    def answer(request: Request) -> Answer:
        given = listing(rows)(request)
        rows.append(row(len(rows)))
        return given

    answered = await World(answer).load(Read.scan(Entity.JOBS, (), sort=sort))
    assert len({found["jnid"] for found in answered["rows"]}) == len(answered["rows"]) == read
    assert f"counts 601 rows and gave {read}" in answered["incomplete"]


async def test_a_refused_scan_is_an_error_and_ends_its_other_pages() -> None:
    list_of = listing([row(n) for n in range(3_000)])
    forever = asyncio.Event()

    async def answer(request: Request) -> Answer:
        match dict(request.params)["from"]:
            case "0":
                return list_of(request)
            case "1000":
                return json({"message": "unknown clause wildcard"}, 400)
            case _:
                await forever.wait()
                raise AssertionError

    world = World(answer)
    with pytest.raises(UpstreamRejected, match="unknown clause wildcard"):
        await world.run(world.load(Read.scan(Entity.JOBS, (Word("hail", ("name",)),))), for_s=1)
    assert world.sender.under_way == 0


async def test_users_and_settings_come_whole() -> None:
    users = World(lambda _: json({"users": [{"id": "u1"}, {"id": "u2"}]}))
    assert await users.load(Read.whole(Entity.USERS)) == {"rows": [{"id": "u1"}, {"id": "u2"}]}
    settings = World(lambda _: json({"workflows": [], "sources": []}))
    assert await settings.load(Read.whole(Entity.SETTINGS)) == {"workflows": [], "sources": []}


async def test_a_name_is_matched_whole_though_jobnimbus_is_asked_by_its_words() -> None:
    rows = [row(1, status_name="In Production"), row(2, status_name="Production Hold in yard")]
    world = World(listing(rows))
    answer = await world.load(Read.scan(Entity.JOBS, (NameIs("status_name", "in production"),)))
    assert answer == {"rows": [rows[0]]}


# ---- retries


@pytest.mark.parametrize(
    "failure",
    [
        json({}, 429),
        json({}, 500),
        json({}, 502),
        json({}, 503),
        json({}, 504),
        json({"jnid": "someone-else"}),
        RawAnswer(200, {"content-type": "text/html"}, b"<html>"),
        RawAnswer(200, JSON, b'{"jnid":'),
        UpstreamTimeout("t"),
        UpstreamUnreachable("u"),
        UpstreamUnreadable("x"),
    ],
)
async def test_a_passing_failure_is_asked_again(failure: Answer) -> None:
    world = World(in_turn(failure, failure, failure, GOOD))
    assert await world.run(world.load()) == {"jnid": "j1"}
    assert len(world.sender.sent) == 4
    assert world.calls["stamford", Entity.JOBS] == 4
    assert world.recorder.total("upstream_retries") == 3
    assert world.recorder.total("upstream_calls") == 4


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (json({}, 429), UpstreamRateLimited),
        (json({}, 500), UpstreamServerError),
        (UpstreamTimeout("t"), UpstreamTimeout),
        (UpstreamUnreachable("u"), UpstreamUnreachable),
        (RawAnswer(200, JSON, b"{"), UpstreamUnreadable),
    ],
)
async def test_after_four_attempts_the_failure_is_the_answer(failure: Answer, kind: type[ProjectError]) -> None:
    world = World(lambda _: failure)
    assert await world.outcome(world.load()) is kind
    assert len(world.sender.sent) == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UpstreamRejected), (401, UpstreamUnauthorized), (403, UpstreamForbidden), (404, UpstreamNotFound)],
)
async def test_a_refusal_is_not_asked_again(status: int, kind: type[ProjectError]) -> None:
    world = World(lambda _: json({}, status))
    assert await world.outcome(world.load()) is kind
    assert len(world.sender.sent) == 1


async def test_retry_after_is_waited_for() -> None:
    world = World(in_turn(json({}, 429, retry_after="3"), GOOD), random01=0.0)
    await world.run(world.load())
    assert world.clock.monotonic() == 3


async def test_a_retry_after_beyond_the_deadline_is_told_at_once() -> None:
    world = World(lambda _: json({}, 429, retry_after="20"))
    with pytest.raises(UpstreamRateLimited) as caught:
        await world.load()
    assert caught.value.retry_after_s == 20
    assert len(world.sender.sent) == 1
    assert world.clock.monotonic() == 0


async def test_a_429_without_retry_after_still_tells_when_to_come_back() -> None:
    world = World(lambda _: json({}, 429))
    with pytest.raises(UpstreamRateLimited) as caught:
        await world.run(world.load())
    assert caught.value.retry_after_s


async def test_waits_between_attempts_grow_and_are_jittered() -> None:
    calm, eager = World(lambda _: DOWN), World(lambda _: DOWN, random01=0.0)
    await calm.outcome(calm.load())
    await eager.outcome(eager.load())
    assert calm.clock.monotonic() == 0.25 + 0.5 + 1.0
    assert eager.clock.monotonic() == 0


# ---- deadline and cancellation


async def test_a_jobnimbus_that_never_answers_is_a_timeout_at_the_deadline() -> None:
    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(never)
    with pytest.raises(UpstreamTimeout):
        await world.run(world.load())
    assert world.clock.monotonic() == 14
    assert world.sender.under_way == 0


async def test_each_attempt_gets_at_most_ten_seconds_and_never_more_than_is_left() -> None:
    world = World(lambda _: GOOD)

    async def slow(_: Request) -> Answer:
        await world.clock.sleep(world.sender.timeouts[-1])
        return UpstreamTimeout("t")

    world.sender.answer = slow
    assert await world.outcome(world.load()) is UpstreamTimeout
    assert world.sender.timeouts == [10, pytest.approx(3.75)]
    assert world.clock.monotonic() == 14


async def test_a_call_whose_time_is_over_asks_nothing() -> None:
    world = World(lambda _: GOOD)
    with pytest.raises(UpstreamTimeout):
        await world.load(within_s=0)
    assert world.sender.sent == []


async def test_waiting_for_a_slot_ends_with_the_deadline() -> None:
    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(never, max_concurrent=1)
    holder = asyncio.ensure_future(world.load(within_s=100))
    await world.settle()
    assert await world.outcome(world.load()) is UpstreamTimeout
    assert len(world.sender.sent) == 1
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder


async def test_a_cancelled_load_gives_its_slot_back_and_counts_nothing() -> None:
    gate = asyncio.Event()

    async def wait(_: Request) -> Answer:
        await gate.wait()
        return GOOD

    world = World(wait, max_concurrent=1)
    first = asyncio.ensure_future(world.load())
    queued = asyncio.ensure_future(world.load())
    await world.settle()
    queued.cancel()
    first.cancel()
    assert [type(end) for end in await asyncio.gather(first, queued, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    assert world.sender.under_way == 0
    gate.set()
    assert await world.run(world.load(), for_s=1) == {"jnid": "j1"}
    assert world.recorder.counts["upstream_calls", (("entity", "jobs"), ("outcome", "cancelled"))] == 1


async def test_a_cancelled_scan_ends_all_its_pages() -> None:
    list_of = listing([row(n) for n in range(3_000)])

    async def answer(request: Request) -> Answer:
        if dict(request.params)["from"] != "0":
            await asyncio.Event().wait()
        return list_of(request)

    world = World(answer)
    scan = asyncio.ensure_future(world.load(Read.scan(Entity.JOBS, ())))
    await world.settle()
    assert world.sender.under_way == 5
    scan.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scan
    assert world.sender.under_way == 0


# ---- slots


async def test_slots_are_shared_by_all_keys_of_an_account_and_apart_for_each_account() -> None:
    gate = asyncio.Event()

    async def wait(_: Request) -> Answer:
        await gate.wait()
        return GOOD

    keys = [f"key-number-{n:06}" for n in range(20)]
    world = World(wait, max_concurrent=3, trusted=keys)
    loads = [world.load(instance=instance, key=key) for instance in ("stamford", "guilford") for key in keys]
    tasks = [asyncio.ensure_future(load) for load in loads]
    await world.settle()
    assert world.sender.most_under_way == 6
    gate.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [{"jnid": "j1"}] * 40
    assert world.sender.most_under_way == 6


async def test_zero_slots_means_no_bound() -> None:
    gate = asyncio.Event()

    async def wait(_: Request) -> Answer:
        await gate.wait()
        return GOOD

    world = World(wait, max_concurrent=0)
    tasks = [asyncio.ensure_future(world.load()) for _ in range(30)]
    await world.settle()
    assert world.sender.most_under_way == 30
    gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)


async def test_a_load_that_waits_to_try_again_holds_no_slot() -> None:
    world = World(in_turn(json({}, 429, retry_after="5"), GOOD), max_concurrent=1)
    waiting = asyncio.ensure_future(world.load())
    await world.settle()
    assert await world.run(world.load(), for_s=1) == {"jnid": "j1"}
    assert await world.run(_result(waiting)) == {"jnid": "j1"}


async def test_a_thousand_loads_at_once_stay_inside_slots_and_rate_and_all_end_by_the_deadline() -> None:
    world = World(lambda _: GOOD, rate=20, max_concurrent=8)

    async def quick(_: Request) -> Answer:
        await world.clock.sleep(0.1)
        return GOOD

    world.sender.answer = quick
    tasks = [asyncio.ensure_future(world.load()) for _ in range(1_000)]
    while not all(task.done() for task in tasks):
        await world.settle()
        world.clock.advance(0.05)
    ends = Counter(type(end) for end in await asyncio.gather(*tasks, return_exceptions=True))
    assert world.clock.monotonic() <= 14.1
    assert world.sender.most_under_way <= 8
    assert set(ends) <= {dict, UpstreamTimeout, BudgetExhausted}
    assert 200 <= ends[dict] <= 10 + 20 * 14
    assert len(world.sender.sent) <= 10 + 20 * 14.1


# ---- budget


async def test_a_used_up_budget_is_told_at_once_and_nothing_is_sent() -> None:
    world = World(lambda _: GOOD, rate=1)
    tasks = [asyncio.ensure_future(world.load()) for _ in range(8)]
    await world.settle()
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), BudgetExhausted)]
    assert len(refused) == 2
    assert all(task.exception().retry_after_s == 6 for task in refused)  # type: ignore[union-attr]
    assert len(world.sender.sent) == 1
    await world.run(_all(tasks))
    assert len(world.sender.sent) == 6
    assert world.recorder.observed["budget_wait_seconds"] == [0, 1, 2, 3, 4, 5]


async def test_a_retry_without_budget_tells_what_jobnimbus_said() -> None:
    world = World(lambda _: DOWN, rate=0.1)
    assert await world.outcome(world.load()) is UpstreamServerError
    assert len(world.sender.sent) == 1


# ---- breaker


async def fail(world: World, times: int) -> None:
    for _ in range(times):
        await world.outcome(world.load())


async def test_all_attempts_of_one_request_count_once_for_the_breaker() -> None:
    world = World(lambda _: DOWN, random01=0.0)
    await fail(world, 19)
    assert len(world.sender.sent) == 19 * 4
    assert world.breakers["stamford"].admit()
    await fail(world, 1)
    assert world.breakers["stamford"].state is State.OPEN


async def test_an_open_breaker_asks_nothing_tells_when_and_leaves_other_accounts_alone() -> None:
    world = World(lambda _: DOWN, random01=0.0)
    await fail(world, 20)
    world.sender.sent.clear()
    world.sender.answer = lambda _: GOOD
    with pytest.raises(UpstreamCircuitOpen) as caught:
        await world.load()
    assert caught.value.retry_after_s == 15
    assert world.sender.sent == []
    assert await world.load(instance="guilford") == {"jnid": "j1"}
    assert world.recorder.gauges["breaker_state", (("breaker", "jobnimbus:stamford"),)] == 2
    assert world.recorder.gauges["breaker_state", (("breaker", "jobnimbus:guilford"),)] == 0


async def test_an_open_breaker_spends_no_budget() -> None:
    world = World(lambda _: GOOD, rate=1)
    for _ in range(20):
        world.breakers["stamford"].failed()
    for _ in range(10):
        with pytest.raises(UpstreamCircuitOpen):
            await world.load()
    assert world.recorder.observed["budget_wait_seconds"] == []


async def test_a_probe_may_try_again_and_closes_the_breaker_when_that_is_answered() -> None:
    world = World(in_turn(DOWN, GOOD), random01=0.0)
    for _ in range(20):
        world.breakers["stamford"].failed()
    world.clock.advance(15)
    assert await world.run(world.load()) == {"jnid": "j1"}
    assert world.breakers["stamford"].state is State.CLOSED


@pytest.mark.parametrize("late_answer", [GOOD, json({}, 501)])
async def test_an_answer_to_a_question_from_before_it_opened_leaves_the_breaker_alone(late_answer: Answer) -> None:
    gates = {"first": asyncio.Event(), "probe": asyncio.Event()}

    async def wait(request: Request) -> Answer:
        first = request.path == "/jobs/first"
        await gates["first" if first else "probe"].wait()
        return json({"jnid": "first"}) if first and late_answer is GOOD else late_answer

    world = World(wait)
    late = asyncio.ensure_future(world.load(Read.record(Entity.JOBS, "first"), within_s=20))
    await world.settle()
    world.clock.advance(1)
    for _ in range(20):
        world.breakers["stamford"].failed()
    world.clock.advance(18)
    probe = asyncio.ensure_future(world.load())
    await world.settle()
    gates["first"].set()
    await world.run(_all([late]), step_s=0.1)
    assert world.breakers["stamford"].state is State.HALF_OPEN
    with pytest.raises(UpstreamCircuitOpen):
        await world.load()
    world.sender.answer = lambda _: GOOD
    gates["probe"].set()
    await world.run(_all([probe]))


async def test_loads_that_their_callers_gave_up_are_no_failures_however_long_they_took() -> None:
    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(never, max_concurrent=0)
    tasks = [asyncio.ensure_future(world.load()) for _ in range(25)]
    await world.settle()
    world.clock.advance(5)
    for task in tasks:
        task.cancel()
    await _all(tasks)
    assert world.breakers["stamford"].state is State.CLOSED


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
async def test_refusals_never_open_the_breaker(status: int) -> None:
    world = World(lambda _: json({}, status), random01=0.0)
    await fail(world, 40)
    assert world.breakers["stamford"].state is State.CLOSED


async def test_after_its_time_one_probe_goes_and_closes_the_breaker() -> None:
    world = World(lambda _: DOWN, random01=0.0)
    await fail(world, 20)
    world.clock.advance(15)
    gate = asyncio.Event()

    async def wait(_: Request) -> Answer:
        await gate.wait()
        return GOOD

    world.sender.sent.clear()
    world.sender.answer = wait
    probe = asyncio.ensure_future(world.load())
    await world.settle()
    with pytest.raises(UpstreamCircuitOpen):
        await world.load()
    assert len(world.sender.sent) == 1
    gate.set()
    assert await asyncio.wait_for(probe, 5) == {"jnid": "j1"}
    assert await world.load() == {"jnid": "j1"}


async def test_a_cancelled_probe_makes_way_for_the_next() -> None:
    world = World(lambda _: DOWN, random01=0.0)
    await fail(world, 20)
    world.clock.advance(15)

    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world.sender.answer = never
    probe = asyncio.ensure_future(world.load())
    await world.settle()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    world.sender.answer = lambda _: GOOD
    assert await world.load() == {"jnid": "j1"}


@pytest.mark.parametrize(("within_s", "state"), [(1.0, State.CLOSED), (14.0, State.OPEN)])
async def test_what_our_own_deadline_cut_short_says_nothing_about_jobnimbus(within_s: float, state: State) -> None:
    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(never, max_concurrent=0)
    tasks = [asyncio.ensure_future(world.load(within_s=within_s)) for _ in range(25)]
    await world.settle()
    world.clock.advance(within_s)
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert {type(end) for end in ends} == {UpstreamTimeout}
    assert world.breakers["stamford"].state is state


async def test_a_breaker_that_opened_meanwhile_ends_the_retries() -> None:
    world = World(lambda _: DOWN)
    waiting = asyncio.ensure_future(world.load())
    await world.settle()
    for _ in range(20):
        world.breakers["stamford"].failed()
    with pytest.raises(UpstreamServerError):
        await world.run(_result(waiting))
    assert len(world.sender.sent) == 1


# ---- credential check


async def test_an_accepted_key_passes_with_one_cheap_request() -> None:
    world = World(lambda _: json({"count": 0, "results": []}))
    await world.check()
    (request,) = world.sender.sent
    assert (request.path, request.params) == ("/contacts", (("size", "1"), ("fields", "jnid")))


async def test_a_key_that_may_not_see_contacts_is_accepted() -> None:
    await World(lambda _: json({}, 403)).check()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (json({"status": 401, "body": "Authentication required"}, 401), UpstreamUnauthorized),
        (json({}, 500), UpstreamServerError),
        (json({}, 404), UpstreamNotFound),
        (json({}), UpstreamUnreadable),
        (RawAnswer(200, {"content-type": "text/html"}, b"<html>"), UpstreamUnreadable),
        (UpstreamUnreachable("u"), UpstreamUnreachable),
    ],
)
async def test_a_key_is_not_accepted_unless_jobnimbus_says_so(answer: Answer, kind: type[ProjectError]) -> None:
    world = World(lambda _: answer)
    assert await world.outcome(world.check()) is kind


async def _result(task: asyncio.Future[T]) -> T:
    return await task


async def _all(tasks: Sequence[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
