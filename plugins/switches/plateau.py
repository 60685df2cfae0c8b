"""Growth as soon as training makes no more progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pggan_kit import (
    STABLE,
    ConfigError,
    Interval,
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
    resolve_interval,
    share_from_rank_0,
    suggest,
)

LATE = ("Metrics/", "Progress/diversity")
"""Beginnings of tags that may be missing at a tick, since they have an interval of their own."""


class Plateau:
    """A linear fade, and then growth as soon as a watched number is level, or at a limit of images.

    The number is read at each tick after the fade. It is level if the straight line that fits its values over the last
    `window` images best (least squares) rises or falls by no more than `tolerance` along the window. Growth waits for a
    whole window after the fade. A run always spends the schedule's total: what a stage saves is added to the last one,
    and what it overdraws (with `most` above its budget) is taken from the last one.

    Args:
        watch: The tag, as `stats.jsonl` and TensorBoard show it: `Loss/generator/hinge`, `Metrics/...`.
        window: The length of the window in images, at least two ticks; of a metric also two of `evaluation.every`, and
            of `Progress/diversity` two of `train.diversity_every`.
        tolerance: The largest change along the window, in the number's own unit, at least 0.
        least: The number of images of a stage, fade included, before which it does not end; may be per stage.
        most: The number of images of a stage at which it ends in any case; may be per stage. None: its budget in the
            schedule.

    Raises:
        ValueError: A value out of range.
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

        # What is watched, and for how long at least and at most.
        self.watch = watch
        self.window = window
        self.tolerance = tolerance
        self.least = least
        self.most = most
        self.points: list[tuple[int, float]] = []

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Reset the state that an earlier run left, and check the settings against this one.

        Raises:
            ConfigError: A window that holds no two measurements, or limits that leave a stage no images.
        """
        self.points = []
        # The last stage ends with the run, whatever the limits are.
        for stage in run.schedule.stages[:-1]:
            if stage.budget:
                self._require_two_measurements(run, stage)
            least, most = self._get_limits(stage)
            if stage.budget and not max(least, stage.fade_images) <= most:
                raise ConfigError(
                    f"switches.Plateau.most is {most} images at stage {stage.size}, less than its least ({least}) or "
                    f"its fade ({stage.fade_images})"
                )

    def _require_two_measurements(self, run: Run, stage: Stage) -> None:
        """Check that the window spans two measurements of the watched number in a stage.

        Raises:
            ConfigError: It does not; the message names the setting of their interval.
        """
        experiment = run.experiment
        setting = "train.tick"
        interval: Interval = experiment.tick
        if self.watch.removeprefix("Metrics/") in experiment.list_quantities():
            setting, interval = "evaluation.every", experiment.evaluation.every
        elif self.watch == "Progress/diversity":
            setting, interval = "train.diversity_every", experiment.diversity_every

        # What comes more often than ticks comes at each of them.
        images = resolve_interval(interval, stage, run.schedule.total)
        how_often = f"every {images} images"
        if images is None:
            how_often = "at the ends of phases alone"
        elif images < experiment.tick:
            images = experiment.tick
            how_often = f"at ticks, every {images} images"
            setting = "train.tick"
        if images is None or self.window < 2 * images:
            raise ConfigError(
                f"switches.Plateau.window must span at least two measurements of {self.watch}, which comes {how_often} "
                f"at stage {stage.size}, and is {self.window}: raise it, or bind a smaller {setting}"
            )

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        """Return alpha = progress."""
        return progress

    @hookimpl
    def should_advance(self, stage: Stage, state: TrainState) -> bool:
        """Return whether the number is level, within the limits.

        Raises:
            TrainingError: A watched number that no tick of the stage had.
        """
        least, most = self._get_limits(stage)
        start = state.starts[-1]
        spent = state.images - start

        # The question precedes the clock's own tick, and a branch from that tick's checkpoint asks it again. The answer
        # must be the same, so that tick does not count.
        points = [(images, value) for images, value in self.points if start < images < state.images]

        if spent >= most:
            if not points and self.watch.startswith(LATE) and spent >= stage.fade_images + self.window:
                raise TrainingError(
                    f"switches.Plateau watches {self.watch}, which no tick of stage {stage.size} had: bind a metric "
                    "that is computed there, or watch another tag"
                )
            return True
        return spent >= max(least, stage.fade_images) and self._is_level(points, start + stage.fade_images)

    @hookimpl
    def after_tick(self, state: TrainState, stats: Mapping[str, float]) -> None:
        """Record the watched number.

        Raises:
            ConfigError: A tag that does not exist.
        """
        # Each rank has its own losses, and all must grow at once: rank 0 decides.
        shared = [stats.get(self.watch)]
        share_from_rank_0(shared)
        value = shared[0]

        if value is None and not self.watch.startswith(LATE):
            hint = suggest(did_you_mean(self.watch, stats))
            raise ConfigError(f"switches.Plateau.watch: no tick has {self.watch}{hint}; there are {', '.join(stats)}")

        # Points of an earlier stage do not count any more, nor do those of a fade.
        self.points = [point for point in self.points if point[0] > state.starts[-1]]
        if value is not None and state.phase == STABLE:
            self.points.append((state.images, float(value)))

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        """Return the numbers recorded in this stage."""
        return {"points": list(self.points)}

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Restore the saved numbers."""
        self.points = [(images, value) for images, value in saved["points"]]

    def _get_limits(self, stage: Stage) -> tuple[int, int]:
        """Return the least and the most images of a stage."""
        least = at_height(self.least, stage.height, "least")
        if self.most is None or stage.budget == 0:
            return least, stage.budget
        return least, at_height(self.most, stage.height, "most")

    def _is_level(self, points: Sequence[tuple[int, float]], since: int) -> bool:
        """Return whether the line through the last window's values is level.

        Args:
            points: The clock and the watched number at each tick.
            since: The clock from which a whole window must have passed.
        """
        if not points:
            return False
        begin = points[-1][0] - self.window
        if begin < since:
            return False
        images, values = np.array([point for point in points if point[0] > begin]).T
        if len(images) < 2:
            return False

        # The slope of the least-squares line.
        distances = images - images.mean()
        slope = (distances * (values - values.mean())).sum() / (distances**2).sum()
        return bool(abs(slope) * self.window <= self.tolerance)
