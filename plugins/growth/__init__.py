"""Growth policies: how fast each piece of the networks learns as they grow."""

from pggan_kit import Component, hookimpl
from pggan_plugins.growth.freezing import FreezeD, FreezeOld
from pggan_plugins.growth.speeds import Everything, SlowOld, WarmUpNew

__all__ = ["Everything", "FreezeD", "FreezeOld", "SlowOld", "WarmUpNew"]


@hookimpl
def components() -> list[Component]:
    """Return the growth policies of this package, which configs name `growth.<name>`."""
    factories = (Everything, FreezeOld, FreezeD, WarmUpNew, SlowOld)
    return [Component("growth", cls.__name__, cls) for cls in factories]
