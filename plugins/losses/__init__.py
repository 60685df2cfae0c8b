"""Adversarial losses, which take penalties as an argument."""

from pggan_kit import Component, hookimpl
from pggan_plugins.losses.auxiliary_classifier import AuxiliaryClassifier
from pggan_plugins.losses.binary_cross_entropy import BinaryCrossEntropy
from pggan_plugins.losses.hinge import Hinge
from pggan_plugins.losses.least_squares import LeastSquares
from pggan_plugins.losses.non_saturating import NonSaturating
from pggan_plugins.losses.relativistic import Relativistic
from pggan_plugins.losses.sum import Sum
from pggan_plugins.losses.wgan_gp import WGANGP

__all__ = [
    "WGANGP",
    "AuxiliaryClassifier",
    "BinaryCrossEntropy",
    "Hinge",
    "LeastSquares",
    "NonSaturating",
    "Relativistic",
    "Sum",
]

WGANGP_PENALTIES = "[@penalties.GradientPenalty(), @penalties.Drift()]"


@hookimpl
def components() -> list[Component]:
    """Return the losses of this folder."""
    return [
        Component("losses", "WGANGP", WGANGP, {"penalties": WGANGP_PENALTIES}),
        Component("losses", "Hinge", Hinge),
        Component("losses", "NonSaturating", NonSaturating),
        Component("losses", "BinaryCrossEntropy", BinaryCrossEntropy),
        Component("losses", "LeastSquares", LeastSquares),
        Component("losses", "Relativistic", Relativistic),
        Component("losses", "Sum", Sum),
        Component("losses", "AuxiliaryClassifier", AuxiliaryClassifier, {"loss": "@losses.Hinge()"}),
    ]
