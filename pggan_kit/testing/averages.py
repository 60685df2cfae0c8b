"""Test that averages keep their contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pggan_kit.errors import SettingError, TrainingError
from pggan_kit.growth.averages import check_names
from pggan_kit.runs.average import compute_shares
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.testing.suite import TrainedSuite
from pggan_kit.testing.support import require

AGES = (0, 1, 100, 100_000, 10**9)
"""Ages in images of pieces that are looked at."""

DRAWN = (1, 64)
"""Reals of updates that are looked at."""


class AverageSuite(TrainedSuite):
    """Averages say how far they follow the generator's weights in each update."""

    kind = "averages"

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the one of `train.averages`."""
        return {"averages": [component]}

    def iterate_questions(self) -> Iterator[tuple[Position, int, int]]:
        """Yield places on the clock in each stage and phase, with ages of pieces and the reals of an update."""
        budget = 1000
        schedule = ScheduleSettings((4, 8), budget, budget, 4).resolve(16, 1, 0)
        places = [schedule.at(0, [0]), schedule.at(budget, [0, budget]), schedule.at(3 * budget - 4, [0, budget])]
        for position in places:
            for age in AGES:
                for images in DRAWN:
                    yield position, age, images

    def test_names_are_its_own(self) -> None:
        """Require at least one name, each once, that a command can tell from a width."""
        component, name = self.make_named()
        try:
            check_names([component])
        except SettingError as error:
            raise AssertionError(f"{name}: train.{error}") from error

    def test_shares_lie_between_0_and_1(self) -> None:
        """Require a number in [0, 1] for each name, in every phase and at every age."""
        component, _ = self.make_named()
        for question in self.iterate_questions():
            try:
                compute_shares(component, *question)
            except TrainingError as error:
                raise AssertionError(str(error)) from error

    def test_shares_depend_on_the_arguments_alone(self) -> None:
        """Require the same answers to the same questions in another order."""
        component, name = self.make_named()
        questions = list(self.iterate_questions())
        answers = [tuple(component.compute_shares(*question)) for question in questions]
        again = [tuple(component.compute_shares(*question)) for question in reversed(questions)]
        require(
            answers == again[::-1],
            f"{name} gives other shares when it is asked again: they must depend on the arguments alone, since a "
            "resumed run asks from its checkpoint on",
        )

    def test_each_name_follows(self) -> None:
        """Require each average to follow at some age: one that never does keeps the random start."""
        component, name = self.make_named()
        answers = [component.compute_shares(*question) for question in self.iterate_questions()]
        for index, own in enumerate(component.names):
            require(
                any(shares[index] > 0 for shares in answers),
                f"the average {own} of {name} has the share 0 at every age: it would stay at the random start",
            )
