"""SIGINT and SIGTERM: the first asks the loop to finish its step and save; the second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class StoppedAtOnce(KeyboardInterrupt):
    """A signal that ends the process at once. Like Ctrl-C, it passes through a plugin's `except Exception`.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.exit_code = 128 + number


class StopSignals:
    """Remembers the first signal in `received`, within a `with` block. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise StoppedAtOnce(number)
        self.received = number


@contextlib.contextmanager
def exit_in_order_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, within a block: files are closed and temporary files removed.

    Training reacts to signals by itself (`StopSignals`). Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    raise StoppedAtOnce(number)


def signal_this_process(number: int) -> None:
    """Send a signal to this process, whose handler then runs in the main thread.

    Args:
        number: Number of the signal.
    """
    if sys.platform == "win32":
        # There `os.kill` ends the process whatever its handlers are.
        signal.raise_signal(number)
    else:
        # Unlike `raise_signal` in another thread, it also interrupts what the main thread waits for.
        os.kill(os.getpid(), number)
