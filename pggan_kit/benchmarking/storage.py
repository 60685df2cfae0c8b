"""Estimate what a run writes to its folder, and what of it is left when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pggan_kit.experiment import NOTHING, Experiment
from pggan_kit.runs.snapshot import STATE
from pggan_kit.schedule import Schedule
from pggan_kit.ticks import Tick, list_planned_ticks


def list_ticks_by_stage(schedule: Schedule, tick: int) -> list[list[Tick]]:
    """Return the planned ticks of each stage.

    Args:
        schedule: The stages.
        tick: Images between two ticks.
    """
    ticks: list[list[Tick]] = [[] for _ in schedule.stages]
    for each in list_planned_ticks(schedule, tick):
        ticks[each.stage.index].append(each)
    return ticks


@dataclass
class CheckpointCounts:
    """The checkpoints of a stage.

    Attributes:
        written: Number of whole checkpoints that are written.
        left: Number of these that are left when the run has ended.
        parts: Number of parts of a checkpoint that are written beside it, to be kept for good.
    """

    written: int = 0
    left: int = 0
    parts: int = 0


def count_checkpoints(
    experiment: Experiment, ticks: Sequence[Sequence[Tick]], fading: set[int]
) -> list[CheckpointCounts]:
    """Return the counts of each stage's checkpoints, as the loop writes and removes them; without the best.

    Args:
        experiment: The chosen components and settings.
        ticks: The ticks of each stage.
        fading: Numbers of the stages in which a network has an old path until its fade ends.
    """
    counts = [CheckpointCounts() for _ in ticks]
    places = [(index, tick) for index, each in enumerate(ticks) for tick in each]
    if not places:
        return counts

    # The first is written before the first step.
    passing = [places[0][0]]
    counts[passing[0]].written += 1
    for number, (index, tick) in enumerate(places):
        if not tick.is_due(experiment.checkpoint_every):
            continue
        counts[index].written += 1
        is_last_of_stage = tick is ticks[index][-1]
        is_last_of_run = number == len(places) - 1
        if not tick.ends_phase or not (is_last_of_stage or index in fading):
            passing.append(index)
        elif is_last_of_run or experiment.keep_stages == STATE:
            counts[index].left += 1
        else:
            passing.append(index)
            if experiment.keep_stages != NOTHING:
                counts[index].parts += 1

    # Of those that are not kept for good, the last `train.keep` are left.
    for index in passing[-experiment.keep :]:
        counts[index].left += 1
    return counts


def count_tensor_bytes(value: Any) -> int:
    """Return the bytes of the tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return sum(count_tensor_bytes(inner) for inner in value)
    return 0


def estimate_files(observers: Sequence[Any], ticks: Sequence[Sequence[Tick]], stage: int) -> tuple[int, int]:
    """Return the bytes that observers write in a stage, and by how many their files grow in it.

    Args:
        observers: The observers; those without `estimate_bytes` count as none.
        ticks: The ticks of each stage.
        stage: Number of the stage.
    """
    before = [tick for each in ticks[:stage] for tick in each]
    until = [*before, *ticks[stage]]
    written = 0
    kept = 0
    for observer in observers:
        if hasattr(observer, "estimate_bytes"):
            first = observer.estimate_bytes(before)
            last = observer.estimate_bytes(until)
            written += last[0] - first[0]
            kept += last[1] - first[1]
    return written, kept
