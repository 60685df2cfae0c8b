"""Estimate what a run writes to its folder, and what of it is left when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

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
