"""The kinds of event log there are, each in a world of its own."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator

import pytest
from events_world import World


# a broker lets each member of a group wait for the others: a second for every one of them
@pytest.fixture(params=["memory", "redis", "postgres", pytest.param("kafka", marks=pytest.mark.long)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Imported here, so that a kind of log that is broken or missing fails its own tests alone."""
    kind = importlib.import_module(f"events_world_{request.param}")
    async with kind.world(request) as made:
        yield made
