"""Lists kept right by hand: what is known of a list, what follows from it, and what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Clause, Is, NameIs, Not, OneOf, PhoneHas, Sort, Where, Word
from jobnimbus_mcp.crm.reads import Read, Shape
from jobnimbus_mcp.crm.upkeep import is_complete, is_wider, narrowed, upkept

OPEN = Is("status", 1)
ADDED = Sort("date_created")
TOUCHED = Sort("date_updated")

Row = dict[str, Any]


def job(number: int, *, status: int = 1, touched: int | None = None, **fields: Any) -> Row:
    """The higher the number, the younger."""
    made = 1_000 + number
    dates = {"date_created": made, "date_updated": touched or made}
    return {"jnid": f"j{number}", "recid": number, "status": status, **dates, **fields}


def block(where: Where = (), sort: Sort = ADDED, offset: int = 0, size: int = 3) -> Read:
    return Read.block(Entity.JOBS, where, sort, offset, size)


def scan(where: Where = (), sort: Sort = ADDED) -> Read:
    return Read.scan(Entity.JOBS, where, sort=sort)


def of(read: Read, *rows: Row, count: int | None = None) -> dict[str, Any]:
    if read.shape is Shape.SCAN:
        return {"rows": list(rows)}
    return {"count": len(rows) if count is None else count, "rows": list(rows)}


def numbers(value: dict[str, Any] | None) -> tuple[list[int], int | None] | None:
    return None if value is None else ([row["recid"] for row in value["rows"]], value.get("count"))


def test_a_complete_list_loses_gains_and_moves_what_has_changed() -> None:
    read = block((OPEN,), TOUCHED, size=9)
    base = of(read, job(3), job(2), job(1))
    changed = {"j3": None, "j2": job(2, status=2), "j1": job(1, touched=5_000), "j7": job(7), "j8": job(8, status=2)}

    assert upkept(read, base, changed) == of(read, job(1, touched=5_000), job(7))


def test_a_list_without_changes_is_what_it_was() -> None:
    assert upkept(block(), of(block(), job(3), job(2), job(1), count=9), {}) == of(
        block(), job(3), job(2), job(1), count=9
    )


@pytest.mark.parametrize(
    ("read", "changed", "now"),
    [
        (block(), {"j5": job(5, status=9)}, ([6, 5, 4], 9)),
        (block(), {"j7": job(7)}, ([7, 6, 5], 10)),
        (block(), {"j2": job(2, status=9)}, ([6, 5, 4], 9)),
        (block((OPEN,)), {"j7": job(7)}, ([7, 6, 5], 10)),
        (block(offset=3), {"j5": job(5, status=9)}, ([6, 5, 4], 9)),
        (block(sort=TOUCHED), {"j5": job(5, touched=9_000)}, ([5, 6, 4], 9)),
        (block(sort=TOUCHED), {"j2": job(2, touched=9_000)}, ([2, 6, 5], 9)),
        # which comes up from behind, and whether it was counted, is not known here
        (block(), {"j5": None}, None),
        (block(), {"j2": None}, None),
        (block((OPEN,)), {"j5": job(5, status=9)}, None),
        (block((OPEN,)), {"j2": job(2, status=9)}, None),
        (block((OPEN,)), {"j2": job(2)}, None),
        (block(sort=TOUCHED), {"j7": job(7, touched=9_000)}, None),
        (block((OPEN,), TOUCHED), {"j2": job(2, touched=9_000)}, None),
        (block(sort=TOUCHED), {"j5": job(5, touched=900)}, None),
        (block(offset=3), {"j8": job(8)}, None),
        (block(offset=3, sort=TOUCHED), {"j5": job(5, touched=9_000)}, None),
    ],
)
def test_a_block_of_a_longer_list_is_kept_where_all_of_it_is_known(
    read: Read, changed: dict[str, Row | None], now: tuple[list[int], int] | None
) -> None:
    made = upkept(read, of(read, job(6), job(5), job(4), count=9), changed)

    assert numbers(made) == now


def test_the_last_block_of_a_list_may_lose_a_row() -> None:
    read = block(offset=3)

    assert numbers(upkept(read, of(read, job(3), job(2), count=5), {"j2": None})) == ([3], 4)


def test_what_is_pushed_out_of_a_full_list_is_counted_all_the_same() -> None:
    made = upkept(block(), of(block(), job(3), job(2), job(1)), {"j4": job(4), "j5": job(5)})

    assert numbers(made) == ([5, 4, 3], 5)


@pytest.mark.parametrize(
    "value",
    [
        of(block(), job(3), job(2)) | {"incomplete": "JobNimbus counts 3 rows here and gave 2"},
        of(block(), job(1), job(2)),
        of(block(), job(2), {**job(1), "recid": None}),
        of(block(), job(2), {**job(1), "date_created": "yesterday"}),
        of(block(), job(2), {**job(1), "jnid": 7}),
        of(block(), job(2), job(2)),
    ],
    ids=["not complete", "another order", "no number", "no date", "no id", "twice"],
)
def test_a_list_of_which_the_order_is_not_known_is_never_kept(value: dict[str, Any]) -> None:
    assert upkept(block(), value, {"j9": job(9)}) is None


@pytest.mark.parametrize(
    "record",
    [job(9, is_active=False), {**job(9), "jnid": "j8"}, {**job(9), "date_created": True}, {**job(9), "recid": 2}],
    ids=["perhaps deleted", "another one", "no date", "a number taken"],
)
def test_a_record_of_which_the_place_is_not_known_is_not_put_anywhere(record: Row) -> None:
    base = of(block(), job(3), {**job(2), "date_created": record["date_created"]})
    if record["recid"] != 2:
        base = of(block(), job(3), job(2))

    assert upkept(block(), base, {"j9": record}) is None


def test_rows_without_a_date_stand_last_in_either_direction() -> None:
    for descending, order in ((True, [3, 1, 4, 2]), (False, [1, 3, 2, 4])):
        read = scan(sort=Sort("date_start", descending))
        dated = {"date_start": 50}, {"date_start": 70}
        rows = sorted([job(1, **dated[0]), job(3, **dated[1])], key=lambda row: row["recid"], reverse=descending)
        made = upkept(read, of(read, *rows), {"j2": job(2), "j4": job(4, date_start=None)})

        assert numbers(made) == (order, None)


@dataclass(frozen=True)
class Sounds:
    """A clause of a kind that nobody has thought about here."""

    like: str

    def asked(self) -> dict[str, Any]:
        return {"match": {"name": {"query": self.like, "fuzziness": 1}}}

    def holds(self, row: Any) -> bool:
        return True

    def form(self) -> list[Any]:
        return ["sounds", self.like]


UNKNOWN: Any = Sounds("roof")


@pytest.mark.parametrize(
    ("clause", "in_block", "in_scan"),
    [
        (OPEN, True, True),
        (OneOf("status", (1, 2)), True, True),
        (Is("related.id", "j1"), True, True),
        (Is("number", "1042"), True, True),
        (Between("date_start", 1, 2), True, True),
        (Not(OPEN), True, True),
        (AnyOf((OPEN, Is("is_archived", True))), True, True),
        # JobNimbus compares words where the whole text is meant
        (Is("status_name", "Lead"), False, False),
        (OneOf("name", ("Roof", "Gutter")), False, False),
        (Not(Is("city", "Stamford")), False, False),
        # it finds more than is meant, which is checked in a scan
        (NameIs("name", "Roof"), False, True),
        (Word("roof", ("name",)), False, True),
        (PhoneHas("2035550100", ("home_phone",)), False, True),
        (AnyOf((Word("roof", ("name",)), OPEN)), False, True),
        (Not(Word("roof", ("name",))), False, False),
        # it computes these without a word
        (Is("task_count", 2), False, False),
        (Between("last_estimate_date_created", 1), False, False),
        (Word("x", ("name", "last_estimate_number")), False, False),
        (UNKNOWN, False, False),
        (Not(UNKNOWN), False, False),
        (AnyOf((OPEN, UNKNOWN)), False, False),
    ],
    ids=str,
)
def test_a_list_is_kept_only_where_its_clauses_are_judged_as_jobnimbus_judges_them(
    clause: Clause, in_block: bool, in_scan: bool
) -> None:
    kept = [upkept(read, of(read), {"j1": None}) is not None for read in (block((clause,)), scan((clause,)))]

    assert kept == [in_block, in_scan]


def test_a_list_sorted_by_what_jobnimbus_computes_is_never_kept() -> None:
    read = scan(sort=Sort("last_estimate_date_created"))

    assert upkept(read, of(read), {}) is None


@pytest.mark.parametrize(
    ("read", "value", "complete"),
    [
        (scan(), {"rows": []}, True),
        (scan(), {"rows": [], "incomplete": "only 5000 of 9000 rows were looked at"}, False),
        (block(), {"count": 1, "rows": [job(1)]}, True),
        (block(), {"count": 2, "rows": [job(1)]}, False),
        (block(), {"count": 1, "rows": [job(1)], "incomplete": "why"}, False),
        (block(offset=3), {"count": 3, "rows": []}, False),
        (Read.whole(Entity.USERS), {"rows": []}, False),
        (Read.record(Entity.JOBS, "j1"), {"jnid": "j1"}, False),
    ],
)
def test_a_list_is_complete_when_nothing_else_matches(read: Read, value: dict[str, Any], complete: bool) -> None:
    assert is_complete(read, value) is complete


def test_a_narrower_list_is_the_matching_part_of_a_complete_one_in_its_own_order() -> None:
    wide = scan()
    rows = of(wide, job(4, touched=5), job(3, status=2), job(2, touched=9), job(1, touched=7))

    assert numbers(narrowed(block((OPEN,), TOUCHED, size=2), wide, rows)) == ([2, 1], 3)
    assert numbers(narrowed(block((OPEN,), TOUCHED, 2, 2), wide, rows)) == ([4], 3)
    assert numbers(narrowed(scan((OPEN,), Sort("date_updated", False)), wide, rows)) == ([4, 1, 2], None)


def test_a_shorter_block_is_the_beginning_of_a_longer_one_with_its_count() -> None:
    longer = block((OPEN,), size=3)
    rows = of(longer, job(4), job(3), job(2), count=40)

    assert narrowed(block((OPEN,), size=2), longer, rows) == of(longer, job(4), job(3), count=40)
    assert narrowed(block((OPEN,), size=4), longer, rows) is None
    assert narrowed(block((OPEN,), offset=1, size=2), longer, rows) is None
    assert narrowed(block((OPEN,), TOUCHED, size=2), longer, rows) is None
    assert narrowed(block((OPEN, Is("is_lead", True)), size=2), longer, rows) is None


def test_a_list_is_wider_only_when_it_asks_for_less_of_the_same_records() -> None:
    scoped = Read.block(Entity.TASKS, (Is("related.id", "j1"),), ADDED, 0, scope=frozenset({"j1"}))
    done = Read.block(
        Entity.TASKS, (Is("related.id", "j1"), Is("is_completed", True)), ADDED, 0, scope=frozenset({"j1"})
    )
    other = Read.block(Entity.TASKS, (Is("related.id", "j2"),), ADDED, 0, scope=frozenset({"j2"}))
    every = Read.scan(Entity.TASKS, ())

    assert [is_wider(wide, done) for wide in (every, scoped, done, other, scan())] == [True, True, True, False, False]
    assert not is_wider(done, scoped)
    assert not is_wider(Read.whole(Entity.USERS), Read.whole(Entity.USERS))


def test_a_list_too_long_for_jobnimbus_to_show_is_never_made_here() -> None:
    wide = Read.scan(Entity.ACTIVITIES, ())
    rows = [{**job(number), "type": "activity"} for number in range(1_001)]

    assert narrowed(Read.block(Entity.ACTIVITIES, (), ADDED, 0), wide, {"rows": rows}) is None
    assert numbers(narrowed(Read.block(Entity.ACTIVITIES, (), ADDED, 998), wide, {"rows": rows[1:]})) == ([2, 1], 1_000)
