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
SEEN_S, FETCHED_S, KEPT_S = 100, 200, 1_200
EPOCH = b"e"


def position(at_s: int) -> str:
    return f"{at_s * 1000}-0"


def history(*lines: tuple[int, tuple[str, ...]], now_s: int = 10**6, epoch: bytes = EPOCH) -> History:
    """A log that begins when the record was seen."""
    made, previous = [], position(SEEN_S)
    for at_s, tags in lines:
        made.append(Logged(position(at_s), previous, tags))
        previous = position(at_s)
    return History(epoch, now_s * 1000, previous, position(SEEN_S), tuple(made))


IMAGE = Image(EPOCH, position(SEEN_S), float(SEEN_S), b"d")
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
        # the second may have taken back what the list was fetched with, whenever it came
        ([(FETCHED_S + 1, CHANGED), (FETCHED_S + 2, CHANGED)], False),
        ([(FETCHED_S + 1, CHANGED), (LATER, CHANGED)], False),
        ([(LATER, CHANGED), (LATER + 1, CHANGED), (LATER + 2, CHANGED)], True),
        # said once more, when the index had caught up
        ([(FETCHED_S + 1, CHANGED), (FETCHED_S + 7, (*CHANGED, SETTLED))], True),
    ],
)
def test_an_image_counts_for_a_list_when_nothing_came_between_them(
    lines: list[tuple[int, tuple[str, ...]]], counts: bool
) -> None:
    assert shown(history(*lines)) is counts


def shown(log: History, *, image: Image = IMAGE, at_s: int = FETCHED_S, kept_s: int = FETCHED_S) -> bool:
    return was_shown(JOB, image, log, position=position(at_s), fetched_s=FETCHED_S, kept_s=kept_s)


def test_a_change_right_after_the_list_counts_once_one_of_before_it_would_have_been_told_of() -> None:
    for now_s, counts in ((LATER - 2, False), (LATER, True)):
        assert shown(history((FETCHED_S + 1, CHANGED), now_s=now_s)) is counts


@pytest.mark.parametrize(
    ("told_s", "counts"),
    [
        # when rows were put in the record may have been another, and nobody told of it yet
        ([KEPT_S + 1], False),
        ([KEPT_S + TOLD_WITHIN_S + 1], True),
        # it was looked at what they show then
        ([LATER, KEPT_S + TOLD_WITHIN_S + 1], True),
        ([FETCHED_S + 1, KEPT_S + TOLD_WITHIN_S + 1], False),
    ],
)
def test_rows_may_be_from_until_the_list_was_kept(told_s: list[int], counts: bool) -> None:
    log = history(*((int(at_s), CHANGED) for at_s in told_s))
    assert shown(log, at_s=KEPT_S - 1, kept_s=KEPT_S) is counts


def test_a_list_that_goes_on_from_before_a_change_has_none_of_what_was_told_since() -> None:
    """As one of the whole account does, into which rows were put later."""
    log = history((LATER, CHANGED), (KEPT_S + int(TOLD_WITHIN_S) + 1, CHANGED))
    assert not shown(log, at_s=FETCHED_S, kept_s=KEPT_S)


def test_a_log_that_does_not_go_back_to_the_image_says_nothing() -> None:
    log = history((LATER, CHANGED))
    assert shown(log)
    assert not shown(log, image=IMAGE._replace(position=position(50)))


def test_an_image_of_before_the_store_was_emptied_says_nothing() -> None:
    """Positions begin anew then."""
    assert not shown(history((LATER, CHANGED), epoch=b"f"))


def saw(parents: Parents, record: dict[str, object], at_s: int, until_s: float, epoch: bytes = EPOCH) -> None:
    parents.saw(WHOSE, Entity.JOBS, [record], epoch=epoch, position=position(at_s), until_s=until_s)


def test_the_image_is_the_last_of_those_of_before_the_list() -> None:
    parents, record = Parents(), {"jnid": "j1", "name": "Roof"}
    for at_s in (10, 20, 30):
        saw(parents, record, at_s, at_s + 1)
    for at_s, until_s, seen_s in ((25, 100, 20), (20, 21, 20), (99, 99, 30), (99, 15, 10), (9, 99, None)):
        image = parents.image(WHOSE, JOB, position(at_s), until_s)
        assert (None if image is None else image.position) == (None if seen_s is None else position(seen_s))
    assert parents.image(("stamford", "q"), JOB, position(99), 99) is None


def test_what_is_seen_again_as_it_was_needs_no_further_image() -> None:
    parents, record = Parents(), {"jnid": "j1", "name": "Roof"}
    saw(parents, record, 10, 11)
    for until_s in range(20, 90):
        saw(parents, record, 10, until_s)
    image = parents.image(WHOSE, JOB, position(99), 11)
    assert image is not None
    for other in ({**record, "name": "Gutter"}, record):
        saw(parents, other, 10, 95)
        assert parents.image(WHOSE, JOB, position(99), 99) != image


def test_nothing_is_remembered_of_what_nothing_hangs_on_or_of_an_answer_of_unknown_position() -> None:
    parents = Parents()
    parents.saw(WHOSE, Entity.TASKS, [{"jnid": "j1"}], epoch=EPOCH, position=position(1), until_s=1)
    parents.saw(WHOSE, Entity.JOBS, [{"jnid": "j1"}, {"jnid": None}, {}], epoch=EPOCH, position="", until_s=1)
    for entity in (Entity.TASKS, Entity.JOBS):
        assert parents.image(WHOSE, EntityRef(entity, "j1"), position(99), 99) is None
