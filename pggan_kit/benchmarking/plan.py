"""Say what an experiment will cost, stage by stage, before it is trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking.activations import count_activations_mib, measure_activations_mib
from pggan_kit.benchmarking.evaluation_time import measure_evaluation
from pggan_kit.benchmarking.observer_times import list_unmeasured
from pggan_kit.benchmarking.rig import has_fade
from pggan_kit.benchmarking.stage_cost import Budget, Cost, build_rig, measure_bfloat16, measure_stage
from pggan_kit.benchmarking.stage_rows import (
    compute_outside_shares,
    compute_snapshots_mib,
    count_rows_at_once,
    describe_files,
    describe_fit,
    describe_stage,
    describe_time,
    describe_training,
    estimate_copies,
    get_work,
)
from pggan_kit.benchmarking.storage import count_checkpoints, list_ticks_by_stage
from pggan_kit.runs.average import AverageAge, format_percent, list_average_ages
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.activities import track_items
from pggan_kit.system.devices import read_memory_mib
from pggan_kit.training.out_of_memory import is_out_of_memory

MEASURING_SECONDS = 60.0
"""Seconds for measuring all stages together; stages that would take longer are extrapolated."""

LARGE_SHARE = 0.05
"""Share of a run's time that what is done beside updates may take before there is a warning."""

SMALL_SHARE = 0.005
"""Share of a run's time from which on a part of it is named in a warning."""

INTERVALS = {
    "checkpoints": "train.checkpoint_every",
    "diversity": "train.diversity_every",
    "metrics": "evaluation.every",
}
"""Settings by which the parts are done less often; an observer's is its `every`."""


def plan(
    config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[Any] = (), *, with_metrics: bool = True
) -> list[dict[str, Any]]:
    """Return the cost of each stage of an experiment; nothing is trained and no run directory is made.

    Times are of real iterations on noise, on this machine and device, steady and mid-fade, not compiled; and of what
    the loop does around them and at ticks: checkpoints, diversity, `train.metrics`, and the observers that have
    `estimate_bytes`, in a temporary folder. Stages too large to be measured in `MEASURING_SECONDS` are extrapolated
    from the largest measured one, as if they took as long for each floating-point operation of both networks' forward
    passes; their rows say so. Activations are counted on fake tensors, which take no memory: a stage that does not fit
    is not run, and so is extrapolated, too.

    Args:
        config: See `api.prepare`.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.
        with_metrics: Whether `train.metrics` are measured and counted.

    Returns:
        A row for each stage: `stage`, `size`, `discriminator_size`, `batch_size`, `fade_images`, `stable_images`,
        `steps`, `generator_parameters`, `discriminator_parameters`, `encoder_parameters` (0 without an encoder),
        `weights_mib` (weights, gradients, average and Adam's moments), `activations_mib` (what an iteration takes at
        most beside them, without the work space of a device's libraries; None where a component needs the content of
        tensors and the stage is not measured), `gflops` (one image forward through all networks), `images_per_second`
        (steady) and `fade_images_per_second`, `bfloat16_images_per_second` (steady, with `train.precision`
        `'bfloat16'`, at the last stage that is measured, where the experiment computes in float32 and the device
        multiplies bfloat16 natively; None elsewhere), `hours`, `measured`, `checkpoints` (their number) and
        `checkpoint_mib` (the size of one), `written_mib` (what checkpoints, averages and observers write in the stage)
        and `kept_mib` (what is left of it when the run has ended), `outside` (the share of the stage's time that each
        part beside updates takes, by its name in `Timing/share/*`), `outside_share` (their sum) and `unmeasured` (the
        observers that are not among them); speeds, hours, sizes of files and shares are None where no stage up to here
        fits. `fits` (whether weights and activations are less than the device's memory, and the stage did not run
        out of it when it was measured; None where unknown), `micro_batch` (what to bind `train.micro_batch` to where
        they are not; None elsewhere, or where not even one row fits), `compiled` (the phases that `train.compile`
        compiles), `batch_statistics` (over how many samples each statistic of a batch is computed, by its name),
        `growth` (for each part of the stage in which other pieces are frozen, the clock at its begin as `images` and
        the pieces that do not learn at their optimizer's rate as `text`; empty without `train.growth`),
        `average_before_stage` and `average_before_fade_end` (the share of the averaged generator's weight, at the
        stage's end, that stems from before the stage and from before its fade's end, of the first average; None where
        the stage spends no images or has no fade), `averages_before_stage` (the former of each average, by name),
        `snapshots_mib` (what is kept of power-function averages in the stage), `copies_mib` (the resized copies of the
        data at this size, on disk) and `copies_hours` (its share, by bytes, of the time that making them takes, unless
        they are in the cache already; an estimate from a few images). Warnings name statistics over one sample,
        averages that remember too much, and more than 5 % of the time beside updates.

    Raises:
        UserError: The config is wrong, or this platform does not tell how much memory there is.
        TrainingError: There is no memory for the weights of a stage.
    """
    prepared = prepare(config, bindings, plugins)
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    budget = Budget(MEASURING_SECONDS)
    ages = list_average_ages(experiment, schedule, [0])
    _warn_of_old_averages(ages)
    for line in prepared.list_warnings(schedule):
        warnings.warn(line, stacklevel=2)

    copies = estimate_copies(experiment, schedule.stages)
    ticks = list_ticks_by_stage(schedule, experiment.tick)
    fading = {stage.index for stage in schedule.stages if has_fade(prepared, schedule, stage)}
    checkpoints = count_checkpoints(experiment, ticks, fading)

    rows: list[dict[str, Any]] = []
    largest: tuple[Cost, dict[str, Any]] | None = None
    for stage in track_items(schedule.stages, "measuring", len(schedule.stages), "stages"):
        # Describe and count before anything that may need too much memory is run.
        rig = build_rig(prepared, schedule, stage)
        device = rig.state.device
        row = describe_stage(stage, schedule, rig.state)
        room = read_memory_mib(device) - row["weights_mib"]
        row |= describe_fit(count_activations_mib(rig), room, rig)
        del rig
        row |= describe_training(prepared, schedule, stage, ages, device)
        row |= copies[stage.index]
        row["snapshots_mib"] = compute_snapshots_mib(experiment.averages, schedule, row)

        # Measure the stage if it fits and there is time, else extrapolate from the last that was measured.
        cost = None
        if row["fits"] is not False and (largest is None or budget.allows(get_work(row))):
            cost = _measure_if_it_fits(prepared, schedule, stage, row, room, budget)
            if cost is not None and with_metrics:
                cost = replace(cost, evaluation=measure_evaluation(prepared, schedule, stage))
        if cost is not None:
            largest = (cost, row)
        row["measured"] = cost is not None
        if cost is None and largest is not None:
            measured_cost, measured_row = largest
            operations = row["gflops"] / measured_row["gflops"]
            weights = row["weights_mib"] / measured_row["weights_mib"]
            cost = measured_cost.scale(operations, weights)
        row |= describe_time(row, cost, experiment, ticks[stage.index], checkpoints[stage.index])
        row |= describe_files(row, cost, experiment, ticks, checkpoints[stage.index])
        row["unmeasured"] = list_unmeasured(experiment.observers)
        rows.append(row)
    if largest is not None:
        _, row = largest
        stage = schedule.stages[row["stage"]]
        row["bfloat16_images_per_second"] = measure_bfloat16(prepared, schedule, stage, budget, get_work(row))
    _warn_of_large_share(rows)
    return rows


