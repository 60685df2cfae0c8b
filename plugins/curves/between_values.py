"""Curves from one value to another."""

from __future__ import annotations

import math

from pggan_kit import Position, SettingError, check_above, check_choice, check_finite
from pggan_plugins.curves.spans import SPANS, find_span


class CurveBetweenValues:
    """The base class of curves from one value to another, which is kept before and after.

    In a part of the clock that is too short for the way from start to end, the value jumps at the end.

    Args:
        begin: Value up to the start.
        end: Value from the end on.
        over: Part of the clock over which the value moves: the whole `run`, or each `stage` or each `phase` (a stage's
            fade, or what follows it) again.
        start_images: Images of that part after which the value begins to move. A number below 0 counts from its end:
            -40_000 is 40,000 images before the end.
        end_images: Images of that part after which the value has arrived, likewise; None for its end.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self, begin: float, end: float, over: str = "run", start_images: int = 0, end_images: int | None = None
    ) -> None:
        check_finite("begin", begin)
        check_finite("end", end)
        check_choice("over", over, SPANS)
        check_finite("start_images", start_images)
        check_finite("end_images", end_images)
        _check_window(start_images, end_images)
        self.begin = begin
        self.end = end
        self.over = over
        self.start_images = start_images
        self.end_images = end_images

    def compute_progress(self, position: Position) -> float:
        """Return the share of the way from start to end that is behind a place on the clock, in [0, 1]."""
        low, high = find_span(self.over, position)
        start = _place_in_span(self.start_images, low, high)
        end = high
        if self.end_images is not None:
            end = _place_in_span(self.end_images, low, high)

        # Where a part of the clock is so short that its end lies before its start, the value jumps at the end.
        if position.images >= end:
            return 1.0
        if position.images <= start:
            return 0.0
        return (position.images - start) / (end - start)


def _check_window(start: int, end: int | None) -> None:
    """Check that a value does not arrive before it begins to move, as far as that is known without a schedule.

    Raises:
        SettingError: It does.
    """
    if end is None:
        return
    if start < 0 <= end:
        raise SettingError("end_images", f"must be below 0 like start_images ({start}), or None, and is {end}")
    if end <= start and (start < 0) == (end < 0):
        raise SettingError("end_images", f"must be above start_images ({start}), and is {end}")


def _place_in_span(images: int, low: int, high: int) -> int:
    """Return the image count of a place in a span, which counts from the span's end where it is below 0."""
    if images < 0:
        return high + images
    return low + images


class Linear(CurveBetweenValues):
    """A straight line from one value to another.

    Args:
        begin: Value up to the start.
        end: Value from the end on.
        over: Part of the clock that it moves over: the whole `run`, or each `stage` or each `phase` again.
        start_images: Images of that part before it moves; below 0, counted from the part's end.
        end_images: Images of that part until it has arrived, likewise; None for the part's end.
    """

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock."""
        return self.begin + (self.end - self.begin) * self.compute_progress(position)


class Cosine(CurveBetweenValues):
    """Half a cosine wave from one value to another: slow at both ends (Loshchilov and Hutter 2017, equation 5).

    With `over = 'stage'` it begins again in each stage, as the warm restarts of that paper do.

    Args:
        begin: Value up to the start.
        end: Value from the end on.
        over: Part of the clock that it moves over: the whole `run`, or each `stage` or each `phase` again.
        start_images: Images of that part before it moves; below 0, counted from the part's end.
        end_images: Images of that part until it has arrived, likewise; None for the part's end.
    """

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock."""
        share = (1.0 - math.cos(math.pi * self.compute_progress(position))) / 2.0
        return self.begin + (self.end - self.begin) * share


class Exponential(CurveBetweenValues):
    """A line from one value to another on a logarithmic scale: equal times change the value by equal factors.

    Args:
        begin: Value up to the start, above 0.
        end: Value from the end on, above 0.
        over: Part of the clock that it moves over: the whole `run`, or each `stage` or each `phase` again.
        start_images: Images of that part before it moves; below 0, counted from the part's end.
        end_images: Images of that part until it has arrived, likewise; None for the part's end.
    """

    def __init__(
        self, begin: float, end: float, over: str = "run", start_images: int = 0, end_images: int | None = None
    ) -> None:
        check_above("begin", begin, 0)
        check_above("end", end, 0)
        super().__init__(begin, end, over, start_images, end_images)

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock."""
        progress = self.compute_progress(position)
        if progress == 1.0:
            return self.end
        return float(self.begin * (self.end / self.begin) ** progress)
