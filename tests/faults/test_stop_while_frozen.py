"""A stop while every Redis is frozen and webhooks wait in the journal: short, however many, and nothing lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.settings import Settings

ACCOUNTS = ("east", "north", "west")
SECRET = "s3cret-of-the-webhooks-01"
AFTER_GRACE_S = 2.0
"""What a stop within 5 s leaves after the calls in flight have had their 3 s."""


@pytest.mark.parametrize("command_timeout_ms", [100, pytest.param(2_500, marks=pytest.mark.long)])
async def test_a_stop_is_short_however_many_stores_are_frozen_and_whatever_a_command_may_take(
    start_redis: Callable[..., Any], tmp_path: Path, command_timeout_ms: int
) -> None:
    servers = {name: start_redis() for name in ACCOUNTS}
    settings = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": ",".join(ACCOUNTS),
            "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
            "WEBHOOK_SECRET": SECRET,
            "REDIS_COMMAND_TIMEOUT_MS": str(command_timeout_ms),
            "DATA_DIR": str(tmp_path),
            **{f"REDIS_URL_{name.upper()}": server.url for name, server in servers.items()},
        }
    )
    app = build(settings, Overrides())
    try:
        async with (
            app.running(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://127.0.0.1", timeout=20) as http,
        ):
            for name in ACCOUNTS:
                assert await app.accounts.totals(name) == {}
                app.tally.add(name, "hits")
                os.kill(servers[name].pid, signal.SIGSTOP)
            for name in ACCOUNTS:
                answer = await http.post(
                    f"/webhooks/jobnimbus?token={SECRET}&instance={name}",
                    json={"event": "job.updated", "resource_type": "job", "resource_id": "j1"},
                )
                assert answer.status_code == 202
            began = time.monotonic()
        took_s = time.monotonic() - began
    finally:
        for server in servers.values():
            os.kill(server.pid, signal.SIGCONT)
    assert took_s < AFTER_GRACE_S
    assert sorted(name.partition(".")[0] for name in os.listdir(tmp_path / "journal")) == sorted(ACCOUNTS)
