"""Estimate what the metrics of a trial cost: those at its ticks, and those of its evaluations in the end."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.components import ImageMetric
from pggan_kit.runs.generators import count_classes, draw_images
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.ticks import list_planned_ticks

WARM_UP = 2
"""Number of images that are drawn and described before time counts: a feature extractor loads its weights."""

TIMED = 16
"""Number of images whose drawing and description is timed."""

LONG_SECONDS = 2.0
"""Seconds of the warm-up from which on it is the measurement."""


def count_tick_evaluations(prepared: Prepared, schedule: Schedule, stage: Stage) -> int:
    """Return how often `train.metrics` are measured in a stage: at its interval, and where a phase ends."""
    experiment = prepared.built.experiment
    if not _list_metrics(prepared) or stage.budget == 0:
        return 0
    start = schedule.planned_starts()[stage.index]
    places = []
    for tick in list_planned_ticks(schedule, experiment.tick):
        if tick.stage.index == stage.index and tick.is_due(experiment.evaluation.every):
            places.append(tick.images)

    # The clock moves by batches: what one of them passes is measured once.
    steps = {-(-(place - start) // stage.batch_size) for place in places}
    return len(steps)


def _list_metrics(prepared: Prepared) -> list[ImageMetric]:
    return [metric for metric in prepared.built.experiment.metrics if isinstance(metric, ImageMetric)]


@dataclass
class EvaluationClock:
    """The seconds of evaluations, measured once for each size and list of metrics, whatever the variant.

    Attributes:
        seconds: Seconds of an evaluation, by its size and kind.
    """

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def find_seconds(self, kind: str, prepared: Prepared, schedule: Schedule, stage: Stage) -> float:
        """Return the seconds of an evaluation of an experiment at a stage; measure them the first time.

        Args:
            kind: Name of the list of metrics.
            prepared: The experiment.
            schedule: Its stages.
            stage: The stage.
        """
        key = (stage.size, kind)
        if key not in self.seconds:
            self.seconds[key] = measure_evaluation_seconds(prepared, schedule, stage)
        return self.seconds[key]


def measure_evaluation_seconds(prepared: Prepared, schedule: Schedule, stage: Stage) -> float:
    """Return the seconds in which `evaluation.count` fakes are drawn, described and compared.

    A few fakes are drawn and described; their descriptions, repeated to the full number, are compared. The reals are
    described once for all trials and cost nothing here, and metrics of a run are left out.
    """
    metrics = _list_metrics(prepared)
    if not metrics:
        return 0.0
    experiment = prepared.built.experiment
    rig = Rig(prepared, schedule, stage.index, fading=False, compiles=False)
    classes = count_classes(experiment, stage)

    def describe(count: int) -> tuple[float, list[tuple[ImageMetric, Tensor]]]:
        """Return the seconds of drawing and describing images, and the descriptions."""
        began = time.perf_counter()
        latents = torch.randn(count, experiment.latent_size)
        labels = torch.arange(count) % classes if classes else None
        images = draw_images(rig.state.ema, latents, labels, None, 0, rig.state.device).to(rig.state.device)
        descriptions: dict[str, Tensor | None] = {}
        described = []
        for metric in metrics:
            name = metric.fingerprint()
            if name not in descriptions:
                descriptions[name] = metric.describe(images)
            description = descriptions[name]
            if description is not None:
                described.append((metric, description.cpu()))
        return time.perf_counter() - began, described

    with torch.no_grad(), warnings.catch_warnings():
        # What a metric says of so few images is not true of the experiment.
        warnings.simplefilter("ignore")
        seconds, described = describe(WARM_UP)
        drawn = WARM_UP
        if seconds < LONG_SECONDS:
            drawn = TIMED
            seconds, described = describe(TIMED)
        count = experiment.evaluation.count
        began = time.perf_counter()
        for metric, description in described:
            repeated = description[torch.arange(count) % drawn]
            metric.compare(repeated, repeated)
        return seconds / drawn * count + time.perf_counter() - began


def estimate_evaluations(
    clock: EvaluationClock, training: Prepared, evaluation: Prepared | None, stages: Sequence[int], averages: int
) -> dict[str, Any]:
    """Return what the metrics of one trial cost.

    Args:
        clock: The measured seconds.
        training: The experiment as it is trained.
        evaluation: The experiment as it is evaluated in the end; None for a trunk, which is not.
        stages: Numbers of the stages that the trial trains.
        averages: Number of averages with which it is evaluated.

    Returns:
        `tick_evaluations`: how often `train.metrics` are measured. `evaluation_images`: the fakes of all evaluations.
        `evaluation_hours`: their time on this machine.
    """
    schedule = training.schedule()
    at_ticks = 0
    seconds = 0.0
    for stage in schedule.stages:
        if stage.index in stages:
            count = count_tick_evaluations(training, schedule, stage)
            at_ticks += count
            if count:
                seconds += count * clock.find_seconds("ticks", training, schedule, stage)
    images = at_ticks * training.built.experiment.evaluation.count

    # In the end, with each average.
    if evaluation is not None and _list_metrics(evaluation):
        schedule = evaluation.schedule()
        seconds += averages * clock.find_seconds("end", evaluation, schedule, schedule.stages[-1])
        images += averages * evaluation.built.experiment.evaluation.count
    return {"tick_evaluations": at_ticks, "evaluation_images": images, "evaluation_hours": seconds / 3600}
