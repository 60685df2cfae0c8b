"""Observers: grids, the growth animation, event files, trackers, the live display, spectra, effects of switches."""

from __future__ import annotations

from pggan_kit import Component, hookimpl
from pggan_plugins.observers.growth import Growth
from pggan_plugins.observers.mlflow_tracker import MLflow
from pggan_plugins.observers.progress import Progress
from pggan_plugins.observers.samples import Samples
from pggan_plugins.observers.shock import TransitionShock
from pggan_plugins.observers.spectra import Spectra
from pggan_plugins.observers.stage_images import Coherence
from pggan_plugins.observers.tensorboard import TensorBoard
from pggan_plugins.observers.trackio_tracker import Trackio
from pggan_plugins.observers.wandb_tracker import WandB

__all__ = [
    "Coherence",
    "Growth",
    "MLflow",
    "Progress",
    "Samples",
    "Spectra",
    "TensorBoard",
    "Trackio",
    "TransitionShock",
    "WandB",
]


@hookimpl
def components() -> list[Component]:
    """Return the observers of this package, which configs name `observers.<name>`."""
    factories = (
        Samples,
        Growth,
        TensorBoard,
        Progress,
        Spectra,
        TransitionShock,
        Coherence,
        WandB,
        MLflow,
        Trackio,
    )
    return [Component("observers", factory.__name__, factory) for factory in factories]
