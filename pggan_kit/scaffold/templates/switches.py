"""A switch of your own: here a fade that follows a power of its progress."""

from pggan_kit import Component, check_above, hookimpl


class Mine:
    """Fades with alpha = progress ** power: above 1 the new layers come in late, below 1 early.

    Args:
        power: Exponent of the progress, above 0.

    Raises:
        ValueError: The power is not above 0.
    """

    def __init__(self, power: float = 2.0) -> None:
        check_above("power", power, 0)
        self.power = power

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """Return the weight of the new layers, in [0, 1], for a progress in [0, 1).

        The hook may also take the arguments `stage`, `images` and `path`.
        """
        return float(progress**self.power)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@switches.Mine()`."""
    return [Component("switches", "Mine", Mine)]
