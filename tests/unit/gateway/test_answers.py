"""What callers are told of where an answer came from."""

from __future__ import annotations

import pytest

from jobnimbus_mcp.cache.outcome import Outcome, Status, Tier
from jobnimbus_mcp.gateway.answers import provenance_of

NOW = 1_790_000_100.0


def outcome(status: Status, tier: Tier, *, fetched_at: float = 1_790_000_000.0, reason: str | None = None) -> Outcome:
    return Outcome(b"{}", False, status, tier, fetched_at, 60.0, False, "etag", reason)


def test_a_fresh_answer_has_no_stale_reason() -> None:
    told = provenance_of([outcome(Status.HIT, Tier.L1)], "barrier").envelope(NOW)

    assert told == {
        "status": "hit",
        "tier": "l1",
        "ageSeconds": 100.0,
        "ttlSeconds": 60.0,
        "asOf": "2026-09-21T14:13:20.000Z",
        "consistency": "barrier",
    }


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("past its lifetime; the origin could not be asked", "past its lifetime; JobNimbus could not be asked"),
        ("the origin's list lags behind a change", "JobNimbus's list lags behind a change"),
        ("changed since; being fetched anew", "changed since; being fetched anew"),
        (None, "past its lifetime"),
    ],
)
def test_a_stale_answer_says_why_in_the_caller_s_words_with_its_true_age(reason: str | None, told: str) -> None:
    provenance = provenance_of([outcome(Status.STALE, Tier.L2, reason=reason)], "barrier")

    assert provenance.stale_reason == told
    assert provenance.envelope(NOW)["staleReason"] == told
    assert provenance.envelope(NOW)["ageSeconds"] == 100.0


@pytest.mark.parametrize("other", [Status.HIT, Status.MISS, Status.BYPASS, Status.REVALIDATED])
def test_an_answer_with_something_stale_in_it_is_stale_and_as_old_as_its_oldest_part(other: Status) -> None:
    parts = [
        outcome(Status.STALE, Tier.L1, fetched_at=1_789_999_000.0, reason="past its lifetime; being fetched anew"),
        outcome(other, Tier.UPSTREAM, reason=None),
    ]
    for ordered in (parts, parts[::-1]):
        provenance = provenance_of(ordered, "any")
        assert (provenance.status, provenance.tier, provenance.fetched_at) == (
            Status.STALE,
            Tier.UPSTREAM,
            1_789_999_000.0,
        )
        assert provenance.stale_reason == "past its lifetime; being fetched anew"


def test_different_reasons_are_all_told_once_each() -> None:
    parts = [outcome(Status.STALE, Tier.L2, reason=reason) for reason in ("a", "b", "a")]

    assert provenance_of(parts, "any").stale_reason == "a; b"
