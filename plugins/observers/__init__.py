"""What watches a run: pictures, event files, and the live display."""

from __future__ import annotations

from pggan_kit import Component, hookimpl
from pggan_plugins.observers.growth import Growth
from pggan_plugins.observers.progress import Progress
from pggan_plugins.observers.samples import Samples
from pggan_plugins.observers.shock import TransitionShock
from pggan_plugins.observers.tensorboard import TensorBoard

__all__ = ["Growth", "Progress", "Samples", "TensorBoard", "TransitionShock"]


@hookimpl
def components() -> list[Component]:
    """The observers of this folder."""
    factories = (Samples, Growth, TensorBoard, Progress, TransitionShock)
    return [Component("observers", factory.__name__, factory) for factory in factories]
