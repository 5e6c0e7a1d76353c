"""A server over stdin and stdout with a tool that asks first; started by tests as a process of its own."""

from __future__ import annotations

import asyncio
import sys

import httpx
from faces import Dropper, face_of

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.settings import Settings


async def main(data_dir: str) -> None:
    app = build(
        Settings.from_env({"JOBNIMBUS_API_KEY": "k" * 24, "DATA_DIR": data_dir, "LOG_LEVEL": "critical"}),
        # nothing here asks JobNimbus
        Overrides(upstream_transport=httpx.MockTransport(lambda request: httpx.Response(500)), background=False),
    )
    async with app.running():
        await face_of(app, Dropper().spec()).run_stdio()


asyncio.run(main(sys.argv[1]))
