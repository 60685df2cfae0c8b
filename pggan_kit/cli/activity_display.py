"""Show what a command does and how far it is: bars in a terminal, and a line now and then in a file."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from pggan_kit.system.activities import Activity, Details, receive_activities

SILENT_SECONDS = 10.0
"""Seconds without a sign of life, after which a line says what is done."""

SHARE_BETWEEN_LINES = 0.1
"""Time between two lines as a share of the time that was needed so far, where that is longer."""

BAR_SECONDS = 0.5
"""Seconds after which bars appear in a terminal: what is shorter would only flicker."""

WAKING_SECONDS = 0.25
"""Seconds between two looks at an activity that cannot be counted, or whose items take long."""

DETAILS_SECONDS = 2.0
"""Seconds after which the details of activities are asked for again."""

JOINED_SECONDS = 1.0
"""Maximum seconds between two activities that count as one."""


class Bars(Progress):
    """Bars, and below them the details of activities.

    Attributes:
        details: What is shown below the bars.
    """

    details: Sequence[Details] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars, and a table and lines for each of the details."""
        yield from super().get_renderables()
        for details in self.details:
            if details.rows:
                yield _build_table(details)
            for line in details.lines:
                yield Text(line, "dim", no_wrap=True, overflow="ellipsis")


def _build_table(details: Details) -> Table:
    """Return the table of details; the columns after the first two hold numbers."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(details.head):
        table.add_column(Text(name, "bold"), justify="right" if number > 1 else "left", no_wrap=True)
    for row in details.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


class ActivityDisplay:
    """The activities of a command that are not over yet.

    Args:
        console: Console on stderr.
        print_line: Function that prints a line there.
    """

    def __init__(self, console: Console, print_line: Callable[[str], None]) -> None:
        self._console = console
        self._print_line = print_line
        self._open: list[Activity] = []
        self._began = time.monotonic()
        self._last_line = self._began
        self._last_end = -JOINED_SECONDS
        self._bars: Bars | None = None
        self._details_asked = 0.0
        self._tasks: dict[int, TaskID] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._waking: threading.Thread | None = None

    def receive(self, activity: Activity) -> None:
        """Show an activity that begins, advances or ends."""
        with self._lock:
            if activity.over:
                self._remove(activity)
                return
            if activity not in self._open:
                self._add(activity)
            self._refresh()

    def stop(self) -> None:
        """Remove all bars, and print nothing more."""
        self._ended.set()
        if self._waking is not None:
            self._waking.join()
        with self._lock:
            self._stop_bars()

    def _add(self, activity: Activity) -> None:
        # Short activities that follow one another are one long time of silence.
        now = time.monotonic()
        if not self._open and now - self._last_end > JOINED_SECONDS:
            self._began = now
            self._last_line = now
        self._open.append(activity)
        if self._waking is None:
            self._waking = threading.Thread(target=self._wake, name="activities", daemon=True)
            self._waking.start()

    def _remove(self, activity: Activity) -> None:
        if activity in self._open:
            self._open.remove(activity)
        task = self._tasks.pop(id(activity), None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)
        if not self._open:
            self._last_end = time.monotonic()
            self._stop_bars()

    def _wake(self) -> None:
        """Show how long it takes where nothing advances."""
        while not self._ended.wait(WAKING_SECONDS):
            with self._lock:
                self._refresh()

    def _refresh(self) -> None:
        """Draw bars or print a line, where they are due."""
        if not self._open:
            return
        now = time.monotonic()
        # While a run has a display of its own in the terminal, lines are printed, which stand above it.
        is_taken = self._bars is None and isinstance(sys.stderr, FileProxy)
        if self._console.is_terminal and not is_taken:
            if now - self._began >= BAR_SECONDS:
                self._draw_bars()
        elif now - self._last_line >= max(SILENT_SECONDS, SHARE_BETWEEN_LINES * (now - self._began)):
            self._last_line = now
            described = "; ".join(activity.describe() for activity in self._open)
            self._print_line(f"{described} ({now - self._began:.0f} s)")

    def _draw_bars(self) -> None:
        if self._bars is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn())
            self._bars = Bars(*columns, console=self._console, transient=True, redirect_stdout=False)
            self._details_asked = -DETAILS_SECONDS
        for activity in self._open:
            task = self._tasks.get(id(activity))
            if task is None:
                task = self._bars.add_task("", total=activity.total)
                self._tasks[id(activity)] = task
            self._bars.update(task, completed=activity.done, description=activity.describe())

        now = time.monotonic()
        if now - self._details_asked >= DETAILS_SECONDS:
            self._details_asked = now
            self._bars.details = [each.details() for each in self._open if each.details is not None]
        self._bars.start()  # the first time; they are drawn again by a thread of their own

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


@contextmanager
def show_activities(console: Console, print_line: Callable[[str], None]) -> Iterator[None]:
    """Show the activities of a block; where several processes train together, only the first does."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    display = ActivityDisplay(console, print_line)
    try:
        with receive_activities(display.receive):
            yield
    finally:
        display.stop()
