"""Describe a stage in a row of `plan`: what it has, whether it fits, and what its cost comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.flops import count_forward_calls, sum_flops
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.benchmarking.stage_cost import Cost
from pggan_kit.benchmarking.storage import CheckpointCounts, estimate_files
from pggan_kit.components import Average
from pggan_kit.data.build_estimate import estimate_build
from pggan_kit.experiment import Experiment
from pggan_kit.growth.averages import PowerAverage, list_names
from pggan_kit.growth.learning import list_planned_parts
from pggan_kit.growth.moving_settings import list_moving_settings
from pggan_kit.growth.planned_steps import count_steps
from pggan_kit.runs.average import AverageAge
from pggan_kit.runs.average_snapshots import compute_interval
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage, value_at
from pggan_kit.system import distributed
from pggan_kit.ticks import Tick
from pggan_kit.training.batch_statistics import list_batch_statistics, list_trained_stages
from pggan_kit.training.compiler import compiling_pays

COPIES = 4
"""Tensors of the size of a network's weights: weights, gradients and Adam's two moments. G has its averages besides."""

COPIES_TO_LEARN = 3
"""Those of them that frozen weights do not need: gradients and moments."""

COSTS_OF_TIME = (
    *("fade_images_per_second", "images_per_second", "hours"),
    *("checkpoints", "checkpoint_mib", "outside", "outside_share"),
)
"""Entries of a row that are None where the cost of a stage is unknown."""


def describe_stage(stage: Stage, schedule: Schedule, state: TrainState) -> dict[str, Any]:
    """Return what a row says before anything is measured."""
    # The total lengthens the last stage, or cuts any: its stable part first, and then its fade.
    starts = schedule.planned_starts()[: stage.index + 1]
    images = schedule.end(starts) - starts[-1]
    fade = min(stage.fade_images, images)

    # Memory of weights: frozen ones have neither gradients nor moments.
    generator = sum(param.numel() for param in state.generator.parameters())
    discriminator = sum(param.numel() for param in state.discriminator.parameters())
    encoder = 0
    if state.encoder is not None:
        encoder = sum(param.numel() for param in state.encoder.parameters())
    averages = len(list_names(state.experiment.averages))
    learning = [param for net in state.networks.values() for param in net.learning_weights()]
    readers = discriminator + encoder
    frozen = generator + readers - sum(param.numel() for param in learning)
    weights = (COPIES + averages) * generator + COPIES * readers - COPIES_TO_LEARN * frozen
    return {
        "stage": stage.index,
        "size": stage.size,
        "discriminator_size": stage.of("discriminator").size,
        "batch_size": stage.batch_size,
        "fade_images": fade,
        "stable_images": images - fade,
        "steps": -(-images // stage.batch_size),
        "generator_parameters": generator,
        "discriminator_parameters": discriminator,
        "encoder_parameters": encoder,
        "weights_mib": weights * 4 / 2**20,
        "bfloat16_images_per_second": None,
        "gflops": sum_flops(count_forward_calls(state, stage)) / 1e9,
    }


def describe_training(
    prepared: Prepared, schedule: Schedule, stage: Stage, ages: Sequence[AverageAge], device: torch.device
) -> dict[str, Any]:
    """Return what a stage compiles, computes over a batch, freezes, averages and moves.

    Args:
        prepared: The experiment.
        schedule: All stages.
        stage: The stage.
        ages: Ages of the averages at all stages.
        device: The device that trains the stage.
    """
    return {
        "compiled": _list_compiled_phases(prepared, stage, schedule, device),
        "batch_statistics": _list_group_sizes(prepared, stage, schedule),
        "growth": _list_learning_parts(prepared, stage, schedule),
        **_describe_average([age for age in ages if age.stage == stage]),
        "moving_settings": _list_values_of_moving_settings(prepared, stage, schedule),
    }


def _list_group_sizes(prepared: Prepared, stage: Stage, schedule: Schedule) -> dict[str, int]:
    """Return over how many samples each statistic of a batch is computed, by its name."""
    if stage not in list_trained_stages(schedule):
        return {}
    rows = stage.batch_size // distributed.world_size()
    statistics = list_batch_statistics(prepared.built.experiment, stage, rows)
    return {f"the {statistic.net}'s {statistic.name}": statistic.group for statistic in statistics}


def _list_learning_parts(prepared: Prepared, stage: Stage, schedule: Schedule) -> list[dict[str, Any]]:
    """Return the parts of a stage in which other pieces are frozen, with a description of each."""
    experiment = prepared.built.experiment
    parts = list_planned_parts(experiment.growth, experiment.update, schedule, stage, experiment.nets)
    return [{"images": part.begin, "text": part.text} for part in parts]


def _list_compiled_phases(prepared: Prepared, stage: Stage, schedule: Schedule, device: torch.device) -> list[str]:
    """Return the phases of a stage that `train.compile` compiles on a device."""
    experiment = prepared.built.experiment
    starts = schedule.planned_starts()[: stage.index + 1]
    phases = []
    for phase in (FADE, STABLE):
        steps = count_steps(experiment.update, schedule, starts, phase)
        if steps > 0 and compiling_pays(experiment.compile, steps, stage, device):
            phases.append(phase)
    return phases


def _list_values_of_moving_settings(prepared: Prepared, stage: Stage, schedule: Schedule) -> dict[str, list[float]]:
    """Return the values that moving settings have where a stage begins and where it ends, by name."""
    components = {path: component for path, (_, component) in prepared.built.components.items()}
    starts = schedule.planned_starts()[: stage.index + 1]
    places = [schedule.at(images, starts) for images in (starts[-1], schedule.end(starts))]
    values: dict[str, list[float]] = {}
    for name, setting in list_moving_settings(components).items():
        values[name] = [value_at(setting, place) for place in places]
    return values


def _describe_average(ages: Sequence[AverageAge]) -> dict[str, Any]:
    """Return how old the averages will be at the end of a stage, of which the first is the generator's."""
    row: dict[str, Any] = {"average_before_stage": None, "average_before_fade_end": None}
    if ages:
        row = {"average_before_stage": ages[0].before_stage, "average_before_fade_end": ages[0].before_fade_end}
    row["averages_before_stage"] = {age.name: age.before_stage for age in ages}
    return row


