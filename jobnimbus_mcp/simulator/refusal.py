"""The one exception of the simulator: an answer with an error status."""

from __future__ import annotations

__all__ = ["UNRELATED", "Refusal"]

UNRELATED = "Attempt to relate to invalid document"


class Refusal(Exception):
    """The API says no: `status` and the plain text of the body (JobNimbus's errors are mostly plain text)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
