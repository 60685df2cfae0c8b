"""Terms on the discriminator that may depend on its gradients, and that combine with any loss."""

from pggan_kit import Component, hookimpl
from pggan_plugins.penalties.drift import Drift
from pggan_plugins.penalties.gradients import R1, R2, GradientPenalty

__all__ = ["R1", "R2", "Drift", "GradientPenalty"]


@hookimpl
def components() -> list[Component]:
    """Return the penalties of this folder."""
    return [Component("penalties", cls.__name__, cls) for cls in (GradientPenalty, R1, R2, Drift)]
