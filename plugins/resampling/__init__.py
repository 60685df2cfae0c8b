"""Matched pairs that change the size of features."""

from pggan_kit import Component, hookimpl
from pggan_plugins.resampling.nearest import Nearest

__all__ = ["Nearest"]


@hookimpl
def components() -> list[Component]:
    """The pairs of this folder."""
    return [Component("resampling", cls.__name__, cls) for cls in (Nearest,)]
