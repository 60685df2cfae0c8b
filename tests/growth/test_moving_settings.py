"""Settings that move with the clock: a value that is out of range anywhere is found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pggan_kit.errors import ConfigError
from pggan_kit.growth.averages import HalfLife
from pggan_kit.growth.moving_settings import list_moving_settings, list_places
from pggan_kit.runs.average import compute_shares
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.testing.toys import ToyUpdate
from pggan_plugins.augmentations import ADA
from pggan_plugins.curves import Linear
from pggan_plugins.growth import SlowOld, WarmUpNew
from pggan_plugins.penalties import R1
from pggan_plugins.updates import Alternating

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


@pytest.mark.parametrize(
    "settings",
    [
        ScheduleSettings((4, 8, 16), 800, 1600, 8),
        ScheduleSettings((4, 8), 0, 333, {4: 5, 8: 7}),
        ScheduleSettings((4, 8), 10, 101, 4, total_images=190),
    ],
)
def test_the_last_step_of_each_phase_is_among_the_places_that_are_checked(settings: ScheduleSettings) -> None:
    schedule = settings.resolve(100, 1, 0)
    checked = {(place.images, place.phase) for place in list_places(schedule, ToyUpdate())}
    for index, stage in enumerate(schedule.stages):
        starts = schedule.planned_starts()[: index + 1]
        last = {}
        for images in range(starts[-1], schedule.end(starts), stage.batch_size):
            last[schedule.at(images, starts).phase] = images
        assert checked >= {(images, phase) for phase, images in last.items()}


@pytest.mark.parametrize("n_critic", [5, {4: 3, 8: 2}])
def test_no_place_behind_the_last_step_of_a_phase_is_checked(n_critic: Any) -> None:
    """A step of several batches begins earlier than the last batch of its phase."""
    schedule = ScheduleSettings((4, 8), 400, 1600, 8).resolve(100, 1, 0)
    update = Alternating(n_critic)
    places = list(list_places(schedule, update))
    for index, stage in enumerate(schedule.stages):
        starts = schedule.planned_starts()[: index + 1]
        drawn = 8 * (n_critic if isinstance(n_critic, int) else n_critic[stage.height])
        steps = [schedule.at(images, starts) for images in range(starts[-1], schedule.end(starts), drawn)]
        for phase in {step.phase for step in steps}:
            last = max(step.images for step in steps if step.phase == phase)
            assert last == max(place.images for place in places if (place.stage, place.phase) == (stage, phase))


def test_a_value_that_leaves_its_range_in_the_last_step_alone_is_refused_before_training(
    rejected: Callable[..., str],
) -> None:
    rejected(
        r"lr must be .*, and is -\S+, at images 1592 \(4x4, stable\)",
        "schedule.sizes = (4,)",
        "schedule.stable_images = 1600",
        "schedule.batch_size = 8",
        "optimizers.Adam.lr = @curves.Linear()",
        "curves.Linear.begin = 1e-3",
        "curves.Linear.end = -2e-5",
    )


@pytest.mark.parametrize(
    ("component", "wanted"),
    [
        (SlowOld(Linear(1.0, 0.5)), "train.part.factor"),
        (WarmUpNew(100, Linear(0.0, 0.5)), "train.part.factor"),
        (ADA(target=None, p=Linear(0.0, 0.5)), "train.part.p"),
        (R1(Linear(10.0, 1.0)), "train.part.weight"),
    ],
)
def test_moving_settings_are_named_by_their_parameters(component: object, wanted: str) -> None:
    assert list(list_moving_settings({"train.part": component})) == [wanted]


@pytest.mark.parametrize("half_life", [{8: 100.0}, None])
def test_a_half_life_without_a_value_for_a_stage_is_named(half_life: Any) -> None:
    position = ScheduleSettings((4, 8), 8, 8, 4).resolve(10, 1, 0).at(0, [0])
    with pytest.raises(ConfigError, match=r"^the average half_life: half_life (has no value for|must have a value)"):
        compute_shares(HalfLife(half_life), position, 100, 4)
