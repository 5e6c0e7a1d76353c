"""Templates of resources, and what a request says of its sender."""

from __future__ import annotations

import re

from tool_desk import Desk

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.identity import Identities, Partitions
from jobnimbus_mcp.gateway.resources import RESOURCE_KINDS, located
from jobnimbus_mcp.tools.resources import Proof, Resources


def resources() -> Resources:
    return Resources(Desk().toolbox, Identities(("stamford",), {}, Partitions()))


def test_every_template_has_words_of_its_own_and_leads_to_a_place_of_its_kind() -> None:
    shown = resources().templates()

    assert [one.name for one in shown[: len(RESOURCE_KINDS)]] == [kind.value for kind in RESOURCE_KINDS]
    for told in ({one.name for one in shown}, {one.title for one in shown}, {one.description for one in shown}):
        assert len(told) == len(shown)
    for one in shown:
        filled = re.sub(r"\{\w+\}", "a1", one.uri_template.replace("{instance}", "stamford"))
        assert located(filled).kind.value in one.name


def test_a_token_for_some_tools_is_told_the_templates_of_their_kinds() -> None:
    jobs_only = resources().templates(Access(client="desk", tools=frozenset({"get_jobs", "create_contact"})))

    assert [one.name for one in jobs_only] == ["jobs", "jobs-by-status", "jobs-by-owner", "jobs-by-tag"]


def test_a_proof_shows_no_key() -> None:
    assert "secret" not in repr(Proof("secret-key-0123456789", "stamford"))
