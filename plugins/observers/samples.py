"""Grids of samples as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pggan_kit import Interval, Run, Stage, Tick, check_at_least, check_interval, hookimpl, write_atomically
from pggan_plugins.observers.later_files import remove_later_files
from pggan_plugins.observers.sample_grid import draw_grid, estimate_grids, require_interval


class Samples:
    """A grid of the averaged generator's images from time to time, and of the same latents also right after each
    growth: `samples/000012800-14x14.png`, named by the clock and the size. Where the data set has labels, each row
    shows one class. Beside them, `samples/reals-14x14.png` shows real images, once for each stage.

    Args:
        count: The number of images in the grid; fewer where the grid would be wider or higher than 1024 pixels.
        fresh: Whether each grid shows new latents instead of the same ones.
        every: Images between two grids, at ticks; may be per stage. `'phase'` for the ends of fades and stages alone,
            which have one in any case, as have the ticks before the first whole one. None for every hundredth of the
            run, so that there are little more than a hundred.

    Raises:
        ValueError: `count` below 1, or `every` is no interval.
    """

    critical = False

    def __init__(self, count: int = 64, fresh: bool = False, every: Interval = None) -> None:
        check_at_least("count", count, 1)
        check_interval("every", every)
        self.count = count
        self.fresh = fresh
        self.every = every

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Make the folder; remove grids that were drawn after the checkpoint of a resumed run.

        Raises:
            ConfigError: `every` has no value for the first stage.
        """
        require_interval(run, "observers.Samples.every", self.every)
        folder = locate_samples(run)
        folder.mkdir(exist_ok=True)
        remove_later_files(folder, run.state.images)

    @hookimpl
    def before_stage(self, run: Run, stage: Stage, continues: bool) -> None:
        """Draw the stage's reals, once, and the effect of the growth.

        The grid from before the growth was drawn at the tick that ended the stage.
        """
        path = locate_samples(run) / f"reals-{stage.size}.png"
        if not path.exists():
            reals = run.draw_reals(self.count)
            if reals is not None:
                _save(reals, path)
        if not self.fresh and stage.previous is not None and not continues:
            self._draw(run, stage)

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, tick: Tick) -> None:
        """Draw the grid where one is due."""
        if tick.is_early or tick.is_due(self.every):
            self._draw(run, stage)

    def estimate_bytes(self, ticks: Sequence[Tick]) -> tuple[int, int]:
        """Return the bytes of the grids of ticks, all of which are kept."""
        size = estimate_grids(ticks, self.every, self.count)
        return size, size

    def _draw(self, run: Run, stage: Stage) -> None:
        grid = draw_grid(run, self.count, self.fresh)
        _save(grid, locate_samples(run) / f"{run.state.images:09d}-{stage.size}.png")


def _save(picture: Image.Image, path: Path) -> None:
    # Enlarged pixels compress well at any level; the lowest is several times faster.
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    write_atomically(path, content.getvalue())


def locate_samples(run: Run) -> Path:
    """Return the folder of a run's grids."""
    return run.directory / "samples"
