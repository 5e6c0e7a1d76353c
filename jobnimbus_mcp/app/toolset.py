"""The toolbox with every tool in it: those that read, those that write, and the two that find and use others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from jobnimbus_mcp.clock import Clock
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.bulk import Bulk
from jobnimbus_mcp.gateway.files import FileStore, StoredFiles
from jobnimbus_mcp.gateway.reads import Gateway
from jobnimbus_mcp.gateway.receipts import RowsKept
from jobnimbus_mcp.gateway.writing import Writes
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.settings.clients import unknown_tools
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.telemetry.tally import Tally
from jobnimbus_mcp.tools.bulk import bulk_tools
from jobnimbus_mcp.tools.file_tools import file_tools
from jobnimbus_mcp.tools.memo import AnswerMemo
from jobnimbus_mcp.tools.registry import all_tools
from jobnimbus_mcp.tools.setting_tools import setting_tools
from jobnimbus_mcp.tools.spec import ToolSpec
from jobnimbus_mcp.tools.toolbox import Toolbox
from jobnimbus_mcp.tools.write_table import write_tools

__all__ = ["build_toolbox"]


def build_toolbox(
    settings: Settings,
    *,
    gateway: Gateway,
    writes: Writes,
    rows_kept: RowsKept,
    files: FileStore,
    get_webhooks: Callable[..., Any],
    clock: Clock,
    tally: Tally,
    recorder: Recorder,
    log: FilteringBoundLogger,
    memo: AnswerMemo,
) -> Toolbox:
    """Every tool, as the settings allow.

    Raises:
        SettingsError: a client's token names a tool that there is not.
    """

    def usable(spec: ToolSpec, access: Access) -> bool:
        return toolbox.usable(spec, access)

    others = (
        *write_tools(),
        *file_tools(StoredFiles(files)),
        *setting_tools(),
        *bulk_tools(Bulk(writes, rows_kept, clock=clock)),
    )
    specs = all_tools(get_webhooks, others, usable)
    if mistakes := unknown_tools(settings.clients(), [spec.name for spec in specs]):
        raise SettingsError("; ".join(mistakes))
    toolbox = Toolbox(
        specs,
        gateway,
        clock,
        settings.account_timezone,
        settings.answer_max_bytes,
        tally,
        recorder,
        log,
        memo,
        writer=writes,
        read_only=settings.mcp_read_only,
        toolsets=frozenset(settings.mcp_toolsets),
    )
    return toolbox
