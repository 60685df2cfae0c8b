"""Write files in a thread while the process goes on, and wait for it where they are read."""

from __future__ import annotations

import threading
from collections.abc import Callable

_writing: set[threading.Thread] = set()
"""Threads of this process that may still be writing."""


class BackgroundWriter:
    """A writer that writes one thing at a time, in a thread, in the order in which the writes were begun."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, write: Callable[[], object]) -> None:
        """Begin a write, once the one before has ended.

        Args:
            write: The function that writes. What it reads must not change until it has ended.

        Raises:
            BaseException: What the write before raised; this one is not begun then.
        """
        self.finish()
        # A thread that is no daemon is waited for at the end of the process, whatever ends it but a kill.
        self._thread = threading.Thread(target=self._run, args=(write,), name="writer", daemon=False)
        _writing.add(self._thread)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was begun is written.

        Raises:
            BaseException: What the write raised; the next call does not raise it again.
        """
        if self._thread is not None:
            _wait_for(self._thread)
            _writing.discard(self._thread)
            self._thread = None
        error = self._error
        self._error = None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error


def wait_for_writes() -> None:
    """Wait until no thread of this process writes: what is read next does not depend on the speed of the disk.

    A thread that writes does not wait: what it reads is what was there before. An error of a write is raised where the
    write is finished, and not here.
    """
    if threading.current_thread() not in _writing:
        for thread in list(_writing):
            _wait_for(thread)


def _wait_for(thread: threading.Thread) -> None:
    # In a fork of a process that was writing, the thread is not there.
    if thread.is_alive():
        thread.join()
