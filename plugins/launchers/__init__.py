"""Launchers: where trials run."""

from pggan_kit import Component, hookimpl
from pggan_plugins.launchers.local import Local
from pggan_plugins.launchers.ray_cluster import Ray
from pggan_plugins.launchers.slurm_cluster import Slurm

__all__ = ["Local", "Ray", "Slurm"]


@hookimpl
def components() -> list[Component]:
    """Return the launchers of this package, which configs name `launchers.<name>`."""
    return [Component("launchers", cls.__name__, cls) for cls in (Local, Ray, Slurm)]
