"""The list of tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.tools import calendar, configuration, inputs
from jobnimbus_mcp.tools.context import ToolContext
from jobnimbus_mcp.tools.finding import meta_tools
from jobnimbus_mcp.tools.spec import LIST_OUTPUT, ToolSpec
from jobnimbus_mcp.tools.table import table_tools

__all__ = ["all_tools", "read_tools"]


def read_tools(get_webhooks: Callable[[ToolContext, inputs.NoArgs], Any]) -> tuple[ToolSpec, ...]:
    """The tools that read, in the order they are listed: those of the table, and those that are like no other."""
    return (
        *table_tools(),
        ToolSpec(
            "get_calendar_activities",
            "List the calendar",
            "List scheduled tasks, jobs and work orders between two days, in time order; default the next 30 days.",
            Entity.CALENDAR,
            inputs.CalendarArgs,
            LIST_OUTPUT,
            plan=calendar.get_calendar_activities,
            toolset="work",
        ),
        ToolSpec(
            "get_units",
            "List units of measure",
            "List the units (SQ, LF, EA, ...) in which products are counted.",
            Entity.PRODUCTS,
            configuration.UnitsArgs,
            handler=configuration.get_units,
            toolset="sales",
            default=False,
        ),
        ToolSpec(
            "get_settings",
            "Get the account's settings",
            "The account's workflows with their statuses, lead sources, types and groups. Use it before writing one.",
            Entity.SETTINGS,
            configuration.SettingsArgs,
            handler=configuration.get_settings,
            toolset="account",
            default=False,
        ),
        ToolSpec(
            "get_webhooks",
            "How webhooks are set up",
            "The webhook URLs to enter in JobNimbus's automations, and which kinds of webhook have arrived.",
            Entity.SETTINGS,
            inputs.NoArgs,
            handler=get_webhooks,
            toolset="account",
        ),
    )


def all_tools(
    get_webhooks: Callable[[ToolContext, inputs.NoArgs], Any],
    writes: Sequence[ToolSpec],
    usable: Callable[[ToolSpec, Access], bool],
) -> tuple[ToolSpec, ...]:
    """Every tool: those that read, those that write, and the two that find and use others among them.

    `usable`: may this caller use that tool? Asked when find_tools is called, so it may be the toolbox's own answer.
    """
    others = (*read_tools(get_webhooks), *writes)
    return (*others, *meta_tools(usable, lambda: others, writes=any(spec.effect.writes for spec in writes)))
