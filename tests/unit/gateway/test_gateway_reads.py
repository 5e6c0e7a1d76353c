"""What the gateway asks of the cache for each kind of read, and what it says about the records it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.cache.outcome import Loaded, Outcome, Status, Tier
from jobnimbus_mcp.cache.question import Question
from jobnimbus_mcp.cache.read_through import Admit, Loader
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Sort
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.errors import RecordNotFound, UpstreamNotFound
from jobnimbus_mcp.gateway.answers import Answer
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.policies import Policies
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.telemetry.tally import Tally

SERVER = Caller("stamford", "k" * 16, "p" * 32, own_key=False)
GUEST = Caller("stamford", "g" * 16, "q" * 32, own_key=True)
JOB = Read.record(Entity.JOBS, "mjob1")
TASKS = Read.block(Entity.TASKS, (Is("related.id", "mjob1"),), Sort(), 0, scope=frozenset({"mjob1"}))
FOUND = Read.scan(Entity.CONTACTS, (), operation=Operation.SEARCH)
CALENDAR = Read.scan(Entity.CALENDAR, (Between("date_start", 1, 2),))


class Passing:
    """A cache that keeps nothing, and notes what it was asked. `status`, `tier`: of its outcomes."""

    def __init__(self, status: Status = Status.MISS, tier: Tier = Tier.UPSTREAM) -> None:
        self.questions: list[Question] = []
        self.loaded: list[Loaded] = []
        self.own: list[bool] = []
        self._status = status
        self._tier = tier

    async def read(
        self,
        question: Question,
        loader: Loader,
        *,
        call: Call,
        max_age_s: float | None = None,
        admit: Admit | None = None,
        own: bool = False,
    ) -> Outcome:
        self.questions.append(question)
        self.own.append(own)
        loaded = await loader(call)
        self.loaded.append(loaded)
        return Outcome(loaded.value, loaded.negative, self._status, self._tier, 0.0, 0.0, False, "etag")

    async def admitted(self, tenant: str, partition: str, admit: Admit, call: Call, *, bearer: str = "") -> None: ...


class JobNimbus:
    """Answers each kind of record with what it was given."""

    def __init__(self, answers: Mapping[Entity, dict[str, Any]]) -> None:
        self._answers = answers

    async def load(self, read: Read, *, instance: str, credential: str, call: Call) -> dict[str, Any]:
        if read.entity not in self._answers:
            raise UpstreamNotFound("nothing there")
        return self._answers[read.entity]

    async def check_credential(self, *, instance: str, credential: str, call: Call) -> None: ...


def gateway(
    cache: Passing,
    answers: Mapping[Entity, dict[str, Any]],
    policies: Policies | None = None,
    tally: Tally | None = None,
    consistency: str = "barrier",
) -> Gateway:
    return Gateway(cache, JobNimbus(answers), policies or Policies(), tally or Tally(), lambda _: consistency)


def call() -> Call:
    return Call.begin(ManualClock(), "r")


async def test_each_read_asks_with_the_mode_the_floors_and_the_policy_of_its_kind() -> None:
    cache = Passing()
    policies = Policies(mode=Mode.BARRIER, modes={("tasks", None): Mode.ANY}, adapted=lambda *_: 777)
    world = gateway(cache, {Entity.JOBS: {"jnid": "mjob1"}, Entity.TASKS: {"count": 0, "rows": []}}, policies)
    for read in (JOB, TASKS):
        await world.get(read, SERVER, call())

    job, tasks = cache.questions
    assert (job.mode, job.settles, job.policy.fresh_s) == (Mode.BARRIER, (), 777)
    assert (tasks.mode, tasks.settles) == (Mode.ANY, ("tasks", "tasks@mjob1"))


async def test_only_loads_under_the_server_s_key_are_its_own() -> None:
    cache = Passing()
    world = gateway(cache, {Entity.JOBS: {"jnid": "mjob1"}})
    for caller in (SERVER, GUEST):
        await world.get(JOB, caller, call())

    assert cache.own == [True, False]


@pytest.mark.parametrize(
    ("read", "answers", "versions"),
    [
        (JOB, {Entity.JOBS: {"jnid": "mjob1", "date_updated": 50}}, {"jobs:mjob1": 50}),
        (JOB, {Entity.JOBS: {"jnid": "mjob1", "date_updated": 1_790_000_000_123}}, {"jobs:mjob1": 1_790_000_000}),
        (JOB, {Entity.JOBS: {"jnid": "mjob1", "date_updated": 0}}, {}),
        (JOB, {Entity.JOBS: {"jnid": "mjob1", "rows": [{"jnid": "x", "date_updated": 1}]}}, {}),
        (
            TASKS,
            {
                Entity.TASKS: {
                    "count": 3,
                    "rows": [{"jnid": "a", "date_updated": 7}, {"jnid": "b"}, {"date_updated": 1}],
                }
            },
            {"tasks:a": 7},
        ),
        (FOUND, {Entity.CONTACTS: {"rows": [{"jnid": "c", "date_updated": "9"}]}}, {"contacts:c": 9}),
        (
            CALENDAR,
            {
                Entity.TASKS: {"rows": [{"jnid": "t", "date_updated": 1}]},
                Entity.JOBS: {"rows": [{"jnid": "j", "date_updated": 2}]},
                Entity.WORKORDERS: {"rows": [{"jnid": "w", "date_updated": 3}]},
            },
            {"tasks:t": 1, "jobs:j": 2, "workorders:w": 3},
        ),
        (Read.whole(Entity.SETTINGS), {Entity.SETTINGS: {"workflows": []}}, {}),
        (Read.whole(Entity.USERS), {Entity.USERS: {"rows": [{"id": "u1"}]}}, {}),
    ],
)
async def test_a_load_tells_the_version_of_every_record_that_has_one(
    read: Read, answers: dict[Entity, dict[str, Any]], versions: dict[str, int]
) -> None:
    cache = Passing()
    await gateway(cache, answers).get(read, SERVER, call())

    assert dict(cache.loaded[0].versions) == versions


async def test_a_record_that_is_not_there_claims_no_version_and_is_collected_all_the_same() -> None:
    cache, collected = Passing(), list[Answer]()
    with pytest.raises(RecordNotFound):
        await gateway(cache, {}).get(JOB, SERVER, call(), collect=collected.append)

    assert (cache.loaded[0].negative, dict(cache.loaded[0].versions)) == (True, {})
    assert [answer.outcome.negative for answer in collected] == [True]


@pytest.mark.parametrize(
    ("consistency", "reads", "told"),
    [
        ("barrier", (), "barrier"),
        ("barrier", (JOB,), "barrier"),
        ("barrier", (JOB, TASKS, FOUND), "any"),
        ("barrier", (FOUND,), "strict"),
        ("ttl", (JOB, TASKS), "ttl"),
    ],
)
async def test_the_consistency_told_is_the_weakest_of_the_reads_or_ttl_where_nothing_is_heard(
    consistency: str, reads: tuple[Read, ...], told: str
) -> None:
    modes = {("tasks", None): Mode.ANY, ("contacts", "search"): Mode.STRICT}
    answers: dict[Entity, dict[str, Any]] = {
        Entity.JOBS: {"jnid": "mjob1"},
        Entity.TASKS: {"rows": []},
        Entity.CONTACTS: {"rows": []},
    }
    world = gateway(Passing(), answers, Policies(mode=Mode.BARRIER, modes=modes), consistency=consistency)
    made = [await world.get(read, SERVER, call()) for read in reads]

    assert world.consistency_told("stamford", made) == told


@pytest.mark.parametrize(
    ("status", "tier", "counted"),
    [
        (Status.HIT, Tier.L1, "hits"),
        (Status.STALE, Tier.L2, "hits"),
        (Status.STALE, Tier.UPSTREAM, "misses"),
        (Status.MISS, Tier.UPSTREAM, "misses"),
    ],
)
async def test_a_look_up_that_was_fetched_is_a_miss_also_where_the_list_lags(
    status: Status, tier: Tier, counted: str
) -> None:
    tally = Tally()
    world = gateway(Passing(status, tier), {Entity.JOBS: {"jnid": "mjob1"}}, tally=tally)
    await world.get(JOB, SERVER, call(), internal=True)

    assert tally.since_start("stamford") == {f"{counted}|internal": 1}
