"""The embedded store against a real Redis: the same steps, the same answers, whatever the order.

Generations, guards, positions and lifetimes differ between the two, so they are compared by which of them are equal to
which, and by order. Rules that fail are shrunk to the shortest sequence that tells the two apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from jobnimbus_mcp.cache.codec import Entry, encode, peek
from jobnimbus_mcp.cache.connect_redis import connect
from jobnimbus_mcp.cache.key import CacheKey, entry_glob, system_key
from jobnimbus_mcp.cache.notice import Applied, Notice, Told
from jobnimbus_mcp.cache.ports import ANYBODY, START, Ears, EntryRow, Lead, Logged, Seen, Store, Verdict
from jobnimbus_mcp.cache.store_memory import MemoryStore
from jobnimbus_mcp.cache.store_redis import RedisStore
from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import SystemClock

T = TypeVar("T")

TENANT = "stamford"
CLOCK = SystemClock()
KEYS = (
    CacheKey(TENANT, "p1", "jobs", "detail", "j1"),
    CacheKey(TENANT, "p2", "jobs", "list", "all", bearer="b1"),
    CacheKey(TENANT, "p2", "jobs", "list", "all", bearer="b2"),
)
TAGS = {KEYS[0]: ("jobs", "job:j1"), KEYS[1]: ("jobs", "jobs:list"), KEYS[2]: ("jobs", "jobs:list")}
EVERY_TAG = ("jobs", "job:j1", "jobs:list")
ETAGS = ("0" * 16, "1" * 16)
TOKENS = ("t1", "t2", "t3")
INSTANCES = ("i1", "i2")
FAR = "9999999999999-0"
LOSABLE = (
    KEYS[0].text,
    *(
        system_key(TENANT, name)
        for name in ("epoch", "fill-guard", "ok:p1", "was:p1", "g:jobs", "g:job:j1", "lease:p1:jobs:detail:j1")
    ),
)

key_s, etag_s, token_s = st.sampled_from(KEYS), st.sampled_from(ETAGS), st.sampled_from(TOKENS)
look_s = st.sampled_from(
    [("", True, False), ("", True, True), (ETAGS[0], True, False), (ETAGS[1], True, True), ("", False, False)]
)


class Side:
    """One of the two, what it last answered, and its own names for what differs."""

    def __init__(self, store: Store, put_raw: Any, evict: Any, flush: Any, age_fleet: Any) -> None:
        self.store, self.put_raw, self.evict, self.flush, self.age_fleet = store, put_raw, evict, flush, age_fleet
        self.seen: dict[CacheKey, Seen] = {}
        self.names: dict[tuple[str, bytes], int] = {}
        self.positions: list[str] = [START]
        self.registered: dict[str, bytes] = {}

    def name(self, of: str, value: bytes | None) -> int | None:
        """The same number for the same value of the same key; None for none."""
        return self.names.setdefault((of, value), len(self.names)) if value else None

    def place(self, position: str) -> int:
        if position not in self.positions:
            self.positions.append(position)
        return self.positions.index(position)


async def nothing() -> None:
    """What an operation gives that has nothing to do."""


class Both(RuleBasedStateMachine):
    """Every rule does the same to both and compares what comes of it."""

    loop: asyncio.AbstractEventLoop
    client: Any
    began = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.run(self.client.flushall())
        memory, redis = MemoryStore(CLOCK), RedisStore(self.client)
        fleet = system_key(TENANT, "fleet")

        async def in_memory(function: Any, *args: Any) -> None:
            function(*args)

        async def age_fleet() -> None:
            await self.client.hset(fleet, "_", int((time.time() - 60) * 1e6))

        async def put_raw(name: str, value: bytes) -> None:
            if await self.client.exists(name):
                await self.client.set(name, value, keepttl=True)

        async def put_in_memory(name: str, value: bytes) -> None:
            if name in memory.names():
                memory.put_raw(name, value)

        self.memory = Side(
            memory, put_in_memory, lambda name: in_memory(memory.evict, name), lambda: in_memory(memory.flush), nothing
        )
        self.redis = Side(redis, put_raw, self.client.delete, self.client.flushall, age_fleet)
        self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 10))

    def sides(self) -> Iterator[Side]:
        yield self.memory
        yield self.redis

    def same(self, answers: Sequence[Any]) -> None:
        assert answers[0] == answers[1], f"memory {answers[0]!r}, redis {answers[1]!r}"

    @initialize()
    def in_use(self) -> None:
        """Both begin as a tenant that was used for a while."""
        for side in self.sides():
            seen = self.run(side.store.read(KEYS[0], TAGS[KEYS[0]], "", want=True, call=call()))
            side.seen[KEYS[0]] = seen
            standing = self.run(side.store.renew_l1(TENANT, "i1", START, register=True, call=call()))
            # Where Redis begins its log with the line of the server's verification, the embedded one has none.
            side.positions = [standing.position]
            self.run(side.store.strike(TENANT, {"i1": None}, call()))
            self.run(side.age_fleet())

    # -- entries -----------------------------------------------------------------------------------------------------

    @rule(key=key_s, look=look_s)
    def read(self, key: CacheKey, look: tuple[str, bool, bool]) -> None:
        etag, want, dirty = look
        answers = []
        for side in self.sides():
            seen = self.run(side.store.read(key, TAGS[key], etag, want=want, dirty=dirty, call=call()))
            side.seen[key] = seen
            answers.append(self.told_of(side, TAGS[key], seen))
        self.same(answers)

    def told_of(self, side: Side, tags: Sequence[str], seen: Seen) -> Any:
        generations = [side.name(*one) for one in zip(("epoch", *tags), seen.vector.split(b"\n"), strict=True)]
        value = None if seen.value is None else (seen.value[20:36], len(seen.value) < 3)
        return (seen.verdict, seen.admitted, round(seen.ttl_s, -1), generations, side.name("guard", seen.guard), value)

    @precondition(lambda self: self.memory.seen)
    @rule(key=key_s, etag=etag_s, token=st.one_of(st.just(""), token_s))
    def fill(self, key: CacheKey, etag: str, token: str) -> None:
        if key not in self.memory.seen:
            return
        answers = []
        for side in self.sides():
            seen = side.seen[key]
            entry = Entry(b"{}", False, 1.0, etag, 60, 90, 0.1)
            value = encode(entry, key_text=key.text, vector=seen.vector, tags=TAGS[key], compress=True)
            answers.append(
                self.run(
                    side.store.fill(key, TAGS[key], seen, value, ttl_s=600, admission_s=600, token=token, call=call())
                )
            )
        self.same(answers)

    @rule(key=key_s, etag=etag_s)
    def refresh(self, key: CacheKey, etag: str) -> None:
        """Look up and fill at once, which steps taken at random rarely are."""
        self.read(key, ("", True, False))
        self.fill(key, etag, "")

    @rule(key=key_s, etag=etag_s, token=token_s, followed=st.booleans())
    def fetch(self, key: CacheKey, etag: str, token: str, followed: bool) -> None:
        """Look up, lead and fill."""
        self.read(key, ("", True, False))
        self.lead(key, token, etag, False)
        if followed:
            self.lead(key, "follower", "", True)
        self.fill(key, etag, token)

    @rule(
        key=key_s,
        etag=etag_s,
        token=token_s,
        change=st.sampled_from(["none", "jobs", "job:j1", "epoch", "bearer"]),
        throttle_s=st.sampled_from([0.0, 300.0]),
    )
    def life_of_an_entry(self, key: CacheKey, etag: str, token: str, change: str, throttle_s: float) -> None:
        """Kept, perhaps changed, looked up dirty, fetched in vain, and asked for again."""
        self.refresh(key, etag)
        if change == "epoch":
            self.renew_epoch()
        elif change == "bearer":
            self.withdraw(key.bearer, False)
        elif change != "none":
            self.bump((change,), (), "", {change: 3})
        self.read(key, (etag, True, True))
        self.lead(key, token, etag, False)
        self.lead(key, "follower", etag, True)
        self.keep_lead(key, token)
        self.release(key, token, 2, throttle_s)
        self.lead(key, "follower", etag, True)
        self.listen(0, True)

    @rule(glob=st.sampled_from([entry_glob(TENANT), entry_glob(TENANT, operation="list"), "none"]))
    def delete(self, glob: str) -> None:
        self.same([self.run(side.store.delete_some(TENANT, glob, 0, call())) for side in self.sides()])

    @rule(key=key_s, limit=st.integers(0, 5))
    def everything_there_is_to_see(self, key: CacheKey, limit: int) -> None:
        self.listing(entry_glob(TENANT, partition=key.partition))
        self.inspect(key)
        self.generations()
        self.log(limit)
        self.rates()

    def listing(self, glob: str) -> None:
        def rows(found: list[EntryRow]) -> Any:
            return sorted(shown(row) for row in found)

        self.same([rows(self.run(side.store.list_some(TENANT, glob, 0, call()))[1]) for side in self.sides()])

    def inspect(self, key: CacheKey) -> None:
        found = [self.run(side.store.inspect(key, call())) for side in self.sides()]
        self.same([row and shown(row) for row in found])

    def generations(self) -> None:
        answers = []
        for side in self.sides():
            found = self.run(side.store.generations(TENANT, EVERY_TAG, call()))
            answers.append([side.name(*one) for one in zip(("epoch", *EVERY_TAG), found, strict=True)])
        self.same(answers)

    # -- fetches -----------------------------------------------------------------------------------------------------

    @rule(key=key_s, token=token_s, etag=st.sampled_from(("", *ETAGS)), patient=st.booleans())
    def lead(self, key: CacheKey, token: str, etag: str, patient: bool) -> None:
        if key not in self.memory.seen:
            return
        answers = []
        for side in self.sides():
            led: Lead = self.run(side.store.lead(key, side.seen[key], token, etag=etag, patient=patient, call=call()))
            floors = {name: (floor.version_s, round(floor.age_s, -1)) for name, floor in led.floors.items()}
            answers.append((led.verdict, round(led.wait_s, -1), led.failures, floors))
        self.same(answers)

    @rule(key=key_s, token=token_s)
    def keep_lead(self, key: CacheKey, token: str) -> None:
        self.same([self.run(side.store.keep_lead(key, token, call())) for side in self.sides()])

    @rule(key=key_s, token=token_s, failures=st.integers(1, 3), throttle_s=st.sampled_from([0.0, 300.0]))
    def release(self, key: CacheKey, token: str, failures: int, throttle_s: float) -> None:
        for side in self.sides():
            self.run(
                side.store.release(key, token, result="failed", failures=failures, throttle_s=throttle_s, call=call())
            )

    # -- invalidation ------------------------------------------------------------------------------------------------

    @rule(
        tags=st.sampled_from([("jobs",), EVERY_TAG, ("contacts",), ("job:j1",)]),
        tells=st.sampled_from([(), ("*",)]),
        dedupe_key=st.sampled_from(["", "d1", "d2"]),
        floors=st.sampled_from([{}, {"job:j1": 5}, {"job:j1": 3, "jobs": 0}]),
    )
    def bump(self, tags: tuple[str, ...], tells: tuple[str, ...], dedupe_key: str, floors: dict[str, int]) -> None:
        self.number += 1
        event_id = f"e{len(self.memory.positions)}"
        notice = Notice("job.updated", "job", "j1", "webhook", time.time(), event_id, dedupe_key, floors)
        answers = []
        for side in self.sides():
            applied: Applied = self.run(side.store.append_and_bump(TENANT, tags, notice, call(), tells=tells))
            answers.append((applied.event_id, applied.duplicate, applied.bumped, self.stands(side, applied.told)))
        self.same(answers)

    @rule()
    def renew_epoch(self) -> None:
        self.same([self.stands(side, self.run(side.store.renew_epoch(TENANT, call()))) for side in self.sides()])

    def stands(self, side: Side, told: Told) -> Any:
        # A sequence that takes so long that a register grows old in it cannot be compared in that.
        unknown = told.unknown if CLOCK.monotonic() - self.began < 1.5 or not self.began else None
        return side.place(told.position), told.registered, unknown

    def log(self, limit: int) -> None:
        answers = []
        for side in self.sides():
            rows = self.run(side.store.log(TENANT, limit=limit, since=None, call=call()))
            answers.append([(row.event_id, row.event, row.resource, row.source, row.tags) for row in rows])
        self.same(answers)

    def rates(self) -> None:
        hour = int(CLOCK.now() // 3600)
        hours = (hour - 1, hour)
        self.same(
            [
                sum(sum(fields.values()) for fields in self.run(side.store.rates(TENANT, hours, call())).values())
                for side in self.sides()
            ]
        )

    # -- coherence ---------------------------------------------------------------------------------------------------

    @rule(instance=st.sampled_from(INSTANCES), register=st.booleans(), at=st.integers(0, 60))
    def renew_l1(self, instance: str, register: bool, at: int) -> None:
        answers = []
        for side in self.sides():
            applied = side.positions[at % len(side.positions)]
            epoch, position = self.run(side.store.renew_l1(TENANT, instance, applied, register=register, call=call()))
            answers.append((side.name("epoch", epoch), side.place(position)))
        self.same(answers)

    @rule(at=st.integers(0, 60))
    def changes(self, at: int) -> None:
        answers = []
        for side in self.sides():
            lines: list[Logged] = self.run(side.store.changes(TENANT, side.positions[at % len(side.positions)], call()))
            answers.append([(side.place(one.position), side.place(one.previous), one.tags) for one in lines])
        self.same(answers)

    @rule(at=st.integers(0, 60), log=st.booleans())
    def listen(self, at: int, log: bool) -> None:
        answers = []
        for side in self.sides():
            position = side.positions[at % len(side.positions)]
            ears = {TENANT: Ears(position if log else None, START)}
            heard = self.run(side.store.listen(ears, block_s=0))
            one = heard.get(TENANT)
            answers.append(
                one
                and (
                    [(side.place(line.position), line.tags) for line in one.changes],
                    [(wake.key_text, wake.result) for wake in one.wakes],
                )
            )
        self.same(answers)

    @rule(at=st.integers(0, 60), far=st.booleans())
    def behind(self, at: int, far: bool) -> None:
        answers = []
        for side in self.sides():
            position = FAR if far else side.positions[at % len(side.positions)]
            found = self.run(side.store.behind(TENANT, position, call()))
            if far:
                side.registered = found
            # Whether the register is younger than a line may be a matter of a millisecond.
            answers.append(set(found) if far else set(found) - {ANYBODY})
        self.same(answers)

    @rule(instance=st.sampled_from(INSTANCES), whatever=st.booleans())
    def strike(self, instance: str, whatever: bool) -> None:
        for side in self.sides():
            value = None if whatever else side.registered.get(instance, b"other")
            self.run(side.store.strike(TENANT, {instance: value}, call()))

    # -- bearers and sums --------------------------------------------------------------------------------------------

    @rule(bearer=st.sampled_from(["p1", "b1", "stranger"]))
    def admit(self, bearer: str) -> None:
        answers = []
        for side in self.sides():
            marked, guard = self.run(side.store.admission(TENANT, bearer, call()))
            admitted = self.run(side.store.admit(TENANT, bearer, guard, admission_s=600, call=call()))
            answers.append((marked, side.name("guard", guard), admitted))
        self.same(answers)

    @rule(bearer=st.sampled_from(["p1", "b1", "stranger"]), if_admitted=st.booleans())
    def withdraw(self, bearer: str, if_admitted: bool) -> None:
        self.same(
            [self.run(side.store.withdraw(TENANT, bearer, call(), if_admitted=if_admitted)) for side in self.sides()]
        )

    @rule(batch=st.integers(1, 5))
    def sums(self, batch: int) -> None:
        for side in self.sides():
            self.run(side.store.add(TENANT, {"hits": batch}, batch=f"p:{batch}"))
        self.same([self.run(side.store.totals(TENANT)) for side in self.sides()])

    # -- what happens to a server ------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(LOSABLE))
    def evict(self, name: str) -> None:
        for side in self.sides():
            self.run(side.evict(name))

    @rule(name=st.sampled_from((KEYS[0].text, system_key(TENANT, "g:jobs"))), value=st.sampled_from([b"x", b"\x03x"]))
    def damage(self, name: str, value: bytes) -> None:
        for side in self.sides():
            self.run(side.put_raw(name, value))

    @precondition(lambda self: self.number >= 3)
    @rule()
    def flush(self) -> None:
        self.began, self.number = CLOCK.monotonic(), 0
        for side in self.sides():
            self.run(side.flush())
            side.positions = [START]


def call() -> Call:
    return Call.begin(CLOCK, "test")


def shown(row: EntryRow) -> tuple[Any, ...]:
    """What is the same of a row; an epoch is shorter in the embedded store, so the size is not."""
    head = peek(row.head)
    return row.key, row.head[20:36], round(row.ttl_s, -1), None if head is None else (head.tags, head.fresh_s)


@pytest.fixture
def machine(redis_url: str) -> Iterator[type[Both]]:
    loop = asyncio.new_event_loop()
    client = connect(redis_url)
    # Verified once, so that no line of the log is about that.
    loop.run_until_complete(client.ping())

    class Bound(Both):
        pass

    Bound.loop, Bound.client = loop, client
    yield Bound
    loop.run_until_complete(client.aclose())
    loop.close()


@pytest.mark.timeout(900)
def test_both_stores_answer_the_same_whatever_is_done_to_them(machine: type[Both]) -> None:
    current = settings()
    run_state_machine_as_test(
        machine,
        settings=settings(
            current,
            max_examples=current.max_examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_comparison_notices_a_store_that_keeps_what_it_should_not(
    machine: type[Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the machine to compare nothing, this store would pass as well."""

    async def keeps_all(self: MemoryStore, *args: Any, **options: Any) -> Seen:
        seen = await read(self, *args, **options)
        return seen._replace(verdict=Verdict.HIT) if seen.verdict is Verdict.DIRTY else seen

    read = MemoryStore.read
    monkeypatch.setattr(MemoryStore, "read", keeps_all)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=200,
                stateful_step_count=40,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
                derandomize=True,
            ),
        )
