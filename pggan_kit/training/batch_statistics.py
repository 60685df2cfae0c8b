"""Which statistics networks compute over the samples of a call, and warnings where a call has too few samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pggan_kit.components import BatchStatistic
from pggan_kit.experiment import Experiment
from pggan_kit.schedule import Schedule, Stage


def count_samples(experiment: Experiment, stage: Stage, rows: int, net: str) -> int:
    """Return the fewest samples that a network sees in one call.

    Args:
        experiment: The chosen components and settings.
        stage: The stage.
        rows: Rows of the stage's batch in one process.
        net: The network.
    """
    batches: int = getattr(experiment.update, "batches_in_a_call", 1)
    # Penalties run D on images of their own, as many as there are reals.
    if net == "discriminator" and any(getattr(penalty, "runs_critic", True) for penalty in experiment.loss.penalties):
        batches = 1
    return batches * (rows // experiment.count_micro_batches(stage, rows))


def list_batch_statistics(experiment: Experiment, stage: Stage, rows: int) -> Sequence[BatchStatistic]:
    """Return the statistics that each network's architecture declares of it; none where it declares nothing.

    Args:
        experiment: The chosen components and settings.
        stage: The stage whose networks are asked for.
        rows: Rows of the stage's batch in one process.

    Raises:
        ValueError: The networks cannot be trained with so few samples.
    """
    statistics: list[BatchStatistic] = []
    for net in experiment.nets:
        samples = count_samples(experiment, stage, rows, net)
        # An architecture that compares no samples need not have the method.
        declare = getattr(experiment.find_architecture(net), "batch_statistics", None)
        if declare is not None:
            statistics += [statistic for statistic in declare(stage.of(net), samples) if statistic.net == net]
    return statistics


def list_trained_stages(schedule: Schedule) -> list[Stage]:
    """Return the stages that spend images; the others are left as soon as they are entered."""
    last = len(schedule.stages) - 1
    return [stage for stage in schedule.stages if stage.budget > 0 or stage.index == last]


def list_warnings(experiment: Experiment, stages: Iterable[Stage], processes: int) -> list[str]:
    """Return a line for each statistic that is of one sample alone, or of other groups than in a whole batch.

    It names all stages where it is so.
    """
    sizes: dict[str, list[str]] = {}
    for stage in stages:
        rows = stage.batch_size // processes
        parts = processes * experiment.count_micro_batches(stage, rows)
        for statistic in list_batch_statistics(experiment, stage, rows):
            if statistic.group == 1:
                samples = count_samples(experiment, stage, rows, statistic.net)
                problem = describe_lone_statistic(statistic, samples)
                sizes.setdefault(problem, []).append(stage.size)
            elif statistic.of_neighbours and parts > 1:
                problem = describe_parted_statistic(statistic, parts)
                sizes.setdefault(problem, []).append(stage.size)
    return [f"at {', '.join(where)} {problem}" for problem, where in sizes.items()]


def describe_lone_statistic(statistic: BatchStatistic, samples: int) -> str:
    """Return what is wrong with a statistic over one sample, and what to change."""
    return (
        f"the {statistic.net}'s {statistic.name} is {statistic.alone}: each sample of the {samples} in a call is a "
        "group of its own. Change schedule.batch_size, train.micro_batch or the number of processes"
    )


def describe_parted_statistic(statistic: BatchStatistic, parts: int) -> str:
    """Return what is wrong with a statistic of neighbours, of a batch that ranks and slices share, and what to change.

    Args:
        statistic: The statistic.
        parts: Number of parts of the batch: processes times slices.
    """
    return (
        f"the {statistic.net}'s {statistic.name} is computed over other groups than without ranks and "
        f"train.micro_batch: each of the {parts} parts of a batch takes every {parts}th row, and groups are samples "
        "that follow each other. Use one process and no train.micro_batch, or another statistic"
    )