def _measure_if_it_fits(
    prepared: Prepared, schedule: Schedule, stage: Stage, row: dict[str, Any], room: float, budget: Budget
) -> Cost | None:
    """Return the cost of a stage; None where memory is full when it is measured, whatever was counted.

    Args:
        prepared: The experiment.
        schedule: Its stages.
        stage: The stage.
        row: The stage's row, to which is added what is known of its memory.
        room: MiB that the weights leave.
        budget: The time that is left.
    """
    rig = build_rig(prepared, schedule, stage)
    try:
        if row["activations_mib"] is None:
            row |= describe_fit(measure_activations_mib(rig), room, rig)
        return measure_stage(prepared, rig, budget, get_work(row))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    rows = count_rows_at_once(rig)
    smaller = [size for size in range(1, rows) if rows % size == 0]
    row |= {"fits": False, "micro_batch": max(smaller, default=None)}
    return None


def _warn_of_old_averages(ages: Sequence[AverageAge]) -> None:
    for age in ages:
        if age.warning is not None:
            warnings.warn(age.warning, stacklevel=3)


def _warn_of_large_share(rows: Sequence[dict[str, Any]]) -> None:
    parts = compute_outside_shares(rows)
    share = sum(parts.values())
    if share <= LARGE_SHARE:
        return
    large = [name for name, part in parts.items() if part >= SMALL_SHARE]
    listed = ", ".join(f"{name} {format_percent(parts[name])}" for name in large)
    settings = ", ".join(INTERVALS.get(name, f"observers.{name}.every") for name in large)
    warnings.warn(
        f"{format_percent(share)} of the time is spent outside updates ({listed}): raise {settings} or train.tick",
        stacklevel=3,
    )
