"""Grids of samples as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from pggan_kit import Run, Stage, TrainState, check_at_least, hookimpl, write_atomically
from pggan_plugins.observers.sample_grid import draw_grid


class Samples:
    """A grid of the averaged generator's images at each tick, and of the same latents also right after each growth:
    `samples/000012800-14x14.png`, named by the clock and the size. Where the data set has labels, each row shows one
    class. Beside them, `samples/reals-14x14.png` shows real images, once for each stage.

    Args:
        count: The number of images in the grid; fewer where the grid would be wider or higher than 2048 pixels.
        fresh: Whether each tick shows new latents instead of the same ones.

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
        folder = locate_samples(run)
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*.png"):
            images = file.name.partition("-")[0]
            if images.isdecimal() and int(images) > run.state.images:
                file.unlink()

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, state: TrainState, continues: bool) -> None:
        """Draw the stage's reals, once, and the effect of the growth.

        The grid from before the growth was drawn at the tick that ended the stage.
        """
        path = locate_samples(run) / f"reals-{stage.size}.png"
        if not path.exists():
            reals = run.draw_reals(self.count)
            if reals is not None:
                _save(reals, path)
        if not self.fresh and stage.previous is not None and not continues:
            self.after_tick(run, stage, state)

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Draw the grid."""
        grid = draw_grid(run, self.count, self.fresh)
        _save(grid, locate_samples(run) / f"{state.images:09d}-{stage.size}.png")


def _save(picture: Image.Image, path: Path) -> None:
    # Enlarged pixels compress well at any level; the lowest is several times faster.
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    write_atomically(path, content.getvalue())


def locate_samples(run: Run) -> Path:
    """Return the folder of a run's grids."""
    return run.directory / "samples"
