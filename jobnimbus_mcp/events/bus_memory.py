"""MemoryBus: the bus of a server that is one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from jobnimbus_mcp.telemetry.defects import defect_fields

__all__ = ["MemoryBus"]


class MemoryBus:
    """Implements Bus: whoever listens has heard it when `publish` returns."""

    def __init__(self) -> None:
        self._heard: dict[int, Callable[[str, str], None]] = {}
        self._number = 0

    async def publish(self, instance: str, messages: Sequence[str]) -> None:
        for heard in list(self._heard.values()):
            for message in messages:
                try:
                    heard(instance, message)
                except Exception as defect:  # a listener's own: the others must hear it all the same
                    structlog.get_logger().error("a listener failed", **defect_fields(defect))

    def listen(self, heard: Callable[[str, str], None]) -> Callable[[], None]:
        self._number += 1
        number = self._number
        self._heard[number] = heard

        def stop() -> None:
            self._heard.pop(number, None)

        return stop
