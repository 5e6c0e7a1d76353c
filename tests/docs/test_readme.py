"""Whatever the README names exists: make targets, commands and their options, routes, tools, metrics."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = {name: (ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md", ".env.example", "render.yaml")}


JSON_BLOCKS = re.findall(r"```json\n(.*?)```", README, re.S)


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
    from jobnimbus_mcp.tools.registry import read_tools

    async def unused(*_: object) -> None: ...

    there = {spec.name for spec in read_tools(unused)}
    assert set(re.findall(r"`((?:get|search)_[a-z_]+)`", README)) == there


def test_every_metric_named_exists() -> None:
    from jobnimbus_mcp.telemetry.names import METRICS

    named = set(re.findall(r"jobnimbus_mcp_([a-z0-9_]+)", README))
    assert named
    assert {name.removesuffix("_total") for name in named} - METRICS.keys() == set()


def test_the_relays_example_is_understood() -> None:
    from jobnimbus_mcp.consumers.relay_targets import parse_targets

    (example,) = (block for block in JSON_BLOCKS if block.startswith("["))
    (target,) = parse_targets(example, secret="s" * 16, allow_private=False, instances=("stamford",))
    assert target.name == "n8n"


@pytest.mark.parametrize("block", [block for block in JSON_BLOCKS if block.startswith("{")])
def test_client_configurations_are_json_with_one_server(block: str) -> None:
    assert list(json.loads(block)["mcpServers"]) == ["jobnimbus"]


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
        f"estimates {lifetime(Entity.ESTIMATES)}",
        f"files listed {lifetime(Entity.ATTACHMENTS)}",
        f"activities, calendar {lifetime(Entity.ACTIVITIES)}",
        f"tasks {lifetime(Entity.TASKS)}",
        f"work orders {lifetime(Entity.WORKORDERS)}",
        f"settings {lifetime(Entity.SETTINGS)}",
        f'"not found" {NEGATIVE_S}',
    ):
        assert said in told


def test_files_linked_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_changelog_has_the_version() -> None:
    from jobnimbus_mcp import __version__

    assert f"## {__version__}" in DOCUMENTS["CHANGELOG.md"]
