"""URIs of records: one spelling each, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.crm.entities import Entity, EntityRef
from jobnimbus_mcp.errors import InvalidInput
from jobnimbus_mcp.gateway.resources import RESOURCE_KINDS, located, uri_of
from jobnimbus_mcp.tools.resources import Proof, templates

INSTANCES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
JNIDS = st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True)


@given(INSTANCES, st.sampled_from(RESOURCE_KINDS), JNIDS)
def test_a_records_uri_leads_back_to_it(instance: str, kind: Entity, jnid: str) -> None:
    ref = EntityRef(kind, jnid)
    assert located(uri_of(instance, ref)) == (instance, ref)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"jobnimbus://.{0,60}")))
def test_whatever_is_understood_is_spelled_as_we_spell_it(text: str) -> None:
    try:
        understood = located(text)
    except InvalidInput:
        return
    assert uri_of(*understood) == text


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "jobnimbus://",
        "jobnimbus://stamford/jobs",
        "jobnimbus://stamford/jobs/",
        "jobnimbus:///jobs/a1",
        "jobnimbus://Stamford/jobs/a1",
        "JOBNIMBUS://stamford/jobs/a1",
        "jobnimbus://stamford/jobs/a1/",
        "jobnimbus://stamford/jobs/a1\n",
        "jobnimbus://stamford/jobs/a1#x",
        "jobnimbus://stamford/jobs/%61",
        "jobnimbus://stamford/jobs/" + "a" * 65,
        "jobnimbus://user@stamford/jobs/a1",
        "jobnimbus://stamford/job/a1",
        "jobnimbus://stamford/settings/a1",
        "jobnimbus://stamford/calendar/a1",
    ],
)
def test_what_is_almost_a_uri_is_none(wrong: str) -> None:
    with pytest.raises(InvalidInput):
        located(wrong)


def test_an_unknown_kind_is_told_which_there_are() -> None:
    with pytest.raises(InvalidInput, match="jobs, contacts"):
        located("jobnimbus://stamford/invoices/a1")


def test_every_kind_has_its_template_with_words_of_its_own() -> None:
    shown = templates()
    assert [one.name for one in shown] == [kind.value for kind in RESOURCE_KINDS]
    assert len({one.title for one in shown}) == len({one.description for one in shown}) == len(shown)
    for one in shown:
        filled = one.uri_template.replace("{instance}", "stamford").replace("{jnid}", "a1")
        assert located(filled).ref.entity == one.name


def test_a_proof_shows_no_key() -> None:
    assert "secret" not in repr(Proof("secret-key-0123456789", "stamford"))
