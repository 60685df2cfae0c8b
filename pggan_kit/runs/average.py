"""Average the generator's weights: the decay of each update, the average's age, and its batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pggan_kit.schedule import Schedule, Stage, at_height
from pggan_kit.system.seeding import derive, fork_random_numbers, numpy_generator, torch_generator

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator

HALF_LIFE = 10_000
"""Images of `train.ema_half_life` where nothing is bound, as in StyleGAN2."""

LARGEST_SHARE = 0.05
"""Maximum share of the average's weight that may stem from before a stage when the stage ends."""

NEGLIGIBLE = 1e-9
"""Share of the weight below which a more exact value is not computed."""

CALIBRATION_BATCHES = 16
CALIBRATION_BATCH_SIZE = 64


def compute_decay(experiment: Experiment, stage: Stage, age: int, images: int) -> float:
    """Return the factor by which one update shrinks what the average of a piece held before.

    Args:
        experiment: the settings.
        stage: the current stage.
        age: images since the birth of the piece (block, layer to the image, bridge), before the update.
        images: reals that the update drew, over all ranks.
    """
    if experiment.ema_decay is not None:
        return at_height(experiment.ema_decay, stage.height)

    # A young piece forgets its random start sooner.
    half_life = _choose_half_life(experiment, stage)
    if experiment.ema_ramp_up is not None:
        half_life = min(half_life, experiment.ema_ramp_up * age)
    if half_life <= 0:
        return 0.0
    return float(0.5 ** (images / half_life))


def is_copy(experiment: Experiment, stage: Stage) -> bool:
    """Return whether the settings ask for no average in a stage, but for a copy of G."""
    if experiment.ema_decay is not None:
        return at_height(experiment.ema_decay, stage.height) == 0
    return _choose_half_life(experiment, stage) == 0


def _choose_half_life(experiment: Experiment, stage: Stage) -> float:
    if experiment.ema_half_life is None:
        return HALF_LIFE
    return at_height(experiment.ema_half_life, stage.height)


class AverageAge(NamedTuple):
    """The age of G's average at a stage's end: that of its oldest pieces, as younger pieces remember less.

    Attributes:
        stage: the stage.
        before_stage: the share of its weight that stems from before the stage; at the base stage, from random weights.
        before_fade_end: the share that stems from before the end of the stage's fade; None where there is no fade.
        fitting_half_life: images of the longest `train.ema_half_life` with which `before_stage` is small enough.
    """

    stage: Stage
    before_stage: float
    before_fade_end: float | None
    fitting_half_life: int

    @property
    def text(self) -> str:
        """Return the shares in words, as `28x28: 0.1 % from before the stage, 0.4 % from before its fade's end`."""
        origin = "from before the stage"
        if self.stage.previous is None:
            origin = "random weights"
        shares = f"{format_percent(self.before_stage)} {origin}"
        if self.before_fade_end is not None:
            shares += f", {format_percent(self.before_fade_end)} from before its fade's end"
        return f"{self.stage.size}: {shares}"

    @property
    def warning(self) -> str | None:
        """Return a warning where the average is too old; None where it is not."""
        if self.before_stage <= LARGEST_SHARE:
            return None

        origin = "stems from before that stage"
        if self.stage.previous is None:
            origin = "is its random start"
        return (
            f"at the end of stage {self.stage.size}, {format_percent(self.before_stage)} of the generator's average "
            f"{origin}, so that its images and metrics show outdated networks: train.ema_half_life = "
            f"{self.fitting_half_life} (images; with train.ema_decay = None), or less, leaves at most "
            f"{format_percent(LARGEST_SHARE)}"
        )


