"""Growing when training no longer gets anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit import (
    STABLE,
    ConfigError,
    PerStage,
    Run,
    SettingError,
    Stage,
    TrainingError,
    TrainState,
    at_height,
    check_at_least,
    check_finite,
    did_you_mean,
    hookimpl,
    share_from_rank_0,
    suggest,
)

LATE = "Metrics/"
"""Tags that begin like this need not be there at each tick."""


class Plateau:
    """A linear fade, and then growth as soon as a watched number lies still, or at a limit of images.

    The number is read at each tick after the fade. It lies still if the straight line that fits its values over the
    last `window` images best (least squares) rises or falls by no more than `tolerance` along the window. Growth waits
    for a whole window after the fade. A run spends the schedule's total whatever happens: what a stage saves, the last
    one has, and what it overdraws (with `most` above its budget), the last one lacks.

    Args:
        watch: the tag, as `stats.jsonl` and TensorBoard show it: `Loss/generator/hinge`, `Metrics/...`.
        window: images, at least two ticks' worth.
        tolerance: in the number's own unit, at least 0.
        least: images of a stage, fade included, before which it does not end; may be per stage.
        most: images of a stage at which it ends in any case; may be per stage. None: its budget in the schedule.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        watch: str,
        window: int,
        tolerance: float,
        least: PerStage[int] = 0,
        most: PerStage[int] | None = None,
    ) -> None:
        if not watch:
            raise SettingError("watch", "must name a tag, e.g. 'Loss/generator/hinge', and is empty")
        check_at_least("window", window, 1)
        check_at_least("tolerance", tolerance, 0)
        check_finite("tolerance", tolerance)
        check_at_least("least", least, 0)
        check_at_least("most", most, 1)
        self.watch = watch
        self.window = window
        self.tolerance = tolerance
        self.least = least
        self.most = most
        self.points: list[tuple[int, float]] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Forget an earlier run, and check what only this one knows.

        Raises:
            ConfigError: a window shorter than two ticks; limits that leave a stage no room.
        """
        self.points = []
        if self.window < 2 * run.experiment.tick:
            raise ConfigError(
                f"switches.Plateau.window must span at least two ticks ({2 * run.experiment.tick} images, as "
                f"train.tick is {run.experiment.tick}), and is {self.window}"
            )
        for stage in run.schedule.stages[:-1]:
            least, most = self._limits(stage)
            if stage.budget and not max(least, stage.fade_images) <= most:
                raise ConfigError(
                    f"switches.Plateau.most is {most} images at stage {stage.size}, less than its least ({least}) or "
                    f"its fade ({stage.fade_images})"
                )

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """alpha = progress."""
        return progress

    @hookimpl
    def should_advance(self, stage: Stage, state: TrainState) -> bool:
        """Whether the number lies still, within the limits.

        Raises:
            TrainingError: the most images are spent, and the watched number never came.
        """
        least, most = self._limits(stage)
        start = state.starts[-1]
        spent = state.images - start
        # The question precedes the clock's own tick and comes again after a resume from that tick: not to be answered
        # differently then, it must not see that tick.
        seen = [(at, value) for at, value in self.points if start < at < state.images]
        if spent >= most:
            if not seen and self.watch.startswith(LATE) and spent >= stage.fade_images + self.window:
                raise TrainingError(
                    f"switches.Plateau watches {self.watch}, which no tick of stage {stage.size} brought"
                )
            return True
        return spent >= max(least, stage.fade_images) and self._still(seen, start + stage.fade_images)

    @hookimpl
    def after_tick(self, state: TrainState, stats: Mapping[str, float]) -> None:
        """Remember the watched number.

        Raises:
            ConfigError: there is no such tag.
        """
        shared = [stats.get(self.watch)]
        share_from_rank_0(shared)  # each rank has its own losses, and all must grow at once
        value = shared[0]
        if value is None and not self.watch.startswith(LATE):
            hint = suggest(did_you_mean(self.watch, stats))
            raise ConfigError(
                f"switches.Plateau.watch: no tick brings {self.watch}{hint}; there are {', '.join(stats)}"
            )
        self.points = [point for point in self.points if point[0] > state.starts[-1]]
        if value is not None and state.phase == STABLE:
            self.points.append((state.images, float(value)))

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """What the stage's ticks have brought so far."""
        return {"points": list(self.points)}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.points = [(at, value) for at, value in saved["points"]]

    def _limits(self, stage: Stage) -> tuple[int, int]:
        """The least and the most images of a stage."""
        most = stage.budget if self.most is None or stage.budget == 0 else at_height(self.most, stage.height)
        return at_height(self.least, stage.height), most

    def _still(self, seen: Sequence[tuple[int, float]], since: int) -> bool:
        """Whether the line through the last window's values is level; not before there was a window since `since`."""
        if not seen or seen[-1][0] - self.window < since:
            return False
        images, values = np.array([point for point in seen if point[0] > seen[-1][0] - self.window]).T
        if len(images) < 2:
            return False
        distances = images - images.mean()
        slope = (distances * (values - values.mean())).sum() / (distances**2).sum()
        return bool(abs(slope) * self.window <= self.tolerance)
