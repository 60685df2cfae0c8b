"""The cost of training some stages, as a sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pggan_kit.errors import TrainingError


def sum_stage_costs(name: str, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cost of a trial that trains some stages.

    Args:
        name: Name of the trial, for error messages.
        stages: Cost of each stage, see `benchmarking.plan`.

    Returns:
        `images`, `teraflops` (forward passes of both networks) and `hours` (on this machine).

    Raises:
        TrainingError: A stage does not fit into memory, and none before it does.
    """
    # A stage without hours did not fit into memory.
    unknown = [stage["size"] for stage in stages if stage["hours"] is None]
    if unknown:
        raise TrainingError(f"{name}: memory ends at {unknown[0]}, and `pggan-kit plan` shows what would fit")

    # The sums over the stages.
    counts = [int(stage["fade_images"] + stage["stable_images"]) for stage in stages]
    return {
        "images": sum(counts),
        "teraflops": sum(count * stage["gflops"] for count, stage in zip(counts, stages, strict=True)) / 1000,
        "hours": float(sum(stage["hours"] for stage in stages)),
    }
