"""Observers: sample grids, the growth animation, event files, the live display, spectra, measurements of switches."""

from __future__ import annotations

from pggan_kit import Component, hookimpl
from pggan_plugins.observers.growth import Growth
from pggan_plugins.observers.progress import Progress
from pggan_plugins.observers.samples import Samples
from pggan_plugins.observers.shock import TransitionShock
from pggan_plugins.observers.spectra import Spectra
from pggan_plugins.observers.stage_images import Coherence
from pggan_plugins.observers.tensorboard import TensorBoard

__all__ = ["Coherence", "Growth", "Progress", "Samples", "Spectra", "TensorBoard", "TransitionShock"]


@hookimpl
def components() -> list[Component]:
    """Return the observers of this package, which configs name `observers.<name>`."""
    factories = (Samples, Growth, TensorBoard, Progress, Spectra, TransitionShock, Coherence)
    return [Component("observers", factory.__name__, factory) for factory in factories]
