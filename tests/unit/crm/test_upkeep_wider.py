"""When a list is wider than another: by what it is asked with, and by the records that both hang on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.query import Is, OneOf
from jobnimbus_mcp.crm.reads import Read
from jobnimbus_mcp.crm.upkeep import is_wider

OF_A = Read.scan(Entity.TASKS, (Is("related.id", "a"),), scope=frozenset({"a"}))
OF_AB = Read.scan(Entity.TASKS, (OneOf("related.id", ("a", "b")),), scope=frozenset({"a", "b"}))


@pytest.mark.parametrize(
    ("read", "wider"),
    [
        (OF_A, True),
        (replace(OF_A, where=(*OF_A.where, Is("is_completed", True))), True),
        (replace(OF_A, where=(OneOf("related.id", ("b", "a")),), scope=OF_AB.scope), True),
        # what renews these is not all that renews the list of both
        (replace(OF_A, scope=frozenset()), False),
        (replace(OF_A, scope=frozenset({"a", "c"})), False),
        # their rows may be others
        (replace(OF_A, where=(Is("related.id", "c"),)), False),
        (replace(OF_A, where=(OneOf("related.id", ("a", "c")),)), False),
        (replace(OF_A, where=(Is("owners.id", "a"),)), False),
        (replace(OF_A, where=()), False),
    ],
)
def test_the_list_of_several_records_is_wider_than_that_of_one_of_them(read: Read, wider: bool) -> None:
    assert is_wider(OF_AB, read) is wider


def test_true_is_not_one() -> None:
    some = Read.scan(Entity.TASKS, (OneOf("priority", (1, 2)),))
    asked = [Read.scan(Entity.TASKS, (Is("priority", value),)) for value in (1, True)]
    assert [is_wider(some, read) for read in asked] == [True, False]
