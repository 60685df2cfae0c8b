"""Metrics: how far fakes are from reals, and the stages of a run from each other."""

from __future__ import annotations

from pggan_kit import Component, hookimpl

from .classes import ClassCoverage
from .coherence import Coherence
from .density_coverage import DensityCoverage
from .frechet import FrechetDistance
from .kernel import KernelDistance
from .modes import Modes
from .precision_recall import PrecisionRecall
from .similarity import MSSSIM
from .spectrum import RadialSpectrum
from .vendi import VendiScore
from .wasserstein import SlicedWasserstein

__all__ = [
    "MSSSIM",
    "ClassCoverage",
    "Coherence",
    "DensityCoverage",
    "FrechetDistance",
    "KernelDistance",
    "Modes",
    "PrecisionRecall",
    "RadialSpectrum",
    "SlicedWasserstein",
    "VendiScore",
]


@hookimpl
def components() -> list[Component]:
    """Return the metrics of this package, which configs name `metrics.<name>`."""
    metrics = (
        FrechetDistance,
        KernelDistance,
        PrecisionRecall,
        DensityCoverage,
        SlicedWasserstein,
        MSSSIM,
        VendiScore,
        RadialSpectrum,
        ClassCoverage,
        Modes,
        Coherence,
    )
    return [Component("metrics", cls.__name__, cls) for cls in metrics]
