"""Estimate what the metrics of a trial cost: those at its ticks, and those of its evaluations in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.evaluation_time import measure_evaluation
from pggan_kit.components import ImageMetric
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.ticks import list_planned_ticks


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
            self.seconds[key] = measure_evaluation(prepared, schedule, stage).seconds
        return self.seconds[key]


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
