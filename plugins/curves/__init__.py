"""Curves: numbers that move with the clock."""

from pggan_kit import Component, hookimpl
from pggan_plugins.curves.between_values import Cosine, Exponential, Linear
from pggan_plugins.curves.from_places import Constant, Steps, WarmUp

__all__ = ["Constant", "Cosine", "Exponential", "Linear", "Steps", "WarmUp"]


@hookimpl
def components() -> list[Component]:
    """Return the curves of this package, which configs name `curves.<name>`."""
    return [Component("curves", cls.__name__, cls) for cls in (Constant, Linear, Cosine, Exponential, Steps, WarmUp)]
