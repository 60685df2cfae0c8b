"""Adversarial losses. Penalties are their argument."""

from pggan_kit import Component, hookimpl
from pggan_plugins.losses.hinge import Hinge
from pggan_plugins.losses.non_saturating import NonSaturating
from pggan_plugins.losses.wgan_gp import WGANGP

__all__ = ["WGANGP", "Hinge", "NonSaturating"]

WGANGP_PENALTIES = "[@penalties.GradientPenalty(), @penalties.Drift()]"


@hookimpl
def components() -> list[Component]:
    """The losses of this folder."""
    return [
        Component("losses", "WGANGP", WGANGP, {"penalties": WGANGP_PENALTIES}),
        Component("losses", "Hinge", Hinge),
        Component("losses", "NonSaturating", NonSaturating),
    ]
