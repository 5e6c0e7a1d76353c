"""What a change costs: one request, not one for every list that shows the record. And what it takes for that."""

from __future__ import annotations

import dataclasses

import pytest

from jobnimbus_mcp.cache.outcome import Status, Tier
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Sort
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.errors import UpstreamUnauthorized
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.simulator import Account, Simulator
from tests.support.reuse_world import SERVER, SETTLE_S, ReuseWorld, bare

STATUS = 3
BOARD = Read.scan(Entity.JOBS, (Is("status", STATUS),))
EVERY_JOB = Read.scan(Entity.JOBS, ())
FIRST_JOBS = Read.block(Entity.JOBS, (), Sort(), 0)
RECENT_JOBS = Read.block(Entity.JOBS, (), Sort("date_updated"), 0)
CALENDAR = Read.scan(Entity.CALENDAR, (Between("date_start", 1, 2_000_000_000),), sort=Sort("date_start", False))


@pytest.fixture(scope="module")
def seeded() -> Account:
    return Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")


@pytest.fixture
def world(seeded: Account) -> ReuseWorld:
    return ReuseWorld(seeded)


def under(entity: Entity, parent: str) -> Read:
    return Read.block(entity, (Is("related.id", parent),), Sort(), 0, scope=frozenset({parent}))


def job_of(world: ReuseWorld, at: int = 0) -> str:
    return str([record["jnid"] for record in world.account.records("jobs")][at])


async def same_as_jobnimbus(world: ReuseWorld, *reads: Read, process: int = 0) -> None:
    for read in reads:
        value, answer = await world.get(read, process=process)
        truth = world.truth(read)
        assert answer.outcome.status is not Status.STALE
        assert (None if value is None else bare(read, value)) == (None if truth is None else bare(read, truth))


async def test_a_change_costs_one_request_for_all_lists_and_the_record_itself(world: ReuseWorld) -> None:
    jnid = job_of(world)
    lists = [EVERY_JOB, BOARD, Read.scan(Entity.JOBS, (Is("is_archived", True),)), RECENT_JOBS]
    await same_as_jobnimbus(world, *lists)
    await world.wait(60)
    await world.tell([world.account.update("jobs", jnid, {"status": STATUS})[0].record])

    asked = world.upstream.total
    await same_as_jobnimbus(world, *lists, Read.record(Entity.JOBS, jnid), *lists)
    assert world.upstream.total - asked == 1


async def test_another_process_needs_nothing_more(world: ReuseWorld) -> None:
    jnid = job_of(world)
    await same_as_jobnimbus(world, EVERY_JOB)
    await world.tell([world.account.update("jobs", jnid, {"status": STATUS})[0].record])
    await same_as_jobnimbus(world, Read.record(Entity.JOBS, jnid))

    asked = world.upstream.total
    await same_as_jobnimbus(world, EVERY_JOB, process=1)
    assert world.upstream.total == asked


async def test_what_was_put_together_is_as_old_as_the_oldest_part_and_ends_with_it(world: ReuseWorld) -> None:
    began = world.clock.now()
    await world.get(EVERY_JOB)
    await world.wait(600)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])

    for process in (0, 1):
        _, answer = await world.get(EVERY_JOB, process=process)
        assert (answer.outcome.fetched_at, answer.outcome.ttl_s) == (began, 1_200.0)
    assert world.reuses("repaired") == 1


async def test_a_base_that_is_nearly_over_is_not_repaired(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    await world.wait(1_650)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])

    _, answer = await world.get(EVERY_JOB)
    assert (answer.outcome.fetched_at, world.reuses("repaired")) == (world.clock.now(), 0)


@pytest.mark.parametrize(("max_age_s", "repaired"), [(None, True), (61, True), (59, False), (0, False)])
async def test_what_its_reader_calls_too_old_is_no_base(
    world: ReuseWorld, max_age_s: float | None, repaired: bool
) -> None:
    await world.get(EVERY_JOB)
    await world.wait(60)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])

    asked = world.upstream.requests["jobs:scan"]
    await world.get(EVERY_JOB, max_age_s=max_age_s)
    assert world.upstream.requests["jobs:scan"] - asked == (0 if repaired else 1)


