"""The settings table, `.env.example`, `render.yaml` and the README say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from jobnimbus_mcp.settings import VARIABLES, Settings, Variable

ROOT = Path(__file__).parents[2]


def readme_row(row: Variable) -> str:
    default = f"`{row.default}`" if row.default and " " not in row.default else row.default
    return f"| `{row.name}` | {row.unit} | {default} | {row.reason} |"


def example_block(row: Variable) -> str:
    prefilled = "" if " " in row.default else row.default
    return f"# {row.reason}\n# Unit: {row.unit}. Default: {row.default or 'none'}.\n#{row.name}={prefilled}\n"


def documented(text: str, block: Callable[[Variable], str]) -> list[str]:
    """The names of the rows that are missing from `text` or differ there."""
    return [row.name for row in VARIABLES if block(row) not in text]


def test_the_readme_s_table_is_the_settings_table() -> None:
    text = (ROOT / "README.md").read_text()
    assert documented(text, readme_row) == []
    table = text.split("## Settings", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `([A-Z][^`]*)` \|", table, re.M) == [row.name for row in VARIABLES]


def test_the_example_file_is_the_settings_table() -> None:
    text = (ROOT / ".env.example").read_text()
    assert documented(text, example_block) == []
    assert re.findall(r"^#([A-Z][A-Z0-9_<>]*)=", text, re.M) == [row.name for row in VARIABLES]


def test_the_example_file_as_it_is_sets_nothing() -> None:
    assert Settings.from_env({"HOME": "/h"}, env_file=ROOT / ".env.example") == Settings.from_env({"HOME": "/h"})


def test_the_blueprint_names_every_variable_and_holds_no_secret() -> None:
    text = (ROOT / "render.yaml").read_text()
    named = re.findall(r"^\s*#?\s*- key: (\S+)$", text, re.M)
    assert sorted(named) == sorted([*(row.name for row in VARIABLES), "PYTHON_VERSION"])
    for row in VARIABLES:
        if row.secret:
            (entry,) = re.findall(rf"- key: {re.escape(row.name)}\n\s*#?\s*(\S+): ?(\S*)", text)
            assert entry in (("generateValue", "true"), ("sync", "false"), ("fromService", "")), row.name


def test_every_row_says_its_unit_and_reason() -> None:
    assert [row.name for row in VARIABLES if not row.unit or len(row.reason) < 15] == []
    assert len({row.name for row in VARIABLES}) == len(VARIABLES)
