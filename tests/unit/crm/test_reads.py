"""Reads: equal questions have equal identifiers, different ones different ones, and no key tells customer data."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Between, Is, Sort, Word
from jobnimbus_mcp.crm.reads import Operation, Read

BY_STATUS = Is("status", 355)
BY_DATE = Between("date_created", 1, 2)


def test_the_order_of_clauses_makes_no_other_question() -> None:
    one = Read.block(Entity.JOBS, (BY_STATUS, BY_DATE), Sort(), 0)
    other = Read.block(Entity.JOBS, (BY_DATE, BY_STATUS), Sort(), 0)

    assert one.identifier == other.identifier


@pytest.mark.parametrize(
    "other",
    [
        Read.block(Entity.JOBS, (), Sort(), 100),
        Read.block(Entity.JOBS, (), Sort(), 0, 50),
        Read.block(Entity.JOBS, (), Sort("date_updated"), 0),
        Read.block(Entity.JOBS, (), Sort(descending=False), 0),
        Read.block(Entity.JOBS, (BY_STATUS,), Sort(), 0),
        Read.block(Entity.JOBS, (Is("status", "355 "),), Sort(), 0),
        Read.scan(Entity.JOBS, ()),
    ],
)
def test_different_questions_have_different_identifiers(other: Read) -> None:
    assert other.identifier != Read.block(Entity.JOBS, (), Sort(), 0).identifier


def test_a_record_is_identified_by_its_jnid() -> None:
    assert Read.record(Entity.JOBS, "mjob1").identifier == "mjob1"


def test_what_was_searched_for_does_not_show_in_the_identifier() -> None:
    read = Read.scan(Entity.CONTACTS, (Word("Whitfield", ("display_name",)),), operation=Operation.SEARCH)

    assert "whitfield" not in read.identifier.lower()
    assert len(read.identifier) == 32


def test_identifiers_are_short_and_have_no_separator() -> None:
    for read in (Read.whole(Entity.USERS), Read.block(Entity.JOBS, (BY_STATUS,) * 40, Sort(), 900)):
        assert len(read.identifier) <= 120
        assert ":" not in read.identifier
