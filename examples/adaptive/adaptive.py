"""A fade that waits while the discriminator is far ahead, and an observer that records how the fade went."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, JsonLines, Run, Stage, check_between, hookimpl

START = {"progress": 0.0, "alpha": 0.0, "waits": False}


class Adaptive:
    """A linear fade of which alpha stays constant after a tick in which D scored too many reals as real.

    Args:
        patience: The mean sign of D's scores of reals (`Scores/real_sign`) above which the fade waits, in (-1, 1).
        latest: The progress from which the fade no longer waits, in [0, 1): alpha must be 1 at its end.
    """

    def __init__(self, patience: float = 0.9, latest: float = 0.75) -> None:
        check_between("patience", patience, -1, 1, low_included=False, high_included=False)
        check_between("latest", latest, 0, 1, high_included=False)
        self.patience = patience
        self.latest = latest
        self.before_run()

    @hookimpl
    def before_run(self) -> None:
        """Reset the state that an earlier run with this object left."""
        self.last: dict[str, Any] = {"stage": 0, **START}

    @hookimpl
    def fade_alpha(self, stage: Stage, progress: float) -> float:
        last = self.last if self.last["stage"] == stage.index else START
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
    """The file `fades.jsonl` in the run's directory, with alpha and the sign of the reals' scores at each tick."""

    @hookimpl
    def before_run(self, run: Run) -> None:
        self.rows = JsonLines(run.directory / "fades.jsonl")
        if run.resumed:
            self.rows.cut(run.state.images, run.files.warn)  # rows after the checkpoint will be written again

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        numbers = {"alpha": stats["Progress/alpha"], "real_sign": stats["Scores/real_sign"]}
        self.rows.append({"images": run.state.images, "size": stage.size, **numbers})


@hookimpl
def components() -> list[Component]:
    return [Component("switches", "Adaptive", Adaptive), Component("observers", "Diary", Diary)]
