"""Curves that are constant, step by step, or up to which a value is warmed up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from pggan_kit import (
    Position,
    SettingError,
    Varying,
    check_at_least,
    check_between,
    check_choice,
    check_finite,
    value_at,
)
from pggan_plugins.curves.spans import SPANS, find_span


class Constant:
    """The same value throughout: a number for places that take only a curve, and a control for those that move.

    Args:
        value: The value.

    Raises:
        ValueError: The value is not finite.
    """

    def __init__(self, value: float) -> None:
        check_finite("value", value)
        self.value = value

    def at(self, position: Position) -> float:
        """Return the value."""
        return self.value


class Steps:
    """A value that jumps at places on the clock, and holds in between.

    Args:
        values: Values by the images after which they hold, one of them from 0 on: `{0: 1e-3, 60_000: 1e-4}`.
        over: Part of the clock that these images are counted in: the whole `run`, or each `stage` or each `phase`
            again.

    Raises:
        ValueError: A value is not finite, a place is no number of images, or there is no value from 0 on.
    """

    def __init__(self, values: Mapping[int, float], over: str = "run") -> None:
        if not isinstance(values, Mapping):
            raise SettingError("values", f"must be a dict of images to values, not {values!r}")
        check_finite("values", values)
        for place in values:
            check_at_least("values", place, 0, whole=True)
        if 0 not in values:
            raise SettingError("values", f"must have one from 0 images on, e.g. {{0: ..., 1000: ...}}, not {values}")
        check_choice("over", over, SPANS)
        self.values = dict(values)
        self.over = over

    def at(self, position: Position) -> float:
        """Return the value of the last place that is not above the clock."""
        places = sorted(self.values)
        low, _ = find_span(self.over, position)
        reached = bisect_right(places, max(0, position.images - low))
        return self.values[places[reached - 1]]


class WarmUp:
    """A value that rises linearly to what it warms up to, which may be a curve or per stage itself.

    Args:
        value: What it warms up to.
        images: Images that it takes, at least 1.
        begin: Share of the value with which it begins, in [0, 1).
        over: Part of the clock at whose beginning it warms up: the whole `run`, or each `stage` or each `phase`.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, value: Varying[float], images: int, begin: float = 0.0, over: str = "run") -> None:
        check_finite("value", value)
        check_at_least("images", images, 1)
        check_between("begin", begin, 0, 1, high_included=False)
        check_choice("over", over, SPANS)
        self.value = value
        self.images = images
        self.begin = begin
        self.over = over

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock, times the share that is reached there."""
        value = value_at(self.value, position, "value")
        low, _ = find_span(self.over, position)
        spent = max(0, position.images - low)
        if spent >= self.images:
            return value
        return value * (self.begin + (1.0 - self.begin) * spent / self.images)
