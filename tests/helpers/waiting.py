"""A guard for tests of what must not wait: a named pipe that nobody writes to would hold them for ever."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from helpers.patience import PATIENCE_SECONDS


@contextlib.contextmanager
def fail_if_it_waits(seconds: int = PATIENCE_SECONDS // 10) -> Iterator[None]:
    """Fail where a block, in the main thread, takes longer than this."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
