"""A switch of your own: here a fade that follows a power of its progress."""

from pggan_kit import Component, check_above, hookimpl


class Mine:
    """alpha = progress ** power: above 1 the old layers count for longer, below 1 the new ones come in at once.

    Args:
        power: above 0.

    Raises:
        ValueError: a power that is not above 0.
    """

    def __init__(self, power: float = 2.0) -> None:
        check_above("power", power, 0)
        self.power = power

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """The new layers' share, in [0, 1], for a progress in [0, 1). It may also take `stage`, `images` and `path`."""
        return float(progress**self.power)


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@switches.Mine()`."""
    return [Component("switches", "Mine", Mine)]
