"""An observer of your own: here a table of what matters, a line a tick."""

from collections.abc import Mapping
from typing import Any

from pggan_kit import Component, Run, Stage, check_between, hookimpl


class Mine:
    """Writes `losses.csv` in the run's folder: images, size, and the mean of each loss since the last tick.

    Args:
        digits: after the point, from 0 to 12.

    Raises:
        ValueError: a number outside that range.
    """

    critical = False  # if it fails, it is switched off, and the run goes on

    def __init__(self, digits: int = 4) -> None:
        check_between("digits", digits, 0, 12)
        self.digits = digits

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, stats: Mapping[str, Any]) -> None:
        """Plain numbers by tag. Any hook of `pggan_kit.hookspecs` may be here; take the arguments that you want."""
        losses = [f"{stats[tag]:.{self.digits}f}" for tag in sorted(stats) if tag.startswith("Loss/")]
        with (run.directory / "losses.csv").open("a") as file:
            file.write(",".join([str(run.state.images), stage.size, *losses]) + "\n")


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@observers.Mine()`."""
    return [Component("observers", "Mine", Mine)]
