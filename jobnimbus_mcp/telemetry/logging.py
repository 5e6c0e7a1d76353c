"""Structured logs on stderr: JSON lines or a console, one road for our own events and for the libraries' warnings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from jobnimbus_mcp.telemetry.redact import Redactor

__all__ = ["configure"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def configure(
    level: str = "info",
    form: str = "auto",
    *,
    stream: TextIO | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Send every log line of this process to `stream` (stderr), redacted. Calling it again replaces what was set.

    `level`: of our own events; libraries are heard from WARNING on whatever it is, because their INFO lines hold URLs
    with query strings. `form`: "json", "console", or "auto" (console on a terminal). `secrets`: masked wherever they
    turn up. To be called before the MCP SDK is constructed, which installs a handler of its own when there is none.
    """
    target = sys.stderr if stream is None else stream
    colours = form != "json" and target.isatty()
    threshold = _LEVELS[level]
    redactor = Redactor(secrets)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        # last, so that nothing added by the others gets by
        redactor.event,
    ]
    as_json = form == "json" or (form == "auto" and not colours)
    render: Processor = (
        _json_line
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(True)


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered: dict[str, Any] = {"timestamp": event.pop("timestamp", None), "level": event.pop("level", None)}
    ordered |= {"event": event.pop("event", ""), **event}
    return orjson.dumps(ordered, option=orjson.OPT_NON_STR_KEYS).decode()
