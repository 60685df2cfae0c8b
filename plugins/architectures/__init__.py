"""Networks that grow, one stage's pieces at a time."""

from pggan_kit import Component, hookimpl
from pggan_plugins.architectures.pggan import PGGAN

__all__ = ["PGGAN"]


@hookimpl
def components() -> list[Component]:
    """The architectures of this folder."""
    return [Component("architectures", cls.__name__, cls) for cls in (PGGAN,)]
