"""Test that curves keep their contract."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.testing.suite import Suite
from pggan_kit.testing.support import require


class CurveSuite(Suite):
    """Curves, at each image of a short run with two fades.

    Attributes:
        stage_images: Images of each fade, and of each stage after it.
    """

    kind = "curves"
    stage_images = 12

    def list_positions(self) -> Sequence[Position]:
        """Return places on the clock: of the planned run, of one whose stages end early or late, and past the end."""
        settings = ScheduleSettings((4, 8, 16), self.stage_images, self.stage_images, batch_size=4)
        schedule = settings.resolve(16, 1, 0)
        planned = schedule.planned_starts()
        early = [start // 2 for start in planned]
        late = [start + 3 * index for index, start in enumerate(planned)]

        positions = []
        for starts in (planned, early, late):
            ends = [*starts[1:], schedule.total + 4]
            for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
                positions += [schedule.at(images, starts[: index + 1]) for images in range(start, end + 1)]
        return positions

    def test_values_are_finite_numbers(self) -> None:
        """Require a finite plain number everywhere, past the planned end too: the last step may overdraw the budget."""
        component, name = self.make_named()
        for position in self.list_positions():
            value = component.at(position)
            require(
                isinstance(value, (int, float)) and not isinstance(value, bool),
                f"{name} is a {type(value).__name__} at {position}; it must be a plain number",
            )
            require(math.isfinite(value), f"{name} is {value} at {position}; it must be finite")

    def test_depends_on_the_position_alone(self) -> None:
        """Require the same values again, in reverse order, and from other objects: a resumed run asks again."""
        # The values in the order of the clock.
        component, name = self.make_named()
        positions = self.list_positions()
        values = [component.at(position) for position in positions]

        # And in reverse, from whatever may answer after a run was stopped.
        others = {
            "when it is asked again": component,
            "of a new object": self.make(),
            "of a copy": copy.deepcopy(component),
        }
        for which, other in others.items():
            for position, value in reversed(list(zip(positions, values, strict=True))):
                again = other.at(position)
                require(
                    again == value,
                    f"{name} is {value} at {position}, and {again} {which}: it must depend on the position alone, "
                    "since a resumed run asks again",
                )
