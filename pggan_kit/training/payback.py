"""Say when compiling has paid for itself, from its own measured times."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class PassSeconds(NamedTuple):
    """Seconds of one backward pass, taken eagerly and compiled."""

    eager: float
    compiled: float


class Payback:
    """The account of what compiling costs and saves in one region of a run.

    Args:
        place: The region, for people: `14x14 (fade)`.
        images: The clock at its beginning.
        log: A function that takes a sentence for the log.
    """

    def __init__(self, place: str, images: int, log: Callable[[str], None]) -> None:
        self._place = place
        self._first_images = images
        self._log = log
        self._compiling = 0.0
        self._eager = 0.0
        self._compiled = 0.0
        self._steps = 0
        self._last_images = -1
        self._paid = False

    def add_compiling(self, seconds: float) -> None:
        """Count seconds in which nothing was trained; the account is open again."""
        self._compiling += seconds
        self._paid = False

    def add_pass(self, seconds: PassSeconds, images: int) -> None:
        """Count a compiled pass, and log when all of them together have saved what compiling has cost.

        Args:
            seconds: The times of the pass.
            images: The clock before the step that the pass belongs to.
        """
        self._eager += seconds.eager
        self._compiled += seconds.compiled
        # All passes of a step have the same clock.
        if images != self._last_images:
            self._steps += 1
            self._last_images = images

        if not self._paid and self._eager - self._compiled >= self._compiling:
            self._paid = True
            spent = images - self._first_images
            self._log(
                f"compiling at {self._place} has paid for itself after {spent:,} images ({self._describe_times()})"
            )

    def drop(self) -> None:
        """Forget what compiling has cost so far, and log nothing of it."""
        self._compiling = 0.0

    def close(self, images: int) -> None:
        """Log, as the region ends, that compiling did not pay for itself, if that is so.

        Args:
            images: The clock at its end.
        """
        if self._compiling == 0 or self._paid:
            return
        spent = images - self._first_images
        line = f"compiling at {self._place} did not pay for itself in {spent:,} images ({self._describe_times()})"
        if self._compiled >= self._eager:
            line += ": compiled steps are not faster here"
        self._log(line)

    def _describe_times(self) -> str:
        """Return a text like `62 s for compiling; 31 ms against 54 ms a step`."""
        steps = max(1, self._steps)
        compiled = format_ms(self._compiled / steps)
        eager = format_ms(self._eager / steps)
        return f"{self._compiling:.0f} s for compiling; {compiled} against {eager} a step"


def format_ms(seconds: float) -> str:
    """Return seconds as `5.1 ms`, `31 ms` or `1,200 ms`."""
    if seconds < 0.01:
        return f"{1000 * seconds:.1f} ms"
    return f"{1000 * seconds:,.0f} ms"
