"""Features of images, for metrics."""

from __future__ import annotations

from pggan_kit import Component, hookimpl

from .digits import DigitClasses, Digits
from .dinov2 import DINOv2
from .inception import Inception

__all__ = ["DINOv2", "DigitClasses", "Digits", "Inception"]


@hookimpl
def components() -> list[Component]:
    """Return the feature extractors of this package, which configs name `features.<name>`."""
    return [Component("features", cls.__name__, cls) for cls in (Digits, DigitClasses, Inception, DINOv2)]
