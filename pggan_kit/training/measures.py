"""What the loop measures at ticks: time, memory, how diverse the generator's images are, and `train.metrics`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pggan_kit.data.sampler import Source
from pggan_kit.evaluation.evaluator import Evaluator, draw_fakes
from pggan_kit.experiment import Experiment
from pggan_kit.layers.tensors import images_from_uint8
from pggan_kit.runs.generators import draw_images
from pggan_kit.runs.run import Run
from pggan_kit.schedule import Stage
from pggan_kit.system.devices import knows_peak_memory, peak_memory_mib

DIVERSITY_IMAGES = 32
"""Number of reals, and of fakes, whose diversity is compared."""


class Meter:
    """A clock of the run and of its current tick, and of the share that updates take of both.

    Args:
        images: The image clock as the run begins in this process.

    Attributes:
        update_seconds: Seconds that updates have taken in this process.
    """

    def __init__(self, images: int) -> None:
        now = time.perf_counter()
        self.update_seconds = 0.0
        self._started = now
        self._tick_started = now
        self._tick_update_seconds = 0.0
        self._tick_images = images

    @property
    def seconds(self) -> float:
        """Seconds since the run began in this process."""
        return time.perf_counter() - self._started

    def add_update(self, seconds: float) -> None:
        """Count an update that took `seconds`."""
        self.update_seconds += seconds
        self._tick_update_seconds += seconds

    def end_tick(self, run: Run) -> dict[str, float]:
        """Return the `Timing/*` and `Resources/*` of the tick that ends here, and begin the next one."""
        now = time.perf_counter()
        images = run.state.images
        seconds = now - self._tick_started
        rate = 0.0
        if seconds > 0:
            rate = max(0, images - self._tick_images) / seconds

        stats = {
            "Timing/seconds": seconds,
            "Timing/update_seconds": self._tick_update_seconds,
            "Timing/images_per_second": rate,
        }
        if knows_peak_memory():
            stats["Resources/memory_mib"] = peak_memory_mib()
        if run.device.type == "cuda":
            stats["Resources/gpu_memory_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20

        # The next tick begins where this one ends.
        self._tick_started = now
        self._tick_update_seconds = 0.0
        self._tick_images = images
        return stats


def measure_diversity(run: Run, sampler: Source) -> float | None:
    """Return how much the averaged generator's images differ from each other, relative to the data's.

    The standard deviation over 32 images is taken at each pixel and channel, and averaged over those: of the fakes of
    fixed latents, divided by that of reals from the clock on. It is 1 where fakes vary as the data does, and 0 where
    all latents give one image.

    Args:
        run: The run whose generator is looked at.
        sampler: The reals of its stage.

    Returns:
        The ratio; None where the data does not vary either.
    """
    # Reals set the scale.
    reals, _ = sampler.batch(run.state.images, DIVERSITY_IMAGES)
    spread_of_reals = _measure_spread(images_from_uint8(reals))
    if spread_of_reals == 0.0:
        return None

    # Fakes of the averaged generator are measured on that scale.
    generated = run.generate(run.fixed_latents(DIVERSITY_IMAGES), run.fixed_labels(DIVERSITY_IMAGES))
    return _measure_spread(generated.clamp(-1.0, 1.0)) / spread_of_reals


def compute_metrics(run: Run, evaluator: Evaluator) -> dict[str, float]:
    """Return the `train.metrics` of a run's averaged generator as it is now: `Metrics/FID`, `Metrics/FID_floor`, ..."""
    stage = run.state.stage
    net = run.state.ema
    experiment = run.experiment
    alpha = run.make_alpha(net)

    def generate(latents: Tensor, labels: Tensor | None, seed: int) -> Tensor:
        return draw_images(net, latents, labels, alpha, seed, run.device)

    # Fakes are drawn of the classes that the data has, each as often.
    evaluator.say = run.files.warn
    size = (stage.height, stage.width)
    labels = None
    if experiment.find_architecture("generator").conditional and stage.classes:
        labels = evaluator.labels(size)
    batches = draw_fakes(generate, experiment.latent_size, evaluator.settings, experiment.seed, labels)

    stats: dict[str, float] = {}
    for measurement in evaluator.measure(size, batches):
        stats[f"Metrics/{measurement.name}"] = measurement.value
        if measurement.floor is not None:
            stats[f"Metrics/{measurement.name}_floor"] = measurement.floor
    return stats


def is_better(experiment: Experiment, value: float, best: Mapping[str, Any], stage: Stage) -> bool:
    """Return whether a value of `train.keep_best` is better than the best so far.

    Args:
        experiment: The chosen components and settings.
        value: The value at this tick. NaN is never better.
        best: The best so far; see `Snapshot`. One of another stage or metric does not compare.
        stage: The stage of the tick.
    """
    name = experiment.keep_best
    if name is None or math.isnan(value):
        return False
    if not best or best["metric"] != name or best["stage"] != stage.index:
        return True
    before: float = best["value"]
    if experiment.list_quantities()[name].direction == "higher":
        return value > before
    return value < before


def _measure_spread(pictures: Tensor) -> float:
    return float(pictures.std(dim=0, unbiased=False).mean())
