"""A fade that waits while the discriminator is far ahead, and an observer that writes down what it did."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, Run, Stage, check_between, hookimpl


class Adaptive:
    """alpha rises linearly, but stays where it is after a tick in which D recognised too many reals.

    Args:
        patience: the mean sign of D's scores of reals (`Scores/real_sign`) above which the fade waits, in (-1, 1).
        latest: the progress from which it no longer waits, in [0, 1), so that alpha is 1 at the end of the fade.
    """

    def __init__(self, patience: float = 0.9, latest: float = 0.75) -> None:
        check_between("patience", patience, -1, 1, low_included=False, high_included=False)
        check_between("latest", latest, 0, 1, high_included=False)
        self.patience, self.latest = patience, latest
        self.before_run()

    @hookimpl
    def before_run(self) -> None:
        """Reset what is kept from tick to tick: this object may have been in another run."""
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
    """Writes a line to `fades.csv` at each tick: images, size, alpha, and the mean sign of D's scores of reals."""

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Drop what is later than the checkpoint of a resumed run: the run writes it again."""
        self.file = run.directory / "fades.csv"
        lines = self.file.read_text().splitlines(keepends=True) if self.file.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.file.write_text("".join(line for line in whole if int(line.split(",")[0]) <= run.state.images))

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        with self.file.open("a") as file:
            print(run.state.images, stage.size, stats["Progress/alpha"], stats["Scores/real_sign"], sep=",", file=file)


@hookimpl
def components() -> list[Component]:
    return [Component("switches", "Adaptive", Adaptive), Component("observers", "Diary", Diary)]
