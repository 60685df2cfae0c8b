"""Terms on the discriminator that may look at its gradients; they compose with any loss."""

from pggan_kit import Component, hookimpl
from pggan_plugins.penalties.drift import Drift
from pggan_plugins.penalties.gradients import R1, R2, GradientPenalty

__all__ = ["R1", "R2", "Drift", "GradientPenalty"]


@hookimpl
def components() -> list[Component]:
    """The penalties of this folder."""
    return [Component("penalties", cls.__name__, cls) for cls in (GradientPenalty, R1, R2, Drift)]