async def test_two_records_that_are_not_at_hand_are_one_request_too_many_for_a_short_list(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    for at in (0, 1):
        await world.tell([world.account.update("jobs", job_of(world, at), {"status": STATUS})[0].record])
    await world.wait(60)

    asked = world.upstream.total
    await same_as_jobnimbus(world, EVERY_JOB)
    assert (world.upstream.total - asked, world.upstream.requests["jobs:record"]) == (1, 0)


async def test_a_list_is_asked_for_when_the_log_does_not_tell_what_has_changed(world: ReuseWorld) -> None:
    for bump in (["jobs:list"], ["jobs"]):
        await world.get(EVERY_JOB)
        await world.bump(bump)
        asked = world.upstream.requests["jobs:scan"]
        await same_as_jobnimbus(world, EVERY_JOB)
        assert world.upstream.requests["jobs:scan"] - asked == 1


async def test_a_list_is_asked_for_when_the_account_was_renewed_or_the_log_was_lost(world: ReuseWorld) -> None:
    jnid = job_of(world)
    for lose in (world.renew, world.flush):
        await world.get(EVERY_JOB)
        await lose()
        await world.tell([world.account.update("jobs", jnid, {"status": STATUS})[0].record])
        asked = world.upstream.requests["jobs:scan"]
        await same_as_jobnimbus(world, EVERY_JOB)
        assert world.upstream.requests["jobs:scan"] - asked == 1


async def test_what_hangs_on_a_changed_record_is_asked_for_anew(world: ReuseWorld) -> None:
    jnid = job_of(world)
    await world.get(under(Entity.TASKS, jnid))
    await world.tell([world.account.update("jobs", jnid, {"name": "Another name"})[0].record])

    asked = world.upstream.requests["tasks:block"]
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid))
    assert world.upstream.requests["tasks:block"] - asked == 1


TASKS_OF = Entity.TASKS, Entity.ATTACHMENTS, Entity.ESTIMATES, Entity.ACTIVITIES


async def test_what_hangs_on_a_record_goes_on_when_it_shows_nothing_of_its_change(world: ReuseWorld) -> None:
    jnid, lists = job_of(world), [under(kind, job_of(world)) for kind in TASKS_OF]
    await same_as_jobnimbus(world, Read.record(Entity.JOBS, jnid))
    await world.wait(SETTLE_S + 1)
    await same_as_jobnimbus(world, *lists)
    for status in (STATUS, STATUS + 1):
        await world.wait(100)
        done = world.account.update("jobs", jnid, {"status": status, "description": f"now {status}"})
        await world.tell([change.record for change in done])
        await world.wait(SETTLE_S + 1)

        before = world.upstream.requests.copy()
        await same_as_jobnimbus(world, *lists)
        # the record itself, and what was written to the activity log of the account
        assert world.upstream.requests - before == {"jobs:record": 1, "activities:block": 1}


@pytest.mark.parametrize("field", ["name", "number", "owners", "cf_string_1"])
async def test_what_hangs_on_a_record_is_asked_for_when_it_may_show_its_change(world: ReuseWorld, field: str) -> None:
    jnid = job_of(world)
    await same_as_jobnimbus(world, Read.record(Entity.JOBS, jnid))
    await world.wait(SETTLE_S + 1)
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid))
    await world.wait(100)
    value = [] if field == "owners" else "Another"
    await world.tell([world.account.update("jobs", jnid, {field: value})[0].record])

    asked = world.upstream.requests["tasks:block"]
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid))
    assert world.upstream.requests["tasks:block"] - asked == 1


@pytest.mark.parametrize("field", ["name", "owners"])
async def test_what_was_changed_and_changed_back_around_a_load_is_not_taken_for_unchanged(
    world: ReuseWorld, field: str
) -> None:
    """The list was fetched in between, and nothing of both changes was told by then."""
    jnid = job_of(world)
    first, _ = await world.get(Read.record(Entity.JOBS, jnid))
    assert first is not None
    await world.wait(SETTLE_S + 1)
    there = world.account.update("jobs", jnid, {field: [] if field == "owners" else "Another"})[0].record
    await world.wait(2)
    await world.get(under(Entity.TASKS, jnid))
    back = world.account.update("jobs", jnid, {field: first[field]})[0].record
    await world.tell([there])
    await world.tell([back])
    await world.wait(SETTLE_S + 1)

    asked = world.upstream.requests["tasks:block"]
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid))
    assert world.upstream.requests["tasks:block"] - asked == 1


