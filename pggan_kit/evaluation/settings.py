"""Define the settings that `evaluation.*` binds."""

from __future__ import annotations

from dataclasses import dataclass

from pggan_kit.components import Dataset
from pggan_kit.errors import check_at_least

FEWEST_REALS = 4
"""Minimum number of reals for an evaluation: two for each half."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How `train.metrics` are measured (`evaluation.*`).

    Args:
        dataset: Held-out images to compare with. None for those of the training.
        count: Number of fakes, and of reals, that are compared. Where the data set has twice as many reals, the two
            halves of the noise floor have this number each.
        every: Number of ticks between two evaluations; the end of each fade and stage has one too.
        batch_size: Number of images that are described at once.

    Raises:
        SettingError: A setting is out of range.
    """

    dataset: Dataset | None = None
    count: int = 5_000
    every: int = 1
    batch_size: int = 100

    def __post_init__(self) -> None:
        check_at_least("count", self.count, 2)
        check_at_least("every", self.every, 1)
        check_at_least("batch_size", self.batch_size, 1)
