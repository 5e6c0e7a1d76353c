"""What lists under a record show of it."""

from __future__ import annotations

from typing import Any

import pytest

from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.crm.shown import links_say, shown_under

JOB = {"jnid": "j1", "name": "Roof", "number": "1001", "status": 3, "owners": [{"id": "u1"}], "date_updated": 5}
REF = EntityRef(Entity.JOBS, "j1")
LINK = {"id": "j1", "type": "job", "name": "Roof", "number": "1001", "email": None, "subject": None}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"status": 4, "status_name": "Sold", "date_status_change": 9, "date_updated": 9}, True),
        ({"description": "hail", "date_start": 9}, True),
        # moves without a change of the record
        ({"approved_estimate_total": 100}, True),
        ({"name": "Gutter"}, False),
        ({"owners": []}, False),
        ({"is_active": False}, False),
        ({"is_archived": True}, False),
        # nobody knows what this is
        ({"cf_string_9": "x"}, False),
    ],
)
def test_a_change_may_be_shown_unless_it_is_known_not_to_be(changed: dict[str, Any], same: bool) -> None:
    assert (shown_under(Entity.JOBS, JOB | changed) == shown_under(Entity.JOBS, JOB)) is same


def test_the_order_of_fields_does_not_matter() -> None:
    assert shown_under(Entity.JOBS, dict(reversed(JOB.items()))) == shown_under(Entity.JOBS, JOB)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, True),
        ({"primary": None, "related": None}, True),
        ({"related": [LINK]}, True),
        ({"primary": {"id": "j1", "old_status": 1, "new_status": 2}}, True),
        ({"primary": {"id": "j1", "email": ""}}, True),
        ({"related": [{**LINK, "id": "j2", "name": "Another"}]}, True),
        ({"related": ["j1"]}, True),
        ({"related": [{**LINK, "name": "Gutter"}]}, False),
        ({"primary": {"id": "j1", "number": "1002"}}, False),
        ({"primary": {"id": "j1", "colour": "red"}}, False),
    ],
)
def test_links_say_of_a_record_what_it_says_of_itself(row: dict[str, Any], says: bool) -> None:
    assert links_say(row, REF, JOB) is says


def test_a_contact_is_called_by_its_display_name() -> None:
    row = {"primary": {"id": "c1", "type": "contact", "name": "Ada Lovelace"}}
    ref = EntityRef(Entity.CONTACTS, "c1")
    assert links_say(row, ref, {"jnid": "c1", "display_name": "Ada Lovelace", "name": "other"})
    assert not links_say(row, ref, {"jnid": "c1", "display_name": "Ada Byron"})
