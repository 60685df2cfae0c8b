"""A curve of your own: here a wave around a value, once in each stage."""

import math

from pggan_kit import Component, Position, check_above, check_between, hookimpl


class Mine:
    """Rises and falls around a value like a sine, once in each stage.

    Args:
        value: Value in the middle, above 0.
        size: Size of the wave as a share of the value, in [0, 1).

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, value: float = 1e-3, size: float = 0.5) -> None:
        check_above("value", value, 0)
        check_between("size", size, 0, 1, high_included=False)
        self.value = value
        self.size = size

    def at(self, position: Position) -> float:
        """Return the value at a place on the clock.

        Keep nothing between calls: a resumed run asks again, and others may ask in any order.
        """
        length = position.stage_end - position.stage_start
        share = (position.images - position.stage_start) / max(1, length)
        return self.value * (1.0 + self.size * math.sin(2.0 * math.pi * share))


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@curves.Mine()`."""
    return [Component("curves", "Mine", Mine)]
