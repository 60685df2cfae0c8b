"""Metrics: how far fakes are from reals."""

from __future__ import annotations

from pggan_kit import Component, hookimpl

from .classes import ClassCoverage
from .frechet import FrechetDistance
from .kernel import KernelDistance
from .precision_recall import PrecisionRecall
from .similarity import MSSSIM
from .wasserstein import SlicedWasserstein

__all__ = ["MSSSIM", "ClassCoverage", "FrechetDistance", "KernelDistance", "PrecisionRecall", "SlicedWasserstein"]


@hookimpl
def components() -> list[Component]:
    """Return the metrics of this package, which configs name `metrics.<name>`."""
    metrics = (FrechetDistance, KernelDistance, PrecisionRecall, SlicedWasserstein, MSSSIM, ClassCoverage)
    return [Component("metrics", cls.__name__, cls) for cls in metrics]
