"""What is done when the process is told to stop, before the server that runs it hears of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["also_on_signals"]


@contextmanager
def also_on_signals(act: Callable[[], Any]) -> Iterator[None]:
    """SIGINT and SIGTERM do this first, and then what they did before; outside the main thread they cannot be heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def told(number: int, frame: FrameType | None) -> None:
        act()
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)
        elif earlier is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            # whoever has put another one over it meanwhile keeps that
            if signal.getsignal(number) is told:
                signal.signal(number, handler)
