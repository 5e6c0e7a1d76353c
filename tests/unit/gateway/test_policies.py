"""Lifetimes: the table, and what settings change of it."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.gateway.policies import Policies


@pytest.mark.parametrize(
    ("entity", "operation", "seconds"),
    [
        ("users", "list", 7200),
        ("contacts", "list", 3600),
        ("contacts", "search", 1800),
        ("contacts", "detail", 3600),
        ("jobs", "list", 1800),
        ("jobs", "search", 900),
        ("jobs", "detail", 3600),
        ("estimates", "list", 1800),
        ("estimates", "detail", 1800),
        ("attachments", "list", 900),
        ("attachments", "detail", 1800),
        ("activities", "list", 900),
        ("calendar", "list", 900),
        ("tasks", "list", 600),
        ("invoices", "list", 900),
        ("payments", "list", 900),
        ("products", "list", 1800),
        ("workorders", "list", 1800),
        ("materialorders", "list", 1800),
        ("settings", "list", 3600),
        ("budgets", "list", 900),
        ("estimates", "search", 900),
    ],
)
def test_each_family_has_its_lifetime(entity: str, operation: str, seconds: int) -> None:
    assert Policies().lifetime_s(Entity(entity), Operation(operation)) == seconds


def test_an_override_for_the_operation_wins_over_one_for_the_kind() -> None:
    policies = Policies({("contacts", None): 60, ("contacts", "search"): 30})

    assert policies.lifetime_s(Entity.CONTACTS, Operation.LIST) == 60
    assert policies.lifetime_s(Entity.CONTACTS, Operation.SEARCH) == 30
    assert policies.lifetime_s(Entity.JOBS, Operation.LIST) == 1800


def test_a_read_gets_the_policy_of_its_family() -> None:
    policy = Policies(max_bytes=1000).of(Read.record(Entity.JOBS, "mjob1"))

    assert (policy.fresh_s, policy.negative_s, policy.jitter, policy.max_bytes) == (3600, 30, 0.1, 1000)
