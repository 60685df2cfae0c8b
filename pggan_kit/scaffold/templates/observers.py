"""An observer of your own: here a table of the losses, one row per tick."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, JsonLines, Run, Stage, check_between, hookimpl


class Mine:
    """Writes `losses.jsonl` in the run's folder: images, size, and the mean of each loss since the last tick.

    Args:
        digits: Number of decimal places, from 0 to 12.

    Raises:
        ValueError: The number is outside that range.
    """

    critical = False  # if it fails, the run continues, and it is tried again at the next tick

    def __init__(self, digits: int = 4) -> None:
        check_between("digits", digits, 0, 12)
        self.digits = digits

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Drop the rows after the checkpoint of a resumed run, which will be written again."""
        self.rows = JsonLines(run.directory / "losses.jsonl")
        if run.resumed:
            self.rows.cut(run.state.images, run.files.warn)

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        """Write a row; `stats` are numbers by tag.

        An observer may have any hook of `pggan_kit.hookspecs`, with the arguments that it needs.
        """
        losses = {tag: round(value, self.digits) for tag, value in stats.items() if tag.startswith("Loss/")}
        self.rows.append({"images": run.state.images, "size": stage.size, **losses})


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@observers.Mine()`."""
    return [Component("observers", "Mine", Mine)]
