"""Define the settings that `evaluation.*` binds."""

from __future__ import annotations

from dataclasses import dataclass

from pggan_kit.components import Dataset
from pggan_kit.errors import check_at_least

FEWEST = 4
"""Reals that an evaluation needs: two for each half."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How `train.metrics` are measured (`evaluation.*`).

    Args:
        dataset: held-out images to compare with; None: those of the training.
        count: fakes, and reals, that are compared; where the data set has twice as many, the floor compares as many.
        every: at each so manieth tick, and at the end of each fade and stage.
        batch_size: images that are described at once.

    Raises:
        ValueError: a setting out of range; the message begins with its name.
    """

    dataset: Dataset | None = None
    count: int = 5_000
    every: int = 1
    batch_size: int = 100

    def __post_init__(self) -> None:
        for name, least in (("count", 2), ("every", 1), ("batch_size", 1)):
            check_at_least(name, getattr(self, name), least)
