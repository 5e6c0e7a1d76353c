"""A small simulated JobNimbus on a manual clock, and HTTP clients that speak to it in process."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Account, Simulator


@pytest.fixture
def sim_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sim(sim_clock: ManualClock) -> Simulator:
    return Simulator(clock=sim_clock)


@pytest.fixture(scope="session")
def pristine() -> Account:
    """The account as seeded, made once; its clock stands still."""
    return Simulator(instances=("stamford",), clock=ManualClock()).account("stamford")


@pytest.fixture
def account(pristine: Account) -> Account:
    """A copy of the seeded account, to be changed at will."""
    return copy.copy(pristine)


@pytest.fixture
async def web(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole server, without a key."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sim.app), base_url="http://sim") as client:
        yield client


@pytest.fixture
async def api(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with the full-access key of stamford."""
    headers = {"Authorization": f"bearer {sim.keys['stamford'][0]}"}
    transport = httpx.ASGITransport(app=sim.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sim/api1", headers=headers) as client:
        yield client


@pytest.fixture
async def restricted(sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with the key of stamford that sees only its own records."""
    headers = {"Authorization": f"bearer {sim.keys['stamford'][1]}"}
    transport = httpx.ASGITransport(app=sim.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sim/api1", headers=headers) as client:
        yield client
