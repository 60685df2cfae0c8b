"""Test the thread that writes: one write at a time, in order, and no error is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import pytest
from helpers.killing import in_a_child
from helpers.waiting import fail_if_it_waits

from pggan_kit.system.background_writer import BackgroundWriter, wait_for_writes


def test_writes_follow_each_other_and_the_process_goes_on() -> None:
    events: list[str] = []
    goes_on = threading.Event()
    writer = BackgroundWriter()

    def write_first() -> None:
        goes_on.wait()
        events.append("first")

    with fail_if_it_waits():
        writer.begin(write_first)
        events.append("goes on")
        goes_on.set()
        writer.begin(lambda: events.append("second"))
        writer.finish()
        writer.finish()
    assert events == ["goes on", "first", "second"]


def test_an_error_is_raised_once_where_the_write_is_finished() -> None:
    written: list[str] = []
    writer = BackgroundWriter()

    def fail() -> None:
        raise OSError("no space left")

    writer.begin(fail)
    wait_for_writes()
    with pytest.raises(OSError, match="no space left"):
        writer.begin(lambda: written.append("not begun"))
    writer.begin(lambda: written.append("the next"))
    writer.finish()
    assert written == ["the next"]


def test_what_reads_waits_but_for_the_thread_that_writes() -> None:
    events: list[str] = []
    writer = BackgroundWriter()
    goes_on = threading.Event()

    def write() -> None:
        goes_on.wait()
        wait_for_writes()
        events.append("written")

    with fail_if_it_waits():
        writer.begin(write)
        threading.Timer(0.05, goes_on.set).start()
        wait_for_writes()
        events.append("read")
        writer.finish()
    assert events == ["written", "read"]


def test_a_fork_does_not_wait_for_a_thread_that_it_has_not() -> None:
    goes_on = threading.Event()
    writer = BackgroundWriter()
    writer.begin(goes_on.wait)

    def read_and_finish() -> None:
        with fail_if_it_waits():
            wait_for_writes()
            writer.finish()

    try:
        assert in_a_child(read_and_finish) == 0
    finally:
        goes_on.set()
        writer.finish()


@pytest.mark.parametrize("wait", [BackgroundWriter.finish, lambda writer: wait_for_writes()], ids=["finish", "read"])
def test_a_signal_ends_the_wait_and_not_the_write(wait: Callable[[BackgroundWriter], None]) -> None:
    """Also a second one."""
    events: list[str] = []
    goes_on = threading.Event()
    writer = BackgroundWriter()

    def write() -> None:
        goes_on.wait()
        events.append("written")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with fail_if_it_waits():
            writer.begin(write)
            for _ in range(2):
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
                with pytest.raises(KeyboardInterrupt):
                    wait(writer)
                events.append("interrupted")
            threading.Timer(0.05, goes_on.set).start()
            wait(writer)
            events.append("goes on")
            writer.finish()
    finally:
        goes_on.set()
        signal.signal(signal.SIGUSR1, before)
    assert events == ["interrupted", "interrupted", "written", "goes on"]


def test_nobody_waits_for_a_thread_that_could_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = BackgroundWriter()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            writer.begin(lambda: None)
    with fail_if_it_waits():
        wait_for_writes()
        writer.finish()
