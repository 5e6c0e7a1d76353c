"""The limit on a caller's requests: who is counted as one caller, and what each answer tells of what is left."""

from __future__ import annotations

import math
from typing import Any

from starlette.datastructures import Headers

from jobnimbus_mcp.errors import CallerError, RateLimited
from jobnimbus_mcp.gateway.access import Access
from jobnimbus_mcp.gateway.caller_rate import CallerRate
from jobnimbus_mcp.telemetry.recorder import Recorder
from jobnimbus_mcp.web.named import named_by
from jobnimbus_mcp.web.ports import Identify

__all__ = ["Limits"]

_NOBODY = "nobody"
"""Who has neither a token nor a key, or says neither whose: all such are one, and are answered little."""

_KEY, _OAUTH = "key:", "oauth:"


class Limits:
    """A caller is known by its token; without one by the digest of its JobNimbus key; never by its address.

    `per_minute`: of callers whose token has no number of its own; 0 is no limit, and nothing is asked of `rate`.
    """

    def __init__(self, rate: CallerRate, identities: Identify, *, per_minute: int, recorder: Recorder) -> None:
        self._rate = rate
        self._identities = identities
        self._per_minute = per_minute
        self._recorder = recorder

    async def spend(self, access: Access, headers: Headers, state: dict[str, Any]) -> None:
        """Count one request. What is left goes into `state["headers"]`, which every answer to the request is given.

        Raises:
            RateLimited: it is one too many.
        """
        per_minute = self._per_minute if access.requests_per_minute is None else access.requests_per_minute
        if per_minute == 0:
            return
        who = access.client or self._holder(headers, access)
        allowance = await self._rate.spend(who, per_minute)
        state["headers"] = (
            (b"x-ratelimit-limit", str(allowance.limit).encode()),
            (b"x-ratelimit-remaining", str(allowance.remaining).encode()),
            (b"x-ratelimit-reset", str(math.ceil(allowance.reset_s)).encode()),
        )
        if not allowance.granted:
            self._recorder.count("rate_limited", client=_label(who))
            raise RateLimited(
                f"You may make {per_minute} requests a minute, and have made them.", retry_after_s=allowance.wait_s
            )

    def _holder(self, headers: Headers, access: Access) -> str:
        """Whoever holds the JobNimbus key that this request would be answered with."""
        try:
            caller = self._identities.identify(*named_by(headers), access)
        except CallerError:
            return _NOBODY  # the tool says what is wrong
        return f"{_KEY}{caller.bearer}"


def _label(who: str) -> str:
    """The names of settings as they are; of keys and of an issuer's users there may be any number."""
    return next((kind.rstrip(":") for kind in (_KEY, _OAUTH) if who.startswith(kind)), who)
