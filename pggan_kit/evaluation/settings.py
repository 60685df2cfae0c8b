"""Define the settings that `evaluation.*` binds."""

from __future__ import annotations

from dataclasses import dataclass

from pggan_kit.components import Dataset
from pggan_kit.errors import check_at_least
from pggan_kit.ticks import Interval, check_interval

FEWEST_REALS = 4
"""Minimum number of reals for an evaluation: two for each half."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How `train.metrics` are measured (`evaluation.*`).

    Args:
        dataset: Held-out images to compare with. None for those of the training.
        count: Number of fakes, and of reals, that are compared. Where the data set has twice as many reals, the two
            halves of the noise floor have this number each.
        every: Images between two evaluations, at ticks; may be per stage. `'phase'` for the ends of fades and stages
            alone, which have one in any case. None for every hundredth of the run.
        batch_size: Number of images that are described at once.

    Raises:
        SettingError: A setting is out of range.
    """

    dataset: Dataset | None = None
    count: int = 5_000
    every: Interval = 50_000
    batch_size: int = 100

    def __post_init__(self) -> None:
        check_at_least("count", self.count, 2)
        check_interval("every", self.every)
        check_at_least("batch_size", self.batch_size, 1)
