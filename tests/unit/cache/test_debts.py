"""Who owes what, and which payment covers what."""

from __future__ import annotations

from jobnimbus_mcp.cache.debts import CAUSES_MAX, Debts
from jobnimbus_mcp.cache.journal import Kept, Line
from jobnimbus_mcp.cache.notice import Notice

T = "stamford"


def kept(ref: int, *, known: bool = True, tenant: str = T) -> Kept:
    notice = Notice("e", "jobs", "j", "webhook", 0.0, f"e{ref}") if known else None
    return Kept(ref, Line(tenant, ("jobs",), notice))


def test_a_renewal_covers_what_was_owed_when_it_was_sent_and_nothing_later() -> None:
    debts = Debts()
    debts.owe(T, "a")
    debts.keep(kept(1, known=False))
    mark = debts.mark
    debts.owe(T, "b")
    debts.keep(kept(2, known=False))
    assert debts.renewed(T, mark) == [kept(1, known=False)]
    assert debts.renewal_due(T)
    assert debts.renewed(T, debts.mark) == [kept(2, known=False)]
    assert not debts
    assert T not in debts


def test_a_failure_again_of_the_same_cause_is_not_covered_by_a_renewal_sent_between() -> None:
    debts = Debts()
    debts.owe(T, "a")
    mark = debts.mark
    debts.owe(T, "a")
    debts.renewed(T, mark)
    assert T in debts


def test_a_renewal_does_for_no_line_that_is_known() -> None:
    debts = Debts()
    debts.keep(kept(1))
    assert debts.renewed(T, debts.mark) == []
    assert (debts.renewal_due(T), debts.lines(T, 5)) == (False, [kept(1)])


def test_what_the_journal_takes_over_is_due_again_when_it_could_not() -> None:
    debts = Debts()
    debts.owe(T, "a")
    debts.defer(T, "a")
    assert (T in debts, debts.renewal_due(T)) == (True, False)
    debts.deferred(T, "a", None)
    assert debts.renewal_due(T)
    debts.defer(T, "a")
    debts.deferred(T, "a", kept(1))
    assert (debts.renewal_due(T), debts.lines(T, 5)) == (False, [kept(1)])


def test_lines_come_oldest_first_and_are_done_one_by_one_in_any_order() -> None:
    debts = Debts()
    for ref in (1, 2, 3):
        debts.keep(kept(ref))
    assert debts.lines(T, 2) == [kept(1), kept(2)]
    debts.applied([kept(2), kept(2)])
    assert debts.lines(T, 5) == [kept(1), kept(3)]
    debts.applied([kept(3), kept(1)])
    assert not debts


def test_each_tenant_owes_for_itself() -> None:
    debts = Debts()
    debts.owe(T)
    debts.keep(kept(1, tenant="guilford"))
    assert list(debts) == [T, "guilford"]
    debts.renewed(T, debts.mark)
    assert list(debts) == ["guilford"]


def test_causes_are_told_apart_up_to_a_bound_and_beyond_it_a_renewal_is_due_whatever_the_journal_takes() -> None:
    debts = Debts()
    for number in range(CAUSES_MAX + 1):
        debts.owe(T, str(number))
    for number in range(CAUSES_MAX + 1):
        debts.defer(T, str(number))
        debts.deferred(T, str(number), kept(number))
    assert debts.renewal_due(T)
