"""URIs: one spelling for each place, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.resources import (
    LISTS_BY,
    RELATED_LISTS,
    RESOURCE_KINDS,
    WHOLE_KINDS,
    AllOf,
    ListBy,
    ListUnder,
    Place,
    RecordAt,
    any_list_of,
    located,
    spelled,
)

WORDS = {word for words in LISTS_BY.values() for word in words}
instances = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
jnids = st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True).filter(lambda text: text not in WORDS)
names = st.text(min_size=1, max_size=120).filter(lambda text: text.isprintable() and text.strip() != "")
places = st.one_of(
    st.builds(RecordAt, instances, st.builds(EntityRef, st.sampled_from(RESOURCE_KINDS), jnids)),
    st.sampled_from([(parent, kind) for parent, kinds in RELATED_LISTS.items() for kind in kinds]).flatmap(
        lambda pair: st.builds(ListUnder, instances, st.builds(EntityRef, st.just(pair[0]), jnids), st.just(pair[1]))
    ),
    st.sampled_from([(kind, word) for kind, words in LISTS_BY.items() for word in words]).flatmap(
        lambda pair: st.builds(ListBy, instances, st.just(pair[0]), st.just(pair[1]), names)
    ),
    st.builds(AllOf, instances, st.sampled_from(WHOLE_KINDS)),
)


@given(places)
def test_a_place_is_found_again_by_its_spelling(place: Place) -> None:
    assert located(spelled(place)) == place


@given(st.text(max_size=80), st.sampled_from(["", "jobnimbus://stamford/", "jobnimbus://stamford/jobs/status/"]))
def test_whatever_is_taken_for_a_uri_is_spelled_so(text: str, head: str) -> None:
    try:
        place = located(head + text)
    except InvalidInput:
        return
    assert spelled(place) == head + text


@pytest.mark.parametrize(
    "uri",
    [
        "jobnimbus://stamford/jobs",
        "jobnimbus://stamford/jobs/",
        "jobnimbus://stamford/settings/all",
        "jobnimbus://stamford/tasks/t1/jobs",
        "jobnimbus://stamford/jobs/j1/jobs",
        "jobnimbus://stamford/contacts/owner/x",
        "jobnimbus://stamford/jobs/status/",
        "jobnimbus://stamford/jobs/status/%20",
        "jobnimbus://stamford/jobs/status/%00",
        "jobnimbus://stamford/jobs/status/%FF",
        "jobnimbus://stamford/jobs/status/a b",
        "jobnimbus://stamford/jobs/status/a%2fb",
        "jobnimbus://stamford/jobs/status/%41",
        "jobnimbus://stamford/jobs/status/" + "a" * 121,
        "jobnimbus://stamford/jobs/../tasks",
        "jobnimbus://stamford/jobs/j1/tasks/t1",
        any_list_of("stamford", Entity.TASKS),
    ],
)
def test_what_names_nothing_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        located(uri)
    assert refused.value.field == "uri"


def test_another_spelling_is_told_the_right_one() -> None:
    with pytest.raises(InvalidInput, match=r"jobnimbus://stamford/jobs/status/a%2Fb$"):
        located("jobnimbus://stamford/jobs/status/a%2fb")
