"""Catch-up over a JobNimbus made of lists: what is told, what is not, how often it asks, and what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from background_fakes import ACCOUNT, Scene, row
from structlog.testing import capture_logs

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.relations import tags_of_read
from jobnimbus_mcp.errors import (
    CacheUnavailable,
    UpstreamForbidden,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreadable,
)
from jobnimbus_mcp.events.catch_up import PAGES_MOST, REFUSED_S, ROWS, CatchUp
from jobnimbus_mcp.events.found import POLLED
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

LONGEST_S = 60.0
JOBS, ACTIVITIES = Entity.JOBS, Entity.ACTIVITIES


@pytest.fixture
def scene() -> Scene:
    return Scene()


def catch_up(scene: Scene, *, longest_s: float = LONGEST_S, **instead: Any) -> CatchUp:
    parts: dict[str, Any] = {
        "ask": scene.jobnimbus,
        "tell": scene.stream,
        "known": scene.keeper,
        "keeper": scene.keeper,
        "instances": (ACCOUNT, "guilford"),
        "longest_s": longest_s,
        "clock": scene.clock,
        "ids": scene.new_id,
        "random01": lambda: 0.5,
        "recorder": InMemoryRecorder(),
        "log": structlog.get_logger(),
    }
    return CatchUp(**parts | instead)


async def settled(scene: Scene, polling: CatchUp) -> None:
    """Polled once, so that a mark is there, and some time ago."""
    await polling.poll(ACCOUNT)
    scene.clock.advance(30)


def log_row(jnid: str, kind: str, of: str, at: float) -> dict[str, Any]:
    primary = {"id": of, "type": kind.lower()}
    return row(jnid, at, created=at, type="activity", record_type_name=f"{kind} Deleted", primary=primary)


# -- what is told ----------------------------------------------------------------------------------------------------


async def test_a_change_nobody_told_of_is_told_once_and_only_once(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 5)])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert (done.told, done.loss) == (1, (1, 0))
    (event,) = scene.stream.events
    assert (event.name, event.record_id, event.source, event.instance) == ("job.updated", "j1", "catch_up", ACCOUNT)
    assert event.dedupe_key == event.version_key != ""
    for _ in range(5):
        scene.clock.advance(60)
        done = await polling.poll(ACCOUNT)
        assert done is not None
        assert (done.told, done.loss) == (0, (0, 0))
    assert len(scene.stream.renewed) == 1


async def test_a_change_a_webhook_told_of_is_not_told_again_and_counts_as_heard_once(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    changed = row("j1", scene.clock.now() - 5)
    scene.jobnimbus.put(JOBS, [changed])
    scene.stream.hear_by_webhook(JOBS, changed)
    for _ in range(3):
        await polling.poll(ACCOUNT)
        scene.clock.advance(20)
    assert scene.stream.renewed == []
    assert await polling.loss(ACCOUNT) == {"missed": 0, "heard": 1, "rate": 0.0}


async def test_a_webhook_between_the_question_and_the_append_makes_it_a_duplicate(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    changed = row("j1", scene.clock.now() - 5)
    scene.jobnimbus.put(JOBS, [changed])
    known = scene.keeper.known

    async def known_just_before(instance: str, keys: Any) -> Any:
        told = await known(instance, keys)
        scene.stream.hear_by_webhook(JOBS, changed)
        return told

    scene.keeper.known = known_just_before  # type: ignore[method-assign]
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert (done.told, done.loss.missed) == (0, 0)
    assert scene.stream.events == []


@pytest.mark.parametrize(
    ("created_before_s", "name"), [(0, "job.created"), (1, "job.created"), (2, "job.updated"), (86_400, "job.updated")]
)
async def test_a_record_no_older_than_its_change_was_created(scene: Scene, created_before_s: int, name: str) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    at = scene.clock.now() - 5
    scene.jobnimbus.put(JOBS, [row("j1", at, created=at - created_before_s)])
    await polling.poll(ACCOUNT)
    assert scene.stream.told == [(name, "j1")]


@pytest.mark.parametrize("created_before_s", [0, 86_400])
async def test_whatever_it_was_every_list_it_may_have_been_in_is_renewed(scene: Scene, created_before_s: int) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    at = scene.clock.now() - 5
    scene.jobnimbus.put(Entity.TASKS, [row("t1", at, created=at - created_before_s, related=[{"id": "new"}])])
    await polling.poll(ACCOUNT)
    (event,) = scene.stream.events
    left = Read.scan(Entity.TASKS, (), scope=frozenset({"old"}))
    assert set(event.tags) & set(tags_of_read(left))
    assert set(event.tags) & set(tags_of_read(Read.record(Entity.TASKS, "t1")))


async def test_a_version_of_this_very_second_is_told_and_looked_at_again(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert (done.told, done.loss.missed) == (1, 0)
    assert [(event.dedupe_key, event.version_key) for event in scene.stream.events] == [("", "")]
    scene.stream.take()
    scene.clock.advance(15)
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert (scene.stream.take(), done.loss.missed) == ([("job.updated", "j1")], 1)
    scene.clock.advance(15)
    await polling.poll(ACCOUNT)
    assert scene.stream.take() == []


async def test_a_date_that_lies_far_ahead_is_told_once_and_not_for_ever(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    ahead = scene.clock.now() + 30 * 86_400
    scene.jobnimbus.put(JOBS, [row("j1", ahead)])
    scene.jobnimbus.put(ACTIVITIES, [log_row("a1", "Job", "j2", ahead)])
    for _ in range(20):
        await polling.poll(ACCOUNT)
        scene.clock.advance(60)
    assert [event.name for event in scene.stream.renewed] == ["job.deleted", "activity.created", "job.updated"]
    assert await polling.loss(ACCOUNT) == {"missed": 3, "heard": 0, "rate": 1.0}


async def test_what_changed_while_nobody_polled_is_told_afterwards(scene: Scene) -> None:
    await settled(scene, catch_up(scene))
    scene.clock.advance(1_000)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
    scene.clock.advance(50_000)
    await catch_up(scene).poll(ACCOUNT)
    assert scene.stream.told == [("job.updated", "j1")]


async def test_what_changed_before_anybody_polled_is_nobodys_business(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 60)])
    polling = catch_up(scene)
    for _ in range(3):
        await polling.poll(ACCOUNT)
        scene.clock.advance(60)
    assert scene.stream.events == []


async def test_a_store_that_lost_everything_has_nothing_told_again(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 5)])
    await polling.poll(ACCOUNT)
    scene.clock.advance(60)
    await polling.poll(ACCOUNT)
    scene.stream.take()
    scene.stream.noted.clear()
    scene.keeper._marks.clear()
    scene.jobnimbus.put(JOBS, [row("j2", scene.clock.now())])
    scene.clock.advance(60)
    await polling.poll(ACCOUNT)
    assert scene.stream.told == [("job.updated", "j2")]


async def test_every_kind_with_a_list_is_asked_once_a_round_the_log_first(scene: Scene) -> None:
    await catch_up(scene).poll(ACCOUNT)
    asked = [kind for _, kind in scene.jobnimbus.asked]
    assert asked == list(POLLED)
    assert asked[0] is ACTIVITIES
    assert {"jobs", "contacts", "estimates", "tasks", "attachments", "workorders"} <= set(asked)


async def test_rows_that_are_no_records_are_passed_over_and_said(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    at = scene.clock.now() - 5
    scene.jobnimbus.put(JOBS, [row("not an id", at), row("j2", at)])
    with capture_logs() as logged:
        await polling.poll(ACCOUNT)
        await polling.poll(ACCOUNT)
    assert scene.stream.told == [("job.updated", "j2")]
    assert [line["event"] for line in logged] == ["catch-up rows_unreadable"]


# -- deletions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind", "name"), [("Job", JOBS, "job.deleted"), ("Contact", Entity.CONTACTS, "contact.deleted")]
)
async def test_the_log_tells_of_deletions(scene: Scene, word: str, kind: Entity, name: str) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(ACTIVITIES, [log_row("a1", word, "x9", scene.clock.now() - 5)])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert done.loss.missed == 2
    assert scene.stream.take() == [(name, "x9"), ("activity.created", "a1")]
    for _ in range(3):
        scene.clock.advance(60)
        await polling.poll(ACCOUNT)
    assert scene.stream.take() == []


async def test_a_deletion_a_webhook_told_of_as_a_change_is_told_as_one_and_not_counted_as_missed(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    logged = log_row("a1", "Job", "j9", scene.clock.now() - 5)
    scene.jobnimbus.put(ACTIVITIES, [logged])
    scene.stream.hear_by_webhook(ACTIVITIES, logged)
    scene.stream.hear_by_webhook(JOBS, row("j9", logged["date_updated"]))
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert scene.stream.told == [("job.deleted", "j9")]
    assert done.loss.missed == 0


async def test_a_second_deletion_within_a_day_renews_again(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(ACTIVITIES, [log_row("a1", "Job", "j9", scene.clock.now() - 5)])
    await polling.poll(ACCOUNT)
    scene.clock.advance(600)
    scene.stream.renewed.clear()
    scene.jobnimbus.put(ACTIVITIES, [log_row("a2", "Job", "j9", scene.clock.now() - 5)])
    await polling.poll(ACCOUNT)
    assert [event.name for event in scene.stream.renewed] == ["job.deleted", "activity.created"]


@pytest.mark.parametrize(
    "primary", [None, {}, {"id": ""}, {"id": "x/../y"}, {"id": "t1", "type": "task"}, "j1", {"id": 7}]
)
async def test_a_log_line_that_names_no_record_of_its_kind_deletes_nothing(scene: Scene, primary: Any) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    told = log_row("a1", "Job", "j1", scene.clock.now() - 5) | {"primary": primary}
    scene.jobnimbus.put(ACTIVITIES, [told])
    await polling.poll(ACCOUNT)
    assert scene.stream.told == [("activity.created", "a1")]


# -- many changes ----------------------------------------------------------------------------------------------------


async def test_more_than_a_page_is_read_to_the_end(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    at = scene.clock.now()
    scene.jobnimbus.put(JOBS, [row(f"j{n}", at - 10 + n // 100) for n in range(450)])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert (done.told, done.behind) == (450, False)
    assert {jnid for _, jnid in scene.stream.told} == {f"j{n}" for n in range(450)}


async def test_pages_that_are_out_of_order_hide_nothing_behind_a_watermark(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    now = scene.clock.now()
    before = await scene.keeper.marks(ACCOUNT)
    listed = scene.jobnimbus.changed

    async def newest_first(instance: str, kind: Entity, *, since_s: int, offset: int, size: int) -> Any:
        found, count = await listed(instance, kind, since_s=since_s, offset=0, size=10_000)
        return found[::-1][offset : offset + size], count

    scene.jobnimbus.changed = newest_first
    scene.jobnimbus.put(JOBS, [row(f"j{n}", now - 20 + n / 10) for n in range(ROWS + 50)])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert polling.status(ACCOUNT)["refused"] == ["jobs"]
    assert (await scene.keeper.marks(ACCOUNT))["jobs"] == before["jobs"]


async def test_a_record_that_moves_to_the_end_while_pages_are_read_hides_no_other(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.clock.advance(2_000)
    at = scene.clock.now() - 1_000
    scene.jobnimbus.put(JOBS, [row(f"j{n:03}", at + n) for n in range(250)])
    moved = iter(("j010", "j020", "j120"))

    def edit() -> None:
        if jnid := next(moved, None):
            scene.jobnimbus.put(JOBS, [row(jnid, scene.clock.now() - 5)])

    scene.jobnimbus.before_page = edit
    await polling.poll(ACCOUNT)
    assert {jnid for _, jnid in scene.stream.told} == {f"j{n:03}" for n in range(250)}


async def test_too_many_changes_renew_the_kind_and_the_next_round_goes_on(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.clock.advance(7_200)
    at, many = scene.clock.now() - 3_600, ROWS * PAGES_MOST + 500
    scene.jobnimbus.put(JOBS, [row(f"j{n}", at + n) for n in range(many)])
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert done.behind
    whole = [event for event in scene.stream.events if not event.record_id]
    assert [(event.name, event.entity) for event in whole] == [("job.changed", "jobs")]
    for read in (Read.record(JOBS, "j1400"), Read.scan(JOBS, ()), Read.scan(Entity.TASKS, (), scope=frozenset({"j"}))):
        assert set(whole[0].tags) & set(tags_of_read(read))
    scene.clock.advance(15)
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert not done.behind
    told = [jnid for _, jnid in scene.stream.told if jnid]
    assert sorted(told) == sorted(f"j{n}" for n in range(many))
    assert await polling.loss(ACCOUNT) == {"missed": many, "heard": 0, "rate": 1.0}


async def test_more_than_is_ever_read_in_one_second_does_not_hold_up_what_follows(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.clock.advance(1_000)
    at = scene.clock.now() - 500
    scene.jobnimbus.put(JOBS, [row(f"j{n}", at) for n in range(ROWS * PAGES_MOST + 200)])
    scene.jobnimbus.put(JOBS, [row("last", at + 1)])
    for _ in range(4):
        await polling.poll(ACCOUNT)
        scene.clock.advance(15)
    assert ("job.updated", "last") in scene.stream.told
    done = await polling.poll(ACCOUNT)
    assert done is not None
    assert not done.behind


# -- when something is away ------------------------------------------------------------------------------------------


async def test_the_watermark_stays_until_everything_is_appended(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    before = await scene.keeper.marks(ACCOUNT)
    scene.jobnimbus.put(JOBS, [row(f"j{n}", scene.clock.now() - 5) for n in range(20)])
    scene.stream.away_after = 10
    with pytest.raises(CacheUnavailable):
        await polling.poll(ACCOUNT)
    assert (await scene.keeper.marks(ACCOUNT))["jobs"] == before["jobs"]
    scene.stream.away_after = None
    await polling.poll(ACCOUNT)
    assert sorted(jnid for _, jnid in scene.stream.told) == sorted(f"j{n}" for n in range(20))


async def test_a_kind_the_key_may_not_list_leaves_the_others(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.failing[ACTIVITIES] = UpstreamForbidden("no right")
    scene.jobnimbus.failing[Entity.ESTIMATES] = UpstreamUnreadable("the filter was ignored")
    scene.jobnimbus.put(Entity.WORKORDERS, [row("w1", scene.clock.now() - 5)])
    with capture_logs() as logged:
        await polling.poll(ACCOUNT)
        await polling.poll(ACCOUNT)
    assert scene.stream.told == [("workorder.updated", "w1")]
    assert polling.status(ACCOUNT)["refused"] == ["activities", "estimates"]
    assert [line["resource"] for line in logged] == ["activities", "estimates"]


async def test_when_no_kind_can_be_listed_the_round_has_failed(scene: Scene) -> None:
    scene.jobnimbus.failing[None] = UpstreamUnreadable("a web page")
    with pytest.raises(UpstreamUnreadable):
        await catch_up(scene).poll(ACCOUNT)


async def test_jobnimbus_away_is_said_once_and_asked_again_at_the_next_interval(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.failing[None] = UpstreamTimeout("too slow")
    with capture_logs() as logged:
        async with polling.running():
            await scene.pass_time(200)
            assert polling.status(ACCOUNT)["state"] == "upstream_away"
            scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
            asked = len(scene.jobnimbus.asked)
            assert asked > len(POLLED) + 1
            scene.jobnimbus.failing.clear()
            await scene.pass_time(61)
    assert ("job.updated", "j1") in scene.stream.told
    assert [line["event"] for line in logged] == ["catch-up upstream_away", "catch-up polling"]
    assert polling.status(ACCOUNT)["state"] == "polling"


async def test_a_refused_key_is_not_shown_again_for_ten_minutes(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.failing[None] = UpstreamUnauthorized("refused")
    async with polling.running():
        await scene.pass_time(5)
        asked = len(scene.jobnimbus.asked)
        await scene.pass_time(REFUSED_S - 10, step_s=10)
        assert len(scene.jobnimbus.asked) == asked
        assert polling.status(ACCOUNT)["state"] == "refused"
        scene.jobnimbus.failing.clear()
        await scene.pass_time(20)
        assert polling.status(ACCOUNT)["state"] == "polling"


async def test_a_defect_ends_one_round_and_not_polling(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.failing[None] = ZeroDivisionError("secret")
    with capture_logs() as logged:
        async with polling.running():
            await scene.pass_time(10)
            assert polling.status(ACCOUNT)["state"] == "failed"
            scene.jobnimbus.failing.clear()
            await scene.pass_time(61)
    assert polling.status(ACCOUNT)["state"] == "polling"
    (failed,) = [line for line in logged if line["event"] == "catch-up failed"]
    assert failed["error_type"] == "ZeroDivisionError"
    assert "secret" not in repr(logged)


# -- when ------------------------------------------------------------------------------------------------------------


def rounds(scene: Scene) -> int:
    return sum(kind is ACTIVITIES for _, kind in scene.jobnimbus.asked)


async def test_a_first_start_polls_after_one_interval(scene: Scene) -> None:
    async with catch_up(scene).running():
        await scene.pass_time(LONGEST_S - 1)
        assert rounds(scene) == 0
        await scene.pass_time(1)
        assert rounds(scene) == 1


async def test_a_start_with_a_watermark_polls_soon(scene: Scene) -> None:
    await settled(scene, catch_up(scene))
    scene.clock.advance(LONGEST_S * 2)
    async with catch_up(scene).running():
        await scene.pass_time(0.5)
        assert rounds(scene) == 1
        await scene.pass_time(3)
        assert rounds(scene) == 2


async def test_every_change_is_told_within_one_interval_and_sooner_while_webhooks_are_missing(scene: Scene) -> None:
    async with catch_up(scene).running():
        await scene.pass_time(70)
        scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
        await scene.pass_time(LONGEST_S)
        assert ("job.updated", "j1") in scene.stream.take()
        for n in range(5):
            scene.jobnimbus.put(JOBS, [row(f"k{n}", scene.clock.now())])
            await scene.pass_time(LONGEST_S / 4)
            assert ("job.updated", f"k{n}") in scene.stream.take()
        await scene.pass_time(5 * LONGEST_S)
        before = rounds(scene)
        await scene.pass_time(5 * LONGEST_S)
        assert rounds(scene) - before == 5


async def test_a_round_that_takes_long_begins_so_soon_that_it_ends_within_the_interval(scene: Scene) -> None:
    await settled(scene, catch_up(scene))
    scene.clock.advance(LONGEST_S * 2)
    async with catch_up(scene).running():
        await scene.pass_time(5)
        asked = scene.jobnimbus.changed
        ended: list[float] = []

        async def slowly(instance: str, kind: Entity, **about: Any) -> Any:
            found = await asked(instance, kind, **about)
            await scene.clock.sleep(1)
            if kind is POLLED[-1]:
                ended.append(scene.clock.now())
            return found

        scene.jobnimbus.changed = slowly
        await scene.pass_time(5 * LONGEST_S)
    # what changes right after a question is found by the next one
    began = [at - len(POLLED) for at in ended]
    assert len(ended) >= 4
    assert all(end - begin <= LONGEST_S + 1 for begin, end in zip(began[1:], ended[2:], strict=False))


async def test_an_interval_of_zero_is_off(scene: Scene) -> None:
    polling = catch_up(scene, longest_s=0)
    async with polling.running():
        await scene.pass_time(600, step_s=60)
    assert scene.jobnimbus.asked == []
    assert polling.status(ACCOUNT)["state"] == "off"


async def test_an_account_without_a_key_of_the_servers_is_not_polled(scene: Scene) -> None:
    polling = catch_up(scene)
    async with polling.running():
        await scene.pass_time(LONGEST_S)
    assert polling.status("guilford")["state"] == "off"
    assert set(await scene.keeper.marks("guilford")) == set()


async def test_one_process_polls_and_another_goes_on_when_it_ends(scene: Scene) -> None:
    await settled(scene, catch_up(scene))
    scene.clock.advance(LONGEST_S * 2)
    first, second = catch_up(scene), catch_up(scene)
    running = first.running()
    await running.__aenter__()
    await scene.pass_time(5)
    async with second.running():
        await scene.pass_time(5)
        assert (first.status(ACCOUNT)["state"], second.status(ACCOUNT)["state"]) == ("polling", "elsewhere")
        assert rounds(scene) == 2
        await running.__aexit__(None, None, None)
        scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
        await scene.pass_time(LONGEST_S)
        assert ("job.updated", "j1") in scene.stream.told
        assert second.status(ACCOUNT)["state"] == "polling"


async def test_a_process_that_died_is_followed_once_its_lease_has_ended(scene: Scene) -> None:
    await settled(scene, catch_up(scene))
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now())])
    async with catch_up(scene).running():
        await scene.pass_time(3 * LONGEST_S)
    assert ("job.updated", "j1") in scene.stream.told


async def test_a_round_that_takes_long_keeps_its_lease(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.before_page = lambda: scene.clock.advance(LONGEST_S)
    assert await polling.poll(ACCOUNT) is not None


async def test_a_round_that_outlived_its_lease_counts_unless_another_process_has_begun(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 5)])
    scene.jobnimbus.before_page = lambda: scene.clock.advance(LONGEST_S * 3)
    assert await polling.poll(ACCOUNT) is not None
    assert await polling.loss(ACCOUNT) == {"missed": 1, "heard": 0, "rate": 1.0}


async def test_who_lost_the_lease_meanwhile_moves_no_watermark(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    before = await scene.keeper.marks(ACCOUNT)

    def lost() -> None:
        scene.clock.advance(LONGEST_S * 2)
        scene.keeper._holders[ACCOUNT, "catch-up"] = ("another", scene.clock.monotonic() + 60)
        scene.jobnimbus.before_page = lambda: None

    scene.jobnimbus.before_page = lost
    assert await polling.poll(ACCOUNT) is None
    assert await scene.keeper.marks(ACCOUNT) == before


async def test_losses_are_forgotten_after_a_day(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 5)])
    await polling.poll(ACCOUNT)
    assert await polling.loss(ACCOUNT) == {"missed": 1, "heard": 0, "rate": 1.0}
    scene.clock.advance(25 * 3600)
    assert await polling.loss(ACCOUNT) == {"missed": 0, "heard": 0, "rate": 0.0}


async def test_the_names_of_customers_are_in_no_log_line(scene: Scene) -> None:
    polling = catch_up(scene)
    await settled(scene, polling)
    whose = {"id": "c1", "type": "contact", "name": "Dana Whitfield"}
    scene.jobnimbus.put(JOBS, [row("j1", scene.clock.now() - 5, primary=whose)])
    with capture_logs() as logged:
        await polling.poll(ACCOUNT)
    assert "Dana" not in repr(logged)
    assert "Dana" in scene.stream.events[0].body
    assert "Dana" not in repr(scene.stream.events[0])
