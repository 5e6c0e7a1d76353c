"""Where log lines go, in which form, and what they do not hold."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from jobnimbus_mcp.telemetry.logging import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_where_there_is_no_terminal(stream: io.StringIO) -> None:
    configure("info", "auto", stream=stream)
    structlog.get_logger().info("tool called", tool="get_jobs", request_id="r-12345678")
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"level": "info", "event": "tool called", "tool": "get_jobs", "request_id": "r-12345678"}


def test_a_terminal_gets_text_with_the_same_fields(stream: io.StringIO) -> None:
    terminal = Terminal()
    configure("info", "auto", stream=terminal)
    structlog.get_logger().info("tool called", tool="get_jobs")
    assert "tool called" in terminal.getvalue()
    assert "get_jobs" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_events_below_the_level_are_not_written(stream: io.StringIO) -> None:
    configure("warning", "json", stream=stream)
    structlog.get_logger().info("too quiet")
    structlog.get_logger().warning("heard")
    assert [line["event"] for line in lines(stream)] == ["heard"]


def test_libraries_are_heard_from_warning_on_also_at_debug(stream: io.StringIO) -> None:
    configure("debug", "json", stream=stream)
    logging.getLogger("httpx").info("HTTP Request: GET https://app.jobnimbus.com/api1/jobs?filter=x")
    logging.getLogger("mcp.server").info("Terminating session: None")
    logging.getLogger("uvicorn.error").warning("slow %s", "client")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("slow client", "warning", "uvicorn.error")


def test_secrets_are_masked_on_both_roads_and_in_tracebacks(stream: io.StringIO) -> None:
    configure("info", "json", stream=stream, secrets=["the-admin-token-1"])
    try:
        raise ValueError("cannot use the-admin-token-1")
    except ValueError:
        structlog.get_logger().exception("own", given="the-admin-token-1", api_key="abc")
        logging.getLogger("library").exception("theirs: the-admin-token-1, Authorization: bearer abcdef")
    told = stream.getvalue()
    assert told.count("ValueError") >= 2
    assert "the-admin-token-1" not in told
    assert "abc" not in told


def test_configuring_twice_writes_each_line_once(stream: io.StringIO) -> None:
    configure("info", "json", stream=io.StringIO())
    configure("info", "json", stream=stream)
    logging.getLogger("library").warning("once")
    assert [line["event"] for line in lines(stream)] == ["once"]


def test_python_warnings_become_log_lines(stream: io.StringIO) -> None:
    configure("info", "json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old ways", UserWarning, stacklevel=1)
    assert "old ways" in str(lines(stream)[0]["event"])


def test_nothing_is_written_to_stdout_and_the_sdk_keeps_its_hands_off() -> None:
    """The MCP SDK's constructor calls basicConfig, which does nothing once there is a handler."""
    code = (
        "import logging, structlog\n"
        "from jobnimbus_mcp.telemetry.logging import configure\n"
        "configure('info', 'json')\n"
        "from mcp.server import MCPServer\n"
        "MCPServer('probe')\n"
        "assert len(logging.getLogger().handlers) == 1\n"
        "logging.getLogger('mcp.server').info('noise')\n"
        "structlog.get_logger().info('ours')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == ""
    assert [json.loads(line)["event"] for line in ran.stderr.splitlines()] == ["ours"]
