"""The values that an evaluation gives, and what their metrics state about them, known before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared
from pggan_kit.components import ImageMetric, Metric, RunMetric, StageEnd
from pggan_kit.errors import ConfigError
from pggan_kit.experiment import Experiment
from pggan_kit.runs.generators import count_classes
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.seeding import torch_generator


def list_quantities(metrics: Iterable[Metric], setting: str) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each value of metrics, by which values are compared.

    Args:
        metrics: The metrics.
        setting: Name of the setting that binds them, for error messages.

    Raises:
        ConfigError: Two values have one name.
    """
    quantities: dict[str, dict[str, str]] = {}
    for metric in metrics:
        for name, quantity in metric.quantities.items():
            if name in quantities:
                raise ConfigError(f"{setting}: two metrics give a value {name}; give one of them a `suffix`")
            quantities[name] = {"direction": quantity.direction, "scale": quantity.scale}
    return quantities


def list_values(prepared: Prepared, schedule: Schedule, stage: Stage) -> tuple[list[str], list[str]]:
    """Return the names of the values that an experiment's metrics give at the end of a stage, by comparing noise.

    Args:
        prepared: The experiment as it is evaluated.
        schedule: Its stages.
        stage: The stage.

    Returns:
        Those of metrics of images, and those of metrics of runs.
    """
    experiment = prepared.built.experiment
    images = _draw_noise(stage, 16)
    stages = schedule.stages[: stage.index + 1]
    ends = [_make_noise_end(each, experiment) for each in stages if each.budget > 0]
    of_images: list[str] = []
    of_runs: list[str] = []
    with warnings.catch_warnings():
        # What a metric says of so few images is not true of the experiment.
        warnings.simplefilter("ignore", UserWarning)
        for metric in experiment.metrics:
            if isinstance(metric, ImageMetric):
                of_images += _list_image_values(metric, images, experiment.evaluation.count)
            elif isinstance(metric, RunMetric):
                of_runs += metric.measure_run(ends)
    return of_images, of_runs


def _list_image_values(metric: ImageMetric, images: Tensor, count: int) -> list[str]:
    """Return the names of a metric's values; none where it is not defined at the images' size.

    Args:
        metric: The metric.
        images: A few images (N, C, h, w).
        count: Number of images that the evaluation compares.
    """
    descriptions = metric.describe(images)
    if descriptions is None:
        return []
    half = len(images) // 2
    try:
        return list(metric.compare(descriptions[:half], descriptions[half:]))
    except ConfigError:
        # It may need more than these few. So many as it will be given take longer.
        repeated = descriptions[torch.arange(count) % len(images)]
        return list(metric.compare(repeated, repeated))


def _draw_noise(stage: Stage, count: int) -> Tensor:
    """Return images of noise (count, C, h, w) in [-1, 1], always the same."""
    shape = (count, stage.image_channels, stage.height, stage.width)
    return torch.rand(shape, generator=torch_generator(0, "noise")) * 2 - 1


def _make_noise_end(stage: Stage, experiment: Experiment) -> StageEnd:
    """Return the end of a stage whose generator draws noise."""

    def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return _draw_noise(stage, len(latents))

    return StageEnd(stage, 0, experiment.latent_size, count_classes(experiment, stage), generate)
