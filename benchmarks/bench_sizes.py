"""How many bytes an agent reads: default answers against the same records as JobNimbus has them, and the list of tools.

Simulator and server in this process, no socket, a few seconds. Goal: a default answer is at most 40 % of the raw one,
of every tool and of all of them together. `get_users` misses it: under JobNimbus's own field names the id and the name
of a user are half of what it tells of one.

    python benchmarks/bench_sizes.py
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import httpx
import structlog
from rig import Goals

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator

INSTANCE = "stamford"
ROWS = 25
SHARE_MOST = 0.40
ONE = "get_job"
LISTS = (
    *("get_jobs", "search_jobs", "get_contacts", "search_contacts", "get_estimates", "get_invoices"),
    *("get_activities", "get_calendar_activities", "get_tasks", "get_attachments", "get_users"),
)


def size_bytes(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


async def run() -> int:
    clock, goals = ManualClock(), Goals()
    sim = Simulator(clock=clock, instances=(INSTANCE,))
    settings = {
        "JOBNIMBUS_API_BASE_URL": "http://sim/api1",
        "JOBNIMBUS_INSTANCES": INSTANCE,
        "JOBNIMBUS_MAX_REQUESTS_PER_S": "0",
        # both answers hold all the rows, so that the same records are compared
        "ANSWER_MAX_BYTES": "10000000",
    }
    app = build(Settings.from_env(settings), Overrides(clock=clock, upstream_transport=httpx.ASGITransport(sim.app)))
    headers = {"X-JobNimbus-Api-Key": sim.keys[INSTANCE][0]}
    reached = httpx.ASGITransport(app.asgi)
    async with (
        app.running(),
        httpx.AsyncClient(transport=reached, base_url="http://localhost", headers=headers) as http,
    ):

        async def ask(tool: str, **arguments: Any) -> dict[str, Any]:
            body = {"name": tool, "arguments": arguments}
            response = await http.post("/mcp/tools/call", json=body)
            response.raise_for_status()
            answer: dict[str, Any] = response.json()["data"]
            return answer

        job = (await ask("get_jobs", size=1))["results"][0]["jnid"]
        print(f"bytes of an answer of {ROWS} records, and as a share of the same records raw")
        print(f"{'tool':26}{'raw':>9}{'detailed':>15}{'compact':>15}{'table':>15}{'summary':>15}")
        all_raw = all_shown = 0
        for tool in (ONE, *LISTS):
            arguments = {"job_id": job} if tool == ONE else {"size": ROWS}
            raw = size_bytes(await ask(tool, verbosity="raw", **arguments))
            shown = [await ask(tool, verbosity=level, **arguments) for level in ("detailed", "compact", "summary")]
            sizes = [size_bytes(answer) for answer in shown]
            sizes[2:2] = [size_bytes(await ask(tool, format="table", **arguments))] if tool != ONE else [0]
            told = "".join(f"{size:>9}{size / raw:>6.2f}" if size else f"{'':>15}" for size in sizes)
            print(f"{tool:26}{raw:>9}{told}")
            all_raw, all_shown = all_raw + raw, all_shown + sizes[1]
            goals.check(tool, sizes[1] <= raw * SHARE_MOST, f"{sizes[1] / raw:.3f} of raw, at most {SHARE_MOST}")
        share = all_shown / all_raw
        goals.check("all together", share <= SHARE_MOST, f"{share:.3f} of raw, at most {SHARE_MOST}")
        tools = (await http.post("/mcp/tools/list", json={})).json()["tools"]
        print(f"the list of {len(tools)} tools: {size_bytes(tools)} bytes")
    await sim.aclose()
    return goals.end()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(asyncio.run(run()))
