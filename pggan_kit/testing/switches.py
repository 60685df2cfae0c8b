"""The suite of switches."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pggan_kit.errors import TrainingError
from pggan_kit.growth.fade import PATHS, Fade
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import make_stages, require
from pggan_kit.testing.tiny_runs import new_run


class SwitchSuite(TrainedSuite):
    """How one stage gives way to the next.

    Attributes:
        points: how finely a fade is looked at.
        monotone: whether alpha must never fall during a fade.
    """

    kind = "switches"
    points = 50
    monotone = True

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.switch`."""
        return {"switch": part}

    def curves(self) -> dict[str, list[float]]:
        """alpha over a fade's progress from 0 to 1, by path; where the switch has no opinion, the progress itself."""
        part, name = self.part()
        stage = make_stages(fade_images=self.points)[-1]
        with tempfile.TemporaryDirectory() as folder:
            hooks = new_run(part, name, Path(folder), self.chosen(part)).hooks
        curves = {}
        for path in PATHS:
            curves[path] = [self._alpha(hooks, stage, i, path) for i in range(self.points + 1)]
        return curves

    def _alpha(self, hooks: Hooks, stage: Any, spent: int, path: str) -> float:
        progress = spent / self.points
        question: dict[str, Any] = {"stage": stage, "progress": progress, "images": 100 + spent, "path": path}
        answer = hooks.ask("fade_alpha", **question)
        require(
            answer is None or (isinstance(answer, (int, float)) and not isinstance(answer, bool)),
            f"fade_alpha answers with a {type(answer).__name__}; it must be a plain number, or None",
        )
        again = hooks.ask("fade_alpha", **question)
        require(
            again == answer,
            f"fade_alpha gives {answer} and then {again} for the same question: it must depend on its arguments alone, "
            "since a resumed run asks again",
        )
        try:
            return Fade(hooks).ask_alpha(**question)
        except TrainingError as error:
            raise AssertionError(str(error)) from error

    def test_stays_between_0_and_1(self) -> None:
        """Require numbers in [0, 1]: `Fade` raises an error for others."""
        self.curves()

    def test_ends_at_1(self) -> None:
        """At the end of the fade only the new path counts, so that removing the old one changes nothing."""
        for path, curve in self.curves().items():
            require(
                abs(curve[-1] - 1.0) < 1e-6,
                f"alpha of the {path} ends at {curve[-1]:g}, not 1: the network jumps as its old path is removed",
            )

    def test_never_goes_back(self) -> None:
        """alpha does not fall; and what begins at 1 stays there, since it has no old path."""
        for path, curve in self.curves().items():
            falls = [i for i in range(self.points) if curve[i + 1] < curve[i] - 1e-12]
            require(
                not falls or not (self.monotone or curve[0] == 1.0),
                f"alpha of the {path} falls after progress {falls[0] / self.points if falls else 0:g}",
            )
