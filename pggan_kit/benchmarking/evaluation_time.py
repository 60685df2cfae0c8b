"""Measure how long it takes to draw, describe and compare the images of an evaluation."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.components import ImageMetric
from pggan_kit.runs.generators import count_classes, draw_images
from pggan_kit.schedule import Schedule, Stage

WARM_UP = 2
"""Number of images that are drawn and described before time counts: a feature extractor loads its weights."""

TIMED = 16
"""Number of images whose drawing and description is timed."""

LONG_SECONDS = 2.0
"""Seconds of the warm-up from which on it is the measurement."""


@dataclass(frozen=True)
class EvaluationTime:
    """The seconds of one evaluation.

    Attributes:
        drawing: Seconds of drawing all fakes.
        describing: Seconds of describing and comparing them.
    """

    drawing: float = 0.0
    describing: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the seconds of all together."""
        return self.drawing + self.describing


def measure_evaluation(prepared: Prepared, schedule: Schedule, stage: Stage) -> EvaluationTime:
    """Return the seconds in which `evaluation.count` fakes are drawn, described and compared.

    A few fakes are drawn and described; their descriptions, repeated to the full number, are compared. The reals are
    described once for all runs and cost nothing here, and metrics of a run are left out.
    """
    experiment = prepared.built.experiment
    metrics = [metric for metric in experiment.metrics if isinstance(metric, ImageMetric)]
    if not metrics:
        return EvaluationTime()
    rig = Rig(prepared, schedule, stage.index, fading=False, compiles=False)
    classes = count_classes(experiment, stage)

    def describe(count: int) -> tuple[float, float, list[tuple[ImageMetric, Tensor]]]:
        """Return the seconds of drawing images and of describing them, and the descriptions."""
        began = time.perf_counter()
        latents = torch.randn(count, experiment.latent_size)
        labels = torch.arange(count) % classes if classes else None
        images = draw_images(rig.state.ema, latents, labels, None, 0, rig.state.device).to(rig.state.device)
        drawn = time.perf_counter()
        descriptions: dict[str, Tensor | None] = {}
        described = []
        for metric in metrics:
            name = metric.fingerprint()
            if name not in descriptions:
                descriptions[name] = metric.describe(images)
            description = descriptions[name]
            if description is not None:
                described.append((metric, description.cpu()))
        return drawn - began, time.perf_counter() - drawn, described

    with torch.no_grad(), warnings.catch_warnings():
        # What a metric says of so few images is not true of the experiment.
        warnings.simplefilter("ignore")
        drawing, describing, described = describe(WARM_UP)
        images = WARM_UP
        if drawing + describing < LONG_SECONDS:
            images = TIMED
            drawing, describing, described = describe(TIMED)
        count = experiment.evaluation.count
        began = time.perf_counter()
        for metric, description in described:
            repeated = description[torch.arange(count) % images]
            metric.compare(repeated, repeated)
        comparing = time.perf_counter() - began
        return EvaluationTime(drawing / images * count, describing / images * count + comparing)
