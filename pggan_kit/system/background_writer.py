"""Write files in a thread while the process goes on, and wait for it where they are read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class _WritingThread(threading.Thread):
    """A thread that writes.

    Who waits for it waits for an event of its own: a signal whose handler raises within `Thread.join` makes Python 3.11
    believe that the thread has ended.

    Attributes:
        ended: Whether the write has ended, however it did.
        error: What the write raised.
        process: The process that it runs in. In a fork of that, it is not there.
    """

    def __init__(self, write: Callable[[], object]) -> None:
        # A thread that is no daemon is waited for at the end of the process, whatever ends it but a kill.
        super().__init__(target=write, name="writer", daemon=False)
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.process = os.getpid()

    def start(self) -> None:
        """Begin to write.

        Raises:
            RuntimeError: The system has no thread left.
        """
        try:
            super().start()
        except BaseException:
            # A signal may have come before or after the thread began.
            if self not in threading.enumerate():
                self.ended.set()
            raise

    def run(self) -> None:
        """Write, and keep an error for those who wait."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()


_writing: set[_WritingThread] = set()
"""Threads of this process that may still be writing."""


class BackgroundWriter:
    """A writer that writes one thing at a time, in a thread, in the order in which the writes were begun."""

    def __init__(self) -> None:
        self._thread: _WritingThread | None = None

    def begin(self, write: Callable[[], object]) -> None:
        """Begin a write, once the one before has ended.

        Args:
            write: The function that writes. What it reads must not change until it has ended.

        Raises:
            BaseException: What the write before raised; this one is not begun then.
        """
        self.finish()
        self._thread = _WritingThread(write)
        _writing.add(self._thread)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was begun is written. A signal that ends the wait does not end the write.

        Raises:
            BaseException: What the write raised; the next call does not raise it again.
        """
        thread = self._thread
        if thread is None:
            return
        _wait_for(thread)
        self._thread = None
        _writing.discard(thread)
        if thread.error is not None:
            raise thread.error


def wait_for_writes() -> None:
    """Wait until no thread of this process writes: what is read next does not depend on the speed of the disk.

    A thread that writes does not wait: what it reads is what was there before. An error of a write is raised where the
    write is finished, and not here.
    """
    if threading.current_thread() not in _writing:
        for thread in list(_writing):
            _wait_for(thread)


def _wait_for(thread: _WritingThread) -> None:
    if thread.process == os.getpid():
        thread.ended.wait()
