"""A switch of your own: here a fade that follows a power of its progress."""

from pggan_kit import Component, hookimpl


class Mine:
    """alpha = progress ** power: above 1 the old layers count for longer, below 1 the new ones come in at once.

    Args:
        power: above 0.

    Raises:
        ValueError: a power that is not above 0.
    """

    def __init__(self, power: float = 2.0) -> None:
        if not power > 0:
            raise ValueError(f"power must be above 0, and is {power}")
        self.power = power

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """The new layers' share, in [0, 1], for a progress in [0, 1). It may also take `stage`, `images` and `path`."""
        return float(progress**self.power)


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@switches.Mine()`."""
    return [Component("switches", "Mine", Mine)]
