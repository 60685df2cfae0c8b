"""An observer of your own: here a table of the losses, one row per tick."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, Run, Stage, check_between, hookimpl


class Mine:
    """Writes `losses.csv` in the run's folder: images, size, and the mean of each loss since the last tick.

    Args:
        digits: Number of decimal places, from 0 to 12.

    Raises:
        ValueError: The number is outside that range.
    """

    critical = False  # if it fails, it is switched off, and the run continues

    def __init__(self, digits: int = 4) -> None:
        check_between("digits", digits, 0, 12)
        self.digits = digits

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        """Write a row; `stats` are numbers by tag.

        An observer may have any hook of `pggan_kit.hookspecs`, with the arguments that it needs.
        """
        losses = [f"{stats[tag]:.{self.digits}f}" for tag in sorted(stats) if tag.startswith("Loss/")]
        with (run.directory / "losses.csv").open("a") as file:
            file.write(",".join([str(run.state.images), stage.size, *losses]) + "\n")


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@observers.Mine()`."""
    return [Component("observers", "Mine", Mine)]