def estimate_copies(experiment: Experiment, stages: Sequence[Stage]) -> dict[int, dict[str, float]]:
    """Return the MiB on disk and the hours of making them, by stage; stages of equal sizes share their copies."""
    sizes = [(stage.height, stage.width) for stage in stages]
    estimate = estimate_build(experiment.dataset, experiment.data, sizes)
    total = sum(estimate.bytes.values())
    left = dict(estimate.bytes)
    copies = {}
    for stage, size in zip(stages, sizes, strict=True):
        own = left.pop(size, 0)
        hours = estimate.seconds / 3600 * own / total
        copies[stage.index] = {"copies_mib": own / 2**20, "copies_hours": hours}
    return copies


def compute_snapshots_mib(averages: Sequence[Average], schedule: Schedule, row: Mapping[str, Any]) -> float:
    """Return the size of what is kept of power-function averages in a stage that spends its budget."""
    start = schedule.planned_starts()[row["stage"]]
    end = start + row["fade_images"] + row["stable_images"]
    kept = 0
    for average in averages:
        if isinstance(average, PowerAverage):
            interval = compute_interval(average, schedule.total)
            kept += len(average.names) * (end // interval - start // interval)
    return float(kept * row["generator_parameters"] * 4 / 2**20)


def describe_fit(activations: float | None, room: float, rig: Rig) -> dict[str, Any]:
    """Return whether the activations fit, and which micro-batch would.

    Args:
        activations: MiB that the stage takes beside its weights; None where that is unknown.
        room: MiB that the weights leave.
        rig: The stage.
    """
    if activations is None:
        return {"activations_mib": None, "fits": None, "micro_batch": None}
    # Activations grow with the rows that are worked on at once.
    micro_batch = None
    if activations > room:
        micro_batch = find_largest_micro_batch(count_rows_at_once(rig), activations, room)
    return {"activations_mib": activations, "fits": activations <= room, "micro_batch": micro_batch}


def find_largest_micro_batch(rows: int, activations: float, room: float) -> int | None:
    """Return the `micro_batch` to recommend: the largest that divides a batch, and whose activations fit.

    Args:
        rows: Rows of the batch in one process.
        activations: Memory that a whole batch keeps for its backward pass.
        room: Memory that there is for it, in the same unit.

    Returns:
        Rows; `rows` where the whole batch fits, None where not even one row does.
    """
    for size in range(rows, 0, -1):
        if rows % size == 0 and activations * size / rows <= room:
            return size
    return None


def count_rows_at_once(rig: Rig) -> int:
    """Return the rows of a batch that are worked on at once."""
    rows = rig.stage.batch_size
    return rows // rig.experiment.count_micro_batches(rig.stage, rows)


def get_work(row: Mapping[str, Any]) -> float:
    """Return the GFLOP of a batch's forward pass, by which a stage's time is guessed."""
    work: float = row["batch_size"] * row["gflops"]
    return work


def describe_time(
    row: dict[str, Any], cost: Cost | None, experiment: Experiment, ticks: Sequence[Tick], checkpoints: CheckpointCounts
) -> dict[str, Any]:
    """Return the speed of a stage, the hours that it takes, and the shares of them beside updates.

    Args:
        row: What is known of the stage.
        cost: Its cost; None where it is unknown.
        experiment: The experiment.
        ticks: Its ticks.
        checkpoints: Its checkpoints.
    """
    if cost is None:
        return dict.fromkeys(COSTS_OF_TIME)

    # The whole time is that of the updates and that of what is done between them.
    updates = row["fade_images"] * cost.fading + row["stable_images"] * cost.steady
    parts = cost.sum_parts(experiment, ticks, checkpoints.written, updates)
    outside = sum(parts.values())
    seconds = updates + outside
    return {
        "fade_images_per_second": 1 / cost.fading,
        "images_per_second": 1 / cost.steady,
        "hours": seconds / 3600,
        "checkpoints": checkpoints.written,
        "checkpoint_mib": cost.checkpoint_mib,
        "outside": {name: part / seconds if seconds else 0.0 for name, part in parts.items()},
        "outside_share": outside / seconds if seconds else 0.0,
    }


def describe_files(
    row: dict[str, Any],
    cost: Cost | None,
    experiment: Experiment,
    ticks: Sequence[Sequence[Tick]],
    checkpoints: CheckpointCounts,
) -> dict[str, Any]:
    """Return the MiB that a stage writes, and those of them that are left when the run has ended.

    Args:
        row: What is known of the stage.
        cost: Its cost; None where it is unknown.
        experiment: The experiment.
        ticks: The ticks of each stage.
        checkpoints: The stage's checkpoints.
    """
    if cost is None:
        return {"written_mib": None, "kept_mib": None}
    parts = checkpoints.parts * cost.kept_mib + row["snapshots_mib"]
    files_written, files_kept = estimate_files(experiment.observers, ticks, row["stage"])
    return {
        "written_mib": checkpoints.written * cost.checkpoint_mib + parts + files_written / 2**20,
        "kept_mib": checkpoints.left * cost.checkpoint_mib + parts + files_kept / 2**20,
    }


def compute_outside_shares(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of the run's time that goes to each part beside updates, the largest first."""
    known = [row for row in rows if row["hours"] is not None]
    total = sum(row["hours"] for row in known)
    parts: dict[str, float] = {}
    for row in known:
        for name, share in row["outside"].items():
            if share > 0:
                parts[name] = parts.get(name, 0.0) + share * row["hours"] / total
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
