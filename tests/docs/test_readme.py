"""Whatever the README names exists: make targets, commands and their options, routes, tools, metrics."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import typer.main

from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools.spec import ToolSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = {name: (ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md", ".env.example", "render.yaml")}


JSON_BLOCKS = re.findall(r"```json\n(.*?)```", README, re.S)
TEXT_BLOCKS = re.findall(r"```text\n(.*?)```", README, re.S)


def section(heading: str) -> str:
    """What is under a heading, those below it included."""
    level = heading.partition(" ")[0]
    return README.split(f"\n{heading}\n", 1)[1].split(f"\n{level} ", 1)[0].split("\n## ", 1)[0]


@cache
def tools_there_are() -> Sequence[ToolSpec]:
    """Those of a server with nothing set."""
    from jobnimbus_mcp.app import Overrides, build
    from jobnimbus_mcp.settings import Settings

    return build(Settings.from_env({}), Overrides(background=False)).toolbox.specs


def routes_in_the_table() -> set[str]:
    """The paths of `web/routes`, read from its source so that nothing needs to be built."""
    tree = ast.parse((ROOT / "jobnimbus_mcp" / "web" / "routes.py").read_text())
    return {
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Route"
        and isinstance(node.args[0], ast.Constant)
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_named_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^|\s)make ([a-z]+(?:-[a-z]+)?)(?=`|\s+#|$)", DOCUMENTS[name], re.M))
    assert named - targets == set()
    assert name != "README.md" or {"demo", "test", "lint", "check-long", "bench"} <= named


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_option_named_exists(name: str) -> None:
    from jobnimbus_mcp.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has them
    named = re.findall(
        r"(?<![\w/.-])jobnimbus-mcp ((?:events [a-z]+|[a-z]+)(?: --[a-z-]+(?: [\w.$]+)?)*)", DOCUMENTS[name]
    )
    for words in (text.split() for text in named):
        assert words[0] in commands
        command = commands[words[0]]
        if words[0] == "events":
            assert words[1] in command.commands, words
            command = command.commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
    assert name != "README.md" or {words.split()[0] for words in named} == set(commands)


def test_every_route_named_exists_and_every_route_is_named() -> None:
    named = set(
        re.findall(
            r"(?<![A-Za-z_:/.])/(?:mcp|cache|webhooks|health|ready|metrics)(?:/[a-z]+|/\{\w+\})*(?![\w./-])", README
        )
    )
    there = {re.sub(r"\{\w+\}", "{eventId}", path) for path in routes_in_the_table()}
    assert named - there == set()
    assert there - named == {"/mcp/tools/list"}


def test_the_tools_named_are_the_tools_there_are() -> None:
    verbs = "get|search|create|update|delete|bulk_create|bulk_update|resume|find|use"
    assert set(re.findall(rf"`((?:{verbs})_[a-z_]+)`", README)) == {spec.name for spec in tools_there_are()}


def test_the_table_of_tools_tells_each_one_s_toolset_and_whether_it_is_listed() -> None:
    told = [
        (name, "meta" if toolset == "every" else toolset.strip("`"), column == 0)
        for toolset, *cells in re.findall(r"^\| (every|`[a-z]+`) \| (.*?) \| (.*?) \|$", section("### Tools"), re.M)
        for column, cell in enumerate(cells)
        for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(told) == sorted((spec.name, spec.toolset, spec.default) for spec in tools_there_are())
    assert f"A list of {len(told)} tools" in README


def test_the_prompts_and_kinds_of_record_named_are_those_there_are() -> None:
    from jobnimbus_mcp.gateway.resources import LISTS_BY, RESOURCE_KINDS
    from jobnimbus_mcp.tools.prompt_table import PROMPTS

    told = section("### Resources and prompts")
    assert re.findall(r"^\| `(\w+)` \|", told, re.M) == [prompt.name for prompt in PROMPTS]
    assert f"one record in full: {', '.join(kind.value for kind in RESOURCE_KINDS)} |" in told
    assert {kind.value: words for kind, words in LISTS_BY.items()} == {
        "jobs": ("status", "owner", "tag"),
        "contacts": ("status", "tag"),
    }


def test_every_metric_named_exists() -> None:
    from jobnimbus_mcp.telemetry.names import METRICS

    named = set(re.findall(r"jobnimbus_mcp_([a-z0-9_]+)", README))
    assert named
    assert {name.removesuffix("_total") for name in named} - METRICS.keys() == set()


def test_the_relays_example_is_understood() -> None:
    from jobnimbus_mcp.consumers.relay_targets import parse_targets

    (example,) = (block for block in JSON_BLOCKS if block.startswith("[") and "url" in block)
    (target,) = parse_targets(example, secret="s" * 16, allow_private=False, instances=("stamford",))
    assert target.name == "n8n"


def test_the_clients_example_is_understood_in_one_line_of_a_settings_file(tmp_path: Path) -> None:
    from jobnimbus_mcp.settings import Settings

    (example,) = (block for block in JSON_BLOCKS if block.startswith("[") and "token" in block)
    line = "".join(example.splitlines())
    (tmp_path / ".env").write_text(f"JOBNIMBUS_INSTANCES=stamford,guilford\nMCP_CLIENTS={line}\n")
    ana, office, board = (client.access for client in Settings.from_env({}, env_file=tmp_path / ".env").clients())
    assert ana == Access(client="ana")
    assert office == Access(
        "office", frozenset({"stamford"}), frozenset({"crm", "work"}), read_only=False, requests_per_minute=120
    )
    assert board == Access("board", tools=frozenset({"get_jobs", "get_invoices"}), read_only=True)
    assert {"get_jobs", "get_invoices"} <= {spec.name for spec in tools_there_are()}


def test_the_settings_of_oauth_shown_go_together(tmp_path: Path) -> None:
    from jobnimbus_mcp.settings import Settings

    (example,) = (block for block in TEXT_BLOCKS if "OAUTH_ISSUER_URL" in block)
    (tmp_path / ".env").write_text(example)
    settings = Settings.from_env({}, env_file=tmp_path / ".env")
    assert settings.has_doors
    assert (settings.oauth_scope_read, settings.oauth_scope_write) == ("jobnimbus:read", "jobnimbus:write")
    for said in (settings.oauth_scope_read, settings.oauth_scope_write, settings.oauth_instances_claim):
        assert f"`{said}`" in section("### Who may do what")


def test_the_blocks_that_connect_an_agent_are_those_that_doctor_prints() -> None:
    from jobnimbus_mcp.doctor.connect import Place, blocks
    from jobnimbus_mcp.settings import Settings

    settings = Settings.from_env({"JOBNIMBUS_API_KEY": "k" * 16, "MCP_AUTH_TOKENS": "t" * 16})
    made = blocks(settings, Place("/path/to/jobnimbus-mcp", env_file="/path/to/.env"))
    shown = section("## Connect an agent").partition("\n### ")[0]
    assert re.findall(r"```(\w+)\n(.*?)\n```", shown, re.S) == [(block.language, block.text) for block in made]
    for block in made:
        files = re.findall(r"\S+\.json|anthropic-beta: \S+", block.where)
        assert [word for word in (block.host.removeprefix("the "), *files) if word not in shown] == []


def test_the_lifetimes_told_are_those_that_apply() -> None:
    from jobnimbus_mcp.crm.entities import Entity
    from jobnimbus_mcp.crm.reads import Operation
    from jobnimbus_mcp.gateway.policies import NEGATIVE_S, Policies

    told = re.sub(r"\s+", " ", README.split("Lifetimes that apply", 1)[1].split("They bound", 1)[0])
    policies = Policies()

    def lifetime(entity: Entity, operation: Operation = Operation.LIST) -> int:
        return policies.lifetime_s(entity, operation)

    search, detail = Operation.SEARCH, Operation.DETAIL
    jobs = (lifetime(Entity.JOBS), lifetime(Entity.JOBS, search), lifetime(Entity.JOBS, detail))
    for said in (
        f"users {lifetime(Entity.USERS)}",
        f"contacts {lifetime(Entity.CONTACTS)}, searched {lifetime(Entity.CONTACTS, search)}",
        "jobs listed {}, searched {}, single {}".format(*jobs),
        f"estimates {lifetime(Entity.ESTIMATES)}, searched {lifetime(Entity.ESTIMATES, search)}",
        f"files listed {lifetime(Entity.ATTACHMENTS)}, single {lifetime(Entity.ATTACHMENTS, detail)}",
        f"activities, calendar {lifetime(Entity.ACTIVITIES)}",
        f"tasks {lifetime(Entity.TASKS)}",
        f"invoices, payments {lifetime(Entity.PAYMENTS)}",
        f"products, material orders, work orders {lifetime(Entity.WORKORDERS)}",
        f"all others {lifetime(Entity.BUDGETS)}",
        f"settings {lifetime(Entity.SETTINGS)}",
        f'"not found" {NEGATIVE_S}',
    ):
        assert said in told
    for entity, alike in (
        (Entity.INVOICES, Entity.PAYMENTS),
        (Entity.CALENDAR, Entity.ACTIVITIES),
        (Entity.PRODUCTS, Entity.WORKORDERS),
        (Entity.MATERIALORDERS, Entity.WORKORDERS),
    ):
        assert lifetime(entity) == lifetime(alike)


def test_the_calls_shown_are_understood() -> None:
    bodies = [json.loads(body) for body in re.findall(r"/mcp/tools/call .*?-d '(\{.*?\})'", README, re.S)]
    assert [body["name"] for body in bodies] == ["get_jobs", "create_contact", "bulk_create_records"]
    arguments_of = {spec.name: spec.arguments for spec in tools_there_are()}
    for body in bodies:
        arguments_of[body["name"]].model_validate(body["arguments"])


def test_what_reads_of_no_records_take_is_told() -> None:
    of_records = {"verbosity", "fields", "known_version", "max_age_s"}
    taken = {
        spec.name: spec.argument_names & of_records
        for spec in tools_there_are()
        if not spec.effect.writes and spec.toolset != "meta" and not of_records <= spec.argument_names
    }
    assert taken == {
        "get_settings": {"max_age_s"},
        "get_units": {"max_age_s"},
        "get_webhooks": set(),
        "get_attachment_content": set(),
    }
    told = "`get_settings` and `get_units` take `max_age_s` alone, `get_webhooks` and `get_attachment_content` none"
    assert told in README


def test_the_model_has_as_many_forms_as_is_told() -> None:
    tree = ast.parse((ROOT / "tests" / "properties" / "test_protocol_model.py").read_text())
    counts = {
        node.target.id: len(node.value.keys)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Dict)
    }
    told = "{HOLDS} forms that hold ({LARGE} larger ones in `make check-long`), {BROKEN} known-bad ones"
    assert told.format(**counts) in README


def test_files_linked_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_changelog_has_the_version() -> None:
    from jobnimbus_mcp import __version__

    assert f"## {__version__}" in DOCUMENTS["CHANGELOG.md"]
