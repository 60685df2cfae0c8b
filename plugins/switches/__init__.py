"""Switches: how one stage gives way to the next."""

from pggan_kit import Component, hookimpl
from pggan_plugins.switches.fades import Cosine, GeneratorFirst, Hard, Linear, Smoothstep, Staircase
from pggan_plugins.switches.nudged import Nudged
from pggan_plugins.switches.plateau import Plateau

__all__ = ["Cosine", "GeneratorFirst", "Hard", "Linear", "Nudged", "Plateau", "Smoothstep", "Staircase"]


@hookimpl
def components() -> list[Component]:
    """Return the switches of this package, which configs name `switches.<name>`."""
    factories = (Hard, Linear, Cosine, Smoothstep, Staircase, GeneratorFirst, Plateau, Nudged)
    return [Component("switches", cls.__name__, cls) for cls in factories]
