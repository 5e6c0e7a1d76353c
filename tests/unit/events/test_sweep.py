"""The sweep over a JobNimbus made of lists: what is taken for a deletion, and what is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import structlog
from background_fakes import ACCOUNT, ListedJobNimbus, Scene, row
from structlog.testing import capture_logs

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.errors import UpstreamForbidden, UpstreamServerError, UpstreamTimeout
from jobnimbus_mcp.events.catch_up import CatchUp
from jobnimbus_mcp.events.sweep import SUSPECTS_LEAST, Sweep, SweptKind, most_suspects
from jobnimbus_mcp.telemetry.recorder import InMemoryRecorder

JOBS, ACTIVITIES, FILES = Entity.JOBS, Entity.ACTIVITIES, Entity.ATTACHMENTS
DAY_S = 86_400.0


@pytest.fixture
def scene() -> Scene:
    return Scene()


def parts_of(scene: Scene) -> dict[str, Any]:
    return {
        "ask": scene.jobnimbus,
        "tell": scene.stream,
        "known": scene.keeper,
        "keeper": scene.keeper,
        "instances": (ACCOUNT, "guilford"),
        "clock": scene.clock,
        "ids": scene.new_id,
        "random01": lambda: 0.5,
        "recorder": InMemoryRecorder(),
        "log": structlog.get_logger(),
    }


def sweeper(scene: Scene, *, every_s: float = DAY_S, kinds: Iterable[Entity] = (JOBS,)) -> Sweep:
    return Sweep(**parts_of(scene), every_s=every_s, kinds=tuple(kinds))


async def swept(scene: Scene, sweep: Sweep, kind: Entity = JOBS, **how: Any) -> SweptKind:
    done = await sweep.sweep(ACCOUNT, **how)
    assert done is not None
    return done[kind]


def records(scene: Scene, many: int, *, apart_s: int = 60) -> list[dict[str, Any]]:
    began = scene.clock.now() - 30 * DAY_S
    return [row(f"j{n:05}", began + n * apart_s, created=began + n * apart_s) for n in range(many)]


async def test_the_first_sweep_stores_ids_and_tells_nothing(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, records(scene, 50))
    assert await swept(scene, sweeper(scene)) == SweptKind("stored", 0, 50)
    assert scene.stream.events == []
    assert await scene.keeper.ids(ACCOUNT, "jobs") == frozenset(f"j{n:05}" for n in range(50))


async def test_what_vanished_and_is_gone_is_told_once(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 50))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, "j00007", "j00031")
    assert await swept(scene, sweep) == SweptKind("compared", 2, 48)
    assert scene.stream.told == [("job.deleted", "j00007"), ("job.deleted", "j00031")]
    assert {event.source for event in scene.stream.events} == {"catch_up"}
    assert {event.action for event in scene.stream.events} == {"deleted"}
    assert await swept(scene, sweep) == SweptKind("compared", 0, 48)
    assert len(scene.stream.renewed) == 2


async def test_what_vanished_from_the_list_and_can_still_be_read_is_no_deletion(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 50))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.hidden = {"j00007"}
    assert await swept(scene, sweep) == SweptKind("compared", 0, 50)
    assert scene.stream.events == []
    scene.jobnimbus.remove(JOBS, "j00007")
    assert (await swept(scene, sweep)).deleted == 1


async def test_an_error_instead_of_a_plain_answer_is_no_deletion_and_keeps_the_ids(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 50))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, "j00007")

    async def fails(instance: str, kind: Entity, jnid: str) -> bool:
        raise UpstreamServerError("status 502")

    asked, scene.jobnimbus.is_gone = scene.jobnimbus.is_gone, fails  # type: ignore[method-assign]
    with pytest.raises(UpstreamServerError):
        await sweep.sweep(ACCOUNT)
    assert scene.stream.events == []
    scene.jobnimbus.is_gone = asked  # type: ignore[method-assign]
    assert (await swept(scene, sweep)).deleted == 1


async def test_a_record_whose_page_is_refused_is_no_deletion_and_holds_up_nothing(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 50))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, "j00007", "j00008")
    asked = scene.jobnimbus.is_gone

    async def refuses(instance: str, kind: Entity, jnid: str) -> bool:
        if jnid == "j00007":
            raise UpstreamForbidden("no right")
        return await asked(instance, kind, jnid)

    scene.jobnimbus.is_gone = refuses  # type: ignore[method-assign]
    assert (await swept(scene, sweep)).deleted == 1
    assert scene.stream.told == [("job.deleted", "j00008")]
    scene.jobnimbus.is_gone = asked  # type: ignore[method-assign]
    assert (await swept(scene, sweep)).deleted == 1


@pytest.mark.parametrize(("of", "most"), [(0, 20), (50, 20), (1_000, 20), (1_001, 20.02), (10_000, 200)])
def test_the_threshold_is_twenty_or_two_in_a_hundred(of: int, most: float) -> None:
    assert most_suspects(of) == most


async def test_more_than_can_be_deletions_deletes_nothing_and_keeps_the_ids(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 100))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, *(f"j{n:05}" for n in range(SUSPECTS_LEAST + 1)))
    with capture_logs() as logged:
        assert await swept(scene, sweep) == SweptKind("stopped", 0, 79)
    assert scene.stream.events == []
    assert scene.jobnimbus.questions("is_gone") == 0
    assert len(await scene.keeper.ids(ACCOUNT, "jobs") or ()) == 100
    assert sweep.status(ACCOUNT)["stopped"] == ["jobs"]
    assert any(line.get("vanished") == 21 for line in logged)
    assert (await swept(scene, sweep, however_many=True)).deleted == 21
    assert sweep.status(ACCOUNT)["stopped"] == []


async def test_exactly_the_threshold_is_believed(scene: Scene) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 100))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, *(f"j{n:05}" for n in range(SUSPECTS_LEAST)))
    assert (await swept(scene, sweep)).deleted == SUSPECTS_LEAST


async def test_a_deletion_the_log_told_of_is_no_suspect(scene: Scene) -> None:
    polling = CatchUp(**parts_of(scene), longest_s=60)
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 100))
    await polling.poll(ACCOUNT)
    await sweep.sweep(ACCOUNT)
    gone = [f"j{n:05}" for n in range(30)]
    scene.jobnimbus.remove(JOBS, *gone)
    at = scene.clock.now()
    scene.jobnimbus.put(
        ACTIVITIES,
        [
            row(f"a{jnid}", at, created=at, record_type_name="Job Deleted", primary={"id": jnid, "type": "job"})
            for jnid in gone
        ],
    )
    scene.clock.advance(10)
    await polling.poll(ACCOUNT)
    scene.stream.take()
    assert await swept(scene, sweep) == SweptKind("compared", 0, 70)
    assert scene.jobnimbus.questions("is_gone") == 0
    assert scene.stream.events == []


@pytest.mark.parametrize("miscounts", [1, -1])
async def test_ids_that_are_not_as_many_as_counted_are_not_compared(scene: Scene, miscounts: int) -> None:
    sweep = sweeper(scene)
    scene.jobnimbus.put(JOBS, records(scene, 50))
    await sweep.sweep(ACCOUNT)
    scene.jobnimbus.remove(JOBS, "j00007")
    scene.jobnimbus.miscounts = miscounts
    assert await swept(scene, sweep) == SweptKind("miscounted")
    assert scene.stream.events == []
    scene.jobnimbus.miscounts = 0
    assert (await swept(scene, sweep)).deleted == 1


async def test_a_kind_larger_than_its_window_is_read_in_parts(scene: Scene) -> None:
    sweep = sweeper(scene, kinds=(ACTIVITIES,))
    scene.jobnimbus.put(ACTIVITIES, records(scene, 3_700, apart_s=7))
    assert await swept(scene, sweep, ACTIVITIES) == SweptKind("stored", 0, 3_700)
    scene.jobnimbus.remove(ACTIVITIES, "j01234")
    assert (await swept(scene, sweep, ACTIVITIES)).deleted == 1


async def test_a_page_never_ends_beyond_the_window(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    furthest = 0
    made = ListedJobNimbus.made

    async def watched(self: ListedJobNimbus, instance: str, kind: Entity, **what: Any) -> Any:
        nonlocal furthest
        furthest = max(furthest, what["offset"] + what["size"])
        return await made(self, instance, kind, **what)

    monkeypatch.setattr(ListedJobNimbus, "made", watched)
    scene.jobnimbus.put(ACTIVITIES, records(scene, 2_500, apart_s=7))
    await sweeper(scene, kinds=(ACTIVITIES,)).sweep(ACCOUNT)
    assert furthest == 1_000


async def test_more_of_a_second_than_a_window_shows_is_given_up(scene: Scene) -> None:
    scene.jobnimbus.put(ACTIVITIES, records(scene, 1_500, apart_s=0))
    assert await swept(scene, sweeper(scene, kinds=(ACTIVITIES,)), ACTIVITIES) == SweptKind("miscounted")
    assert await scene.keeper.ids(ACCOUNT, "activities") is None


async def test_a_kind_the_key_may_not_list_leaves_the_others(scene: Scene) -> None:
    sweep = sweeper(scene, kinds=(FILES, JOBS))
    scene.jobnimbus.put(JOBS, records(scene, 5))
    scene.jobnimbus.failing[FILES] = UpstreamForbidden("no right")
    done = await sweep.sweep(ACCOUNT)
    assert done is not None
    assert [one.outcome for one in done.values()] == ["refused", "stored"]
    assert sweep.status(ACCOUNT)["refused"] == ["attachments"]


async def test_only_one_process_sweeps(scene: Scene) -> None:
    await scene.keeper.hold(ACCOUNT, "sweep", "another", 300)
    assert await sweeper(scene).sweep(ACCOUNT) is None
    assert scene.jobnimbus.asked == []


# -- when ------------------------------------------------------------------------------------------------------------


async def test_the_first_sweep_comes_one_interval_after_the_first_start_also_after_restarts(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, records(scene, 5))
    for _ in range(3):
        async with sweeper(scene).running():
            await scene.pass_time(7 * 3600, step_s=600)
    assert scene.jobnimbus.asked == []
    async with sweeper(scene).running():
        await scene.pass_time(4 * 3600, step_s=600)
    assert scene.jobnimbus.questions("made") > 0


async def test_a_sweep_that_is_overdue_comes_soon_after_the_start(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, records(scene, 5))
    await sweeper(scene).sweep(ACCOUNT)
    scene.clock.advance(3 * DAY_S)
    scene.jobnimbus.remove(JOBS, "j00001")
    async with sweeper(scene).running():
        await scene.pass_time(5)
        assert scene.stream.events == []
        await scene.pass_time(30)
    assert scene.stream.told == [("job.deleted", "j00001")]


async def test_sweeps_are_an_interval_apart(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, records(scene, 5))
    async with sweeper(scene).running():
        await scene.pass_time(5 * DAY_S + 3_600, step_s=600)
    assert scene.jobnimbus.questions("made") == 5 * 2


async def test_a_sweep_that_could_not_be_ended_is_tried_again_and_said_once(scene: Scene) -> None:
    scene.jobnimbus.put(JOBS, records(scene, 5))
    await sweeper(scene).sweep(ACCOUNT)
    scene.clock.advance(2 * DAY_S)
    scene.jobnimbus.failing[None] = UpstreamTimeout("too slow")
    sweep = sweeper(scene)
    with capture_logs() as logged:
        async with sweep.running():
            await scene.pass_time(1_500, step_s=5)
            assert sweep.status(ACCOUNT)["state"] == "upstream_away"
            scene.jobnimbus.failing.clear()
            scene.jobnimbus.remove(JOBS, "j00001")
            await scene.pass_time(700, step_s=5)
    assert scene.stream.told == [("job.deleted", "j00001")]
    assert sweep.status(ACCOUNT)["state"] == "swept"
    assert [line["event"] for line in logged].count("sweep upstream_away") == 1


async def test_an_interval_of_zero_is_off_and_a_sweep_can_be_forced(scene: Scene) -> None:
    sweep = sweeper(scene, every_s=0)
    scene.jobnimbus.put(JOBS, records(scene, 5))
    async with sweep.running():
        await scene.pass_time(2 * DAY_S, step_s=3_600)
        assert scene.jobnimbus.asked == []
        assert sweep.status(ACCOUNT)["state"] == "off"
        assert (await swept(scene, sweep)).outcome == "stored"
