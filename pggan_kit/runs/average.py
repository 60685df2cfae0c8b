"""Average the generator's weights: the shares of an update, an average's age, and its batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pggan_kit.components import Average, Update
from pggan_kit.errors import TrainingError
from pggan_kit.growth.moving_settings import name_place
from pggan_kit.growth.planned_steps import group_steps
from pggan_kit.schedule import Position, Schedule, Stage
from pggan_kit.system.seeding import derive, fork_random_numbers, numpy_generator, torch_generator

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator

LARGEST_SHARE = 0.05
"""Maximum share of the average's weight that may stem from before a stage when the stage ends."""

LOOKED_AT = 2_000
"""Maximum number of updates that are looked at to tell how old an average is: recipes have millions."""

NEGLIGIBLE = 1e-9
"""Share of the weight below which a more exact value is not computed."""

CALIBRATION_BATCHES = 16
CALIBRATION_BATCH_SIZE = 64

OLD = 2**53
"""Age in images at which no piece is young any more."""


def compute_shares(average: Average, position: Position, age: int, images: int) -> tuple[float, ...]:
    """Return the share by which each of an average's names follows in an update; see `Average.compute_shares`.

    Raises:
        ConfigError: A setting of the average that moves is out of range.
        TrainingError: The average gives no list, another number of shares, or one outside of [0, 1].
    """
    with name_place(f"the average {average.names[0]}", position):
        given: object = average.compute_shares(position, age, images)
    if not isinstance(given, Iterable):
        raise TrainingError(
            f"averages.{type(average).__name__}.compute_shares() returned {given!r:.100}, and must return a list of "
            f"numbers in [0, 1], one for each of {', '.join(average.names)}"
        )
    shares = tuple(given)
    fits = len(shares) == len(average.names) and all(isinstance(share, float | int) for share in shares)
    if not fits or not all(0 <= share <= 1 for share in shares):
        piece = "an old piece" if age == OLD else f"a piece of age {age}"
        raise TrainingError(
            f"averages.{type(average).__name__} gives the shares {shares} at images {position.images}, for {piece}: "
            f"there must be one in [0, 1] for each of {', '.join(average.names)}"
        )
    return shares


def list_copies(averages: Sequence[Average], position: Position) -> list[str]:
    """Return the names of those that are no averages at a place on the clock, but copies of G."""
    names = []
    for average in averages:
        # Any average copies a piece that is just born.
        shares = compute_shares(average, position, OLD, 1)
        names += [name for name, share in zip(average.names, shares, strict=True) if share == 1]
    return names


class AverageAge(NamedTuple):
    """The age of an average of G at a stage's end: that of its oldest pieces, as younger pieces remember less.

    Attributes:
        stage: the stage.
        name: the average's name.
        before_stage: the share of its weight that stems from before the stage; at the base stage, from random weights.
        before_fade_end: the share that stems from before the end of the stage's fade; None where there is no fade.
        fitting_half_life: images of the longest half-life with which `before_stage` is small enough.
    """

    stage: Stage
    name: str
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
            f"{self.name} {origin}, so that its images and metrics show outdated networks: "
            f"averages.HalfLife.half_life = {self.fitting_half_life} (images; with train.averages = "
            f"[@averages.HalfLife()]), or less, leaves at most {format_percent(LARGEST_SHARE)}"
        )


def list_average_ages(experiment: Experiment, schedule: Schedule, starts: Sequence[int]) -> list[AverageAge]:
    """Return the age of each average at the end of each stage that spends images, from the current stage on.

    It assumes that each stage spends just its budget.

    Args:
        experiment: the settings.
        schedule: the stages.
        starts: the clock at which each stage so far began; `[0]` for a new run.

    Returns:
        Stage by stage, and in each the averages in their order.
    """
    planned_starts = list(starts)
    ages: list[AverageAge] = []
    while len(planned_starts) <= len(schedule.stages):
        end = schedule.end(planned_starts)
        # A stage without images leaves the average as it was.
        if end > planned_starts[-1]:
            for average in experiment.averages:
                ages += _list_ages_at_end(average, experiment.update, schedule, planned_starts, end)
        planned_starts.append(end)
    return ages


def _list_ages_at_end(
    average: Average, update: Update, schedule: Schedule, starts: Sequence[int], end: int
) -> list[AverageAge]:
    """Return the age of each of an average's names at the end of the last stage of `starts`."""
    stage = schedule.stages[len(starts) - 1]
    begin = starts[-1]
    before_stage = compute_shares_from_before(average, update, schedule, starts, begin, end)
    before_fade_end: list[float | None] = [None] * len(average.names)
    if stage.fade_images > 0:
        fade_end = min(end, begin + stage.fade_images)
        before_fade_end = [*compute_shares_from_before(average, update, schedule, starts, fade_end, end)]
    fitting = _compute_fitting_half_life(end - begin)
    rows = zip(average.names, before_stage, before_fade_end, strict=True)
    return [AverageAge(stage, name, share, fade_share, fitting) for name, share, fade_share in rows]


def compute_shares_from_before(
    average: Average, update: Update, schedule: Schedule, starts: Sequence[int], moment: int, end: int
) -> list[float]:
    """Return the share of the weight of each of an average's names, at the clock `end`, from before `moment`.

    Both lie within the last stage of `starts`. The piece is one of the run's first, born at 0. Of many updates, as many
    are looked at as `LOOKED_AT`, each for its neighbours too.
    """
    # What is left of the first weights after each group of updates, all with the share in its middle.
    remaining = [1.0] * len(average.names)
    for begin, count, drawn in group_steps(update, schedule, starts, moment, end, LOOKED_AT):
        images = begin + count // 2 * drawn
        shares = compute_shares(average, schedule.at(images, starts), images, drawn)
        remaining = [rest * (1.0 - share) ** count for rest, share in zip(remaining, shares, strict=True)]
        if max(remaining) <= NEGLIGIBLE:
            break
    return remaining


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

    # One pass over them; momenta and mode are put back whatever happens.
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