@pytest.mark.parametrize("process", [0, 1])
async def test_what_was_made_under_a_record_that_changed_itself_is_shown_while_the_index_lags(
    seeded: Account, process: int
) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    jnid = job_of(world)
    await world.get(Read.record(Entity.JOBS, jnid))
    await world.wait(60)
    link = {"id": jnid, "type": "job"}
    made = world.account.create("tasks", {"title": "New", "date_start": 1, "related": [link]})
    moved = world.account.update("jobs", jnid, {"status": STATUS})
    await world.tell([change.record for change in (*made, *moved)])

    value, answer = await world.get(under(Entity.TASKS, jnid), process=process)
    assert value is not None
    assert value["rows"][0]["jnid"] == made[0].record["jnid"]
    assert answer.outcome.status is not Status.STALE
    await world.wait(60)
    # what it said of the record may have been of before: it was not kept for longer than the index lags
    asked = world.upstream.requests["tasks:block"]
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid), under(Entity.TASKS, jnid), process=process)
    assert world.upstream.requests["tasks:block"] - asked == 1


async def test_what_is_made_while_tags_are_renewed_without_a_name_is_shown_while_the_index_lags(
    seeded: Account,
) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    jnid = job_of(world)
    link = {"id": jnid, "type": "job"}
    made = world.account.create("tasks", {"title": "New", "date_start": 1, "related": [link]})
    await world.tell([change.record for change in made])
    await world.bump(["tasks"])
    await same_as_jobnimbus(world, under(Entity.TASKS, jnid))


async def test_the_second_renewal_of_a_changed_list_costs_nothing(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])
    await world.get(EVERY_JOB)
    await world.wait(SETTLE_S)
    await world.settle()

    asked = world.upstream.total
    await same_as_jobnimbus(world, EVERY_JOB)
    assert world.upstream.total == asked


async def test_a_list_read_while_the_index_lags_is_right_and_kept(seeded: Account) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])
    await world.wait(2)

    await same_as_jobnimbus(world, BOARD)
    asked = world.upstream.total
    await world.wait(60)
    await same_as_jobnimbus(world, BOARD)
    assert world.upstream.total == asked


async def test_what_is_told_right_after_all_was_dropped_is_shown_while_the_index_lags(seeded: Account) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    await world.renew()
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])
    await world.wait(1)

    await same_as_jobnimbus(world, BOARD)


async def test_a_lagging_list_of_files_is_not_trusted_for_longer_than_the_index_lags(seeded: Account) -> None:
    """A file has no GET by id, so the list is all there is, and it lags."""
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    files = Read.block(Entity.ATTACHMENTS, (), Sort(), 0)
    file = next(world.account.records("files"))["jnid"]
    await world.tell([world.account.delete("files", file)[0].record])
    await world.wait(1)
    await world.get(files)
    await world.wait(SETTLE_S)

    await same_as_jobnimbus(world, files)


async def test_a_deleted_record_is_gone_from_complete_lists_for_one_request(world: ReuseWorld) -> None:
    await same_as_jobnimbus(world, EVERY_JOB, BOARD)
    await world.tell([world.account.delete("jobs", job_of(world))[0].record])

    asked = world.upstream.total
    await same_as_jobnimbus(world, EVERY_JOB, BOARD)
    assert world.upstream.total - asked == 1


async def test_a_record_comes_out_of_a_list_that_shows_it(world: ReuseWorld) -> None:
    await world.get(FIRST_JOBS)
    (shown, *_) = (await world.get(FIRST_JOBS))[0]["rows"]  # type: ignore[index]  # a list is always there
    began, asked = world.clock.now(), world.upstream.total
    await world.wait(300)

    value, answer = await world.get(Read.record(Entity.JOBS, shown["jnid"]))
    assert (value, answer.outcome.fetched_at, answer.outcome.ttl_s) == (shown, began, 1_500.0)
    assert (answer.outcome.status, answer.outcome.tier) == (Status.MISS, Tier.UPSTREAM)
    assert world.upstream.total == asked


