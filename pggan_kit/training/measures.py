"""What the loop measures of itself at ticks: time, memory, and how different the generator's images are."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pggan_kit.evaluation.evaluator import Evaluator, fakes
from pggan_kit.layers.tensors import images_from_uint8
from pggan_kit.runs.generators import drawn
from pggan_kit.runs.run import Run
from pggan_kit.system.devices import knows_peak_memory, peak_memory_mib

DIVERSITY_IMAGES = 32
"""So many images of each kind are compared."""


class Meter:
    """Seconds in all and since the last tick, and the share of them that updates took."""

    def __init__(self, images: int) -> None:
        self.started = self._tick_started = time.perf_counter()
        self.update_seconds = self._tick_update_seconds = 0.0
        self._images = images

    @property
    def seconds(self) -> float:
        """Since the run began in this process."""
        return time.perf_counter() - self.started

    def updated(self, seconds: float) -> None:
        """An update took so long."""
        self.update_seconds += seconds
        self._tick_update_seconds += seconds

    def tick(self, run: Run) -> dict[str, float]:
        """The tick's `Timing/*` and `Resources/*`; starts anew."""
        now, images = time.perf_counter(), run.state.images
        seconds = now - self._tick_started
        stats = {
            "Timing/seconds": seconds,
            "Timing/update_seconds": self._tick_update_seconds,
            "Timing/images_per_second": max(0, images - self._images) / seconds if seconds > 0 else 0.0,
        }
        if knows_peak_memory():
            stats["Resources/memory_mib"] = peak_memory_mib()
        if run.device.type == "cuda":
            stats["Resources/gpu_memory_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20
        self._tick_started, self._tick_update_seconds, self._images = now, 0.0, images
        return stats


def diversity(run: Run, sampler: Any) -> float | None:
    """How much the averaged generator's images differ from each other, in units of how much the data's do.

    `std` over 32 images at each pixel and channel, averaged over those: of images of fixed latents, divided by the same
    of reals from the clock on. 1 where images vary as the data does, 0 where all latents give one image.

    Returns:
        None where the data does not vary either.
    """
    reals, _ = sampler.batch(run.state.images, DIVERSITY_IMAGES)
    spread = _spread(images_from_uint8(reals))
    if spread == 0.0:
        return None
    images = run.generate(run.fixed_latents(DIVERSITY_IMAGES), run.fixed_labels(DIVERSITY_IMAGES))
    return _spread(images.clamp(-1.0, 1.0)) / spread


def metrics(run: Run, evaluator: Evaluator) -> dict[str, float]:
    """What `train.metrics` say of a run's averaged generator as it is now: `Metrics/FID`, `Metrics/FID_floor`, ..."""
    stage, net = run.state.stage, run.state.ema
    alpha = run.make_alpha(net)

    def draw(latents: Tensor, labels: Tensor | None, seed: int) -> Tensor:
        return drawn(net, latents, labels, alpha, seed, run.device)

    evaluator.say = run.files.warn
    size, experiment = (stage.height, stage.width), run.experiment
    labels = evaluator.labels(size) if experiment.architecture.conditional and stage.classes else None
    batches = fakes(draw, experiment.latent_size, evaluator.settings, experiment.seed, labels)
    stats: dict[str, float] = {}
    for value in evaluator.measure(size, batches):
        stats[f"Metrics/{value.name}"] = value.value
        if value.floor is not None:
            stats[f"Metrics/{value.name}_floor"] = value.floor
    return stats


def _spread(images: Tensor) -> float:
    return float(images.std(dim=0, unbiased=False).mean())
