"""What an admin's invalidation is about: patterns and fields to tags, and to a scan only where tags cannot say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.web.targets import ENTITIES, OPERATIONS, Scan, Tags, target_of

BOTH = ("stamford", "guilford")
ALL_LISTS = tuple(f"{entity}:list" for entity in ENTITIES)


@pytest.mark.parametrize(
    ("pattern", "instances", "work"),
    [
        ("jobnimbus:*", BOTH, Tags(ENTITIES)),
        ("jobnimbus:*:*:*", BOTH, Tags(ENTITIES)),
        ("jobnimbus:jobs:*", BOTH, Tags(("jobs",))),
        ("jobnimbus:jobs:*:*", BOTH, Tags(("jobs",))),
        ("jobnimbus:jobs:list:*", BOTH, Tags(("jobs:list",))),
        ("jobnimbus:jobs:detail:abc123", BOTH, Tags(("jobs:detail:abc123",))),
        ("jobnimbus:jobs:list:a:b", BOTH, Tags(("jobs:list:a:b",))),
        ("jobnimbus:jobs*", BOTH, Tags(("jobs",))),
        ("jobnimbus:jobs:li*", BOTH, Tags(("jobs:list",))),
        ("jobnimbus:*:list:*", BOTH, Tags(ALL_LISTS)),
        ("jobnimbus:*:jobs:list:*", BOTH, Tags(("jobs:list",))),
        ("jobnimbus:*:*:jobs:list:*", BOTH, Tags(("jobs:list",))),
        ("jobnimbus:work*:detail:x1", BOTH, Tags(("workorders:detail:x1",))),
        ("jobnimbus:?obs:detail:x1", BOTH, Tags(("jobs:detail:x1",))),
        ("jobnimbus:{stamford}:*", ("stamford",), Tags(ENTITIES)),
        ("jobnimbus:{*}:*", BOTH, Tags(ENTITIES)),
        ("jobnimbus:{guil*}:*:jobs:*", ("guilford",), Tags(("jobs",))),
        ("jobnimbus:{stamford}:*:jobs:list:*", ("stamford",), Tags(("jobs:list",))),
        ("jobnimbus:jo?s:list:*", BOTH, Tags(("jobs:list",))),
        ("jobnimbus:jobs:list:size=25*", BOTH, Scan("*:jobs:list:size=25*")),
        ("jobnimbus:jobs:list:?", BOTH, Scan("*:jobs:list:?")),
        ("jobnimbus:jobs:*:abc*", BOTH, Scan("*:jobs:*:abc*")),
        ("jobnimbus:jobs:*abc", BOTH, Scan("*:jobs:*abc")),
        ("jobnimbus:*list*", BOTH, Scan("*:*list*")),
        ("jobnimbus:*s:list:*", BOTH, Scan("*:*s:list:*")),
        ("jobnimbus:jobs:*st:*", BOTH, Scan("*:jobs:*st:*")),
        ("jobnimbus:*:abc", BOTH, Scan("*:*:abc")),
        ("jobnimbus:jobs", BOTH, Scan("*:jobs")),
        ("jobnimbus:jobs:list", BOTH, Scan("*:jobs:list")),
        ("jobnimbus:jobs:list:", BOTH, Scan("*:jobs:list:")),
        ("jobnimbus::list:*", BOTH, Scan("*::list:*")),
        ("jobnimbus:widgets:*", BOTH, Scan("*:widgets:*")),
        ("jobnimbus:jobs:delete:*", BOTH, Scan("*:jobs:delete:*")),
        ("jobnimbus:{stamford}:0123:*", ("stamford",), Scan("0123:*")),
        ("jobnimbus:{stamford}:*list*", ("stamford",), Scan("*list*")),
        ("jobnimbus:{stamford}:0123:jobs:list:*", ("stamford",), Scan("0123:jobs:list:*")),
        ("jobnimbus:{stamford}:01*:jobs:list:x", ("stamford",), Scan("01*:jobs:list:x")),
    ],
)
def test_a_pattern_is_said_in_tags_wherever_it_can_be(pattern: str, instances: Any, work: Tags | Scan) -> None:
    target = target_of({"pattern": pattern}, BOTH)
    assert (target.instances, target.work) == (instances, work)


@pytest.mark.parametrize(
    ("body", "work", "resource", "resource_id"),
    [
        ({"entity": "jobs"}, Tags(("jobs",)), "jobs", ""),
        ({"entity": "jobs", "operation": "list"}, Tags(("jobs:list",)), "jobs", ""),
        (
            {"entity": "jobs", "operation": "detail", "identifier": "j1"},
            Tags(("jobs:detail:j1",)),
            "jobs",
            "j1",
        ),
        (
            {"entity": "jobs", "identifier": "j1"},
            Tags(tuple(f"jobs:{operation}:j1" for operation in OPERATIONS)),
            "jobs",
            "j1",
        ),
        ({"tags": ["jobs@any", "jobs:list", "jobs@any"]}, Tags(("jobs@any", "jobs:list")), "jobs", ""),
        ({"tags": ["jobs:list", "tasks"]}, Tags(("jobs:list", "tasks")), "all", ""),
        ({"tags": ["elsewhere"]}, Tags(("elsewhere",)), "all", ""),
        ({"pattern": "jobnimbus:jobs:detail:j1"}, Tags(("jobs:detail:j1",)), "jobs", "j1"),
        ({"pattern": "jobnimbus:*"}, Tags(ENTITIES), "all", ""),
    ],
)
def test_each_form_names_its_tags_and_what_the_log_shows(
    body: dict[str, Any], work: Tags, resource: str, resource_id: str
) -> None:
    target = target_of(body | {"instance": "stamford"}, BOTH)
    assert (target.instances, target.work) == (("stamford",), work)
    assert (target.resource, target.resource_id) == (resource, resource_id)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "pattern"),
        ({"instance": "stamford"}, "pattern"),
        ({"operation": "list"}, "pattern"),
        ({"patern": "jobnimbus:*"}, "patern"),
        ({"pattern": "jobnimbus:*", "tags": ["jobs"]}, "tags"),
        ({"pattern": "jobnimbus:*", "entity": "jobs"}, "entity"),
        ({"entity": "jobs", "force": True}, "force"),
        ({"pattern": "jobnimbus:*", "operation": "list"}, "operation"),
        ({"tags": ["jobs"], "identifier": "x"}, "identifier"),
        ({"pattern": "jobnimbus:*", "instance": "nowhere"}, "instance"),
        ({"pattern": "jobnimbus:*", "instance": ["stamford"]}, "instance"),
        ({"pattern": "jobnimbus:{guilford}:*", "instance": "stamford"}, "instance"),
        ({"pattern": ""}, "pattern"),
        ({"pattern": 7}, "pattern"),
        ({"pattern": "*"}, "pattern"),
        ({"pattern": "jobs:*"}, "pattern"),
        ({"pattern": "jobnimbus-sys:*"}, "pattern"),
        ({"pattern": "jobnimbus:"}, "pattern"),
        ({"pattern": "jobnimbus:{nowhere}:*"}, "pattern"),
        ({"pattern": "jobnimbus:{stamford}:"}, "pattern"),
        ({"pattern": "jobnimbus:{stamford}:*:jobs:list:[x]"}, "pattern"),
        ({"pattern": "jobnimbus:*:{stamford}:*"}, "pattern"),
        ({"pattern": "jobnimbus:jobs:list:a]"}, "pattern"),
        ({"pattern": "jobnimbus:{stamford}"}, "pattern"),
        ({"pattern": "jobnimbus:{stamford:*"}, "pattern"),
        ({"pattern": "jobnimbus:{stamford}x:*"}, "pattern"),
        ({"pattern": "jobnimbus:[j]obs:*"}, "pattern"),
        ({"pattern": "jobnimbus:jobs:list:\n*"}, "pattern"),
        ({"pattern": "jobnimbus:" + "x" * 491}, "pattern"),
        ({"entity": "job"}, "entity"),
        ({"entity": None}, "entity"),
        ({"entity": "jobs", "operation": "delete"}, "operation"),
        ({"entity": "jobs", "operation": None}, "operation"),
        ({"entity": "jobs", "identifier": ""}, "identifier"),
        ({"entity": "jobs", "identifier": 7}, "identifier"),
        ({"tags": []}, "tags"),
        ({"tags": "jobs"}, "tags"),
        ({"tags": ["jobs", 7]}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"tags": ["x" * 257]}, "tags"),
        ({"tags": ["a\nb"]}, "tags"),
        ({"tags": ["jobs"] * 101}, "tags"),
    ],
)
def test_a_body_that_says_anything_else_is_refused_by_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        target_of(body, BOTH)
    assert refusal.value.field == field


def test_the_closed_lists_are_those_of_the_keys() -> None:
    assert list(Entity) == list(ENTITIES)
    assert list(Operation) == list(OPERATIONS)


_SEGMENT = st.sampled_from(["jobs", "list", "detail", "*", "?", "j*", "{stamford}", "{", "}", "[a]", "", "x1", "{*}"])


@given(st.lists(_SEGMENT, max_size=6).map(":".join) | st.text(max_size=30))
def test_every_pattern_is_either_refused_or_about_some_account_and_something(rest: str) -> None:
    try:
        target = target_of({"pattern": f"jobnimbus:{rest}"}, BOTH)
    except InvalidInput as refusal:
        told: Any = refusal.field
    else:
        told = target.instances and (isinstance(target.work, Scan) or target.work.tags)
    assert told
