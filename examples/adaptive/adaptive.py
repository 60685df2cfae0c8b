"""A fade that waits while the discriminator is far ahead, and an observer that writes down how it went."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, Run, Stage, check_between, hookimpl


class Adaptive:
    """alpha goes straight to 1, but stands still after a tick in which D took too many reals for reals.

    Args:
        patience: the mean sign of D's scores of reals (`Scores/real_sign`) above which the fade waits, in (-1, 1).
        latest: the progress from which on it waits no more, in [0, 1): at the end of the fade alpha must be 1.
    """

    def __init__(self, patience: float = 0.9, latest: float = 0.75) -> None:
        check_between("patience", patience, -1, 1, low_included=False, high_included=False)
        check_between("latest", latest, 0, 1, high_included=False)
        self.patience, self.latest = patience, latest
        self.before_run()

    @hookimpl
    def before_run(self) -> None:
        """What is kept from tick to tick begins with each run: this object may have been through another one."""
        self.last: dict[str, Any] = {"stage": 0, "progress": 0.0, "alpha": 0.0, "waits": False}

    @hookimpl
    def fade_alpha(self, stage: Stage, progress: float) -> float:
        last = self.last if self.last["stage"] == stage.index else {"progress": 0.0, "alpha": 0.0, "waits": False}
        share = 0.0 if last["waits"] else (progress - last["progress"]) / (1 - last["progress"])
        return last["alpha"] + (1 - last["alpha"]) * share

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        progress = (run.state.images - run.state.starts[-1]) / max(1, stage.fade_images)
        if progress < 1:
            alpha = self.fade_alpha(stage, progress)
            waits = progress < self.latest and stats["Scores/real_sign"] > self.patience
            self.last = {"stage": stage.index, "progress": progress, "alpha": alpha, "waits": waits}

    @hookimpl
    def save_state(self) -> dict[str, Any]:
        return self.last

    @hookimpl
    def load_state(self, saved: Mapping[str, Any]) -> None:
        self.last = dict(saved)


class Diary:
    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        with (run.directory / "fades.csv").open("a") as file:
            print(run.state.images, stage.size, stats["Progress/alpha"], stats["Scores/real_sign"], sep=",", file=file)


@hookimpl
def components() -> list[Component]:
    return [Component("switches", "Adaptive", Adaptive), Component("observers", "Diary", Diary)]
