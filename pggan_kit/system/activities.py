"""Say what takes long, and how far it is: whatever does it reports an activity, and a command shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Details(NamedTuple):
    """What is shown below an activity, in a terminal.

    Attributes:
        head: The names of the columns of a table.
        rows: The cells of each row.
        lines: Lines below the table.
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[str]


class Activity:
    """Something that may take long.

    Attributes:
        what: What is done, as `resizing images`.
        total: Number of all items; None where they cannot be counted.
        unit: What the items are, as `images`.
        done: Number of items that are done.
        over: Whether it has ended.
        details: Function that returns what is shown below it, which may be called in another thread; None for nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        receiver: Receiver,
        details: Callable[[], Details] | None = None,
    ) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.details = details
        self.done = 0
        self.over = False
        self._receiver = receiver

    def advance(self, count: int = 1) -> None:
        """Report that further items are done."""
        self.done += count
        self._receiver(self)

    def describe(self) -> str:
        """Return what is done and how far it is: `resizing images: 12,000 of 50,000 images`."""
        if self.total is None:
            return self.what
        return f"{self.what}: {self.done:,} of {self.total:,} {self.unit}"


Receiver = Callable[[Activity], None]
"""Function that is called when an activity begins, advances and ends, in the thread that reports it."""


def _ignore(activity: Activity) -> None:
    """Show nothing."""


_RECEIVER: ContextVar[Receiver] = ContextVar("receiver", default=_ignore)


@contextmanager
def receive_activities(receiver: Receiver) -> Iterator[None]:
    """Let a function receive the activities that this thread reports within a block, in place of any other.

    Args:
        receiver: Function that is given an `Activity` when it begins, advances and ends (`over` is true then).
    """
    token = _RECEIVER.set(receiver)
    try:
        yield
    finally:
        _RECEIVER.reset(token)


@contextmanager
def report_activity(
    what: str,
    total: int | None = None,
    unit: str = "images",
    details: Callable[[], Details] | None = None,
) -> Iterator[Activity]:
    """Report that a block may take long; activities within it may be reported too.

    Args:
        what: What is done, as `resizing images`.
        total: Number of all items, of which `advance` reports those that are done; None where they cannot be counted.
        unit: What the items are.
        details: Function that returns what is shown below it in a terminal, see `Activity`.
    """
    # The receiver gets it twice: at its beginning, and when it is over, however it ended.
    receiver = _RECEIVER.get()
    activity = Activity(what, total, unit, receiver, details)
    receiver(activity)
    try:
        yield activity
    finally:
        activity.over = True
        receiver(activity)


def track_items(items: Iterable[T], what: str, total: int | None = None, unit: str = "images") -> Iterator[T]:
    """Yield items, and report each as done when the next one is asked for.

    Args:
        items: The items.
        what, total, unit: See `report_activity`.
    """
    with report_activity(what, total, unit) as activity:
        for item in items:
            yield item
            activity.advance()
