"""What was seen of a record that others hang on, and for which lists under it that counts."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.cache.ports import EVERYTHING, SETTLED, History, Logged
from jobnimbus_mcp.crm.entities import Action, Change, Entity, EntityRef
from jobnimbus_mcp.crm.relations import tags_of_change
from jobnimbus_mcp.gateway.parents import TOLD_WITHIN_S, Image, Parents, was_shown

WHOSE = ("stamford", "p")
JOB = EntityRef(Entity.JOBS, "j1")
CHANGED = tags_of_change(Change(JOB, Action.UNKNOWN))
OTHER = tags_of_change(Change(EntityRef(Entity.JOBS, "j2"), Action.UNKNOWN))
SEEN_S, FETCHED_S = 100, 200


def position(at_s: int) -> str:
    return f"{at_s * 1000}-0"


def history(*lines: tuple[int, tuple[str, ...]]) -> History:
    """A log that begins when the record was seen."""
    made, previous = [], position(SEEN_S)
    for at_s, tags in lines:
        made.append(Logged(position(at_s), previous, tags))
        previous = position(at_s)
    return History(b"e", 10**9, previous, position(SEEN_S), tuple(made))


IMAGE = Image(position(SEEN_S), float(SEEN_S), b"d")
LATER = int(FETCHED_S + TOLD_WITHIN_S) + 1


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        ([(FETCHED_S + 1, CHANGED)], True),
        ([(FETCHED_S - 1, OTHER), (FETCHED_S + 1, CHANGED)], True),
        # it had changed before the list was fetched
        ([(FETCHED_S - 1, CHANGED), (FETCHED_S + 1, CHANGED)], False),
        ([(FETCHED_S - 1, (EVERYTHING,)), (FETCHED_S + 1, CHANGED)], False),
        ([(FETCHED_S - 1, ("jobs:detail",)), (FETCHED_S + 1, CHANGED)], False),
        # the second may have taken back what the list was fetched with
        ([(FETCHED_S + 1, CHANGED), (FETCHED_S + 2, CHANGED)], False),
        ([(FETCHED_S + 1, CHANGED), (LATER, CHANGED)], True),
        ([(LATER, CHANGED), (LATER + 1, CHANGED), (LATER + 2, CHANGED)], True),
        # said once more, when the index had caught up
        ([(FETCHED_S + 1, CHANGED), (FETCHED_S + 7, (*CHANGED, SETTLED))], True),
    ],
)
def test_an_image_counts_for_a_list_when_nothing_came_between_them(
    lines: list[tuple[int, tuple[str, ...]]], counts: bool
) -> None:
    log = history(*lines)
    assert was_shown(JOB, IMAGE, log, position=position(FETCHED_S), fetched_s=FETCHED_S) is counts


def test_a_log_that_does_not_go_back_to_the_image_says_nothing() -> None:
    log = history((FETCHED_S + 1, CHANGED))
    assert not was_shown(
        JOB, IMAGE._replace(position=position(50)), log, position=position(FETCHED_S), fetched_s=FETCHED_S
    )


def test_images_are_those_of_before_the_list() -> None:
    parents = Parents()
    for at_s in (10, 20, 30):
        parents.saw(WHOSE, Entity.JOBS, [{"jnid": "j1", "name": "Roof"}], position(at_s), at_s + 1)
    known = parents.images(WHOSE, JOB, position(25), 100)
    assert [image.position for image in known] == [position(20), position(10)]
    assert [image.position for image in parents.images(WHOSE, JOB, position(99), 15)] == [position(10)]
    assert parents.images(("stamford", "q"), JOB, position(99), 99) == ()


def test_nothing_is_remembered_of_what_nothing_hangs_on_or_of_an_answer_of_unknown_position() -> None:
    parents = Parents()
    parents.saw(WHOSE, Entity.TASKS, [{"jnid": "j1"}], position(1), 1)
    parents.saw(WHOSE, Entity.JOBS, [{"jnid": "j1"}], "", 1)
    for entity in (Entity.TASKS, Entity.JOBS):
        assert parents.images(WHOSE, EntityRef(entity, "j1"), position(99), 99) == ()