def list_average_ages(experiment: Experiment, schedule: Schedule, starts: Sequence[int]) -> list[AverageAge]:
    """Return the age of the average at the end of each stage that spends images, from the current stage on.

    It assumes that each update draws one batch, and that each stage spends just its budget.

    Args:
        experiment: the settings.
        schedule: the stages.
        starts: the clock at which each stage so far began; `[0]` for a new run.
    """
    planned_starts = list(starts)
    ages: list[AverageAge] = []
    for stage in schedule.stages[len(starts) - 1 :]:
        begin = planned_starts[stage.index]
        end = schedule.end(planned_starts)
        # A stage without images leaves the average as it was.
        if end > begin:
            before_stage = compute_share_from_before(experiment, stage, begin, end)
            before_fade_end = None
            if stage.fade_images > 0:
                fade_end = min(end, begin + stage.fade_images)
                before_fade_end = compute_share_from_before(experiment, stage, fade_end, end)
            ages.append(AverageAge(stage, before_stage, before_fade_end, _compute_fitting_half_life(end - begin)))
        planned_starts.append(end)
    return ages


def compute_share_from_before(experiment: Experiment, stage: Stage, moment: int, end: int) -> float:
    """Return the share of the average's weight, at the clock `end`, that stems from before `moment`.

    Both lie within the stage. The piece is one of the run's first, born at 0.
    """
    share = 1.0
    images = moment
    while images < end and share > NEGLIGIBLE:
        share *= compute_decay(experiment, stage, images, stage.batch_size)
        images += stage.batch_size
    return share


def _compute_fitting_half_life(length: int) -> int:
    """Return the half-life with which a stage of `length` images leaves `LARGEST_SHARE`, rounded down to two digits."""
    longest = length * math.log(2) / -math.log(LARGEST_SHARE)
    digit = 10 ** max(0, math.floor(math.log10(max(1.0, longest))) - 1)
    return int(math.floor(longest / digit) * digit)


def format_percent(share: float) -> str:
    """Return a share as text, `22 %` or `0.3 %`."""
    decimals = 0 if share >= 0.1 else 1
    return f"{100 * share:.{decimals}f} %"


def draw_calibration_labels(experiment: Experiment, stage: Stage) -> Tensor | None:
    """Return labels of reals drawn at random, which are as frequent as in training; None for unconditional networks."""
    if not experiment.find_architecture("generator").conditional or not stage.classes:
        return None
    dataset = experiment.dataset
    count = CALIBRATION_BATCHES * CALIBRATION_BATCH_SIZE
    rows = numpy_generator(experiment.seed, "calibration labels").integers(0, len(dataset), count)
    return torch.tensor([dataset.label(int(row)) for row in rows])


@torch.no_grad()
def calibrate_batch_norm(net: Generator, labels: Tensor | None, seed: int, device: torch.device) -> None:
    """Set the running statistics of a generator's batch normalisation to those of its own features.

    The features of an average of weights differ from those of the network that it averages, and neither that network's
    running statistics nor an average of them fit. These are means over the statistics of batches of latents. They
    depend on weights and seed alone: the latents are always the same, alpha changes no features (it blends images,
    behind all normalisation), and other random numbers are not disturbed.

    Args:
        net: the generator, on `device`; nothing else about it changes.
        labels: labels from `draw_calibration_labels`, or None.
        seed: the experiment's seed.
        device: the network's device.
    """
    # Where an author keeps a normalisation in inference mode for good, training does not move its statistics either.
    training = net.training
    net.train()
    moving = [module for module in net.find_batch_norms() if module.training]
    momenta = [module.momentum for module in moving]
    net.eval()
    for module in moving:
        module.reset_running_stats()
        module.momentum = None  # torch then takes the mean over all batches
        module.train()

    # The same latents at every call, and both paths of a fade, whatever alpha is.
    size = CALIBRATION_BATCH_SIZE
    generator = torch_generator(seed, "calibration latents")
    latents = torch.randn(CALIBRATION_BATCHES * size, net.latent_size, generator=generator)
    alpha = None
    if net.bridge is not None:
        alpha = torch.full((), 0.5, device=device)

    try:
        with fork_random_numbers(device, derive(seed, "calibration noise")):
            for start in range(0, len(latents), size):
                batch = slice(start, start + size)
                batch_labels = None
                if labels is not None:
                    batch_labels = labels[batch].to(device)
                net(latents[batch].to(device), batch_labels, alpha)
    finally:
        for module, momentum in zip(moving, momenta, strict=True):
            module.momentum = momentum
        net.train(training)
