"""A model of the time that a run spends outside updates: counts of what is done, times bounded costs.

Counts and floating-point operations follow from the config alone. The costs are those of two machines: the one on which
`mnist.gin` was measured, and a fast GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.flops import Operations, count_forward_calls, sum_flops
from pggan_kit.benchmarking.rig import has_fade
from pggan_kit.benchmarking.storage import count_checkpoints, estimate_files, list_ticks_by_stage
from pggan_kit.components import ImageMetric
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Stage
from pggan_kit.ticks import Tick

FEWEST_PASSES = 3
"""Forward passes through all networks that an update's work equals at least: one forward, and the backward pass."""

TENSORS_OF_STATE = 4
"""Tensors of the size of the weights in a checkpoint, at most: weights, average and Adam's two moments."""

FAKES_OF_DIVERSITY = 32

COPIED_BYTES = 2e9
"""Bytes of a checkpoint that are copied in a second, before the thread writes them."""

DAY = 86_400.0


@dataclass(frozen=True)
class Machine:
    """The costs of a machine.

    Attributes:
        flops: Floating-point operations a second.
        step: Minimum seconds of an update.
        row: Seconds of a tick's row, in all files and on the terminal.
        picture: Seconds of encoding and writing a picture, and a film that grows by it.
        checkpoint: Seconds of a checkpoint, whatever its size.
        bytes: Bytes of a checkpoint that are written in a second.
        described: Seconds of describing a fake for a metric: `metrics.RadialSpectrum` takes 0.08 ms for 64x64 pixels.
        writes_aside: Whether the thread that writes checkpoints takes nothing from the updates.
    """

    flops: float
    step: float
    row: float
    picture: float
    checkpoint: float
    bytes: float
    described: float
    writes_aside: bool


CPU = Machine(
    flops=77e9,
    step=0.01,
    row=0.006,
    picture=0.01,
    checkpoint=0.015,
    bytes=1e8,
    described=2e-4,
    writes_aside=False,
)
"""Two threads that train `mnist.gin` in 146 s. By these bounds its tick with all parts takes 0.14 s, not 0.09 s."""

GPU = Machine(
    flops=150e12,
    step=0.02,
    row=0.006,
    picture=0.1,
    checkpoint=0.015,
    bytes=1e8,
    described=2e-4,
    writes_aside=True,
)
"""A card that computes in bfloat16, and launches a step's kernels one by one. Checkpoints are written as fast as was
measured, 642 MB in 6 s."""


def estimate_outside_share(prepared: Prepared) -> float:
    """Return the share of the time outside updates, on a CPU or, if that takes over a day, on a GPU."""
    updates, outside = _sum_seconds(prepared, CPU)
    if updates > DAY:
        updates, outside = _sum_seconds(prepared, GPU)
    return outside / (updates + outside)


def _sum_seconds(prepared: Prepared, machine: Machine) -> tuple[float, float]:
    """Return the seconds of updates and those outside them."""
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    ticks = list_ticks_by_stage(schedule, experiment.tick)
    fading = {stage.index for stage in schedule.stages if has_fade(prepared, schedule, stage)}
    checkpoints = count_checkpoints(experiment, ticks, fading)

    state = prepared.state(schedule)
    updates = 0.0
    outside = 0.0
    images = 0
    for stage in schedule.stages:
        if stage.index > 0:
            state.grow(dict.fromkeys(state.networks, False))
        flops = sum_flops(count_forward_calls(state, stage))
        drawing = count_drawing(state, stage)
        own = ticks[stage.index]
        if not own:
            continue
        trained = own[-1].images - images
        images = own[-1].images
        own_updates = max(trained * FEWEST_PASSES * flops / machine.flops, trained / stage.batch_size * machine.step)
        updates += own_updates

        # A checkpoint is written while the steps up to the next tick are taken, and the rest of it is waited for.
        size = _count_state_bytes(state)
        writing = size / machine.bytes
        if machine.writes_aside:
            writing = max(0.0, writing - own_updates / len(own))
        outside += checkpoints[stage.index].written * (machine.checkpoint + size / COPIED_BYTES + writing)
        outside += estimate_files(experiment.observers, ticks, stage.index)[0] / machine.bytes
        outside += _sum_drawing(experiment, own, drawing, machine)
        outside += _sum_metrics(experiment, own, drawing, machine)
    return updates, outside


def _count_state_bytes(state: TrainState) -> int:
    weights = sum(param.numel() for net in state.networks.values() for param in net.parameters())
    return TENSORS_OF_STATE * 4 * weights


def count_drawing(state: TrainState, stage: Stage) -> float:
    """Return the floating-point operations of drawing a fake."""
    rows = 4
    latents = torch.zeros(rows, state.generator.latent_size)
    labels = torch.zeros(rows, dtype=torch.int64) if stage.classes else None
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), Operations() as operations:
        state.generator(latents, labels)
    return sum(call.flops * count for call, count in operations.calls.items()) / rows


def _sum_drawing(experiment: Any, ticks: Sequence[Tick], flops: float, machine: Machine) -> float:
    """Return the seconds of rows, pictures and measurements of diversity; `flops` are those of drawing a fake."""
    seconds = len(ticks) * machine.row
    measured = sum(tick.is_due(experiment.diversity_every) for tick in ticks)
    seconds += measured * FAKES_OF_DIVERSITY * flops / machine.flops
    for observer in experiment.observers:
        count = getattr(observer, "count", 0)
        if count and hasattr(observer, "estimate_bytes"):
            drawn = sum(tick.is_early or tick.is_due(observer.every) for tick in ticks)
            seconds += drawn * (machine.picture + count * flops / machine.flops)
    return seconds


def _sum_metrics(experiment: Any, ticks: Sequence[Tick], flops: float, machine: Machine) -> float:
    """Return the seconds of measuring the metrics of images; `flops` are those of drawing a fake."""
    metrics = [metric for metric in experiment.metrics if isinstance(metric, ImageMetric)]
    if not metrics:
        return 0.0
    evaluations = sum(tick.is_due(experiment.evaluation.every) for tick in ticks)
    fake = flops / machine.flops + len(metrics) * machine.described
    return evaluations * experiment.evaluation.count * fake
