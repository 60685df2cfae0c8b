"""Test the thread that writes: one write at a time, in order, and no error is lost."""

from __future__ import annotations

import threading

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
