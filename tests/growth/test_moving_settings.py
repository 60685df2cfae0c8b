"""Settings that move with the clock: a value that is out of range anywhere is found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FALLING = ["curves.Linear.begin = 0.9", "curves.Linear.end = -0.5"]
RISING = ["curves.Linear.begin = 0.5", "curves.Linear.end = 1.5"]

OUT_OF_RANGE = {
    "half-life": (
        ["train.averages = [@averages.HalfLife()]", "averages.HalfLife.half_life = @curves.Linear()", *FALLING],
        r"the average half_life: half_life must be at least 0, and is -\S+, at images 2\d \(",
    ),
    "decay": (
        ["train.averages = [@averages.PerUpdate()]", "averages.PerUpdate.decay = @curves.Linear()", *RISING],
        r"the average per_update: decay must be in \[0, 1\), and is 1\S+, at images 2\d \(",
    ),
    "weight of G's penalty": (
        [
            "train.generator_penalties = [@generator_penalties.PathLength()]",
            "generator_penalties.PathLength.weight = @curves.Linear()",
            *FALLING,
        ],
        r"the weight of PathLength must be finite and at least 0, and is -\S+ at images 2\d \(",
    ),
    "n_critic": (
        ["updates.Alternating.n_critic = {4: 1, 8: @curves.Linear()}", *FALLING],
        r"updates\.Alternating\.n_critic must round to at least 1, and is \S+ at images 1\d \(8x8, ",
    ),
    "p": (
        [
            "train.augmentation = @augmentations.ADA()",
            "augmentations.ADA.target = None",
            "augmentations.ADA.p = @curves.Linear()",
            *RISING,
        ],
        r"augmentations\.ADA\.p must be in \[0, 1\], and is 1\S+ at images 2\d \(",
    ),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_a_value_that_is_out_of_range_anywhere_is_refused_before_training(
    case: str, rejected: Callable[..., str]
) -> None:
    lines, message = OUT_OF_RANGE[case]
    rejected(message, *lines)
