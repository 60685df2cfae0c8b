"""The steps of the planned schedule: their numbers, and what an update may state of them."""

from __future__ import annotations

from typing import Any

import pytest

from pggan_kit.errors import TrainingError
from pggan_kit.growth.planned_steps import count_steps, group_steps
from pggan_kit.schedule import FADE, STABLE, Position, ScheduleSettings
from pggan_kit.testing.toys import ToyUpdate
from pggan_plugins.curves import Steps
from pggan_plugins.updates import Alternating

SHORT = ScheduleSettings((4, 8), fade_images=12, stable_images=8, batch_size=4).resolve(100, 1, 0)


def test_the_number_of_steps_of_a_phase() -> None:
    assert [count_steps(ToyUpdate(), SHORT, [0], phase) for phase in (FADE, STABLE)] == [0, 2]
    assert [count_steps(ToyUpdate(), SHORT, [0, 8], phase) for phase in (FADE, STABLE)] == [3, 2]
    cut = ScheduleSettings((4, 8), 12, 8, 4, total_images=14).resolve(100, 1, 0)
    assert [count_steps(ToyUpdate(), cut, [0, 8], phase) for phase in (FADE, STABLE)] == [2, 0]
    assert [count_steps(Alternating(2), SHORT, [0, 8], phase) for phase in (FADE, STABLE)] == [2, 1]


@pytest.mark.parametrize("n_critic", [1, 3, 7, Steps({0: 7, 6_000: 2, 9_000: 1})])
def test_groups_hold_the_steps_that_are_taken(n_critic: Any) -> None:
    """All of them where few are asked for; a whole phase of many, its last step with it, where the number is fixed."""
    schedule = ScheduleSettings((4,), 0, 12_345, 4).resolve(100, 1, 0)
    update = Alternating(n_critic)
    taken = []
    images = 0
    while images < schedule.total:
        taken.append(images)
        images += 4 * update.count_drawn_batches(schedule.at(images, [0]))
    for most in (10_000, 100):
        groups = list(group_steps(update, schedule, [0], 0, schedule.total, most))
        grouped = [group.begin + number * group.images for group in groups for number in range(group.steps)]
        if most == 10_000 or isinstance(n_critic, int):
            assert grouped == taken
        assert abs(len(grouped) - len(taken)) <= 0.02 * len(taken) and grouped[-1] < schedule.total
        assert len(groups) <= 2 * most


@pytest.mark.parametrize("answer", [0, -1, 1.5, None, "2"])
def test_an_update_draws_a_whole_number_of_batches(answer: Any) -> None:
    class Draws(ToyUpdate):
        def count_drawn_batches(self, position: Position) -> Any:
            return answer

    with pytest.raises(TrainingError, match=r"Draws.count_drawn_batches\(\) returned .* at images 0 .*, and must"):
        count_steps(Draws(), SHORT, [0], STABLE)
