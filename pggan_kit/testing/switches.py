"""Test that switches keep their contract."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pggan_kit.errors import TrainingError
from pggan_kit.growth.fade import PATHS, Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.schedule import ScheduleSettings, Stage
from pggan_kit.testing.suite import TrainedSuite
from pggan_kit.testing.support import require
from pggan_kit.testing.tiny_runs import make_run

FADE_START = 100
"""Clock at which the fade that is looked at begins."""


class SwitchSuite(TrainedSuite):
    """Switches say how one stage gives way to the next.

    Attributes:
        points: Number of intervals in which a fade is looked at.
        monotone: Whether alpha must never fall during a fade.
    """

    kind = "switches"
    points = 50
    monotone = True

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.switch`."""
        return {"switch": component}

    def trace_alpha(self) -> dict[str, list[float]]:
        """Return alpha over a fade's progress from 0 to 1, by path; the progress itself where the switch gives None.

        The fade is that of the last stage of a run that begins.
        """
        component, name = self.make_named()
        schedule = ScheduleSettings((4, 8), fade_images=self.points, stable_images=8, batch_size=4)
        curves = {}
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(component, name, Path(folder), {"schedule": schedule, **self.choose_arguments(component)})
            run.hooks.call("before_run", run=run)
            stage = run.schedule.stages[-1]
            for path in PATHS:
                curves[path] = [self._ask_alpha(run.hooks, stage, spent, path) for spent in range(self.points + 1)]
        return curves

    def _ask_alpha(self, hooks: Hooks, stage: Stage, spent: int, path: str) -> float:
        """Ask for alpha after some images of the fade, and check the answer."""
        progress = spent / self.points
        question: dict[str, Any] = {"stage": stage, "progress": progress, "images": FADE_START + spent, "path": path}
        answer = hooks.ask("fade_alpha", **question)
        require(
            answer is None or (isinstance(answer, (int, float)) and not isinstance(answer, bool)),
            f"fade_alpha answers with a {type(answer).__name__}; it must be a plain number, or None",
        )

        # The switch may not remember that it was asked.
        try:
            again = Fade(hooks).ask_alpha(**question)
        except TrainingError as error:
            raise AssertionError(str(error)) from error
        alpha = progress if answer is None else answer
        require(
            again == alpha,
            f"fade_alpha gives {alpha} and then {again} for the same question: it must depend on its arguments alone, "
            "since a resumed run asks again",
        )
        return again

    def test_stays_between_0_and_1(self) -> None:
        """Require numbers in [0, 1]: `Fade` raises an error for others."""
        self.trace_alpha()

    def test_ends_at_1(self) -> None:
        """Require only the new path to count at the end of the fade, so that removing the old one changes nothing."""
        for path, curve in self.trace_alpha().items():
            require(
                abs(curve[-1] - 1.0) < 1e-6,
                f"alpha of the {path} ends at {curve[-1]:g}, not 1: the network jumps as its old path is removed",
            )

    def test_never_goes_back(self) -> None:
        """Require alpha not to fall, and to stay at 1 where it begins there, since there is no old path."""
        for path, curve in self.trace_alpha().items():
            if not self.monotone and curve[0] != 1.0:
                continue
            for point in range(self.points):
                require(
                    curve[point + 1] >= curve[point] - 1e-12,
                    f"alpha of the {path} falls after progress {point / self.points:g}",
                )
