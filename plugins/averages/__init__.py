"""Averages: what is remembered of the weights that the generator has had."""

from pggan_kit import Component, HalfLife, hookimpl
from pggan_plugins.averages.per_update import Copy, PerUpdate
from pggan_plugins.averages.power_function import PowerFunction

__all__ = ["Copy", "HalfLife", "PerUpdate", "PowerFunction"]


@hookimpl
def components() -> list[Component]:
    """Return the averages of this package, which configs name `averages.<name>`."""
    return [Component("averages", cls.__name__, cls) for cls in (HalfLife, PerUpdate, PowerFunction, Copy)]
