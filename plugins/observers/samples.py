"""Grids of samples as PNG files."""

from __future__ import annotations

from pathlib import Path

from pggan_kit import Run, Stage, TrainState, check_at_least, hookimpl
from pggan_plugins.observers.grid import draw_grid


class Samples:
    """At each tick, and of the same latents also right after each growth, a grid of the averaged generator's images:
    `samples/000012800-14x14.png`, named by the clock and the size. Where the data set has labels, each row is one
    class.

    Args:
        count: images in the grid; fewer where they are so large that the grid would be wider than 2048 pixels.
        fresh: draw new latents at each tick instead of the same ones.

    Raises:
        ValueError: `count` below 1.
    """

    critical = False

    def __init__(self, count: int = 64, fresh: bool = False) -> None:
        check_at_least("count", count, 1)
        self.count = count
        self.fresh = fresh

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Make the folder; remove grids that were drawn after the checkpoint of a resumed run."""
        folder = samples_folder(run)
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*.png"):
            images = file.name.partition("-")[0]
            if images.isdecimal() and int(images) > run.state.images:
                file.unlink()

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Draw what the growth has done: the grid before it was drawn at the tick that ended the stage."""
        if not self.fresh and stage.previous is not None and state.images == state.starts[-1]:
            self.after_tick(run, stage, state)

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Draw the grid."""
        # Enlarged pixels compress well at any level; the lowest is several times faster.
        grid = draw_grid(run, self.count, self.fresh)
        grid.save(samples_folder(run) / f"{state.images:09d}-{stage.size}.png", compress_level=1)


def samples_folder(run: Run) -> Path:
    """Where the grids are."""
    return run.directory / "samples"
