"""What an experiment will cost, stage by stage, before it is trained."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pggan_kit.api import prepare
from pggan_kit.experiment import Experiment
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.state import TrainState
from pggan_kit.steps import StepContext

MEASURING_SECONDS = 20.0
"""Once the measured stages have taken this long, the larger ones are extrapolated."""


def plan(config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """One row per stage; nothing is trained and no run directory is made.

    Times are of real iterations on noise, on this machine and device. Stages too large to be measured in
    `MEASURING_SECONDS` are extrapolated from the largest measured one by the floating-point operations of both
    networks' forward passes; their rows say so.

    Returns:
        `stage`, `size`, `batch_size`, `fade_images`, `stable_images`, `steps`, `generator_parameters`,
        `discriminator_parameters`, `weights_mib` (weights, gradients, average and Adam's moments),
        `activations_mib` (what one update keeps for its backward pass; None where not measured), `gflops` (one image
        forward through both networks), `images_per_second`, `hours`, `measured`, `fits` (whether weights and
        activations are less than the device's memory; None where not measured).

    Raises:
        UserError: the config is wrong.
    """
    prepared = prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    state = prepared.state(schedule)
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    rate = 0.0
    for stage in schedule.stages:
        if stage.index:
            state.grow({})
            state.renew_optimizers(reset=True)
        row = _row(stage, schedule, state)
        measured = time.perf_counter() - began < MEASURING_SECONDS
        if measured:
            images_per_second, row["activations_mib"] = _measure(prepared.built.experiment, state, stage)
            rate = images_per_second * row["gflops"]
        row["images_per_second"] = rate / row["gflops"]
        row["hours"] = (row["fade_images"] + row["stable_images"]) / row["images_per_second"] / 3600
        row["measured"] = measured
        if measured:
            row["fits"] = row["weights_mib"] + row["activations_mib"] <= memory_mib(state.device)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `plan` for people."""
    shown = Table(
        *("stage", "size", "batch", "fade", "stable", "steps", "G", "D", "weights", "act.", "fits", "img/s", "time")
    )
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        activations = row["activations_mib"]
        shown.add_row(
            str(row["stage"]),
            row["size"],
            str(row["batch_size"]),
            *(compact(row[name]) for name in ("fade_images", "stable_images", "steps")),
            *(compact(row[name]) for name in ("generator_parameters", "discriminator_parameters")),
            f"{row['weights_mib']:.0f}",
            "?" if activations is None else f"{activations:.0f}",
            {True: "yes", False: "no", None: "?"}[row["fits"]],
            f"{row['images_per_second']:.3g}",
            duration(row["hours"] * 3600) + ("" if row["measured"] else " (extrapolated)"),
        )
    shown.title = "G, D: parameters; weights: with gradients, average and moments; act.: kept for backward (MiB)"
    total = sum(row["hours"] for row in rows) * 3600
    images = sum(row["fade_images"] + row["stable_images"] for row in rows)
    shown.caption = f"{images:,} images, about {duration(total)} on this machine without fades and observers"
    return shown


def memory_mib(device: torch.device) -> float:
    """All memory of a GPU, or of this machine, in MiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
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
        "gflops": _forward_gflops(state, stage),
    }


def _forward_gflops(state: TrainState, stage: Stage) -> float:
    counter = FlopCounterMode(display=False)
    labels = torch.zeros(4, dtype=torch.int64, device=state.device) if stage.classes else None
    with torch.no_grad(), counter:
        images = state.generator(torch.zeros(4, state.generator.latent_size, device=state.device), labels)
        state.discriminator(images, labels)
    return counter.get_total_flops() / 4 / 1e9


class Noise:
    """Stands in for the data."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        shape = (count, self.stage.image_channels, self.stage.height, self.stage.width)
        labels = torch.zeros(count, dtype=torch.int64) if self.stage.classes else None
        return torch.randint(0, 256, shape, dtype=torch.uint8), labels


def _measure(experiment: Experiment, state: TrainState, stage: Stage) -> tuple[float, float]:
    """Images per second of an iteration, and the MiB that one keeps for backward passes."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def iterate() -> tuple[float, int]:
        ctx = StepContext(experiment, state, stage, Noise(stage), {})
        began = time.perf_counter()
        experiment.update.step(ctx)
        state.follow()
        if state.device.type == "cuda":
            torch.cuda.synchronize(state.device)
        return time.perf_counter() - began, ctx.drawn

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        iterate()
    timings = [iterate() for _ in range(3)]
    seconds, drawn = sorted(timings)[1]
    return drawn / seconds, sum(kept.values()) / 2**20
