"""What the log tells of a defect: its type and its place in the code."""

from __future__ import annotations

import traceback

__all__ = ["defect_fields"]

_FRAMES = 12


def defect_fields(defect: BaseException) -> dict[str, object]:
    """`error_type` and `where` (`file:line function`, outermost first, the last twelve) for a log line.

    Neither the message nor the values of an exception: they may hold a customer's data.
    """
    frames = traceback.extract_tb(defect.__traceback__)[-_FRAMES:]
    return {
        "error_type": type(defect).__name__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
