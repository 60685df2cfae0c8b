"""What the loop measures at ticks: time, memory, how diverse the generator's images are, and `train.metrics`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pggan_kit.data.device_feed import look_at_batch
from pggan_kit.data.sampler import Source
from pggan_kit.evaluation.evaluator import Evaluator, draw_fakes
from pggan_kit.experiment import Experiment
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
        part_seconds: Seconds of what the core does beside updates, by its name: `checkpoints`, `diversity`, `metrics`.
    """

    def __init__(self, images: int) -> None:
        now = time.perf_counter()
        self.update_seconds = 0.0
        self.part_seconds: dict[str, float] = {}
        self._started = now
        self._tick_started = now
        self._tick_seconds: dict[str, float] = {}
        self._tick_images = images

    @property
    def seconds(self) -> float:
        """Seconds since the run began in this process."""
        return time.perf_counter() - self._started

    def add_update(self, seconds: float) -> None:
        """Count an update that took `seconds`."""
        self.update_seconds += seconds

    @contextmanager
    def time_part(self, name: str) -> Iterator[None]:
        """Count the time of a block as that of a part beside updates."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.part_seconds[name] = self.part_seconds.get(name, 0.0) + time.perf_counter() - began

    def compute_shares(self, observer_seconds: Mapping[str, float]) -> dict[str, float]:
        """Return the shares of the time in this process: of `updates`, and of each part beside them.

        Args:
            observer_seconds: Seconds of each observer in this process, by the name of its class.
        """
        return _divide(self._sum_seconds(observer_seconds), self.seconds)

    def _sum_seconds(self, observer_seconds: Mapping[str, float]) -> dict[str, float]:
        return {"updates": self.update_seconds, **self.part_seconds, **observer_seconds}

    def end_tick(self, run: Run, observer_seconds: Mapping[str, float]) -> dict[str, float]:
        """Return the `Timing/*` and `Resources/*` of the tick that ends here, and begin the next one.

        What follows the row of a tick, such as its checkpoint, counts in the next one.

        Args:
            run: The run.
            observer_seconds: Seconds of each observer in this process, by the name of its class.
        """
        now = time.perf_counter()
        totals = self._sum_seconds(observer_seconds)
        taken = {name: total - self._tick_seconds.get(name, 0.0) for name, total in totals.items()}
        images = run.state.images
        seconds = now - self._tick_started
        rate = 0.0
        if seconds > 0:
            rate = max(0, images - self._tick_images) / seconds

        stats = {
            "Timing/seconds": seconds,
            "Timing/update_seconds": taken["updates"],
            "Timing/images_per_second": rate,
        }
        stats |= {f"Timing/share/{name}": share for name, share in _divide(taken, seconds).items()}
        if knows_peak_memory():
            stats["Resources/memory_mib"] = peak_memory_mib()
        if run.device.type == "cuda":
            stats["Resources/gpu_memory_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20

        # The next tick begins where this one ends.
        self._tick_started = now
        self._tick_seconds = totals
        self._tick_images = images
        return stats


def _divide(parts: Mapping[str, float], whole: float) -> dict[str, float]:
    """Return the share of each part in a whole, which may be 0."""
    if whole <= 0:
        return dict.fromkeys(parts, 0.0)
    return {name: seconds / whole for name, seconds in parts.items()}


def describe_shares(shares: Mapping[str, float]) -> str:
    """Return the shares of the time in words: `updates 98.2 %, checkpoints 0.9 %, ..., the rest 0.3 %`."""
    others = {name: share for name, share in shares.items() if name != "updates"}
    ordered = sorted(others.items(), key=lambda item: -item[1])
    listed = [("updates", shares["updates"]), *ordered, ("the rest", max(0.0, 1 - sum(shares.values())))]
    return ", ".join(f"{name} {share:.1%}".replace("%", " %") for name, share in listed)


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
    reals, _ = look_at_batch(sampler, run.state.images, DIVERSITY_IMAGES)
    spread_of_reals = _measure_spread(sampler.values.to_images(reals))
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


def list_directions(experiment: Experiment) -> dict[str, str]:
    """Return which values of the metrics at ticks are better, `lower` or `higher` ones, by the value's name."""
    return {name: str(quantity.direction) for name, quantity in experiment.list_quantities().items()}


def is_better(experiment: Experiment, value: float, best: Mapping[str, Any], stage: Stage) -> bool:
    """Return whether a value of `train.keep_best` is better than the best so far.

    Args:
        experiment: The chosen components and settings.
        value: The value at this tick. NaN is never better.
        best: The best so far; see `Snapshot`. One of another stage or metric does not compare.
        stage: The stage of the tick.
    """
    # Values of another metric or stage do not compare.
    name = experiment.keep_best
    if name is None or math.isnan(value):
        return False
    if not best or best["metric"] != name or best["stage"] != stage.index:
        return True

    # Better is higher or lower, as the metric states it.
    before: float = best["value"]
    if experiment.list_quantities()[name].direction == "higher":
        return value > before
    return value < before


def _measure_spread(pictures: Tensor) -> float:
    return float(pictures.std(dim=0, unbiased=False).mean())
