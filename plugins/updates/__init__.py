"""Updates: training iterations."""

from pggan_kit import Component, hookimpl
from pggan_plugins.updates.alternating import Alternating
from pggan_plugins.updates.joint_batch import JointBatch

__all__ = ["Alternating", "JointBatch"]


@hookimpl
def components() -> list[Component]:
    """Return the updates of this package, which configs name `updates.<name>`."""
    return [Component("updates", cls.__name__, cls) for cls in (Alternating, JointBatch)]
