"""Say what to do where a run needs more memory than there is."""

from __future__ import annotations

import shlex

import torch

from pggan_kit.errors import first_line, iterate_causes
from pggan_kit.runs.run import Run
from pggan_kit.schedule import Schedule
from pggan_kit.system import distributed

CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Word in the RuntimeError that torch raises where the CPU's memory is full."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one that caused it, says that memory is full."""
    return any(
        isinstance(cause, (MemoryError, torch.OutOfMemoryError))
        or (isinstance(cause, RuntimeError) and CPU_ALLOCATOR in str(cause))
        for cause in iterate_causes(error)
    )


def explain_out_of_memory(run: Run, error: BaseException) -> str:
    """Return where a run ran out of memory, and the command that continues it with less from its last checkpoint.

    Args:
        run: The run, in the state in which it failed.
        error: What was raised.
    """
    state = run.state
    stage = state.stage
    rows = stage.batch_size // distributed.world_size()
    slices = run.experiment.count_micro_batches(stage, rows)
    size = rows // slices
    place = f"stage {stage.size}, {state.phase}, images {state.images}"
    reason = f"out of memory ({place}; rows of a batch at once: {size}): {first_line(error)}"

    if size == 1:
        return f"{reason}. One row is the least: choose narrower networks, or smaller images"

    config = str(run.files.path / "config.gin")
    way = "begin again with fewer, and the plugin files of this run"
    command = ["pggan-kit", "train", config]
    # The first checkpoint is written before the first step.
    if run.checkpoints.find_last_file() is not None:
        way = "continue with fewer from the last checkpoint"
        command = ["pggan-kit", "resume", str(run.files.path)]
    command += ["-b", f"train.micro_batch = {_find_smaller(run.schedule, size)}"]
    plan = shlex.join(["pggan-kit", "plan", config])
    return (
        f"{reason}. Bind train.micro_batch to work on fewer at once; the largest that fits is shown by: {plan}. "
        f"To {way}: {shlex.join(command)}"
    )


def _find_smaller(schedule: Schedule, size: int) -> int:
    """Return the largest `micro_batch` below `size` that divides the batches of all stages."""
    processes = distributed.world_size()
    all_rows = [stage.batch_size // processes for stage in schedule.stages]
    return next(
        candidate for candidate in range(size - 1, 0, -1) if all(rows % min(rows, candidate) == 0 for rows in all_rows)
    )
