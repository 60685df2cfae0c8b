"""Matched pairs of modules that change the size of features."""

from pggan_kit import Component, hookimpl
from pggan_plugins.resampling.filtered import Bilinear, Blur
from pggan_plugins.resampling.learned import Learned, PixelShuffle
from pggan_plugins.resampling.nearest import Nearest

__all__ = ["Bilinear", "Blur", "Learned", "Nearest", "PixelShuffle"]


@hookimpl
def components() -> list[Component]:
    """Return the pairs of this folder."""
    return [Component("resampling", cls.__name__, cls) for cls in (Nearest, Bilinear, Blur, Learned, PixelShuffle)]
