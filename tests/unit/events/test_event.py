"""Events in their durable form, their ids and their part of the stream."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.events.event import (
    BODY_MOST,
    PARTITIONS,
    Event,
    decode,
    encode,
    event_id_at,
    partition_of,
    received_ms,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_EVENTS = st.builds(
    Event,
    event_id=_TEXT,
    instance=_TEXT,
    name=_TEXT,
    entity=_TEXT,
    record_id=_TEXT,
    action=_TEXT,
    tags=st.lists(_TEXT, max_size=4).map(tuple),
    source=_TEXT,
    received_at=st.floats(0, 4e9),
    parents=st.none() | st.lists(_TEXT, max_size=3).map(tuple),
    occurred_at=st.none() | st.integers(0, 2**40),
    is_new=st.booleans(),
    dedupe_key=_TEXT,
    version_key=_TEXT,
    request_id=_TEXT,
    body=_TEXT,
)


@given(_EVENTS)
def test_what_is_kept_is_what_comes_back_and_the_body_goes_beside_it(event: Event) -> None:
    assert decode(encode(event), event.body) == event
    assert decode(encode(event).decode()) == event.without_body()


def test_fields_that_a_later_release_adds_are_passed_over() -> None:
    event = _event()
    assert decode(orjson.dumps({**orjson.loads(encode(event)), "later": [1]})) == event


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'"text"', b"{}", b'{"v": 2}', b'{"v": 1}', b"\xff"],
)
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(raw)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("received_at", "yesterday"),
        ("received_at", None),
        ("tags", None),
        ("parents", 7),
        ("occurred_at", "soon"),
        ("id", ...),
    ],
)
def test_a_damaged_field_is_refused(field: str, value: object) -> None:
    told = orjson.loads(encode(_event()))
    if value is ...:
        del told[field]
    else:
        told[field] = value
    with pytest.raises(ValueError, match=r".+"):
        decode(orjson.dumps(told))


@given(st.lists(st.integers(0, 2**41), min_size=2, max_size=6))
def test_ids_sort_by_time_and_tell_it(times_ms: list[int]) -> None:
    ids = [event_id_at(ms / 1000, "f" * 20) for ms in sorted(times_ms)]
    assert ids == sorted(ids)
    for ms, event_id in zip(sorted(times_ms), ids, strict=True):
        told = received_ms(event_id)
        assert told is not None
        assert abs(told - ms) <= 1


TAKEN_FOR_NUMBERS = ("0x" + "0" * 30, "-1" + "0" * 30, "0_" * 15 + "00", "\u0663" * 32, "A" * 32)
"""By Python; no id is spelt so."""


@pytest.mark.parametrize(
    "text", ["", "0" * 31, "0" * 33, "g" * 32, "00000000000 " + "0" * 20 + "-", *TAKEN_FOR_NUMBERS]
)
def test_what_is_no_id_tells_no_time(text: str) -> None:
    assert received_ms(text) is None


def test_a_record_is_always_in_the_same_part_and_all_parts_are_used() -> None:
    # as other releases and processes have it: a change here breaks the order of what is already kept
    assert [partition_of(f"jobs:j{number}") for number in range(8)] == [2, 4, 6, 0, 3, 5, 7, 1]
    assert {partition_of(f"jobs:j{number}") for number in range(200)} == set(range(PARTITIONS))


def test_an_event_knows_its_change_again() -> None:
    change = Change(EntityRef(Entity.JOBS, "j1"), Action.CREATED, frozenset({"c1", "b2"}), 1_790_000_000)
    event = Event.of_change(
        change,
        event_id="e" * 32,
        instance="acme",
        name="job.created",
        tags=["jobs", "job:j1"],
        source="webhook",
        received_at=1.0,
        body="x" * (BODY_MOST + 10),
    )
    assert event.change == change
    assert event.is_new
    assert event.parents == ("b2", "c1")
    assert event.record == "jobs:j1"
    assert len(event.body) == BODY_MOST


@pytest.mark.parametrize(("entity", "record_id"), [("jobs", ""), ("spaceships", "s1")])
def test_an_event_about_no_record_has_no_change(entity: str, record_id: str) -> None:
    assert _event(entity=entity, record_id=record_id).change is None


def _event(entity: str = "jobs", record_id: str = "j1") -> Event:
    return Event(
        event_id=event_id_at(1_790_000_000.0, "0" * 20),
        instance="acme",
        name="job.updated",
        entity=entity,
        record_id=record_id,
        action="updated",
        tags=("jobs",),
        source="webhook",
        received_at=1_790_000_000.0,
    )