async def test_a_record_that_has_changed_since_does_not(world: ReuseWorld) -> None:
    value, _ = await world.get(FIRST_JOBS)
    assert value is not None
    jnid = value["rows"][0]["jnid"]
    await world.tell([world.account.update("jobs", jnid, {"name": "Another name"})[0].record])
    await same_as_jobnimbus(world, Read.record(Entity.JOBS, jnid))


async def test_a_record_that_no_list_shows_is_asked_for_and_not_found(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    assert (await world.get(Read.record(Entity.JOBS, "nosuchjob")))[0] is None
    assert world.upstream.requests["jobs:record"] == 1


async def test_a_list_that_may_lag_does_not_answer_for_the_record(seeded: Account) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S, policies=Policies(settle_s=SETTLE_S))
    jnid = job_of(world)
    changes = [world.account.update("jobs", job_of(world, at), {"name": "x"})[0].record for at in range(8)]
    await world.tell(changes)
    await world.get(FIRST_JOBS)

    await same_as_jobnimbus(world, Read.record(Entity.JOBS, jnid))


async def test_filters_sorts_and_pages_come_out_of_the_whole_list(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    asked = world.upstream.total
    narrower = [
        BOARD,
        Read.block(Entity.JOBS, (Is("status", STATUS),), Sort("date_updated", False), 0, 5),
        Read.block(Entity.JOBS, (), Sort(), 100),
        Read.scan(Entity.JOBS, (Is("is_archived", True),), operation=Operation.SEARCH),
        under(Entity.JOBS, job_of(world)),
    ]

    await same_as_jobnimbus(world, *narrower)
    assert (world.upstream.total - asked, world.reuses("narrowed")) == (0, len(narrower))


async def test_a_kind_known_to_be_short_is_read_whole_for_the_first_filter(world: ReuseWorld) -> None:
    await world.get(FIRST_JOBS)  # says that there are 300
    asked = world.upstream.total

    await same_as_jobnimbus(world, BOARD, *(Read.scan(Entity.JOBS, (Is("status", at),)) for at in range(9)))
    assert (world.upstream.total - asked, world.reuses("widened")) == (1, 1)


async def test_a_kind_that_is_long_or_of_unknown_length_is_not(world: ReuseWorld) -> None:
    for _ in range(120):
        world.account.create("activities", {"note": "Called back"})
    await world.wait(60)
    await world.get(Read.block(Entity.ACTIVITIES, (), Sort(), 0))  # 1,002 of them
    for read in (BOARD, Read.scan(Entity.ACTIVITIES, (Is("is_status_change", True),))):
        await same_as_jobnimbus(world, read)
    assert (world.reuses("widened"), world.reuses("full")) == (0, 3)


async def test_a_kind_too_large_to_be_kept_whole_is_not_read_so_again(seeded: Account) -> None:
    world = ReuseWorld(seeded, policies=Policies(max_bytes=100_000, settle_s=SETTLE_S))
    await world.get(Read.block(Entity.JOBS, (), Sort(), 0, 10))
    asked = world.upstream.total

    await same_as_jobnimbus(world, *(Read.scan(Entity.JOBS, (Is("status", at),)) for at in range(3)))
    assert world.upstream.total - asked == 1 + 3


async def test_the_list_of_a_job_is_asked_for_alone_unless_the_whole_kind_is_at_hand(world: ReuseWorld) -> None:
    tasks = Read.scan(Entity.TASKS, ())
    await world.get(Read.block(Entity.TASKS, (), Sort(), 0, 10))
    await same_as_jobnimbus(world, under(Entity.TASKS, job_of(world)))
    assert (world.upstream.requests["tasks:block"], world.upstream.requests["tasks:scan"]) == (2, 0)
    await world.get(tasks)
    await same_as_jobnimbus(world, *(under(Entity.TASKS, job_of(world, at)) for at in range(1, 20)))
    assert (world.upstream.requests["tasks:block"], world.upstream.requests["tasks:scan"]) == (2, 1)


async def test_lists_of_records_that_were_asked_about_lately_are_asked_for_together(world: ReuseWorld) -> None:
    logs = [under(Entity.ACTIVITIES, job_of(world, at)) for at in range(6)]
    await same_as_jobnimbus(world, *logs)
    await world.wait(2_000)  # all have ended

    asked = world.upstream.total
    await same_as_jobnimbus(world, *logs)
    assert world.upstream.total - asked == 1
    assert world.upstream.requests["activities:block"] == 1  # the first of all, when nobody knew of others


async def test_a_list_of_several_records_is_used_although_something_was_added_to_another(world: ReuseWorld) -> None:
    first, second = under(Entity.TASKS, job_of(world, 0)), under(Entity.TASKS, job_of(world, 1))
    await same_as_jobnimbus(world, first, second)
    await world.wait(900)
    await same_as_jobnimbus(world, first)  # with the second's
    link = [{"id": job_of(world, 0), "type": "job"}]
    await world.tell([world.account.create("tasks", {"title": "Call", "related": link})[0].record])

    asked = world.upstream.requests["tasks:scan"]
    await same_as_jobnimbus(world, second, first)
    assert world.upstream.requests["tasks:scan"] - asked == 0


async def test_the_list_of_a_record_that_has_changed_does_not_come_out_of_one_from_before(world: ReuseWorld) -> None:
    logs = [under(Entity.TASKS, job_of(world, at)) for at in range(3)]
    await same_as_jobnimbus(world, *logs)
    await world.wait(900)
    await same_as_jobnimbus(world, logs[0])
    await world.tell([world.account.update("jobs", job_of(world, 1), {"name": "Another name"})[0].record])
    await world.wait(SETTLE_S + 1)

    asked = world.upstream.total
    await same_as_jobnimbus(world, logs[2])
    assert world.upstream.total - asked == 0
    await same_as_jobnimbus(world, logs[1])
    assert world.upstream.total - asked == 1


async def test_nothing_is_asked_for_together_while_the_index_may_lag(seeded: Account) -> None:
    world = ReuseWorld(seeded, lag_s=SETTLE_S)
    logs = [under(Entity.TASKS, job_of(world, at)) for at in range(3)]
    await same_as_jobnimbus(world, *logs)
    await world.wait(900)
    together = world.reuses("together")
    link = [{"id": job_of(world, 0), "type": "job"}]
    await world.tell([world.account.create("tasks", {"title": "Call", "related": link})[0].record])
    await world.wait(1)

    await same_as_jobnimbus(world, logs[0])
    assert world.reuses("together") == together
    await world.wait(SETTLE_S + 1)
    await same_as_jobnimbus(world, *logs)


async def test_what_could_not_be_had_together_is_asked_for_alone_for_a_while(world: ReuseWorld) -> None:
    logs = [under(Entity.ACTIVITIES, job_of(world, at)) for at in range(4)]
    world.upstream.broken.add("activities:scan")
    await same_as_jobnimbus(world, *logs)
    assert (world.upstream.requests["activities:block"], world.upstream.requests["activities:scan"]) == (4, 1)


async def test_the_other_process_asks_for_its_own(world: ReuseWorld) -> None:
    logs = [under(Entity.ACTIVITIES, job_of(world, at)) for at in range(4)]
    await same_as_jobnimbus(world, *logs)
    await world.wait(2_000)
    await same_as_jobnimbus(world, *logs[:2], process=1)
    await same_as_jobnimbus(world, *logs, process=0)


async def test_who_wants_it_from_jobnimbus_now_is_given_that_list_alone(world: ReuseWorld) -> None:
    logs = [under(Entity.ACTIVITIES, job_of(world, at)) for at in range(3)]
    for read in logs:
        await world.get(read, max_age_s=0)
    assert dict(world.upstream.requests) == {"activities:block": 3}


FIRST_CONTACT = Read.block(Entity.CONTACTS, (), Sort(), 0, 1)
"""By which it is known how many there are."""


async def test_a_kind_whose_records_are_asked_for_one_by_one_is_read_whole(world: ReuseWorld) -> None:
    contacts = [Read.record(Entity.CONTACTS, record["jnid"]) for record in world.account.records("contacts")][1:]
    await same_as_jobnimbus(world, FIRST_CONTACT, *contacts[:40])
    assert dict(world.upstream.requests) == {"contacts:record": 4, "contacts:block": 1, "contacts:scan": 1}

    changed = contacts[30].record_id
    await world.wait(60)
    await world.tell([world.account.update("contacts", changed, {"first_name": "Ada"})[0].record])
    await same_as_jobnimbus(world, *contacts[30:60])
    assert dict(world.upstream.requests) == {"contacts:record": 5, "contacts:block": 1, "contacts:scan": 1}


async def test_it_is_read_whole_again_when_that_is_over_and_as_many_were_asked_for_meanwhile(world: ReuseWorld) -> None:
    contacts = [Read.record(Entity.CONTACTS, record["jnid"]) for record in world.account.records("contacts")][1:]
    await same_as_jobnimbus(world, FIRST_CONTACT, *contacts[:40])
    before = world.upstream.requests.copy()
    await world.wait(3_500)
    await same_as_jobnimbus(world, *contacts[40:60])
    assert world.upstream.requests - before == {"contacts:scan": 1}


async def test_it_is_asked_once_how_many_of_a_kind_there_are_when_nobody_knows(world: ReuseWorld) -> None:
    contacts = [Read.record(Entity.CONTACTS, record["jnid"]) for record in world.account.records("contacts")]
    await same_as_jobnimbus(world, *contacts[:3])
    assert dict(world.upstream.requests) == {"contacts:record": 3}
    await same_as_jobnimbus(world, *reversed(contacts[-20:]))
    assert dict(world.upstream.requests) == {"contacts:record": 4, "contacts:block": 1, "contacts:scan": 1}


async def test_when_that_is_not_told_it_is_not_asked_again_for_each_record(world: ReuseWorld) -> None:
    contacts = [Read.record(Entity.CONTACTS, record["jnid"]) for record in world.account.records("contacts")]
    world.upstream.broken.add("contacts:block")
    await same_as_jobnimbus(world, *contacts[:20])
    assert dict(world.upstream.requests) == {"contacts:record": 20, "contacts:block": 1}


async def test_a_kind_that_cannot_be_read_whole_is_not_tried_again_for_each_record(world: ReuseWorld) -> None:
    contacts = [Read.record(Entity.CONTACTS, record["jnid"]) for record in world.account.records("contacts")][1:]
    await same_as_jobnimbus(world, FIRST_CONTACT)
    world.upstream.broken.add("contacts:scan")
    await same_as_jobnimbus(world, *contacts[:10])
    assert dict(world.upstream.requests) == {"contacts:record": 10, "contacts:block": 1, "contacts:scan": 1}


async def test_what_jobnimbus_writes_to_its_activity_log_is_read_once_for_all_jobs(world: ReuseWorld) -> None:
    logs = [under(Entity.ACTIVITIES, job_of(world, at)) for at in range(5)]
    await same_as_jobnimbus(world, *logs)
    await world.wait(60)
    done = world.account.update("jobs", job_of(world, 9), {"status": STATUS})
    await world.tell([change.record for change in done])
    await world.wait(SETTLE_S + 1)

    asked = world.upstream.requests["activities:block"]
    await same_as_jobnimbus(world, *logs)
    assert world.upstream.requests["activities:block"] - asked == 1


async def test_a_calendar_is_made_of_lists_that_are_kept_for_themselves(world: ReuseWorld) -> None:
    await same_as_jobnimbus(world, CALENDAR)
    assert world.upstream.total == 3
    task = next(record["jnid"] for record in world.account.records("tasks"))
    await world.tell([world.account.update("tasks", task, {"date_start": 1_790_000_000})[0].record])

    await same_as_jobnimbus(world, CALENDAR)
    assert dict(world.upstream.requests) == {"tasks:scan": 1, "jobs:scan": 1, "workorders:scan": 1, "tasks:record": 1}


async def test_a_part_of_a_calendar_lives_by_its_own_kind_and_no_longer_than_a_calendar(seeded: Account) -> None:
    """Jobs change all day, and work orders hardly ever."""
    adapted = {Entity.JOBS: 600, Entity.CALENDAR: 600, Entity.WORKORDERS: 3_600}
    policies = Policies(settle_s=SETTLE_S, adapted=lambda _, entity, base_s: adapted.get(entity, base_s))
    world = ReuseWorld(seeded, policies=policies)
    await same_as_jobnimbus(world, CALENDAR)
    asked: list[dict[str, int]] = []
    for after_s in (610, 300):
        before = world.upstream.requests.copy()
        await world.wait(after_s)
        await same_as_jobnimbus(world, CALENDAR)
        asked.append(dict(world.upstream.requests - before))
    assert [sorted(one) for one in asked] == [["jobs:scan", "tasks:scan"], ["workorders:scan"]]
    _, answer = await world.get(CALENDAR)
    assert answer.outcome.fetched_at == world.clock.now() - 300
    assert answer.outcome.ttl_s == 300


async def test_a_credential_that_is_refused_is_given_nothing_that_was_put_together(world: ReuseWorld) -> None:
    """A load that does not ask JobNimbus proves nothing about the key, and does not lengthen its acceptance."""
    await world.get(EVERY_JOB)
    world.upstream.refusing.add(SERVER.credential)
    for _ in range(4):
        await world.wait(70)
        await world.get(Read.scan(Entity.JOBS, (Is("status", int(world.clock.now()) % 13),)))
    await world.wait(70)

    with pytest.raises(UpstreamUnauthorized):
        await world.get(Read.scan(Entity.JOBS, (Is("is_archived", True),)))


async def test_nobody_is_given_what_another_partition_has(world: ReuseWorld) -> None:
    guest = dataclasses.replace(SERVER, credential="g" * 16, partition="q" * 32, own_key=True)
    await world.get(EVERY_JOB)
    asked = world.upstream.total
    await world.get(BOARD, caller=guest)

    assert world.upstream.total - asked == 1


async def test_without_a_store_each_load_asks_for_all_of_it(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    world.store.fail("refused")
    asked = world.upstream.total
    await same_as_jobnimbus(world, BOARD, Read.record(Entity.JOBS, job_of(world)))

    assert world.upstream.total - asked == 2


async def test_a_record_that_cannot_be_had_leaves_the_list_to_be_asked_for(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    await world.tell([world.account.update("jobs", job_of(world), {"status": STATUS})[0].record])
    world.upstream.broken.add("jobs:record")

    asked = world.upstream.requests["jobs:scan"]
    await same_as_jobnimbus(world, EVERY_JOB)
    assert world.upstream.requests["jobs:scan"] - asked == 1


async def test_a_hit_asks_the_store_once_and_nothing_else(world: ReuseWorld) -> None:
    await world.get(EVERY_JOB)
    before = dict(world.recorder.counts)
    await world.get(EVERY_JOB)

    grown = {labels[0] for labels, number in world.recorder.counts.items() if number != before.get(labels)}
    assert grown == {"cache_reads"}


async def test_a_list_under_a_changed_record_is_not_cut_out_of_a_whole_one_that_shows_it_as_it_was(
    world: ReuseWorld,
) -> None:
    """A parent's change renews the lists under it alone, since rows show its name; the whole list was repaired
    meanwhile for another reason, and must not be taken for newer than the name in it."""
    linked = [task for task in world.account.records("tasks") if task["related"]]
    parent = linked[0]["related"][0]
    kind, field = ("jobs", "name") if parent["type"] == "job" else ("contacts", "display_name")
    other = next(one for one in linked if one["related"][0]["id"] != parent["id"])
    whole = Read.scan(Entity.TASKS, ())
    await same_as_jobnimbus(world, whole)
    await world.wait(60)
    await world.tell([world.account.update(kind, parent["id"], {field: "Renamed meanwhile"})[0].record])
    await world.wait(10)
    await world.tell([world.account.update("tasks", other["jnid"], {"title": "Another one"})[0].record])
    await world.wait(10)
    await same_as_jobnimbus(world, whole)

    asked = world.upstream.total
    await same_as_jobnimbus(world, under(Entity.TASKS, parent["id"]))
    assert world.upstream.total - asked == 1
