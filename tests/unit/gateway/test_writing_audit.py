"""What is kept of who changed what: whole where it fits, readable JSON always."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.call import Call
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.audit import AUDIT_MOST, audit_of, author, bounded, values_of
from jobnimbus_mcp.gateway.identity import Caller

CALL = Call.begin(ManualClock(), "req-1", tool="update_job")
NAMED = Caller("stamford", "k" * 16, "p" * 32, own_key=False, access=Access(client="crew-bot"))
NAMELESS = Caller("stamford", "k" * 16, "0123456789abcdef", own_key=True)

values = st.recursive(st.none() | st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=3))


def test_the_author_is_the_token_s_name_or_the_beginning_of_the_partition() -> None:
    assert (author(NAMED), author(NAMELESS)) == ("crew-bot", "partition:01234567")


def test_values_are_told_from_and_to() -> None:
    assert values_of(("a", "b"), {"a": 1}, {"a": 2, "b": 3, "c": 4}) == {
        "a": {"before": 1, "after": 2},
        "b": {"before": None, "after": 3},
    }


@given(st.dictionaries(st.text(max_size=20), values, max_size=5))
def test_what_fits_is_kept_as_it_is(fields: dict[str, object]) -> None:
    audit = audit_of(NAMED, CALL, action="updated", outcome="done", changed=values_of(tuple(fields), {}, fields))
    # half a character cannot be kept in UTF-8
    assert json.loads(bounded(audit)) == json.loads(
        json.dumps(audit, ensure_ascii=False).encode("utf-8", "replace").decode()
    )


def test_the_longest_values_are_cut_and_the_short_ones_stay() -> None:
    fields = {"note": "ж" * 100_000, "items": [{"name": "Shingles"}] * 10_000, "name": "Whitfield"}
    audit = audit_of(NAMED, CALL, action="updated", outcome="done", changed=values_of(tuple(fields), {}, fields))
    text = bounded(audit)
    changed = json.loads(text)["changed"]

    assert len(text.encode()) <= AUDIT_MOST
    assert list(changed) == ["note", "items", "name"]
    assert changed["name"] == {"before": None, "after": "Whitfield"}
    assert changed["note"]["after"].startswith("жжж")
    assert changed["note"]["after"].endswith("...")
    assert changed["items"]["after"].startswith('[{"name": "Shingles"}, ')


def test_of_too_many_names_the_first_are_kept() -> None:
    fields = {f"{'n' * 1_000}{number}": number for number in range(400)}
    audit = audit_of(NAMED, CALL, action="updated", outcome="done", changed=values_of(tuple(fields), {}, fields))
    text = bounded(audit)
    kept = json.loads(text)["changed"]

    assert len(text.encode()) <= AUDIT_MOST
    assert 0 < len(kept) < 400
    assert list(kept) == list(fields)[: len(kept)]
