"""Make the average of any width after training, of power-function averages that were kept (Karras et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pggan_kit.errors import RunError, check_between
from pggan_kit.growth.averages import PowerAverage
from pggan_kit.growth.power_functions import LARGEST_WIDTH, Fit, convert_width_to_exponent, fit_profile
from pggan_kit.runs.average_snapshots import AverageSnapshot, AverageSnapshots
from pggan_kit.runs.generators import calibrate_if_normed, regrow_generator
from pggan_kit.runs.snapshot import AVERAGE, Snapshot
from pggan_kit.runs.snapshot_loading import load_weights, refuse_unfit_snapshot, require_stage_in_schedule
from pggan_kit.system.seeding import fork_random_numbers

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator
    from pggan_kit.schedule import Schedule


@dataclass(frozen=True)
class PieceFit:
    """How well the average of the pieces of one birth was made.

    Attributes:
        size: the size of the stage with which they came.
        count: the number of averages of them that were kept.
        error: the distance of the profile that was made from the one that was asked for, as a share of its L2 norm.
    """

    size: str
    count: int
    error: float


@dataclass(frozen=True)
class _Kept:
    """An average that was kept: its clock, exponent, and the names of its weights.

    Attributes:
        key: its place among the snapshots, and its name.
        images: the clock.
        exponent: its exponent.
        names: names of its weights.
    """

    key: tuple[int, str]
    images: int
    exponent: float
    names: frozenset[str]


def make_average(
    experiment: Experiment, schedule: Schedule, saved: Snapshot, kept: AverageSnapshots, width: float
) -> tuple[Snapshot, list[PieceFit]]:
    """Make the average of a width at a checkpoint: for each piece, the sum of kept averages that is nearest to it.

    Args:
        experiment, schedule: the run's.
        saved: the checkpoint, whose own averages count among those that were kept.
        kept: the averages that the run has kept until then.
        width: standard deviation of the average's profile, as a share of the age of each piece.

    Returns:
        The checkpoint with this average alone, named `width_0.05`, without what training needs; and how well it was
        made, from the oldest pieces to the youngest.

    Raises:
        SettingError: the width is out of range.
        RunError: the experiment has no power functions, or the checkpoint is of other networks.
    """
    check_between("width", width, 0, LARGEST_WIDTH, low_included=False)
    exponents = _read_exponents(experiment, saved)
    require_stage_in_schedule(saved, schedule)

    with fork_random_numbers(), refuse_unfit_snapshot():
        net = regrow_generator(experiment, schedule, saved)
        current = _name_weights_at(saved, net, exponents)

        # Which sum it is depends on clocks and exponents alone.
        listed = _list_kept(_iterate_all(kept, saved.images, current))
        births = net.name_weights_by_birth()
        fits = {birth: _fit_piece(listed, list(names), saved, birth, width) for birth, names in births.items()}

        # The sum itself.
        factors = {birth: own_factors for birth, (_, own_factors) in fits.items()}
        sums = _sum_weights(net, births, factors, _iterate_all(kept, saved.images, current))
        with torch.no_grad():
            for name, param in net.name_weights().items():
                param.copy_(sums[name])
        calibrate_if_normed(net, experiment, schedule.stages[saved.stage], saved)

    # How well each piece fits.
    rows = []
    for birth in sorted(fits):
        fit, own_factors = fits[birth]
        rows.append(PieceFit(schedule.stages[birth].size, len(own_factors), fit.error))
    return _hold_average_alone(saved, f"width_{width:g}", net), rows


def _read_exponents(experiment: Experiment, saved: Snapshot) -> dict[str, float]:
    """Return the exponents of the power functions that an experiment and its checkpoint have, by name."""
    exponents: dict[str, float] = {}
    for average in experiment.averages:
        if isinstance(average, PowerAverage):
            exponents |= dict(zip(average.names, average.exponents, strict=True))
    exponents = {name: exponent for name, exponent in exponents.items() if name in saved.averages}
    if not exponents:
        raise RunError(
            f"an average of another width needs power functions, and the run has {', '.join(saved.averages)}: train "
            "with train.averages = [@averages.HalfLife(), @averages.PowerFunction()]"
        )
    return exponents


def _name_weights_at(saved: Snapshot, net: Generator, exponents: Mapping[str, float]) -> AverageSnapshot:
    """Return a checkpoint's own power functions as if they had been kept there. The net then has one of them."""
    kept = {}
    for name in exponents:
        load_weights(net, saved.averages[name], f"average {name}")
        kept[name] = {key: param.detach().clone() for key, param in net.name_weights().items()}
    return AverageSnapshot(saved.images, exponents, kept)


def _iterate_all(kept: AverageSnapshots, images: int, current: AverageSnapshot) -> Iterator[AverageSnapshot]:
    """Yield what was kept before a clock, and the averages at that clock."""
    yield from kept.load_before(images)
    yield current


def _list_kept(snapshots: Iterable[AverageSnapshot]) -> list[_Kept]:
    """Return what is known of each kept average beside its weights, which are read one file at a time."""
    listed = []
    for place, each in enumerate(snapshots):
        for name, weights in each.weights.items():
            listed.append(_Kept((place, name), each.images, each.exponents[name], frozenset(weights)))
    return listed


def _fit_piece(
    listed: list[_Kept], names: list[str], saved: Snapshot, birth: int, width: float
) -> tuple[Fit, dict[tuple[int, str], float]]:
    """Return the fit of the pieces of a birth, and the factor of each kept average."""
    start = saved.starts[birth]
    usable = [each for each in listed if each.images > start and each.names >= set(names)]
    if not usable:  # just born, and a copy in every average
        usable = [each for each in listed if each.images == saved.images][:1]
        return Fit([1.0], 0.0), {usable[0].key: 1.0}
    ages = [each.images - start for each in usable]
    exponents = [each.exponent for each in usable]
    fit = fit_profile(ages, exponents, saved.images - start, convert_width_to_exponent(width))
    factors = zip(usable, fit.coefficients, strict=True)
    return fit, {each.key: factor for each, factor in factors}


def _sum_weights(
    net: Generator,
    births: Mapping[int, Iterable[str]],
    factors: Mapping[int, Mapping[tuple[int, str], float]],
    snapshots: Iterable[AverageSnapshot],
) -> dict[str, Tensor]:
    """Return the sums of kept averages by the names of weights, in float64, reading one file at a time.

    Args:
        net: the network whose weights they are.
        births: names of its weights, by birth.
        factors: for each birth, the factor of each kept average by its key; 0 where there is none.
        snapshots: what was kept, in the order of the keys.
    """
    sums = {name: torch.zeros_like(param, dtype=torch.float64) for name, param in net.name_weights().items()}

    # A piece takes what its own birth gives to the average, which may be nothing.
    for place, each in enumerate(snapshots):
        for name, weights in each.weights.items():
            for birth, piece_names in births.items():
                factor = factors[birth].get((place, name), 0.0)
                for piece_name in piece_names if factor else ():
                    sums[piece_name] += factor * weights[piece_name].double()
    return sums


def _hold_average_alone(saved: Snapshot, name: str, net: Generator) -> Snapshot:
    """Return a checkpoint with a network as its only average, and without what training needs."""
    weights = {key: value.detach() for key, value in net.state_dict().items()}
    return replace(saved.reduce(AVERAGE), averages={name: weights})
