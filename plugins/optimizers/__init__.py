"""Optimizers."""

from pggan_kit import Component, hookimpl
from pggan_plugins.optimizers.adam import Adam
from pggan_plugins.optimizers.shared_adam import SharedAdam

__all__ = ["Adam", "SharedAdam"]


@hookimpl
def components() -> list[Component]:
    """Return the optimizers of this package, which configs name `optimizers.<name>`."""
    return [Component("optimizers", cls.__name__, cls) for cls in (Adam, SharedAdam)]
