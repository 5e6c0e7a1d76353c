"""Every error tells a model what to do next, in its own words or in ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobnimbus_mcp import errors
from jobnimbus_mcp.errors import ConfirmationNeeded, ProjectError
from jobnimbus_mcp.tools.refusals_mcp import NEXT_STEPS, failed

SAYS_IT_ITSELF = {"invalid_argument", "unknown_tool", "missing_credential", "confirmation_needed"}
"""Their messages name what to send instead."""

WITH_A_TIME = {"upstream_rate_limited", "request_budget_exhausted"}
"""These always come with the seconds to wait."""

NEVER_OF_A_CALL = {"bad_settings", "unknown_payload"}


def kinds(of: type[ProjectError] = ProjectError) -> Iterator[type[ProjectError]]:
    for kind in of.__subclasses__():
        yield from (kind, *kinds(kind))


CODES = sorted(
    {kind.code for kind in kinds() if kind.__module__ == errors.__name__} - NEVER_OF_A_CALL - {ProjectError.code}
)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_next_step(code: str) -> None:
    assert code in NEXT_STEPS
    assert bool(NEXT_STEPS[code]) is (code not in SAYS_IT_ITSELF | WITH_A_TIME)


def test_codes_of_what_a_token_may_not_do_have_one_too() -> None:
    for code in ("tool_not_allowed", "instance_not_allowed", "read_only", "internal_error"):
        assert NEXT_STEPS[code]


def test_an_error_is_told_whole_in_its_order() -> None:
    error = errors.InvalidInput("size: too large.", field="size")
    assert failed(error, "r1").content[0].model_dump()["text"] == (
        "size: too large. (argument: size) [invalid_argument, request r1]"
    )
    waits = errors.RateLimited("This client has made too many requests.", retry_after_s=6.6)
    assert failed(waits, "r1").content[0].model_dump()["text"] == (
        "This client has made too many requests. Ask for more at once rather than often: larger pages, fewer calls. "
        "Try again in 7 seconds. [rate_limited, request r1]"
    )
    assert failed(ConfirmationNeeded("Sure?"), "r1").is_error
