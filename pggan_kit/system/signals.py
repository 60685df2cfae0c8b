"""SIGINT, SIGTERM and SIGHUP: the first asks the loop to finish its step and save; the second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Names of the signals that ask a process to end; Windows lacks the last, which a terminal sends that is closed."""


class StoppedAtOnce(KeyboardInterrupt):
    """A signal that ends the process at once. Like Ctrl-C, it passes through a plugin's `except Exception`.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.exit_code = 128 + number


class StopSignals:
    """Remembers the first signal in `received`, within a `with` block. Does nothing outside the main thread.

    Signals that the caller ignores stay ignored, as `nohup` and shells want it that start jobs in the background.

    Attributes:
        received: Number of the first signal; None before it.
        announce: Function that is called with it as it comes; None where nothing is to be said.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.announce: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = _set_handlers(NAMES, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _restore_handlers(self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise StoppedAtOnce(number)
        self.received = number
        if self.announce is not None:
            self.announce(number)


@contextlib.contextmanager
def exit_in_order_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, within a block: files are closed, temporary ones removed.

    Training reacts to signals by itself (`StopSignals`). Does nothing outside the main thread, and nothing about a
    signal that is ignored.
    """
    before = _set_handlers(NAMES[1:], _exit_at_once)
    try:
        yield
    finally:
        _restore_handlers(before)


def _set_handlers(names: tuple[str, ...], handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let a function handle signals that this system has and nobody ignores; return the handlers before, by number."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    return before


def _restore_handlers(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


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
