"""How one stage gives way to the next."""

from pggan_kit import Component, hookimpl
from pggan_plugins.switches.fades import Hard, Linear

__all__ = ["Hard", "Linear"]


@hookimpl
def components() -> list[Component]:
    """The switches of this folder."""
    return [Component("switches", cls.__name__, cls) for cls in (Hard, Linear)]
