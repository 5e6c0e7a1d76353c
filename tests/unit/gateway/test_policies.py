"""Lifetimes and modes: the table, and what settings and the rate of changes make of it."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation, Read
from jobnimbus_mcp.gateway.policies import Policies, early_beta


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


@pytest.mark.parametrize(
    ("given", "lifetime_s", "expected"),
    [(60, 3600, 60), (60, 600, 60), (60, 300, 30), (0, 3600, 0), (900, 3600, 360)],
)
def test_what_expired_is_given_for_no_longer_than_a_tenth_of_its_lifetime(
    given: float, lifetime_s: int, expected: float
) -> None:
    policies = Policies({("jobs", None): lifetime_s}, stale_s=given)

    assert policies.of(Read.record(Entity.JOBS, "mjob1")).stale_s == expected


def test_the_other_bounds_are_those_of_the_settings_for_every_read() -> None:
    policies = Policies(error_s=1800, soft_s=1.5, settle_s=9)

    for read in (Read.record(Entity.JOBS, "mjob1"), Read.whole(Entity.USERS)):
        policy = policies.of(read)
        assert (policy.error_s, policy.soft_s, policy.settle_s) == (1800, 1.5, 9)


def test_the_mode_is_the_most_specific_one_given() -> None:
    modes = {("tasks", None): Mode.ANY, ("jobs", "search"): Mode.BOUNDED, ("tasks", "detail"): Mode.STRICT}
    policies = Policies(mode=Mode.BARRIER, modes=modes)

    assert policies.mode_of(Read.record(Entity.JOBS, "mjob1")) is Mode.BARRIER
    assert policies.mode_of(Read.scan(Entity.JOBS, (), operation=Operation.SEARCH)) is Mode.BOUNDED
    assert policies.mode_of(Read.whole(Entity.TASKS)) is Mode.ANY
    assert policies.mode_of(Read.record(Entity.TASKS, "t1")) is Mode.STRICT


def test_lifetimes_are_adapted_by_account_and_kind_save_those_that_were_set() -> None:
    asked: list[tuple[str, Entity, int]] = []

    def adapted(instance: str, entity: Entity, base_s: int) -> int:
        asked.append((instance, entity, base_s))
        return 600

    policies = Policies({("contacts", "search"): 1200}, adapted=adapted)

    assert policies.of(Read.record(Entity.JOBS, "mjob1"), "stamford").fresh_s == 600
    assert policies.of(Read.scan(Entity.CONTACTS, (), operation=Operation.SEARCH), "stamford").fresh_s == 1200
    assert asked == [("stamford", Entity.JOBS, 3600)]
    assert policies.lifetime_s(Entity.JOBS, Operation.DETAIL) == 3600  # of no account


def test_reads_of_equal_lifetime_have_one_policy_object() -> None:
    policies = Policies()

    assert policies.of(Read.record(Entity.JOBS, "a")) is policies.of(Read.record(Entity.CONTACTS, "b"))


@pytest.mark.parametrize(("share", "beta"), [(0.0, 0.0), (0.24, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 2.0)])
def test_early_refreshes_spend_what_is_left_over(share: float, beta: float) -> None:
    assert early_beta(share) == beta
