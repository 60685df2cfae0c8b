"""What an experiment will cost, stage by stage, before it is trained."""

from __future__ import annotations

import functools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking.breakdown import seconds_around
from pggan_kit.benchmarking.flops import flops_of, forward_calls
from pggan_kit.benchmarking.rig import Rig, fades
from pggan_kit.benchmarking.timing import seconds
from pggan_kit.errors import ConfigError
from pggan_kit.runs.average import AverageAge, ages_of_average, percent
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage
from pggan_kit.system import distributed
from pggan_kit.system.devices import peak_mib, reset_peak
from pggan_kit.training import measures as meters
from pggan_kit.training.batch_statistics import list_batch_statistics, list_trained_stages
from pggan_kit.training.compiler import pays, steps_of

MEASURING_SECONDS = 60.0
"""Stages that would take longer, all together, are extrapolated."""

TIMED = 3
"""Iterations of a kind, of which the median counts."""


def plan(config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """One row per stage; nothing is trained and no run directory is made.

    Times are of real iterations on noise, on this machine and device, steady and mid-fade, not compiled; and of what
    the loop does around them and at ticks, without observers and metrics. Stages too large to be measured in
    `MEASURING_SECONDS` are extrapolated from the largest measured one, as if they took as long for each floating-point
    operation of both networks' forward passes; their rows say so.

    Returns:
        `stage`, `size`, `batch_size`, `fade_images`, `stable_images`, `steps`, `generator_parameters`,
        `discriminator_parameters`, `weights_mib` (weights, gradients, average and Adam's moments),
        `activations_mib` (what one update keeps for its backward pass, or on a GPU takes in all; None where not
        measured), `gflops` (one image forward through both networks), `images_per_second` (steady) and
        `fade_images_per_second`, `tick_seconds`, `hours`, `measured`, `fits` (whether weights and activations are less
        than the device's memory; None where not measured), `micro_batch` (what to bind `train.micro_batch` to where
        they are not; None elsewhere, or where not even one row fits), `compiled` (the phases that `train.compile`
        compiles), `batch_statistics` (over how many samples each statistic of a batch is computed, by its name),
        `average_before_stage` and `average_before_fade_end` (the share of the averaged generator's weight, at the
        stage's end, that stems from before the stage and from before its fade's end; None where the stage spends no
        images or has no fade). Warnings name statistics over one sample, and averages that remember too much.

    Raises:
        UserError: the config is wrong.
    """
    prepared = prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    budget = Budget(MEASURING_SECONDS)
    ages = {age.stage.index: age for age in ages_of_average(prepared.built.experiment, schedule, [0])}
    rows: list[dict[str, Any]] = []
    largest: tuple[Cost, dict[str, Any]] | None = None
    for line in prepared.batch_warnings(schedule):
        warnings.warn(line, stacklevel=2)
    for stage in schedule.stages:
        rig = Rig(prepared, schedule, stage.index, fading=False, compiles=False)
        row = _row(stage, schedule, rig.state)
        row["compiled"] = _compiled(prepared, stage, schedule)
        row["batch_statistics"] = _group_sizes(prepared, stage, schedule)
        row |= _average_age(ages.get(stage.index))
        rows.append(row)
        row["measured"] = largest is None or budget.allows(stage.batch_size * row["gflops"])
        if row["measured"]:
            cost = _measured(prepared, rig, budget, stage.batch_size * row["gflops"])
            largest = cost, row
            _fit(row, cost.activations_mib, rig)
        else:
            assert largest is not None
            cost = largest[0].times(
                row["gflops"] / largest[1]["gflops"], row["weights_mib"] / largest[1]["weights_mib"]
            )
        _tell(row, cost, prepared.built.experiment.tick)
    return rows


@dataclass(frozen=True)
class Cost:
    """Seconds of an image in the stage's fade and after it, and of a tick; MiB of activations."""

    fading: float
    steady: float
    tick: float
    activations_mib: float | None

    def times(self, operations: float, weights: float) -> Cost:
        """That of a stage with so many times as many operations an image, and weights."""
        return Cost(self.fading * operations, self.steady * operations, self.tick * weights, None)


class Budget:
    """Seconds that are left for measuring, and what they have bought so far."""

    def __init__(self, left: float) -> None:
        self.left = left
        self.per_work = 0.0

    def allows(self, work: float) -> bool:
        """Whether a stage of so much work can be measured as well, at the price of the last."""
        return self.per_work * work <= self.left

    def spend(self, taken: float, work: float) -> None:
        """Measuring a stage of so much work took so long."""
        self.left -= taken
        self.per_work = taken / work


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `plan` for people."""
    shown = Table(
        *("stage", "size", "batch", "fade", "stable", "steps", "G", "D", "weights", "act.", "fits"),
        *("img/s fading", "img/s", "time"),
    )
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        activations = row["activations_mib"]
        fits = {True: "yes", False: "no", None: "?"}[row["fits"]]
        shown.add_row(
            str(row["stage"]),
            row["size"],
            str(row["batch_size"]),
            *(compact(row[name]) for name in ("fade_images", "stable_images", "steps")),
            *(compact(row[name]) for name in ("generator_parameters", "discriminator_parameters")),
            f"{row['weights_mib']:.0f}",
            "?" if activations is None else f"{activations:.0f}",
            fits if row["micro_batch"] is None else f"with micro_batch {row['micro_batch']}",
            f"{row['fade_images_per_second']:.3g}" if row["fade_images"] else "",
            f"{row['images_per_second']:.3g}",
            duration(row["hours"] * 3600) + ("" if row["measured"] else " (extrapolated)"),
        )
    shown.title = "G, D: parameters; weights: with gradients, average and moments; act.: kept for backward (MiB)"
    shown.caption = _caption(rows)
    return shown


def _caption(rows: Sequence[dict[str, Any]]) -> str:
    total = sum(row["hours"] for row in rows) * 3600
    images = sum(row["fade_images"] + row["stable_images"] for row in rows)
    caption = f"{images:,} images, about {duration(total)} on this machine without observers and metrics"
    compiled = ", ".join(f"{row['size']} ({' and '.join(row['compiled'])})" for row in rows if row["compiled"])
    caption += f"; less, as train.compile compiles {compiled}" if compiled else ""
    ages = {row["size"]: row["average_before_stage"] for row in rows if row["average_before_stage"] is not None}
    old = ", ".join(f"{percent(share)} at {size}" for size, share in ages.items())
    average = f"of G's average, at the stage's end, from before the stage: {old}"
    return "\n".join([caption, average, *_describe_groups(rows)])


def _describe_groups(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each statistic of a batch: `... compares 4 samples (4x4, 8x8), 2 (16x16)`."""
    sizes: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        for name, group in row["batch_statistics"].items():
            sizes.setdefault(name, {}).setdefault(group, []).append(row["size"])
    lines = []
    for name, groups in sizes.items():
        parts = [f"{group} ({', '.join(where)})" for group, where in groups.items()]
        parts[0] = parts[0].replace(" (", " samples (", 1)
        lines.append(f"{name} compares {', '.join(parts)}")
    return lines


def memory_mib(device: torch.device) -> float:
    """Return all memory of a GPU, or of this machine, in MiB.

    Raises:
        ConfigError: this platform does not tell it.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    if not hasattr(os, "sysconf"):
        raise ConfigError(
            f"this platform ({sys.platform}) does not tell Python how much memory the machine has, so nobody can say "
            "what fits: plan for a GPU, or on Linux or macOS"
        )
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20


def compact(count: int) -> str:
    """`950`, `12.8k`, `23.1M`."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h` or `5.1 days`."""
    for limit, unit, length in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def _row(stage: Stage, schedule: Schedule, state: TrainState) -> dict[str, Any]:
    stable = stage.stable_images
    if stage.index == len(schedule.stages) - 1:
        stable = max(0, schedule.total - sum(s.budget for s in schedule.stages[:-1]) - stage.fade_images)
    sizes = {name: sum(p.numel() for p in state.network(name).parameters()) for name in ("generator", "discriminator")}
    return {
        "stage": stage.index,
        "size": stage.size,
        "batch_size": stage.batch_size,
        "fade_images": stage.fade_images,
        "stable_images": stable,
        "steps": -(-(stage.fade_images + stable) // stage.batch_size),
        "generator_parameters": sizes["generator"],
        "discriminator_parameters": sizes["discriminator"],
        "weights_mib": (5 * sizes["generator"] + 4 * sizes["discriminator"]) * 4 / 2**20,
        "activations_mib": None,
        "fits": None,
        "micro_batch": None,
        "gflops": flops_of(forward_calls(state, stage)) / 1e9,
    }


def _group_sizes(prepared: Prepared, stage: Stage, schedule: Schedule) -> dict[str, int]:
    if stage not in list_trained_stages(schedule):
        return {}
    rows = stage.batch_size // distributed.world_size()
    statistics = list_batch_statistics(prepared.built.experiment, stage, rows)
    return {f"the {statistic.net}'s {statistic.name}": statistic.group for statistic in statistics}


def _compiled(prepared: Prepared, stage: Stage, schedule: Schedule) -> list[str]:
    start = schedule.planned_starts()[: stage.index + 1]
    images, setting = schedule.end(start) - start[-1], prepared.built.experiment.compile
    steps = {phase: steps_of(stage, phase, images) for phase in (FADE, STABLE)}
    return [phase for phase, count in steps.items() if count and pays(setting, count)]


def _average_age(age: AverageAge | None) -> dict[str, Any]:
    if age is not None and age.warning is not None:
        warnings.warn(age.warning, stacklevel=3)
    return {
        "average_before_stage": None if age is None else age.before_stage,
        "average_before_fade_end": None if age is None else age.before_fade_end,
    }


def _measured(prepared: Prepared, steady: Rig, budget: Budget, work: float) -> Cost:
    began = time.perf_counter()
    activations = _activations_mib(steady)
    steady_seconds = _seconds_an_image(steady)
    fading_seconds = steady_seconds
    if fades(prepared, steady.schedule, steady.stage):
        fading = Rig(prepared, steady.schedule, steady.stage.index, fading=True, compiles=False)
        fading.step()
        fading_seconds = _seconds_an_image(fading)
    cost = Cost(fading_seconds, steady_seconds, _tick_seconds(steady), activations)
    budget.spend(time.perf_counter() - began, work)
    return cost


def _seconds_an_image(rig: Rig) -> float:
    """A mean over the kinds of iteration that lazy penalties make; with what the loop does around each."""
    total = seconds_around(rig)
    for share, update in rig.kinds():
        step = functools.partial(rig.step, update)
        total += share * statistics.median(seconds(step, rig.state.device) for _ in range(TIMED))
    return total / rig.batch


def _tick_seconds(rig: Rig) -> float:
    """Of what the loop itself does at a tick: a look at the images' diversity, and a checkpoint."""
    with rig.run() as run:
        began = time.perf_counter()
        if rig.experiment.collapse_below > 0:
            meters.diversity(run, rig.sampler)
        run.checkpoints.save(rig.state.take_snapshot().on_cpu())
        return time.perf_counter() - began


def _activations_mib(rig: Rig) -> float:
    """MiB of the first iteration: on a GPU beyond what was allocated before, else what is kept for backward passes."""
    device = rig.state.device
    if device.type == "cuda":
        reset_peak(device)
        before = peak_mib(device)
        rig.step()
        return peak_mib(device) - before
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        rig.step()
    return sum(kept.values()) / 2**20


def _fit(row: dict[str, Any], activations: float | None, rig: Rig) -> None:
    assert activations is not None
    room = memory_mib(rig.state.device) - row["weights_mib"]
    row["activations_mib"], row["fits"] = activations, activations <= room
    if not row["fits"]:
        rows = rig.stage.batch_size // rig.experiment.micro_batches(rig.stage, rig.stage.batch_size)
        row["micro_batch"] = largest_that_fits(rows, activations, room)


def _tell(row: dict[str, Any], cost: Cost, tick: int) -> None:
    fade, stable = row["fade_images"], row["stable_images"]
    ticks = (fade + stable) / tick + (fade > 0) + (stable > 0)  # each phase ends with one
    row["fade_images_per_second"], row["images_per_second"] = 1 / cost.fading, 1 / cost.steady
    row["tick_seconds"] = cost.tick
    row["hours"] = (fade * cost.fading + stable * cost.steady + ticks * cost.tick) / 3600


def largest_that_fits(rows: int, activations: float, room: float) -> int | None:
    """The `micro_batch` to recommend: the largest that divides a batch, and whose activations fit.

    Args:
        rows: of the batch in one process.
        activations: what a whole batch keeps for its backward pass.
        room: what there is for it, in the same unit.

    Returns:
        Rows; `rows` where the whole batch fits, None where not even one row does.
    """
    return next((size for size in range(rows, 0, -1) if rows % size == 0 and activations * size / rows <= room), None)
